//! The tables of the CPU comparison.

use crate::arms::{STEWARD, STOCK, STOCK_B};
use crate::stats::Estimate;
use crate::workload::Workload;

/// At most this much more CPU than stock on a prepared point select is what pg_steward aims at.
const TARGET_PERCENT: f64 = 1.0;

/// One arm on one workload.
pub struct ArmResult {
    pub name: &'static str,
    pub ratio: Estimate,
    pub extra_ns: Estimate,
}

/// All arms on one workload.
pub struct CpuResult {
    pub workload: Workload,
    pub stock_ns: f64,
    pub blocks: usize,
    pub rotations: usize,
    pub arms: Vec<ArmResult>,
}

impl CpuResult {
    pub fn print(&self) {
        println!("\n{}: {}", self.workload.name(), self.workload.describe());
        println!(
            "  stock takes {:.1} us of backend CPU a unit ({} blocks, {} rotations)",
            self.stock_ns / 1e3,
            self.blocks,
            self.rotations
        );
        println!("  {:<16} {:>18} {:>22}", "arm", "CPU / stock's", "extra ns a unit");
        for arm in self.arms.iter().filter(|arm| arm.name != STOCK) {
            println!("  {}", arm.line());
        }
        self.print_resolution();
        self.print_target();
    }

    /// What the two stock servers seem to differ by is what the method cannot tell from nothing.
    fn print_resolution(&self) {
        let Some(twin) = self.arm(STOCK_B) else { return };
        let noise = (twin.ratio.mean - 1.0).abs() + twin.ratio.half_width;
        if noise.is_nan() {
            println!("  One block gives no interval: take these figures as a first look.");
        } else {
            println!("  Resolution by the two stock servers: differences below {:.1} % are noise.", noise * 100.0);
        }
    }

    fn print_target(&self) {
        let Some(steward) = self.arm(STEWARD).filter(|_| self.workload == Workload::Select) else { return };
        let percent = (steward.ratio.mean - 1.0) * 100.0;
        println!(
            "  pg_steward adds {percent:.1} % ± {:.1} % (aim: at most {TARGET_PERCENT} %).",
            steward.ratio.half_width * 100.0
        );
    }

    fn arm(&self, name: &str) -> Option<&ArmResult> {
        self.arms.iter().find(|arm| arm.name == name)
    }
}

impl ArmResult {
    fn line(&self) -> String {
        let label = if self.name == STOCK_B { "stockB (A/A)" } else { self.name };
        let ratio = format!("{:.4} ± {:.4}", self.ratio.mean, self.ratio.half_width);
        let extra = format!("{:+.0} ± {:.0}", self.extra_ns.mean, self.extra_ns.half_width);
        format!("{label:<16} {ratio:>18} {extra:>22}")
    }
}
