//! Counting changes of a shard's status, so that a fault can be placed between two of them. I/O.

use std::fmt::Display;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt};
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use understudy_api::v1alpha1::{Shard, ShardStatus};

use crate::see;

type Events = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Shard>>> + Send>>;

/// The changes of one shard's status from a moment on. None of them is missed: they come from a watch, not from looks.
pub struct Changes {
    events: Events,
    count: Count,
}

impl Changes {
    /// From now on. The shard need not be there yet.
    pub async fn of(api: &Api<Shard>, shard: &str) -> Result<Self> {
        let field = format!("metadata.name={shard}");
        let now = api.list(&ListParams::default().fields(&field)).await.context("cannot read the shard")?;
        let version = now.metadata.resource_version.context("a list has a version")?;
        let last = now.items.into_iter().next().and_then(|shard| shard.status);
        let events =
            api.watch(&WatchParams::default().fields(&field), &version).await.context("cannot watch the shard")?;
        Ok(Self { events: Box::pin(events), count: Count { last, seen: 0 } })
    }

    /// The next change; the shard as it is then.
    pub async fn next(&mut self) -> Result<Shard> {
        loop {
            match self.events.next().await.context("the watch ended")?? {
                WatchEvent::Added(shard) | WatchEvent::Modified(shard) => {
                    if self.count.see(shard.status.clone()) {
                        return Ok(shard);
                    }
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Deleted(_) => bail!("the shard was deleted"),
                WatchEvent::Error(status) => bail!("the watch failed: {status}"),
            }
        }
    }

    /// The first change after which `holds`, within `limit`.
    pub async fn until(
        &mut self,
        what: impl Display,
        limit: Duration,
        mut holds: impl FnMut(&Shard) -> bool,
    ) -> Result<Shard> {
        let mut last = "as it was".to_owned();
        let waiting = async {
            loop {
                let shard = self.next().await?;
                if holds(&shard) {
                    return Ok::<_, anyhow::Error>(shard);
                }
                last = see::shard(&shard);
            }
        };
        let waited = tokio::time::timeout(limit, waiting).await;
        waited.with_context(|| format!("{what}: not within {} s; last seen: {last}", limit.as_secs()))?
    }

    /// Waits for the n-th change; what the status said then.
    pub async fn nth(&mut self, n: u64, limit: Duration) -> Result<String> {
        let waited = tokio::time::timeout(limit, self.wait(n)).await;
        waited
            .with_context(|| format!("{} of {n} changes of the status within {} s", self.count.seen, limit.as_secs()))?
    }

    async fn wait(&mut self, n: u64) -> Result<String> {
        let mut last = "as it was".to_owned();
        while self.count.seen < n {
            last = see::shard(&self.next().await?);
        }
        Ok(last)
    }
}

/// How often a status changed. A change of something else is none.
struct Count {
    last: Option<ShardStatus>,
    seen: u64,
}

impl Count {
    /// Whether this is a change.
    fn see(&mut self, status: Option<ShardStatus>) -> bool {
        let is_change = status != self.last;
        if is_change {
            self.seen += 1;
            self.last = status;
        }
        is_change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_the_status_counts() {
        let status = |epoch| Some(ShardStatus { epoch, ..ShardStatus::default() });
        let mut count = Count { last: None, seen: 0 };
        for (status, seen) in [(None, 0), (status(0), 1), (status(0), 1), (status(1), 2), (status(0), 3)] {
            count.see(status);
            assert_eq!(count.seen, seen);
        }
    }
}
