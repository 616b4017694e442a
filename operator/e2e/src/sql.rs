//! Asking one server of a shard, from inside its pod. I/O.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use understudy_api::names;

use crate::cluster::Cluster;
use crate::namespace::Namespace;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// May only read what is stored.
    Reader,
    /// May do everything, from inside the pod alone.
    Admin,
}

impl Account {
    fn name(self) -> &'static str {
        match self {
            Self::Reader => "understudy_reader",
            Self::Admin => "understudy_admin",
        }
    }
}

/// Runs one statement on this replica; rows as lines, columns with tabs between them.
pub async fn ask(
    cluster: &Cluster,
    namespace: &Namespace,
    (shard, replica): (&str, &str),
    account: Account,
    statement: &str,
) -> Result<String> {
    let account = account.name();
    let secret = namespace.api::<Secret>().get(&names::credentials_secret(shard)).await?;
    let password = secret
        .data
        .as_ref()
        .and_then(|d| d.get(account))
        .with_context(|| format!("{shard} has no password for {account}"))?;
    let password = String::from_utf8(password.0.clone()).context("a password is not text")?;
    // The password goes in by standard input: arguments are seen by everybody on the node.
    let script = "read -r MYSQL_PWD; export MYSQL_PWD; exec mysql -h 127.0.0.1 -P 3306 --ssl-mode=REQUIRED -u \"$1\" -NBe \"$2\"";
    let pod = ["exec", "-i", "-n", namespace.name(), replica, "-c", "mysql", "--"];
    let command = [&pod[..], &["bash", "-c", script, "bash", account, statement]].concat();
    cluster.kubectl(&command, &format!("{password}\n")).await
}
