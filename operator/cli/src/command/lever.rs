//! `pause` and `resume`: every action of the operator is stopped, or let go on. I/O.

use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::shard;
use crate::args::{Output, Target};
use crate::cluster::Cluster;
use crate::objects::{Datastore, Kind};
use crate::output;

/// Sets `spec.paused`, or takes it away.
pub async fn set(cluster: &Cluster, target: &Target, pause: bool, output: Output) -> Result<ExitCode> {
    let (kind, name, was_paused) = match target {
        Target::Shard(name) => {
            let (shard, datastore_paused) = shard(cluster, name.as_str()).await?;
            if let Some(datastore) = shard.datastore.as_ref().filter(|_| datastore_paused && !pause) {
                bail!(
                    "{name} is paused with its Datastore, and would be paused again: `kubectl understudy resume datastore/{datastore}`"
                );
            }
            (Kind::Shard, name, shard.paused)
        }
        Target::Datastore(name) => {
            let found = Datastore::read(&cluster.get(Kind::Datastore, name.as_str()).await?);
            (Kind::Datastore, name, found.paused)
        }
    };
    let changed = cluster.merge(kind, name.as_str(), &patch(pause)).await?;
    match output {
        Output::Json => output::json(&changed)?,
        Output::Text => output::say(&words(kind, name.as_str(), pause, was_paused))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Taken away, it leaves no field behind that this program would own.
fn patch(pause: bool) -> Value {
    let paused = if pause { Value::Bool(true) } else { Value::Null };
    json!({ "spec": { "paused": paused } })
}

fn words(kind: Kind, name: &str, pause: bool, was_paused: bool) -> String {
    let (what, lever) = match kind {
        Kind::Datastore => (format!("the Datastore {name} with all of its shards"), format!("datastore/{name}")),
        _ => (format!("the Shard {name}"), name.to_owned()),
    };
    match (pause, was_paused) {
        (true, false) => format!(
            "{what} is paused: the operator does nothing for it, failover included, until `kubectl understudy resume {lever}`. \
             Servers, consumers and verdicts go on"
        ),
        (true, true) => format!("{what} was paused already"),
        (false, true) => format!("{what} is not paused any more: what waited is done now"),
        (false, false) => format!("{what} was not paused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lever_that_is_let_go_leaves_nothing_behind() {
        assert_eq!(patch(true), json!({ "spec": { "paused": true } }));
        assert_eq!(patch(false), json!({ "spec": { "paused": null } }));
    }

    #[test]
    fn who_pulls_a_lever_is_told_what_it_stops_and_how_it_is_let_go() {
        let paused = words(Kind::Datastore, "metrics", true, false);
        assert!(paused.contains("failover included") && paused.contains("resume datastore/metrics"), "{paused}");
        assert!(words(Kind::Shard, "m", true, false).contains("`kubectl understudy resume m`"));
        assert!(words(Kind::Shard, "m", false, false).ends_with("was not paused"));
        assert!(words(Kind::Shard, "m", true, true).ends_with("was paused already"));
    }
}
