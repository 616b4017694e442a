//! Asking one server of a shard: from inside its pod, or from another one over a connection that is kept. I/O.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use understudy_api::names;

use crate::cluster::Cluster;
use crate::namespace::Namespace;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// May only read what is stored.
    Reader,
    /// May write heartbeats, from everywhere.
    Probe,
    /// May do everything, from inside the pod alone.
    Admin,
}

impl Account {
    fn name(self) -> &'static str {
        match self {
            Self::Reader => "understudy_reader",
            Self::Probe => "understudy_probe",
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
    let password = password(namespace, shard, account).await?;
    let account = account.name();
    // The password goes in by standard input: arguments are seen by everybody on the node.
    let script = "read -r MYSQL_PWD; export MYSQL_PWD; exec mysql -h 127.0.0.1 -P 3306 --ssl-mode=REQUIRED -u \"$1\" -NBe \"$2\"";
    let pod = ["exec", "-i", "-n", namespace.name(), replica, "-c", "mysql", "--"];
    let command = [&pod[..], &["bash", "-c", script, "bash", account, statement]].concat();
    cluster.kubectl(&command, &format!("{password}\n")).await
}

async fn password(namespace: &Namespace, shard: &str, account: Account) -> Result<String> {
    let account = account.name();
    let secret = namespace.api::<Secret>().get(&names::credentials_secret(shard)).await?;
    let password = secret
        .data
        .as_ref()
        .and_then(|d| d.get(account))
        .with_context(|| format!("{shard} has no password for {account}"))?;
    String::from_utf8(password.0.clone()).context("a password is not text")
}

/// What the client prints after a statement, however that went.
const END: &str = "end of statement";

/// A client that holds on to one connection to one server, past every route, until that ends.
#[derive(Debug)]
pub struct Session {
    _client: Child,
    statements: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What came of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its row; empty when it gives none.
    Row(String),
    /// The server's error.
    Refused(String),
    /// Nothing within the time. Nothing else can be asked then.
    Silence,
    /// The connection is gone.
    Gone(String),
}

impl Session {
    /// From the pod of one replica to the server with this address.
    pub async fn open(
        cluster: &Cluster,
        namespace: &Namespace,
        (shard, from): (&str, &str),
        account: Account,
        host: &str,
    ) -> Result<Self> {
        let password = password(namespace, shard, account).await?;
        let script = "read -r MYSQL_PWD; export MYSQL_PWD; \
                      exec mysql -h \"$1\" -P 3306 --ssl-mode=REQUIRED --skip-reconnect --force --unbuffered -u \"$2\" -NB 2>&1";
        let mut command = Command::new(&cluster.kubectl);
        command.args(["exec", "-i", "-n", namespace.name(), from, "-c", "mysql", "--"]);
        command.args(["bash", "-c", script, "bash", host, account.name()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut client = command.spawn().context("cannot run kubectl")?;
        let mut statements = client.stdin.take().context("stdin was asked for")?;
        let lines = BufReader::new(client.stdout.take().context("stdout was asked for")?).lines();
        statements.write_all(format!("{password}\n").as_bytes()).await?;
        Ok(Self { _client: client, statements, lines })
    }

    /// Runs a statement of one line that gives one row or none.
    pub async fn ask(&mut self, statement: &str, within: Duration) -> Said {
        let line = format!("{statement}; SELECT '{END}';\n");
        if let Err(error) = self.statements.write_all(line.as_bytes()).await {
            return Said::Gone(error.to_string());
        }
        tokio::time::timeout(within, self.answer()).await.unwrap_or(Said::Silence)
    }

    async fn answer(&mut self) -> Said {
        let mut said = Said::Row(String::new());
        loop {
            let line = match self.lines.next_line().await {
                Ok(Some(line)) => line,
                Ok(None) => return Said::Gone("the client ended".into()),
                Err(error) => return Said::Gone(error.to_string()),
            };
            if line == END {
                return said;
            }
            said = read(line);
            if matches!(said, Said::Gone(_)) {
                return said;
            }
        }
    }
}

/// Errors from 2000 to 2999 are the client's own: the server is not there.
fn read(line: String) -> Said {
    match line.strip_prefix("ERROR ").map(|error| error.starts_with('2')) {
        None => Said::Row(line),
        Some(false) => Said::Refused(line),
        Some(true) => Said::Gone(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_refuses_is_told_from_one_that_is_not_there() {
        let read = |line: &str| super::read(line.to_owned());
        assert_eq!(read("4"), Said::Row("4".into()));
        let line = "ERROR 1290 (HY000) at line 3: The MySQL server is running with the --super-read-only option";
        assert_eq!(read(line), Said::Refused(line.into()));
        let line = "ERROR 2013 (HY000) at line 3: Lost connection to MySQL server during query";
        assert_eq!(read(line), Said::Gone(line.into()));
    }
}
