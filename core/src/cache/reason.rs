//! Why a result is not served from the cache, or not kept. The codes are an interface: views count by them and
//! applications may test for them, so a code never changes its meaning.

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A property of the query: no call of it is ever cached.
    NotCacheable,
    /// A property of the call: the same query may be cached in another session or at another time.
    Circumstance,
    /// The query is cacheable, but there was no result to serve, or the new one was not kept.
    Miss,
}

/// The enum and its texts from one table, so that none can be forgotten.
macro_rules! reasons {
    ($($kind:ident { $($name:ident = $code:literal: $explain:literal,)+ })+) => {
        /// Why a result is not served from the cache, or not kept.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $explain] $name,)+)+
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Reason] = &[$($(Reason::$name,)+)+];

            /// How many there are: the length of an array of counters.
            pub const COUNT: usize = Reason::ALL.len();

            /// The name under which users meet it.
            pub const fn code(self) -> &'static str {
                match self {
                    $($(Reason::$name => $code,)+)+
                }
            }

            /// One sentence for the detail of a message.
            pub const fn explain(self) -> &'static str {
                match self {
                    $($(Reason::$name => $explain,)+)+
                }
            }

            /// What it is about.
            pub const fn kind(self) -> Kind {
                match self {
                    $($(Reason::$name)|+ => Kind::$kind,)+
                }
            }
        }
    };
}

reasons! {
    NotCacheable {
        VolatileFunction = "volatile_function":
            "The query calls a volatile function, whose result may differ with every call.",
        UnprovableFunction = "unprovable_function":
            "The query calls a stable function whose body cannot be read, or that reaches something unstable.",
        TimeFunction = "time_function":
            "The result depends on the current date or time.",
        TimeLiteral = "time_literal":
            "The query has a constant that stands for the current date or time, or was made from it, such as 'now'.",
        TextToDatetime = "text_to_datetime":
            "The query converts text to a date or time when it runs, and the text may be 'now' or 'today'.",
        DynamicSetting = "dynamic_setting":
            "The query reads a setting whose name is not a constant.",
        CatalogDependent = "catalog_dependent":
            "The result depends on the names or definitions of objects, which no snapshot protects.",
        SystemCatalog = "system_catalog":
            "The query reads a system catalog.",
        TemporaryTable = "temporary_table":
            "The query reads a temporary table, which only this session sees.",
        ForeignTable = "foreign_table":
            "The query reads a foreign table, whose changes are not seen by this server.",
        Sequence = "sequence":
            "The query reads a sequence, which changes outside of transactions.",
        OtherAccessMethod = "other_access_method":
            "The query reads a table of an access method other than heap.",
        SystemColumn = "system_column":
            "The query reads a system column, which may change when the row does not.",
        TableSample = "table_sample":
            "The query reads a sample of a table.",
        RecordColumn = "record_column":
            "A column of the result is of an anonymous record type, whose meaning ends with the session.",
        UnsupportedType = "unsupported_type":
            "The query uses a type whose values cannot be kept or compared for certain.",
        TooManyDependencies = "too_many_dependencies":
            "The query depends on more tables than a stored result can list.",
        SensitiveDenied = "sensitive_denied":
            "The query reads a column with a sensitive name, and the class of its tables denies that.",
        ClassDenied = "class_denied":
            "The class of a table that the query reads allows no caching.",
        ExtensionObject = "extension_object":
            "The query reads an object of this extension.",
    }
    Circumstance {
        Disabled = "disabled":
            "The cache is switched off.",
        NotPreloaded = "not_preloaded":
            "The extension is not in shared_preload_libraries.",
        InRecovery = "in_recovery":
            "The server is in recovery, where commits cannot be followed.",
        Serializable = "serializable":
            "The transaction is serializable, so its reads must be seen by Postgres.",
        Parallel = "parallel":
            "The query was called within a parallel worker or a parallel operation.",
        WroteTable = "wrote_table":
            "The transaction has written to a table that the query reads.",
        WroteCatalog = "wrote_catalog":
            "The transaction has changed the definition of an object.",
        SnapshotUnsafe = "snapshot_unsafe":
            "It cannot be told which commits the snapshot of the query sees.",
        TrackingOff = "tracking_off":
            "The setting track_counts is off, so writes to tables are not followed.",
        NestedCall = "nested_call":
            "The query was called within the execution of another query of the cache.",
        LargeParameters = "large_parameters":
            "The parameters are larger than 1 MB together.",
    }
    Miss {
        FirstSight = "first_sight":
            "The query was seen for the first time within the window, and is kept when it comes again.",
        TooFast = "too_fast":
            "The query runs faster than what is worth keeping.",
        Demoted = "demoted":
            "Results of the query were lately made stale more often than they were used.",
        Absent = "absent":
            "No result of the query is stored.",
        Stale = "stale":
            "The stored result was computed before a commit that the snapshot sees.",
        Expired = "expired":
            "The stored result is older than its time to live.",
        ConcurrentWrite = "concurrent_write":
            "A table that the query reads was being written while it ran.",
        TooLarge = "too_large":
            "The result is larger than its class allows.",
        Quota = "quota":
            "The role has used up its quota of the cache.",
        NoMemory = "no_memory":
            "There was no room for the result in the cache.",
        StatementChanged = "statement_changed":
            "The definition of an object changed while the query ran.",
        QueryFailed = "query_failed":
            "The query failed.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_follow_the_list() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        assert_eq!(Reason::COUNT, 43);
    }

    #[test]
    fn codes_are_the_names_in_snake_case_and_unique() {
        let snake = |name: String| {
            let word = |letter: char| {
                if letter.is_uppercase() { format!("_{}", letter.to_lowercase()) } else { letter.into() }
            };
            name.chars().map(word).collect::<String>().trim_start_matches('_').to_owned()
        };
        for reason in Reason::ALL {
            assert_eq!(reason.code(), snake(format!("{reason:?}")));
        }
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::COUNT);
    }

    #[test]
    fn explanations_are_single_sentences() {
        for reason in Reason::ALL {
            let text = reason.explain();
            assert!(text.starts_with(char::is_uppercase) && text.ends_with('.'), "{text}");
            assert!(!text.contains('\n') && !text.contains(". "), "{text}");
        }
    }

    #[test]
    fn kinds_come_in_blocks() {
        let count = |kind| Reason::ALL.iter().filter(|reason| reason.kind() == kind).count();
        assert_eq!([count(Kind::NotCacheable), count(Kind::Circumstance), count(Kind::Miss)], [20, 11, 12]);
        assert_eq!(Reason::Stale.kind(), Kind::Miss);
    }
}
