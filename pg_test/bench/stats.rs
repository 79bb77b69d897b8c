//! The few statistics a benchmark of paired ratios needs.

/// 97.5 % points of Student's t distribution for 1 to 30 degrees of freedom (any table of it).
const T_975: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// 97.5 % point of the normal distribution, for larger samples.
const NORMAL_975: f64 = 1.960;

/// A mean and the half width of its 95 % interval; the half width is NaN when one value is all there is.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    pub mean: f64,
    pub half_width: f64,
}

impl Estimate {
    /// Mean of `values` with Student's t interval: mean ± t(0.975, n-1) · s / √n.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt();
        let half_width = if values.len() < 2 { f64::NAN } else { t_975(values.len() - 1) * deviation / count.sqrt() };
        Self { mean, half_width }
    }
}

fn t_975(degrees_of_freedom: usize) -> f64 {
    T_975.get(degrees_of_freedom - 1).copied().unwrap_or(NORMAL_975)
}

/// Median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Random numbers by splitmix64 (Steele, Lea, Flood 2014): seeded, so that every arm can be given the same keys.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound` - 1; the bias of the remainder is far below what matters here.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Fisher-Yates shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
