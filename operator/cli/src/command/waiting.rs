//! Waiting for the end of what the operator does. On the way it is told when no operator acts and when the API server is lost, and Ctrl-C ends
//! the wait with a last word. I/O.

use std::future::pending;
use std::time::{Duration, Instant};

use kube::api::DynamicObject;

use super::leader::tell_until;
use crate::cluster::{Cluster, ClusterError};
use crate::leader::Leader;
use crate::objects::Kind;
use crate::output;

/// What a wait that was ended by Ctrl-C ends with, as a shell has it.
pub const INTERRUPTED: u8 = 130;

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
        let began = self.began;
        let lost = |error: ClusterError| {
            let error = anyhow::Error::from(error);
            output::progress(began.elapsed(), &format!("{error:#}; trying again"));
        };
        tokio::select! {
            followed = cluster.follow(self.kind, self.name, self.limit, is_over, lost) => {
                Ok(followed?.map_or(Waited::TooLong, |object| Waited::Done(Box::new(object))))
            }
            () = tell_until(interrupted(), cluster, began, self.leader) => Ok(Waited::Interrupted),
        }
    }
}

async fn interrupted() {
    // Where nobody can listen for it, the signal ends this program by itself.
    if tokio::signal::ctrl_c().await.is_err() {
        pending::<()>().await;
    }
}
