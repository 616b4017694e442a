//! `failover` and `switchover`: a change of primary is asked for. I/O.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::waiting::{INTERRUPTED, Wait, Waited};
use super::{code, now, shard_and_leader};
use crate::args::{FailoverOptions, Name, Output, SwitchoverOptions, Waiting};
use crate::cluster::Cluster;
use crate::confirm::{self, Consent};
use crate::leader::Leader;
use crate::objects::{Failover, Kind, Shard};
use crate::output;
use crate::request::{self, Ask, Refusal};
use crate::view::progress::{self, Progress};

/// What becomes of a request once a person was asked.
enum Answer {
    Go(Ask),
    Stop,
}

/// A primary that is dead is replaced.
pub async fn failover(cluster: &Cluster, options: &FailoverOptions, output: Output) -> Result<ExitCode> {
    let (shard, datastore_paused, leader) = shard_and_leader(cluster, options.shard.as_str()).await?;
    let to = options.to.as_ref().map(Name::as_str);
    let consent = Consent::of(options.yes, confirm::is_terminal());
    let answer = match request::check(Ask::Failover, &shard, datastore_paused, to) {
        Ok(()) => consent_to(cluster, consent, &shard, to)?,
        // That it commits is old when nobody acts, and nobody would change it as planned.
        Err(refusal @ Refusal::Commits { .. }) if leader.absence().is_none() => offer(consent, &refusal)?,
        Err(refusal) => return Err(refusal.into()),
    };
    match answer {
        Answer::Go(ask) => {
            let asked = Asked { ask, shard: &shard, to, reason: options.reason.as_deref(), leader };
            make(cluster, asked, options.waiting, output).await
        }
        Answer::Stop => {
            output::warn("nothing was asked for");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn consent_to(cluster: &Cluster, consent: Consent, shard: &Shard, to: Option<&str>) -> Result<Answer> {
    let question = || {
        let place = format!("namespace {} of the cluster at {}", cluster.namespace(), cluster.server());
        format!("In {place}, {}", request::question(shard, to, now()))
    };
    let goes = match consent {
        Consent::Given => true,
        Consent::Ask => confirm::ask(&question())?,
        Consent::Nobody => bail!(
            "a failover of {} throws its primary away, and there is no terminal to ask at: say --yes when that is meant",
            shard.name
        ),
    };
    Ok(if goes { Answer::Go(Ask::Failover) } else { Answer::Stop })
}

/// Who sits at a terminal may have the planned change at once. `--yes` was said to something else.
fn offer(consent: Consent, refusal: &Refusal) -> Result<Answer> {
    if consent != Consent::Ask {
        return Err(refusal.clone().into());
    }
    output::warn(&refusal.to_string());
    let goes = confirm::ask("Ask for the planned change (switchover) instead?")?;
    Ok(if goes { Answer::Go(Ask::Switchover) } else { Answer::Stop })
}

/// The primary changes as planned.
pub async fn switchover(cluster: &Cluster, options: &SwitchoverOptions, output: Output) -> Result<ExitCode> {
    let (shard, datastore_paused, leader) = shard_and_leader(cluster, options.shard.as_str()).await?;
    let to = options.to.as_ref().map(Name::as_str);
    request::check(Ask::Switchover, &shard, datastore_paused, to)?;
    let asked = Asked { ask: Ask::Switchover, shard: &shard, to, reason: options.reason.as_deref(), leader };
    make(cluster, asked, options.waiting, output).await
}

/// What is asked for.
struct Asked<'a> {
    ask: Ask,
    shard: &'a Shard,
    to: Option<&'a str>,
    reason: Option<&'a str>,
    leader: Leader,
}

async fn make(cluster: &Cluster, asked: Asked<'_>, waiting: Waiting, output: Output) -> Result<ExitCode> {
    let Asked { ask, shard, to, reason, leader } = asked;
    request::warnings(ask, shard, to).iter().for_each(|warning| output::warn(warning));
    let request = request::object(ask, &shard.name, to, reason).context("the request cannot be written")?;
    let made = cluster.create(Kind::Failover, &request).await?;
    let name = made.name_any();
    if leader.absence().is_some() {
        output::warn(&format!(
            "{name} is carried out when an operator acts, whenever that is; until then `kubectl delete failover {name}` takes it back"
        ));
    }
    if waiting.wait {
        return wait(cluster, (&name, &shard.name), waiting, leader, output).await;
    }
    match output {
        Output::Json => output::json(&made)?,
        Output::Text => {
            output::say(&format!(
                "{name} was asked for; `kubectl understudy timeline {name}` shows what becomes of it"
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for the end of a request on a Shard.
async fn wait(
    cluster: &Cluster,
    (name, shard): (&str, &str),
    waiting: Waiting,
    leader: Leader,
    output: Output,
) -> Result<ExitCode> {
    let began = Instant::now();
    output::progress(began.elapsed(), &format!("{name} was asked for; it goes on when this command is ended"));
    let mut progress = Progress::default();
    let mut latest = None;
    let tell = |object: &DynamicObject| {
        let record = Failover::read(object);
        progress.news(&record).iter().for_each(|news| output::progress(began.elapsed(), news));
        latest = Some(object.clone());
        record.is_closed()
    };
    let (kind, limit) = (Kind::Failover, waiting.timeout);
    let wait = Wait { kind, name, limit, began, leader, shard: Some(shard) };
    let waited = wait.until(cluster, tell).await?;
    // A program is told how far it came, whatever it came to.
    if output == Output::Json
        && let Some(object) = &latest
    {
        output::json(object)?;
    }
    let so_far = || progress::so_far(name, latest.as_ref().map(Failover::read).as_ref());
    match waited {
        Waited::Done(object) => {
            let outcome = progress::outcome(&Failover::read(&object)).context("the record is not closed")?;
            if output == Output::Text {
                output::say(&outcome.words)?;
            }
            Ok(code(outcome.is_well))
        }
        Waited::TooLong => bail!("no end within {} s: {}", waiting.timeout.as_secs(), so_far()),
        Waited::Interrupted => {
            output::warn(&so_far());
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}
