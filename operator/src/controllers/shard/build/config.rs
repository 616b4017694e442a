//! What mysqld is told. Pure.
//!
//! The instance manager adds what only it knows (paths, ports, server_id, certificates) after these lines.

use std::fmt::Write;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use understudy_api::{Shard, names};

use super::owned;

/// Key in the ConfigMap and name of the file.
pub const FILE: &str = "my.cnf";

/// What durability, replication and fencing rely on. No override can name any of it.
const INVARIANTS: &[(&str, &str)] = &[
    ("admin_address", "127.0.0.1"),
    ("binlog_format", "ROW"),
    ("binlog_row_image", "FULL"),
    ("character_set_server", "utf8mb4"),
    ("collation_server", "utf8mb4_0900_bin"),
    ("enforce_gtid_consistency", "ON"),
    ("gtid_mode", "ON"),
    ("innodb_flush_log_at_trx_commit", "1"),
    ("innodb_doublewrite", "ON"),
    ("local_infile", "OFF"),
    ("log_bin", "binlog"),
    ("log_replica_updates", "ON"),
    ("mysqlx", "OFF"),
    ("performance_schema", "ON"),
    ("relay_log", "relay"),
    ("relay_log_recovery", "ON"),
    ("replica_net_timeout", "4"),
    ("replica_preserve_commit_order", "ON"),
    ("require_secure_transport", "ON"),
    ("skip_name_resolve", "ON"),
    ("skip_replica_start", "ON"),
    ("super_read_only", "ON"),
    ("sync_binlog", "1"),
];

/// Settings that fit a shard of samples better than mysqld's own; a person may set them otherwise. Binary logs only have to last
/// for a standby that was away for a moment: one that was away for long is built anew. mysqld deletes whole files, when it begins
/// the next one, and has no limit for all of them together.
const DEFAULTS: &[(&str, &str)] = &[
    ("binlog_expire_logs_seconds", "21600"),
    ("innodb_flush_neighbors", "0"),
    ("max_binlog_size", "128M"),
    ("max_connections", "500"),
];

/// The lines for mysqld: defaults, then what the spec sets, then the invariants.
pub(super) fn my_cnf(shard: &Shard) -> String {
    let chosen = &shard.spec.mysql.config;
    let defaults = DEFAULTS.iter().filter(|(name, _)| !chosen.contains_key(*name)).copied();
    let chosen = chosen.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut text = String::from("[mysqld]\n");
    for (name, value) in defaults.chain(chosen).chain(INVARIANTS.iter().copied()) {
        writeln!(text, "{name} = {value}").expect("writing to a String does not fail");
    }
    text
}

/// The ConfigMap with `my.cnf`.
pub fn config_map(shard: &Shard) -> ConfigMap {
    ConfigMap {
        metadata: owned(shard, names::config_map(&shard.name_any())),
        data: Some([(FILE.to_owned(), my_cnf(shard))].into()),
        ..ConfigMap::default()
    }
}
