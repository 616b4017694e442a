//! Waiting for the end of what the operator does. On the way it is told when no operator acts, what it says that it is doing, and when the API
//! server is lost; Ctrl-C ends the wait with a last word. I/O.

use std::future::pending;
use std::mem::discriminant;
use std::pin::pin;
use std::time::{Duration, Instant};

use kube::api::DynamicObject;

use super::leader::leader_quietly;
use crate::cluster::{Cluster, ClusterError};
use crate::leader::Leader;
use crate::objects::{Kind, Shard};
use crate::output;

/// What a wait that was ended by Ctrl-C ends with, as a shell has it.
pub const INTERRUPTED: u8 = 130;
/// Between two looks at what the operator does.
const EVERY: Duration = Duration::from_secs(5);

/// What is waited for.
pub struct Wait<'a> {
    /// Of which kind it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
    /// For how long at most.
    pub limit: Duration,
    /// When it was asked for.
    pub began: Instant,
    /// Who acted then.
    pub leader: Leader,
    /// The Shard on which the operator acts, if it is one: its status says what a request waits for.
    pub shard: Option<&'a str>,
}

/// How a wait came to its end.
pub enum Waited {
    /// It is over, as this object says.
    Done(Box<DynamicObject>),
    /// It takes longer than anybody waits.
    TooLong,
    /// Whoever waited does not any more.
    Interrupted,
}

impl Wait<'_> {
    /// Shows the object each time that it changes, until `is_over`.
    pub async fn until(
        self,
        cluster: &Cluster,
        is_over: impl FnMut(&DynamicObject) -> bool,
    ) -> Result<Waited, ClusterError> {
        let Self { kind, name, limit, began, leader, shard } = self;
        let lost = |error: ClusterError| {
            let error = anyhow::Error::from(error);
            output::progress(began.elapsed(), &format!("{error:#}; trying again"));
        };
        tokio::select! {
            followed = cluster.follow(kind, name, limit, is_over, lost) => {
                Ok(followed?.map_or(Waited::TooLong, |object| Waited::Done(Box::new(object))))
            }
            () = tell_until(interrupted(), cluster, began, leader, shard) => Ok(Waited::Interrupted),
        }
    }
}

/// Tells when somebody begins to act or ceases to, and what is being done when that changes, until the end has come.
async fn tell_until(
    end: impl Future<Output = ()>,
    cluster: &Cluster,
    began: Instant,
    mut known: Leader,
    shard: Option<&str>,
) {
    let mut end = pin!(end);
    let mut told: Option<String> = None;
    loop {
        let next = async {
            tokio::time::sleep(EVERY).await;
            tokio::join!(leader_quietly(cluster), doing(cluster, shard))
        };
        let (leader, doing) = tokio::select! {
            () = &mut end => return,
            next = next => next,
        };
        if discriminant(&leader) != discriminant(&known) {
            output::progress(began.elapsed(), &leader.words());
        }
        known = leader;
        // What was said by one that does not act any more is old.
        let doing = doing.filter(|words| known.absence().is_none() && told.as_ref() != Some(words));
        if let Some(words) = doing {
            output::progress(began.elapsed(), &format!("the operator says: {words}"));
            told = Some(words);
        }
    }
}

/// What the status of a Shard says that is being done; none when it says nothing or cannot be read now.
async fn doing(cluster: &Cluster, shard: Option<&str>) -> Option<String> {
    let found = cluster.find(Kind::Shard, shard?).await.ok()??;
    Shard::read(&found).doing
}

async fn interrupted() {
    // Where nobody can listen for it, the signal ends this program by itself.
    if tokio::signal::ctrl_c().await.is_err() {
        pending::<()>().await;
    }
}
