//! Classes: the rules an administrator sets for the tables of one kind of data, and what a caller may ask for beside
//! them. A query that reads tables of several classes gets the strictest of each rule; a caller may ask for less than
//! that, never for more.

use std::borrow::Cow;
use std::fmt;

use crate::error::CacheError;

/// Where a result may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiers {
    /// In the memory of the backend that computed it.
    pub l1: bool,
    /// In shared memory.
    pub l2: bool,
}

impl Tiers {
    const fn count(self) -> u8 {
        self.l1 as u8 + self.l2 as u8
    }

    const fn both(self, other: Tiers) -> Tiers {
        Tiers { l1: self.l1 && other.l1, l2: self.l2 && other.l2 }
    }
}

/// What happens to results with columns of sensitive names. The stricter rule is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SensitiveRule {
    /// They are not kept.
    Deny,
    /// They are kept in the memory of the backend only.
    Local,
    /// They are kept like others.
    Allow,
}

/// The rules for the tables of one kind of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name, unique.
    pub name: String,
    /// How long a result may be served at most.
    pub ttl_ms: u64,
    /// Where results may be kept.
    pub tiers: Tiers,
    /// Results above this size are not kept.
    pub max_result_bytes: u64,
    /// How much one role may keep; none is no limit.
    pub role_quota_bytes: Option<u64>,
    /// What happens to results with sensitive columns.
    pub sensitive: SensitiveRule,
}

impl Class {
    /// The stricter class has the smaller rank.
    fn rank(&self) -> (u64, SensitiveRule, u8, u64, &str) {
        (self.ttl_ms, self.sensitive, self.tiers.count(), self.max_result_bytes, &self.name)
    }

    /// Is any of its rules stricter than the other's?
    pub fn is_stricter_than(&self, other: &Class) -> bool {
        other.clone().tightened(self) != *other
    }

    /// The strictest of each rule, under its own name.
    fn tightened(self, other: &Class) -> Class {
        let quotas = [self.role_quota_bytes, other.role_quota_bytes];
        Class {
            name: self.name,
            ttl_ms: self.ttl_ms.min(other.ttl_ms),
            tiers: self.tiers.both(other.tiers),
            max_result_bytes: self.max_result_bytes.min(other.max_result_bytes),
            role_quota_bytes: quotas.into_iter().flatten().min(),
            sensitive: self.sensitive.min(other.sensitive),
        }
    }
}

/// The strictest class: that of the shortest time to live; among equals the stricter rule for sensitive columns, then
/// fewer tiers, then smaller results, then the name that sorts first, so that the order of tables does not matter.
pub fn strictest<'c>(classes: impl Iterator<Item = &'c Class>) -> Option<&'c Class> {
    classes.min_by_key(|class| class.rank())
}

/// The rules for a query that reads tables of these classes: the strictest of each, which need not come from one class.
/// A result stays in a tier only if all of them allow it. The name is that of the [`strictest`] class.
pub fn combine<'c>(classes: impl Iterator<Item = &'c Class> + Clone) -> Option<Class> {
    let named = strictest(classes.clone())?.clone();
    Some(classes.fold(named, Class::tightened))
}

/// What a call gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective<'c> {
    /// The rules.
    pub class: Cow<'c, Class>,
    /// How long its result may be served; at most the class's time.
    pub ttl_ms: u64,
    /// What the caller asked for and did not get. Shown as a notice.
    pub clamped: Option<Clamped>,
}

/// What a caller asked for and did not get. Its text is that of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clamped {
    /// A class laxer than that of the tables. Says so even where the time was clamped too.
    Class {
        /// Name of the class asked for.
        asked: String,
        /// Name of the class that applies.
        used: String,
    },
    /// More time than the class has.
    Ttl {
        /// As asked for.
        asked_ms: u64,
        /// As it is.
        used_ms: u64,
        /// Name of the class that sets the limit.
        class: String,
    },
}

impl fmt::Display for Clamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clamped::Class { asked, used } => {
                write!(f, "class \"{asked}\" is laxer than the tables allow, using class \"{used}\"")
            }
            Clamped::Ttl { asked_ms, used_ms, class } => {
                write!(f, "ttl of {asked_ms} ms is longer than class \"{class}\" allows, using {used_ms} ms")
            }
        }
    }
}

/// What a call gets that reads tables of `table_class` (combined, where they are several) and asks for a class or a
/// time of its own. Each rule is the strictest of both classes. The class asked for is *laxer* when it is not the
/// [`strictest`] of the two; what is asked beyond the tables' rules is cut back and said, and no reason to fail.
pub fn effective<'c>(
    table_class: &'c Class,
    asked_class: Option<&'c Class>,
    asked_ttl_ms: Option<i64>,
) -> Result<Effective<'c>, CacheError> {
    let asked_ms = asked_ttl_ms.map(positive).transpose()?;
    let asked_class = asked_class.filter(|asked| asked.name != table_class.name);
    let combined = asked_class.and_then(|asked| combine([table_class, asked].into_iter()));
    let class = combined.map_or(Cow::Borrowed(table_class), Cow::Owned);
    let ttl_ms = asked_ms.map_or(class.ttl_ms, |asked_ms| asked_ms.min(class.ttl_ms));
    let laxer = asked_class.filter(|asked| table_class.rank() < asked.rank());
    let clamped_class = laxer.map(|asked| Clamped::Class { asked: asked.name.clone(), used: class.name.clone() });
    let clamped_ttl = || {
        let asked_ms = asked_ms.filter(|asked_ms| *asked_ms > ttl_ms)?;
        Some(Clamped::Ttl { asked_ms, used_ms: ttl_ms, class: class.name.clone() })
    };
    let clamped = clamped_class.or_else(clamped_ttl);
    Ok(Effective { class, ttl_ms, clamped })
}

fn positive(ttl_ms: i64) -> Result<u64, CacheError> {
    let positive = u64::try_from(ttl_ms).ok().filter(|ttl_ms| *ttl_ms > 0);
    positive.ok_or_else(|| CacheError::TtlNotPositive(format!("{ttl_ms} ms")))
}
