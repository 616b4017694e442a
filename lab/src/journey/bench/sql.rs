//! One statement on one server, from inside its pod and as its administrator. Runs kubectl.

use anyhow::{Context, Result};

use super::super::store::Store;
use crate::run;

const ADMIN: &str = "understudy_admin";
/// The password goes in by standard input: arguments are seen by everybody on the node.
const SCRIPT: &str = "read -r MYSQL_PWD; export MYSQL_PWD; \
                      exec timeout 60 mysql -h 127.0.0.1 -P 3306 --ssl-mode=REQUIRED --connect-timeout=5 -u \"$1\" -NBe \"$2\"";

/// Runs it; rows as lines, columns with tabs between them.
pub fn ask(store: &Store<'_>, shard: &str, replica: &str, statement: &str) -> Result<String> {
    let template = format!("go-template={{{{.data.{ADMIN} | base64decode}}}}");
    let secret = format!("{shard}-credentials");
    let password = store.access.get(&["-n", &store.namespace, "secret", &secret, "-o", &template])?;
    let pod = ["exec", "-i", "-n", store.namespace.as_str(), replica, "-c", "mysql", "--"];
    let mut command = store.access.kubectl(&pod);
    command.args(["bash", "-c", SCRIPT, "bash", ADMIN, statement]);
    run::output_with(&mut command, format!("{password}\n").as_bytes())
        .with_context(|| format!("cannot ask {replica}: {statement}"))
}
