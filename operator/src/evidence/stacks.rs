//! What the threads of a sick primary do: asked of its manager once in each trouble, beside everything else. I/O.
//!
//! Nothing waits for the answer. It comes over a connection of its own, so that one that does not come disturbs no order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use understudy_decide::Verdict;
use understudy_decide::failover::snapshot::Snapshot;
use understudy_link::Identity;
use understudy_link::client::{Client, Endpoint};
use understudy_wire::ReplicaName;
use understudy_wire::evidence::Phase;
use understudy_wire::stacks::Stacks;

use crate::errors::chain;

/// What a manager is asked.
const PATH: &str = "/v1/stacks";
/// A manager answers sooner, unless the kernel keeps it waiting.
const WITHIN: Duration = Duration::from_secs(1);

type Taken = Option<(ReplicaName, Vec<String>)>;

/// Asks for the stacks of one shard's primary, and keeps those of the latest trouble.
pub struct StackTaker {
    identity: Identity,
    news: Arc<Notify>,
    /// The primary that was asked about in the present trouble.
    asked: Option<ReplicaName>,
    taken: Arc<Mutex<Taken>>,
    _asking: Option<AbortOnDropHandle<()>>,
}

/// What a pass means for the present trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A trouble that was not asked about.
    Ask,
    /// The primary that was asked about commits again.
    Over,
    /// Nothing new.
    Wait,
}

impl StackTaker {
    /// Has asked nobody yet. `news` is told of an answer.
    pub fn new(identity: Identity, news: Arc<Notify>) -> Self {
        Self { identity, news, asked: None, taken: Arc::default(), _asking: None }
    }

    /// Looks at the verdict of a pass, and asks when that is due. `manager` says where a replica's manager is.
    pub fn look(&mut self, s: &Snapshot, verdict: Verdict, manager: impl FnOnce(&str) -> Option<Endpoint>) {
        let Some(primary) = &s.status.primary else { return };
        let look = Look {
            is_asked: self.asked.as_ref() == Some(primary),
            // A process that ended has no threads, and a manager that is silent does not answer.
            runs: s.fresh_report(primary).is_some_and(|(server, _)| server.phase == Phase::Running),
            changes: s.status.transition.is_some(),
        };
        match look.turn(verdict) {
            Turn::Wait => {}
            Turn::Over => {
                self.asked = None;
                *lock(&self.taken) = None;
            }
            Turn::Ask => {
                if let Some(to) = manager(primary.as_str()) {
                    self.ask(primary.clone(), to);
                }
            }
        }
    }

    fn ask(&mut self, primary: ReplicaName, to: Endpoint) {
        self.asked = Some(primary.clone());
        *lock(&self.taken) = None;
        let (taken, news) = (self.taken.clone(), self.news.clone());
        let client = Client::new(to, self.identity.clone());
        let asking = async move {
            let stacks: Stacks = match client.ask(&primary, PATH, WITHIN).await {
                Ok(stacks) => stacks,
                Err(error) => return tracing::warn!(%primary, error = %chain(&error), "stacks not taken"),
            };
            let digest = stacks.digest();
            tracing::warn!(%primary, took_ms = stacks.took, complete = stacks.complete, stacks = ?digest, "what its threads do");
            if !digest.is_empty() {
                *lock(&taken) = Some((primary, digest));
                news.notify_one();
            }
        };
        self._asking = Some(AbortOnDropHandle::new(tokio::spawn(asking)));
    }

    /// What the threads of this replica did when it fell sick, if that is known.
    pub fn of(&self, replica: &ReplicaName) -> Option<Vec<String>> {
        let taken = lock(&self.taken);
        taken.as_ref().filter(|(of, _)| of == replica).map(|(_, lines)| lines.clone())
    }
}

/// What is seen of the primary in a pass.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Whether it was asked about already.
    is_asked: bool,
    /// Whether its manager says that mysqld runs.
    runs: bool,
    /// Whether the primary is being changed.
    changes: bool,
}

impl Look {
    fn turn(self, verdict: Verdict) -> Turn {
        match verdict {
            Verdict::Suspect(_) | Verdict::Stuck(_) if self.runs && !self.is_asked => Turn::Ask,
            // What was taken belongs into the record of a change that is under way, that of a near miss too.
            _ if self.is_asked && verdict.commits() && !self.changes => Turn::Over,
            _ => Turn::Wait,
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use understudy_decide::Cause;

    use super::*;

    #[test]
    fn a_sick_primary_is_asked_about_once_until_it_is_well_again() {
        let new = Look { is_asked: false, runs: true, changes: false };
        let asked = Look { is_asked: true, ..new };
        let (suspect, stuck) = (Verdict::Suspect(Cause::Unexplained), Verdict::Stuck(Cause::VolumeStalled));
        for (case, look, verdict, expected) in [
            ("well", new, Verdict::Healthy, Turn::Wait),
            ("a suspicion", new, suspect, Turn::Ask),
            ("sick at once", new, stuck, Turn::Ask),
            ("its process has ended", Look { runs: false, ..new }, suspect, Turn::Wait),
            ("gone", new, Verdict::Gone(Cause::Unreachable), Turn::Wait),
            ("the suspicion becomes a certainty", asked, stuck, Turn::Wait),
            ("nothing is known", asked, Verdict::Unknown, Turn::Wait),
            ("well again", asked, Verdict::Healthy, Turn::Over),
            ("a near miss that is being confirmed", Look { changes: true, ..asked }, Verdict::Healthy, Turn::Wait),
        ] {
            assert_eq!(look.turn(verdict), expected, "{case}");
        }
    }
}
