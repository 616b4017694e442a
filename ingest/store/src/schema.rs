//! Table definitions. Pure.
//!
//! All names and values of labels are bytes, because no collation leaves text alone (padding, case, normal forms).

use crate::range::{Range, SCHEMA};

/// The longest label name that `series_label` holds whole, in bytes; longer ones are cut there and whole in `series`.
pub const NAME_BYTES: usize = 255;
/// The longest label value that `series_label` holds whole, in bytes.
pub const VALUE_BYTES: usize = 1024;

/// What must exist before anything else, in order. Each may be run again at any time.
pub fn base() -> [String; 3] {
    [
        format!("CREATE DATABASE IF NOT EXISTS `{SCHEMA}`"),
        format!(
            "CREATE TABLE IF NOT EXISTS `{SCHEMA}`.`series` (\
             tenant VARBINARY(63) NOT NULL, series_id BINARY(16) NOT NULL, group_id BINARY(16) NOT NULL, \
             labels MEDIUMBLOB NOT NULL, PRIMARY KEY (tenant, series_id)) ENGINE=InnoDB"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS `{SCHEMA}`.`series_label` (\
             tenant VARBINARY(63) NOT NULL, name VARBINARY({NAME_BYTES}) NOT NULL, \
             value VARBINARY({VALUE_BYTES}) NOT NULL, series_id BINARY(16) NOT NULL, \
             PRIMARY KEY (tenant, name, value, series_id)) ENGINE=InnoDB"
        ),
    ]
}

/// The landing table of a range. The primary key begins with the time, so that inserts append; the second key is for reading a group.
pub fn landing(range: Range) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\
         t_min BIGINT NOT NULL, group_id BINARY(16) NOT NULL, partition_id INT NOT NULL, kafka_offset BIGINT NOT NULL, \
         part INT UNSIGNED NOT NULL, tenant VARBINARY(63) NOT NULL, t_max BIGINT NOT NULL, samples INT UNSIGNED NOT NULL, \
         series INT UNSIGNED NOT NULL, codec TINYINT UNSIGNED NOT NULL, body MEDIUMBLOB NOT NULL, \
         PRIMARY KEY (t_min, group_id, partition_id, kafka_offset, part), \
         KEY by_group (group_id, tenant, t_min)) ENGINE=InnoDB",
        range.quoted_table()
    )
}

/// The tables there are in the schema; one column, `name`. Empty as well when there is no schema.
pub const TABLES: &str =
    "SELECT CAST(table_name AS CHAR) AS name FROM information_schema.tables WHERE table_schema = 'store'";
