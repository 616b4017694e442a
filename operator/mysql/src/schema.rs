//! What every new shard starts with: accounts and the schema `understudy`. Pure.
//!
//! The statements run once, while the data directory of a shard's first server is made and nobody can connect; every other
//! replica gets them by cloning. They write no binary log, so every replica starts from the same set of transactions.

use std::collections::BTreeMap;

pub use understudy_wire::account::{ADMIN, ALL as ACCOUNTS, CONSUMER, PROBE, READER, REPLICATION};

const TABLES: [&str; 5] = [
    "CREATE DATABASE understudy CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE understudy.epoch (id TINYINT PRIMARY KEY CHECK (id = 1), epoch BIGINT UNSIGNED NOT NULL, \
     primary_replica VARCHAR(63) NOT NULL, promoted_at_ms BIGINT NOT NULL)",
    "CREATE TABLE understudy.heartbeat (observer VARCHAR(128) PRIMARY KEY, seq BIGINT UNSIGNED NOT NULL, at_ms BIGINT NOT NULL)",
    "CREATE TABLE understudy.consumer_owner (consumer VARCHAR(128) PRIMARY KEY, owner VARCHAR(128) NOT NULL, \
     term BIGINT UNSIGNED NOT NULL, beat BIGINT UNSIGNED NOT NULL)",
    "CREATE TABLE understudy.consumer_offset (consumer VARCHAR(128), topic VARCHAR(249), partition_id INT, next_offset BIGINT NOT NULL, \
     epoch BIGINT UNSIGNED NOT NULL, term BIGINT UNSIGNED NOT NULL, updated_ms BIGINT NOT NULL, dead_letters BIGINT UNSIGNED NOT NULL DEFAULT 0, \
     cluster_id VARCHAR(64) NOT NULL DEFAULT '', topic_id VARCHAR(64) NOT NULL DEFAULT '', cut_at BIGINT, \
     until_offset BIGINT, schema_name VARCHAR(64) NOT NULL DEFAULT '', PRIMARY KEY (consumer, topic, partition_id))",
];

/// A password is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no password for account {0}")]
pub struct NoPassword(pub &'static str);

/// Passwords by account, never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Passwords(BTreeMap<String, String>);

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Passwords {
    /// Takes passwords by account; each account of [`ACCOUNTS`] needs one that is not empty.
    pub fn new(passwords: BTreeMap<String, String>) -> Result<Self, NoPassword> {
        for account in ACCOUNTS {
            if passwords.get(account).is_none_or(String::is_empty) {
                return Err(NoPassword(account));
            }
        }
        Ok(Self(passwords))
    }

    /// The password of an account of [`ACCOUNTS`].
    pub fn of(&self, account: &str) -> &str {
        self.0.get(account).map_or("", String::as_str)
    }
}

/// The statements, one each, in order; for an init file, which takes one statement per line.
pub fn statements(passwords: &Passwords) -> Vec<String> {
    let mut all = vec!["SET SESSION sql_log_bin = 0".to_owned()];
    for (account, host) in
        [(ADMIN, "localhost"), (ADMIN, "127.0.0.1"), (REPLICATION, "%"), (PROBE, "%"), (CONSUMER, "%"), (READER, "%")]
    {
        let password = quote(passwords.of(account));
        let tls = if host == "%" { " REQUIRE SSL" } else { "" };
        all.push(format!("CREATE USER '{account}'@'{host}' IDENTIFIED WITH caching_sha2_password BY {password}{tls}"));
    }
    all.extend(TABLES.map(str::to_owned));
    for host in ["localhost", "127.0.0.1"] {
        all.push(format!("GRANT ALL ON *.* TO '{ADMIN}'@'{host}' WITH GRANT OPTION"));
    }
    for grant in [
        format!("GRANT REPLICATION SLAVE, BACKUP_ADMIN ON *.* TO '{REPLICATION}'@'%'"),
        format!("GRANT SELECT ON understudy.epoch TO '{PROBE}'@'%'"),
        format!("GRANT SELECT, INSERT, UPDATE ON understudy.heartbeat TO '{PROBE}'@'%'"),
        format!("GRANT SELECT ON understudy.epoch TO '{CONSUMER}'@'%'"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON understudy.consumer_owner TO '{CONSUMER}'@'%'"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON understudy.consumer_offset TO '{CONSUMER}'@'%'"),
        format!("GRANT ALL ON `store`.* TO '{CONSUMER}'@'%'"),
        format!("GRANT ALL ON `view\\_%`.* TO '{CONSUMER}'@'%'"),
        format!("GRANT SELECT ON `understudy`.* TO '{READER}'@'%'"),
        format!("GRANT SELECT ON `store`.* TO '{READER}'@'%'"),
        format!("GRANT SELECT ON `view\\_%`.* TO '{READER}'@'%'"),
        "ALTER USER 'root'@'localhost' ACCOUNT LOCK".to_owned(),
    ] {
        all.push(grant);
    }
    all
}

/// A string literal. Works in the default SQL mode, in which a backslash escapes.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\0' => quoted.push_str("\\0"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_quotes_stays_one_literal_on_one_line() {
        assert_eq!(quote("a'b\\c\nd"), "'a''b\\\\c\\nd'");
    }

    #[test]
    fn every_account_needs_a_password() {
        let mut passwords: BTreeMap<_, _> = ACCOUNTS.iter().map(|a| ((*a).to_owned(), "secret".to_owned())).collect();
        assert!(Passwords::new(passwords.clone()).is_ok());
        passwords.insert(PROBE.to_owned(), String::new());
        assert_eq!(Passwords::new(passwords.clone()), Err(NoPassword(PROBE)));
        passwords.remove(ADMIN);
        assert_eq!(Passwords::new(passwords), Err(NoPassword(ADMIN)));
    }

    #[test]
    fn statements_are_one_line_each_and_passwords_are_not_printed() {
        let passwords = ACCOUNTS.iter().map(|a| ((*a).to_owned(), "se\ncret".to_owned())).collect();
        let passwords = Passwords::new(passwords).unwrap();
        assert!(statements(&passwords).iter().all(|statement| !statement.contains('\n')));
        assert!(!format!("{passwords:?}").contains("cret"));
    }
}
