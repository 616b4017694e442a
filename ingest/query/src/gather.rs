//! Asking all shards of a request at once and putting their answers together. I/O through [`Asker`].

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use understudy_model::{Group, Labels, Tenant, partition_of};
use understudy_wire::{Epoch, ReplicaName, ShardName};

use crate::ask::{Asker, Question, ShardError};
use crate::budget::Held;
use crate::limits::Limits;
use crate::merge::merge;
use crate::params::{Partial, Scope};
use crate::server::{ServerError, Servers};
use crate::work::{Answer, Found, Role, Work};

/// Where the answer of a shard comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// The shard.
    pub shard: ShardName,
    /// Who answered.
    pub replica: ReplicaName,
    /// As what.
    pub role: Role,
    /// Under which epoch.
    pub epoch: Epoch,
    /// Up to when the data is complete, in milliseconds since 1970; None when that is not known.
    pub complete_until_ms: Option<i64>,
}

/// The answers of all shards, as one.
#[derive(Debug)]
pub struct Gathered {
    /// What was found.
    pub found: Found,
    /// Where it comes from, in order of the shards.
    pub provenance: Vec<Provenance>,
    /// Shards without an answer, and why; only where the request allows it.
    pub missing: Vec<(ShardName, String)>,
    /// The memory set aside for it.
    pub held: Vec<Held>,
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GatherError {
    /// The service has just started and does not know the shards.
    #[error("the shards of this Datastore are not known yet")]
    NotReady,
    /// There is no such shard.
    #[error("there is no shard {0}")]
    NoSuchShard(ShardName),
    /// Shards that cannot answer; a person may ask for an answer without them.
    #[error("shard {0} cannot answer: {1}; ask with partial=allow for an answer without it")]
    Shard(ShardName, String),
    /// The question cannot be answered as it is.
    #[error("{0}")]
    Question(ServerError),
}

/// The answer of all shards that can hold what is asked for. `partitions` is how many the topic has, `held` the memory that
/// the request holds already.
pub async fn gather<S: Servers>(
    asker: &Asker<S>,
    tenant: &Tenant,
    work: &Work,
    scope: &Scope,
    partitions: u32,
    limits: &Limits,
    held: &Held,
) -> Result<Gathered, GatherError> {
    let shards = shards_of(asker, tenant, work, scope, partitions)?;
    let deadline = Instant::now() + limits.request;
    let mut asking: FuturesUnordered<_> = shards
        .into_iter()
        .map(|shard| async move {
            let question = Question { tenant, work, held };
            let late =
                || ShardError::Nobody(vec![("all".into(), ServerError::Unreachable("no answer in time".into()))]);
            let outcome = timeout_at(deadline, asker.ask(&shard, question)).await.unwrap_or_else(|_| Err(late()));
            (shard, outcome)
        })
        .collect();
    let mut answers = Vec::new();
    let mut missing = Vec::new();
    while let Some((shard, outcome)) = asking.next().await {
        match outcome {
            Ok(answer) => answers.push((shard, answer)),
            Err(ShardError::Question(error)) => return Err(GatherError::Question(error)),
            Err(error) if scope.partial == Partial::Allow => missing.push((shard, error.to_string())),
            Err(error) => return Err(GatherError::Shard(shard, error.to_string())),
        }
    }
    drop(asking);
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    missing.sort();
    let provenance = answers.iter().map(|(shard, answer)| provenance(asker, shard, answer)).collect();
    let mut shards = Vec::new();
    let (found, held): (Vec<Found>, Vec<Held>) = answers
        .into_iter()
        .map(|(shard, answer)| {
            shards.push(shard);
            (answer.found, answer.held)
        })
        .unzip();
    let topology = asker.topology();
    let since = |labels: &Labels, place: usize| {
        let partition = partition_of(Group::of(tenant, labels).id(), partitions);
        topology.fed_since(&shards[place], i32::try_from(partition).unwrap_or(-1))
    };
    let found = put_together(work, found, since, limits)?;
    Ok(Gathered { found, provenance, missing, held })
}

fn shards_of<S: Servers>(
    asker: &Asker<S>,
    tenant: &Tenant,
    work: &Work,
    scope: &Scope,
    partitions: u32,
) -> Result<Vec<ShardName>, GatherError> {
    let topology = asker.topology();
    if !topology.is_complete {
        return Err(GatherError::NotReady);
    }
    if let Some(shard) = &scope.shard {
        let is_known = topology.shards.contains_key(shard);
        return if is_known { Ok(vec![shard.clone()]) } else { Err(GatherError::NoSuchShard(shard.clone())) };
    }
    let groups = work.groups(tenant);
    Ok(topology.holders(groups.as_ref(), partitions).into_iter().collect())
}

fn provenance<S: Servers>(asker: &Asker<S>, shard: &ShardName, answer: &Answer) -> Provenance {
    Provenance {
        shard: shard.clone(),
        replica: answer.replica.clone(),
        role: answer.role,
        epoch: answer.standing.epoch,
        complete_until_ms: asker.complete_until_ms(shard, answer),
    }
}

fn put_together(
    work: &Work,
    answers: Vec<Found>,
    since: impl Fn(&Labels, usize) -> Option<i64>,
    limits: &Limits,
) -> Result<Found, GatherError> {
    let mut found = work.nothing();
    merge(&mut found, answers, since);
    for (what, count, most) in
        [("samples", found.samples(), limits.samples), ("series", found.entries(), limits.series)]
    {
        if count > most {
            return Err(GatherError::Question(ServerError::TooMany { what, most }));
        }
    }
    Ok(found)
}
