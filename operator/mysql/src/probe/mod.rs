//! Staged probe: TCP, greeting, authentication, `SELECT`, commit of one row. The stage that fails names the cause. I/O.
//!
//! Each attempt has a fresh connection of its own and speaks the protocol itself, because a client library hides where it
//! stands: a server that was stopped still completes the TCP handshake from its kernel's backlog, and only the missing
//! greeting shows it. One attempt is in flight at a time. What becomes of one that misses a deadline after the server has taken it, `hanging` says.

mod attempt;
mod hanging;
mod packet;
mod record;
mod run;

use std::net::SocketAddr;
use std::time::Duration;

use understudy_wire::ReplicaName;
use understudy_wire::evidence::Stage;

pub use attempt::{Failure, Success, attempt};
pub use record::Record;
pub use run::{Pace, Prober};

use crate::tls::Trust;

/// Whom to probe and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// The replica that the findings are about.
    pub subject: ReplicaName,
    /// `ip:port`.
    pub address: SocketAddr,
    /// How the server proves who it is.
    pub trust: Trust,
    /// Account, with its password.
    pub account: Account,
    /// Row of the heartbeat table that this observer writes.
    pub row: RowName,
    /// How far to go.
    pub depth: Depth,
}

/// An account with its password, which is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The last stage of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Up to `SELECT`: a server that is not meant to take writes.
    Select,
    /// Up to the commit of a row.
    Commit,
}

/// Name of an observer's row in the heartbeat table: letters, digits and `._:/-`, at most 128.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowName(String);

impl RowName {
    /// Replaces what is not allowed by `-` and cuts what is too long, so that the name never needs quoting.
    pub fn new(name: &str) -> Self {
        let allowed = |c: char| if c.is_ascii_alphanumeric() || "._:/-".contains(c) { c } else { '-' };
        Self(name.chars().take(128).map(allowed).collect())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How long a stage may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// TCP, greeting, authentication and `SELECT`, each.
    pub stage: Duration,
    /// The commit. Longer than the second for which a probe waits for a lock, so that a lock is told from a stall.
    pub commit: Duration,
}

/// The least that a commit may take. InnoDB ends a wait for a lock a moment after its second is over.
const LEAST_COMMIT: Duration = Duration::from_millis(1250);

impl Deadlines {
    /// As they are asked for; but a commit gets a quarter of a second more than a probe waits for a lock, however short its deadline is: whoever
    /// gives it up sooner takes a lock for a stall.
    pub fn new(stage: Duration, commit: Duration) -> Self {
        Self { stage, commit: commit.max(LEAST_COMMIT) }
    }

    /// That of one stage.
    pub fn of(self, stage: Stage) -> Duration {
        if stage == Stage::Commit { self.commit } else { self.stage }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { stage: Duration::from_millis(500), commit: Duration::from_millis(1500) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_never_given_up_before_a_lock_would_be_told_of() {
        let ms = Duration::from_millis;
        for (asked, expected) in [(1000, 1250), (1250, 1250), (1500, 1500)] {
            assert_eq!(Deadlines::new(ms(100), ms(asked)), Deadlines { stage: ms(100), commit: ms(expected) });
        }
    }
}
