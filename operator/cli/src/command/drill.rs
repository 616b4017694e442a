//! `drill`: a rehearsal is shown, or asked for now. I/O.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use kube::api::DynamicObject;
use serde_json::json;

use super::waiting::{INTERRUPTED, Wait, Waited};
use super::{code, leader, now, warn};
use crate::args::{DrillOptions, Output};
use crate::cluster::Cluster;
use crate::leader::Leader;
use crate::objects::{Drill, Kind};
use crate::output;
use crate::view::drill;
use crate::view::progress::Awaited;
use crate::view::text::Extent;
use crate::view::time::point;

/// Shows a drill, or asks for a run of it.
pub async fn drill(cluster: &Cluster, options: &DrillOptions, output: Output) -> Result<ExitCode> {
    let name = options.drill.as_str();
    let object = cluster.get(Kind::Drill, name).await?;
    let leader = leader::leader(cluster).await;
    warn(&leader);
    if !options.now {
        output::show(&drill::screen(object, now()), output, Extent::All)?;
        return Ok(ExitCode::SUCCESS);
    }
    let before = Drill::read(&object);
    let began = Instant::now();
    let at = moment(before.requested, now());
    let asked = cluster.merge(Kind::Drill, name, &json!({ "spec": { "requestedAt": point(at) } })).await?;
    if options.wait {
        return wait(cluster, options, Awaited::after(&before), began, leader, output).await;
    }
    match output {
        Output::Json => output::json(&asked)?,
        Output::Text => {
            output::say(&format!(
                "a run of {name} was asked for; `kubectl understudy drill {name}` shows what becomes of it"
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn wait(
    cluster: &Cluster,
    options: &DrillOptions,
    mut awaited: Awaited,
    began: Instant,
    leader: Leader,
    output: Output,
) -> Result<ExitCode> {
    let name = options.drill.as_str();
    output::progress(began.elapsed(), &format!("a run of {name} was asked for; it goes on when this command is ended"));
    let mut latest = None;
    let tell = |object: &DynamicObject| {
        let drill = Drill::read(object);
        awaited.news(&drill).iter().for_each(|news| output::progress(began.elapsed(), news));
        latest = Some(object.clone());
        awaited.outcome(&drill).is_some()
    };
    let wait = Wait { kind: Kind::Drill, name, limit: options.timeout, began, leader, shard: None };
    let waited = wait.until(cluster, tell).await?;
    // A program is told how far it came, whatever it came to.
    if output == Output::Json
        && let Some(object) = &latest
    {
        output::json(object)?;
    }
    match waited {
        Waited::Done(object) => {
            let outcome = awaited.outcome(&Drill::read(&object)).context("the run has not ended")?;
            if output == Output::Text {
                output::say(&outcome.words)?;
            }
            Ok(code(outcome.is_well))
        }
        Waited::TooLong => bail!("no end within {} s: {}", options.timeout.as_secs(), so_far(name)),
        Waited::Interrupted => {
            output::warn(&so_far(name));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

fn so_far(name: &str) -> String {
    format!(
        "the run of {name} goes on, or begins within ten minutes; `kubectl understudy drill {name}` shows what becomes of it, and \
         `kubectl patch drill {name} --type merge -p '{{\"spec\":{{\"suspend\":true}}}}'` ends it"
    )
}

/// When it is asked for: after any time at which it was asked for before, by whatever clock, else nothing would be asked. Kubernetes writes
/// times to the second.
fn moment(before: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let next = before.and_then(|before| before.checked_add(SignedDuration::from_secs(1)).ok());
    next.map_or(now, |next| next.max(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fixtures::at;

    #[test]
    fn a_run_is_asked_for_at_another_time_than_the_one_before() {
        for (before, expected) in [(None, 0), (Some(at(-600)), 0), (Some(at(0)), 1), (Some(at(5)), 6)] {
            assert_eq!(moment(before, at(0)), at(expected));
        }
    }

    #[test]
    fn who_does_not_wait_any_more_is_told_how_the_run_is_ended() {
        assert!(
            so_far("nightly").contains("kubectl patch drill nightly --type merge -p '{\"spec\":{\"suspend\":true}}'")
        );
    }
}
