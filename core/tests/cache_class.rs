//! A caller gets what the tables allow or less, never more.
use proptest::prelude::*;
use steward_core::cache::class::{Clamped, Class, SensitiveRule, Tiers, combine, effective, strictest};
use steward_core::error::CacheError;

fn class(name: &str, ttl_ms: u64) -> Class {
    Class {
        name: name.into(),
        ttl_ms,
        tiers: Tiers { l1: true, l2: true },
        max_result_bytes: 1_000,
        role_quota_bytes: None,
        sensitive: SensitiveRule::Allow,
    }
}

#[test]
fn the_strictest_is_found_by_each_rule_in_turn() {
    let base = class("b", 100);
    let stricter = [
        Class { ttl_ms: 99, max_result_bytes: 9_999, ..class("z", 0) },
        Class { sensitive: SensitiveRule::Local, max_result_bytes: 9_999, ..class("z", 100) },
        Class { tiers: Tiers { l1: true, l2: false }, max_result_bytes: 9_999, ..class("z", 100) },
        Class { max_result_bytes: 999, ..class("z", 100) },
        class("a", 100),
    ];
    for strict in &stricter {
        assert_eq!(strictest([&base, strict].into_iter()), Some(strict));
        assert_eq!(strictest([strict, &base].into_iter()), Some(strict));
    }
    assert!(SensitiveRule::Deny < SensitiveRule::Local);
    assert_eq!(strictest([].into_iter()), None);
    assert_eq!(combine([].into_iter()), None);
}

#[test]
fn combined_rules_come_from_several_classes() {
    let short = Class { role_quota_bytes: Some(7), ..class("short", 10) };
    let local = Class {
        tiers: Tiers { l1: true, l2: false },
        sensitive: SensitiveRule::Local,
        role_quota_bytes: Some(5),
        ..class("local", 20)
    };
    let shared = Class { tiers: Tiers { l1: false, l2: true }, max_result_bytes: 10, ..class("shared", 30) };
    let combined = combine([&local, &short, &shared].into_iter()).unwrap();
    assert_eq!(combined.name, "short");
    assert_eq!((combined.ttl_ms, combined.max_result_bytes, combined.role_quota_bytes), (10, 10, Some(5)));
    assert_eq!(combined.tiers, Tiers { l1: false, l2: false });
    assert_eq!(combined.sensitive, SensitiveRule::Local);
}

#[test]
fn less_is_granted_and_more_is_clamped() {
    let table = class("table", 1_000);
    let strict = class("strict", 100);
    let lax = class("lax", 5_000);
    let call = |asked_class, asked_ttl_ms| {
        let effective = effective(&table, asked_class, asked_ttl_ms).unwrap();
        (effective.class.name.clone(), effective.ttl_ms, effective.clamped.map(|clamped| clamped.to_string()))
    };
    assert_eq!(call(None, None), ("table".into(), 1_000, None));
    assert_eq!(call(Some(&table), Some(1_000)), ("table".into(), 1_000, None));
    assert_eq!(call(Some(&strict), None), ("strict".into(), 100, None));
    assert_eq!(call(None, Some(5)), ("table".into(), 5, None));
    assert_eq!(call(Some(&strict), Some(5)), ("strict".into(), 5, None));
    let laxer = "class \"lax\" is laxer than the tables allow, using class \"table\"";
    assert_eq!(call(Some(&lax), None), ("table".into(), 1_000, Some(laxer.into())));
    assert_eq!(call(Some(&lax), Some(6_000)), ("table".into(), 1_000, Some(laxer.into())));
    let longer = "ttl of 6000 ms is longer than class \"strict\" allows, using 100 ms";
    assert_eq!(call(Some(&strict), Some(6_000)), ("strict".into(), 100, Some(longer.into())));
}

#[test]
fn a_time_must_be_positive() {
    let table = class("table", 1_000);
    for asked_ms in [0, -1, i64::MIN] {
        let expected = CacheError::TtlNotPositive(format!("{asked_ms} ms"));
        assert_eq!(effective(&table, None, Some(asked_ms)), Err(expected));
    }
}

fn classes() -> impl Strategy<Value = Class> {
    let rule = prop::sample::select(vec![SensitiveRule::Deny, SensitiveRule::Local, SensitiveRule::Allow]);
    let fields = ("[a-d]", 1u64..4, any::<(bool, bool)>(), 1u64..4, prop::option::of(1u64..4), rule);
    fields.prop_map(|(name, ttl_ms, (l1, l2), max_result_bytes, role_quota_bytes, sensitive)| Class {
        // A name stands for one set of rules.
        name: format!("{name}{ttl_ms}{l1}{l2}{max_result_bytes}{role_quota_bytes:?}{sensitive:?}"),
        ttl_ms,
        tiers: Tiers { l1, l2 },
        max_result_bytes,
        role_quota_bytes,
        sensitive,
    })
}

/// No rule of the first is laxer than the second's.
fn is_within(inner: &Class, outer: &Class) -> bool {
    let quota = |class: &Class| class.role_quota_bytes.unwrap_or(u64::MAX);
    inner.ttl_ms <= outer.ttl_ms
        && inner.sensitive <= outer.sensitive
        && inner.max_result_bytes <= outer.max_result_bytes
        && quota(inner) <= quota(outer)
        && (outer.tiers.l1 || !inner.tiers.l1)
        && (outer.tiers.l2 || !inner.tiers.l2)
}

proptest! {
    #[test]
    fn combined_is_within_each_in_any_order(list in prop::collection::vec(classes(), 1..5)) {
        let combined = combine(list.iter()).unwrap();
        prop_assert!(list.iter().all(|class| is_within(&combined, class)));
        prop_assert_eq!(&combined.name, &strictest(list.iter()).unwrap().name);
        prop_assert_eq!(combined, combine(list.iter().rev()).unwrap());
    }

    #[test]
    fn nobody_gets_more(table in classes(), asked in prop::option::of(classes()), asked_ms in prop::option::of(1i64..6)) {
        let effective = effective(&table, asked.as_ref(), asked_ms).unwrap();
        prop_assert!(is_within(&effective.class, &table));
        prop_assert!(asked.iter().all(|asked| is_within(&effective.class, asked)));
        prop_assert!(effective.ttl_ms <= effective.class.ttl_ms && effective.ttl_ms > 0);
        prop_assert!(asked_ms.is_none_or(|asked_ms| effective.ttl_ms <= asked_ms as u64));
        let silent = effective.clamped.is_none();
        prop_assert!(!silent || asked_ms.is_none_or(|asked_ms| effective.ttl_ms == asked_ms as u64));
        if let Some(Clamped::Ttl { asked_ms, used_ms, .. }) = effective.clamped {
            prop_assert!(used_ms < asked_ms && used_ms == effective.ttl_ms);
        }
    }
}
