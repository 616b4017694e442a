//! mysqld's configuration file. Pure.
//!
//! The operator's lines come first, the manager's own last: in an option file the last one counts, so what safety rests on
//! cannot be overridden.

use std::fmt::Write;

use crate::config::Config;
use crate::datadir::DATA;

/// Renders the file that mysqld runs with.
pub fn render(config: &Config) -> String {
    let mut text = config.settings.clone();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str("[mysqld]\n");
    let run = |name: &str| config.run.join(name).display().to_string();
    let tls = |name: &str| config.tls.join(name).display().to_string();
    for (name, value) in [
        // Where things are.
        ("datadir", config.volume.join(DATA).display().to_string()),
        ("socket", run("mysqld.sock")),
        ("pid_file", run("mysqld.pid")),
        ("secure_file_priv", "NULL".to_owned()),
        ("log_error_verbosity", "2".to_owned()),
        // Who it is and how it is reached.
        ("server_id", config.server_id.to_string()),
        ("report_host", config.pod_ip.to_string()),
        ("bind_address", "*".to_owned()),
        ("port", config.mysql_port.to_string()),
        ("admin_address", "127.0.0.1".to_owned()),
        ("admin_port", config.mysql_admin_port.to_string()),
        ("create_admin_listener_thread", "ON".to_owned()),
        ("mysqlx", "OFF".to_owned()),
        ("skip_name_resolve", "ON".to_owned()),
        ("ssl_ca", tls("ca.crt")),
        ("ssl_cert", tls("tls.crt")),
        ("ssl_key", tls("tls.key")),
        ("require_secure_transport", "ON".to_owned()),
        ("local_infile", "OFF".to_owned()),
        // What a promotion rests on.
        ("super_read_only", "ON".to_owned()),
        ("skip_replica_start", "ON".to_owned()),
        ("gtid_mode", "ON".to_owned()),
        ("enforce_gtid_consistency", "ON".to_owned()),
        ("log_bin", "binlog".to_owned()),
        ("log_replica_updates", "ON".to_owned()),
        ("relay_log", "relay".to_owned()),
        ("relay_log_recovery", "ON".to_owned()),
        ("replica_net_timeout", "4".to_owned()),
        // Without it a stored offset could be applied before the data that came before it.
        ("replica_preserve_commit_order", "ON".to_owned()),
        ("sync_binlog", "1".to_owned()),
        ("innodb_flush_log_at_trx_commit", "1".to_owned()),
        ("performance_schema", "ON".to_owned()),
        ("plugin_load_add", "clone=mysql_clone.so".to_owned()),
    ] {
        writeln!(text, "{name} = {value}").expect("writing to a String does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::tests::sample;

    #[test]
    fn the_managers_own_lines_come_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = sample(dir.path());
        config.settings = "[mysqld]\nsuper_read_only = OFF\nmax_connections = 77".to_owned();
        let text = render(&config);
        let last = |name: &str| text.lines().rfind(|line| line.starts_with(name)).map(str::to_owned);
        assert_eq!(last("super_read_only").as_deref(), Some("super_read_only = ON"));
        assert_eq!(last("max_connections").as_deref(), Some("max_connections = 77"));
        assert_eq!(last("server_id").as_deref(), Some("server_id = 12"));
        assert_eq!(last("datadir"), Some(format!("datadir = {}/data", dir.path().display())));
    }

    #[test]
    fn the_example_that_reads_a_kept_volume_starts_mysqld_on_what_this_one_leaves() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/read-kept-volume.yaml");
        let example = fs::read_to_string(file).unwrap();
        let options: Vec<_> = example.lines().filter_map(|line| line.trim().strip_prefix("- --")).collect();
        let dir = tempfile::tempdir().unwrap();
        let text = render(&sample(dir.path()));
        for name in ["log_bin", "relay_log", "gtid_mode", "enforce_gtid_consistency"] {
            let ours = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")).unwrap();
            let option = format!("{}={ours}", name.replace('_', "-"));
            assert!(options.contains(&option.as_str()), "{option} is not among {options:?}");
        }
        let datadir = options.iter().find_map(|option| option.strip_prefix("datadir=")).unwrap();
        let volume = datadir.strip_suffix(&format!("/{DATA}")).unwrap();
        assert!(example.contains(&format!("- name: kept\n          mountPath: {volume}\n")), "{volume} is no volume");
    }
}
