//! `pause` and `resume`: every action of the operator is stopped, or let go on. I/O.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, bail};
use serde_json::{Value, json};

use super::{code, leader, shard, warn};
use crate::args::{Name, Output, Target};
use crate::cluster::{Cluster, ClusterError};
use crate::objects::{Datastore, Kind, Shard};
use crate::output;

/// An operator that acts has seen a lever within a second. One that is in the middle of something may take longer.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at whether it has.
const BREATH: Duration = Duration::from_millis(500);

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
    // The lever comes first: whether anybody minds it is told after it is set.
    let leader = leader::leader(cluster).await;
    warn(&leader);
    let mut told = None;
    if leader.absence().is_none() {
        told = match unseen(cluster, target, pause).await {
            Ok(shards) => unheeded(pause, &shards),
            Err(error) => Some(format!("whether the operator has seen that is not known: {:#}", Error::from(error))),
        };
        told.iter().for_each(|words| output::warn(words));
    }
    Ok(code(is_well(pause, told.as_deref())))
}

/// Whoever pauses goes on to touch what is paused: a script must not, before that has been seen everywhere. When nobody acts, nobody is in the
/// middle of anything.
fn is_well(pause: bool, unheeded: Option<&str>) -> bool {
    !pause || unheeded.is_none()
}

/// The Shards at which the operator has not seen the lever, once it has had its time.
async fn unseen(cluster: &Cluster, target: &Target, pause: bool) -> Result<Vec<Shard>, ClusterError> {
    let began = Instant::now();
    loop {
        let mut shards = shards(cluster, target).await?;
        shards.retain(|shard| !minds(shard, pause));
        if shards.is_empty() || began.elapsed() >= SEEN_WITHIN {
            return Ok(shards);
        }
        tokio::time::sleep(BREATH).await;
    }
}

async fn shards(cluster: &Cluster, target: &Target) -> Result<Vec<Shard>, ClusterError> {
    match target {
        Target::Shard(name) => Ok(vec![Shard::read(&cluster.get(Kind::Shard, name.as_str()).await?)]),
        Target::Datastore(name) => {
            let listed = cluster.list(Kind::Shard, None).await?;
            let mut shards: Vec<_> = listed.objects.iter().map(Shard::read).collect();
            shards.retain(|shard| shard.datastore.as_deref() == Some(Name::as_str(name)));
            Ok(shards)
        }
    }
}

fn minds(shard: &Shard, pause: bool) -> bool {
    shard.paused == pause && shard.is_current == Some(true)
}

/// What a person should know of Shards at which the lever is not seen; none when there are none.
fn unheeded(pause: bool, shards: &[Shard]) -> Option<String> {
    let first = &shards.first()?.name;
    let names = |of: &dyn Fn(&&Shard) -> bool| {
        shards.iter().filter(of).map(|shard| shard.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let still_paused = names(&|shard| !pause && shard.paused);
    if !still_paused.is_empty() {
        return Some(format!("still paused, each by itself: {still_paused}; `kubectl understudy resume {first}`"));
    }
    let effect = if pause { "what it was doing there may go on" } else { "nothing is done there yet" };
    Some(format!(
        "within {} s the operator has not seen that of {}: {effect}. `kubectl understudy explain {first}` says when it has",
        SEEN_WITHIN.as_secs(),
        names(&|_| true),
    ))
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
    use crate::view::fixtures::{self, named, with};

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

    #[test]
    fn a_lever_is_minded_once_the_status_answers_the_spec_that_has_it() {
        let paused = fixtures::paused();
        let not_seen = with(paused.clone(), &[("/status/observedGeneration", 2.into())]);
        for (case, object, pause, expected) in [
            ("paused and seen", &paused, true, true),
            ("paused and not seen", &not_seen, true, false),
            ("not reached by its Datastore yet", &fixtures::healthy(), true, false),
            ("still paused", &paused, false, false),
            ("let go", &fixtures::healthy(), false, true),
            ("no operator has looked at it", &fixtures::unseen(), false, false),
        ] {
            assert_eq!(minds(&Shard::read(object), pause), expected, "{case}");
        }
    }

    #[test]
    fn a_pause_that_was_not_seen_everywhere_is_no_success_and_a_resumption_is_one() {
        for (case, pause, unheeded, expected) in [
            ("paused and seen, or nobody acts", true, None, true),
            ("paused and not seen", true, Some("within 10 s the operator has not seen that of m-0"), false),
            ("let go and not seen", false, Some("still paused, each by itself: m-2"), true),
        ] {
            assert_eq!(is_well(pause, unheeded), expected, "{case}");
        }
    }

    #[test]
    fn who_pulls_a_lever_that_nobody_minds_is_told_where() {
        let shard = |object, name| Shard::read(&named(object, name));
        assert_eq!(unheeded(true, &[]), None);
        let words = unheeded(true, &[shard(fixtures::healthy(), "m-0"), shard(fixtures::healthy(), "m-1")]).unwrap();
        assert!(
            words.contains("m-0, m-1: what it was doing there may go on") && words.contains("explain m-0"),
            "{words}"
        );
        let words = unheeded(false, &[shard(fixtures::paused(), "m-2")]).unwrap();
        assert!(words.contains("still paused, each by itself: m-2; `kubectl understudy resume m-2`"), "{words}");
        assert!(unheeded(false, &[shard(fixtures::unseen(), "m-3")]).unwrap().contains("nothing is done there yet"));
    }
}
