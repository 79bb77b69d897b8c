//! What the built-in functions that Postgres calls STABLE depend on. STABLE promises the same result within one
//! statement only; a cached result outlives the statement, so each function had to be judged.
//!
//! *Safe* is what depends on nothing but its arguments, the database, settings that are part of every key (TimeZone,
//! DateStyle, IntervalStyle, extra_float_digits, bytea_output, lc_*, xmlbinary, xmloption, array_nulls, search_path,
//! default_text_search_config, timezone_abbreviations, quote_all_identifiers), and definitions that only DDL changes and
//! that bump the version of the catalog: labels of enums, text search configurations, conversions between encodings.
//! What is not listed is refused, so a function of a later Postgres is refused until it has been judged.
//!
//! Overloads of one name are judged together, by the worst of those that are STABLE: `timezone` is IMMUTABLE for
//! timestamps, and only its STABLE form, for times with a zone, asks for the current date.

/// What a built-in STABLE function depends on, beyond what is part of every key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Safe,
    /// The clock; so do the input functions of dates and times, since the text may be 'now'.
    Time,
    /// The setting that its argument names.
    Setting,
    /// Who runs it.
    Roles,
    /// Names and definitions of objects.
    Catalog,
    /// The session, its transaction, or the state of the server.
    Session,
    /// Not known.
    Unknown,
}

const SAFE: &[&str] = &[
    "anyarray_out",
    "anycompatiblearray_out",
    "anycompatiblemultirange_out",
    "anycompatiblerange_out",
    "anyenum_out",
    "anymultirange_out",
    "anyrange_out",
    "anytextcat",
    "array_out",
    "array_to_json",
    "array_to_string",
    "cash_in",
    "cash_out",
    "concat",
    "concat_ws",
    "convert",
    "convert_from",
    "convert_to",
    "date",
    "date_add",
    "date_cmp_timestamptz",
    "date_eq_timestamptz",
    "date_ge_timestamptz",
    "date_gt_timestamptz",
    "date_le_timestamptz",
    "date_lt_timestamptz",
    "date_ne_timestamptz",
    "date_out",
    "date_part",
    "date_subtract",
    "date_trunc",
    "enum_first",
    "enum_in",
    "enum_last",
    "enum_out",
    "enum_range",
    "extract",
    "format",
    "generate_series",
    "get_current_ts_config",
    "getdatabaseencoding",
    "in_range",
    "interval_in",
    "interval_out",
    "interval_pl_timestamptz",
    "json_agg",
    "json_agg_strict",
    "json_agg_strict_transfn",
    "json_agg_transfn",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "json_object_agg_strict",
    "json_object_agg_strict_transfn",
    "json_object_agg_transfn",
    "json_object_agg_unique",
    "json_object_agg_unique_strict",
    "json_object_agg_unique_strict_transfn",
    "json_object_agg_unique_transfn",
    "json_to_tsvector",
    "jsonb_agg",
    "jsonb_agg_finalfn",
    "jsonb_agg_strict",
    "jsonb_agg_strict_transfn",
    "jsonb_agg_transfn",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg_finalfn",
    "jsonb_object_agg_strict_transfn",
    "jsonb_object_agg_transfn",
    "jsonb_object_agg_unique_strict_transfn",
    "jsonb_object_agg_unique_transfn",
    "jsonb_to_tsvector",
    "length",
    "make_timestamptz",
    "money",
    "multirange_out",
    "numeric",
    "overlaps",
    "pg_char_to_encoding",
    "pg_encoding_to_char",
    "pg_typeof",
    "phraseto_tsquery",
    "plainto_tsquery",
    "quote_literal",
    "quote_nullable",
    "range_out",
    "record_out",
    "row_to_json",
    "textanycat",
    "time",
    "timestamp",
    "timestamp_cmp_timestamptz",
    "timestamp_eq_timestamptz",
    "timestamp_ge_timestamptz",
    "timestamp_gt_timestamptz",
    "timestamp_le_timestamptz",
    "timestamp_lt_timestamptz",
    "timestamp_ne_timestamptz",
    "timestamp_out",
    "timestamptz",
    "timestamptz_cmp_date",
    "timestamptz_cmp_timestamp",
    "timestamptz_eq_date",
    "timestamptz_eq_timestamp",
    "timestamptz_ge_date",
    "timestamptz_ge_timestamp",
    "timestamptz_gt_date",
    "timestamptz_gt_timestamp",
    "timestamptz_le_date",
    "timestamptz_le_timestamp",
    "timestamptz_lt_date",
    "timestamptz_lt_timestamp",
    "timestamptz_mi_interval",
    "timestamptz_ne_date",
    "timestamptz_ne_timestamp",
    "timestamptz_out",
    "timestamptz_pl_interval",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "ts_headline",
    "ts_match_tq",
    "ts_match_tt",
    "version",
    "websearch_to_tsquery",
    "xml",
    "xml_in",
    "xml_is_well_formed",
];

/// With the VOLATILE clocks, for a better reason than that. `timetz` of a plain time takes the zone's offset of today,
/// as do comparisons within a JSON path.
const TIME: &[&str] = &[
    "age",
    "clock_timestamp",
    "date_in",
    "jsonb_path_exists_tz",
    "jsonb_path_match_tz",
    "jsonb_path_query_array_tz",
    "jsonb_path_query_first_tz",
    "jsonb_path_query_tz",
    "now",
    "pg_timezone_abbrevs",
    "pg_timezone_abbrevs_abbrevs",
    "pg_timezone_abbrevs_zone",
    "pg_timezone_names",
    "statement_timestamp",
    "time_in",
    "timeofday",
    "timestamp_in",
    "timestamptz_in",
    "timetz",
    "timetz_in",
    "timezone",
    "transaction_timestamp",
];

const ROLES: &[&str] = &["current_user", "getpgusername", "pg_has_role", "session_user", "system_user"];

/// The name of the database is among them, since it can be renamed; the first schema of the path, since it may not
/// exist; and functions that read tables which no walker sees.
const CATALOG: &[&str] = &[
    "aclexplode",
    "aclitemin",
    "aclitemout",
    "col_description",
    "current_database",
    "current_schema",
    "current_schemas",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "format_type",
    "obj_description",
    "oidvectortypes",
    "pg_available_extension_versions",
    "pg_available_extensions",
    "pg_basetype",
    "pg_collation_for",
    "pg_column_is_updatable",
    "pg_describe_object",
    "pg_extension_update_paths",
    "pg_filenode_relation",
    "pg_identify_object",
    "pg_identify_object_as_address",
    "pg_index_column_has_property",
    "pg_index_has_property",
    "pg_indexam_has_property",
    "pg_input_error_info",
    "pg_input_is_valid",
    "pg_options_to_table",
    "pg_relation_filenode",
    "pg_relation_filepath",
    "pg_relation_is_publishable",
    "pg_relation_is_updatable",
    "pg_replication_origin_oid",
    "pg_sequence_parameters",
    "pg_tablespace_databases",
    "pg_tablespace_location",
    "row_security_active",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "shobj_description",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_debug",
    "ts_parse",
    "ts_token_type",
];

/// Output in binary converts to the encoding of the client.
const SESSION: &[&str] = &[
    "anyarray_send",
    "anycompatiblearray_send",
    "array_send",
    "bpcharsend",
    "cstring_send",
    "enum_send",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "multirange_send",
    "mxid_age",
    "namesend",
    "pg_backend_pid",
    "pg_client_encoding",
    "pg_conf_load_time",
    "pg_config",
    "pg_current_snapshot",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_cursor",
    "pg_is_other_temp_schema",
    "pg_listening_channels",
    "pg_my_temp_schema",
    "pg_postmaster_start_time",
    "pg_prepared_statement",
    "pg_settings_get_flags",
    "pg_show_all_settings",
    "pg_trigger_depth",
    "range_send",
    "record_send",
    "textsend",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
    "varcharsend",
    "xml_send",
];

/// Every list with its verdict; each is sorted, for the binary search.
const LISTS: [(&[&str], Verdict); 5] = [
    (SAFE, Verdict::Safe),
    (TIME, Verdict::Time),
    (ROLES, Verdict::Roles),
    (CATALOG, Verdict::Catalog),
    (SESSION, Verdict::Session),
];

/// Functions that take a transaction id without writing a table.
const TAKE_XID: &[&str] =
    &["nextval", "pg_current_xact_id", "pg_logical_emit_message", "pg_notify", "setval", "txid_current"];

/// Judges a STABLE function of the schema pg_catalog, made by initdb, by its name as the catalog has it.
pub fn stable_builtin(name: &str) -> Verdict {
    let listed = LISTS.iter().find(|(names, _)| names.binary_search(&name).is_ok());
    listed.map_or_else(|| of_family(name), |(_, verdict)| *verdict)
}

/// The verdict of functions that are named by a common rule. None of these families has a safe member.
fn of_family(name: &str) -> Verdict {
    match name {
        "current_setting" => Verdict::Setting,
        _ if name.starts_with("pg_stat_get_") => Verdict::Session,
        _ if shows_definitions(name) || converts_names(name) => Verdict::Catalog,
        _ => Verdict::Unknown,
    }
}

fn shows_definitions(name: &str) -> bool {
    let asks_privilege = name.starts_with("has_") && name.ends_with("_privilege");
    asks_privilege || name.starts_with("pg_get_") || name.ends_with("_is_visible")
}

/// `regclassin`, `regtypeout`, `to_regproc` and the like.
fn converts_names(name: &str) -> bool {
    let is_input_or_output = name.starts_with("reg") && (name.ends_with("in") || name.ends_with("out"));
    is_input_or_output || name.starts_with("to_reg") || name == "regclass"
}

/// Whether a built-in function takes a transaction id though it writes no table: a transaction that has an id has not
/// therefore written.
pub fn xid_without_write(name: &str) -> bool {
    TAKE_XID.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_share_no_name() {
        for names in LISTS.iter().map(|(names, _)| *names).chain([TAKE_XID]) {
            assert!(names.is_sorted_by(|before, after| before < after), "{names:?}");
        }
        for (names, verdict) in LISTS {
            for name in names {
                assert_eq!(stable_builtin(name), verdict, "{name}");
            }
        }
    }

    #[test]
    fn verdicts() {
        for (name, verdict) in [
            ("to_char", Verdict::Safe),
            ("date_trunc", Verdict::Safe),
            ("timestamptz_pl_interval", Verdict::Safe),
            ("timestamptz_eq_date", Verdict::Safe),
            ("to_tsvector", Verdict::Safe),
            ("json_agg", Verdict::Safe),
            ("enum_out", Verdict::Safe),
            ("now", Verdict::Time),
            ("age", Verdict::Time),
            ("timestamptz_in", Verdict::Time),
            ("timezone", Verdict::Time),
            ("current_setting", Verdict::Setting),
            ("pg_has_role", Verdict::Roles),
            ("current_user", Verdict::Roles),
            ("has_table_privilege", Verdict::Catalog),
            ("regclassin", Verdict::Catalog),
            ("to_regclass", Verdict::Catalog),
            ("pg_get_viewdef", Verdict::Catalog),
            ("pg_table_is_visible", Verdict::Catalog),
            ("table_to_xml", Verdict::Catalog),
            ("pg_stat_get_numscans", Verdict::Session),
            ("inet_client_addr", Verdict::Session),
            ("textsend", Verdict::Session),
            ("array_in", Verdict::Unknown),
            ("record_in", Verdict::Unknown),
            ("jsonb_populate_record", Verdict::Unknown),
            ("pg_column_size", Verdict::Unknown),
            ("of_a_later_version", Verdict::Unknown),
            ("NOW", Verdict::Unknown),
            ("", Verdict::Unknown),
        ] {
            assert_eq!(stable_builtin(name), verdict, "{name}");
        }
    }

    #[test]
    fn ids_without_writes() {
        assert!(["nextval", "setval", "pg_notify", "txid_current"].into_iter().all(xid_without_write));
        assert!(!["lastval", "currval", "now", ""].into_iter().any(xid_without_write));
    }
}
