//! What a trouble that is none must leave as it was: who is primary, under which epoch, and the records. I/O.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_api::v1alpha1::{Failover, VerdictState};

use crate::see;
use crate::sql::{self, Account};
use crate::stage::Stage;
use crate::wait::{Seen, never, until};

/// A shard before the trouble.
#[derive(Debug)]
pub struct Calm {
    primary: String,
    epoch: i64,
    records: BTreeSet<String>,
}

impl Calm {
    /// As the stage's shard is now.
    pub async fn of(stage: &Stage) -> Result<Self> {
        let shard = stage.shard().await?;
        Ok(Self { primary: see::primary(&shard), epoch: see::epoch(&shard), records: records(stage).await? })
    }

    /// Who is primary.
    pub fn primary(&self) -> &str {
        &self.primary
    }

    /// Waits until the primary has committed something since this began.
    pub async fn commits(&self, stage: &Stage, limit: Duration) -> Result<()> {
        let shard = stage.shard_name(0);
        let executed = async || {
            let of = (shard.as_str(), self.primary.as_str());
            sql::ask(stage.cluster, &stage.namespace, of, Account::Admin, "SELECT @@GLOBAL.gtid_executed").await
        };
        let before = executed().await?;
        until("the primary commits", limit, async || Ok(Seen::when(executed().await? != before, (), &before))).await
    }

    /// What is not as it was. Epochs only grow and records stay, so one look tells of all the time since [`Calm::of`].
    pub async fn broken(&self, stage: &Stage) -> Result<Option<String>> {
        let shard = stage.shard().await?;
        let all = records(stage).await?;
        let new: Vec<_> = all.difference(&self.records).collect();
        let same = see::primary(&shard) == self.primary && see::epoch(&shard) == self.epoch;
        let kept = same && !see::is_changing(&shard) && new.is_empty();
        Ok((!kept).then(|| format!("{} instead of {self:?}; new records: {new:?}", see::shard(&shard))))
    }

    /// Fails when something is not as it was, now or within `window`: what comes of a trouble may come late.
    pub async fn holds(&self, stage: &Stage, window: Duration) -> Result<()> {
        never("a change of primary", window, async || self.broken(stage).await).await
    }
}

async fn records(stage: &Stage) -> Result<BTreeSet<String>> {
    Ok(stage.namespace.list::<Failover>("").await?.into_keys().collect())
}

/// Lets something last to its end, and fails when the status called the primary dead meanwhile. A verdict may be held back from action,
/// so that nothing was done says less.
pub async fn alive_through<T>(stage: &Stage, trouble: impl Future<Output = Result<T>>) -> Result<T> {
    let mut changes = stage.changes().await?;
    let mut trouble = pin!(trouble);
    loop {
        tokio::select! {
            ended = &mut trouble => return ended,
            shard = changes.next() => {
                let shard = shard?;
                let is_dead = matches!(see::verdict(&shard), Some(VerdictState::Stuck | VerdictState::Gone));
                ensure!(!is_dead, "the primary counts as dead: {}", see::shard(&shard));
            }
        }
    }
}
