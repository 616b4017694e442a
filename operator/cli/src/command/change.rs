//! `failover` and `switchover`: a change of primary is asked for. I/O.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::{code, now, shard};
use crate::args::{FailoverOptions, Name, Output, SwitchoverOptions, Waiting};
use crate::cluster::Cluster;
use crate::confirm::{self, Consent};
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
    let (shard, datastore_paused) = shard(cluster, options.shard.as_str()).await?;
    let to = options.to.as_ref().map(Name::as_str);
    let consent = Consent::of(options.yes, confirm::is_terminal());
    let answer = match request::check(Ask::Failover, &shard, datastore_paused, to) {
        Ok(()) => consent_to(consent, &shard, to)?,
        Err(refusal @ Refusal::Commits { .. }) => offer(consent, &refusal)?,
        Err(refusal) => return Err(refusal.into()),
    };
    match answer {
        Answer::Go(ask) => make(cluster, ask, &shard, to, options.reason.as_deref(), options.waiting, output).await,
        Answer::Stop => {
            output::warn("nothing was asked for");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn consent_to(consent: Consent, shard: &Shard, to: Option<&str>) -> Result<Answer> {
    let goes = match consent {
        Consent::Given => true,
        Consent::Ask => confirm::ask(&request::question(shard, to, now()))?,
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
    let (shard, datastore_paused) = shard(cluster, options.shard.as_str()).await?;
    let to = options.to.as_ref().map(Name::as_str);
    request::check(Ask::Switchover, &shard, datastore_paused, to)?;
    make(cluster, Ask::Switchover, &shard, to, options.reason.as_deref(), options.waiting, output).await
}

async fn make(
    cluster: &Cluster,
    ask: Ask,
    shard: &Shard,
    to: Option<&str>,
    reason: Option<&str>,
    waiting: Waiting,
    output: Output,
) -> Result<ExitCode> {
    request::warnings(ask, shard, to).iter().for_each(|warning| output::warn(warning));
    let request = request::object(ask, &shard.name, to, reason).context("the request cannot be written")?;
    let made = cluster.create(Kind::Failover, &request).await?;
    let name = made.name_any();
    if waiting.wait {
        return wait(cluster, &name, waiting, output).await;
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

async fn wait(cluster: &Cluster, name: &str, waiting: Waiting, output: Output) -> Result<ExitCode> {
    let began = Instant::now();
    output::progress(began.elapsed(), &format!("{name} was asked for; it goes on when this command is ended"));
    let mut progress = Progress::default();
    let tell = |object: &DynamicObject| {
        let record = Failover::read(object);
        progress.news(&record).iter().for_each(|news| output::progress(began.elapsed(), news));
        record.is_closed()
    };
    let object = cluster.follow(Kind::Failover, name, waiting.timeout, tell).await?;
    let outcome = progress::outcome(&Failover::read(&object)).context("the record is not closed")?;
    match output {
        Output::Json => output::json(&object)?,
        Output::Text => output::say(&outcome.words)?,
    }
    Ok(code(outcome.is_well))
}
