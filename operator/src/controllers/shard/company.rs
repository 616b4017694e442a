//! What the shards look like together, so that a cause they share is not taken for many deaths. Pure, but for the lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use understudy_decide::failover::snapshot::{Fleet, Snapshot};
use understudy_decide::{Decision, Verdict};

/// Shards that became suspect within this time count together.
const TOGETHER: Duration = Duration::from_secs(60);

/// How one shard stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    has_primary: bool,
    is_suspect: bool,
    is_slow: bool,
    managers: usize,
    silent: usize,
}

impl Standing {
    /// From what was seen and concluded.
    pub fn of(snapshot: &Snapshot, decision: &Decision) -> Self {
        let heard: Vec<_> = snapshot.cast().filter(|(name, _)| snapshot.own_report(name).is_some()).collect();
        Self {
            has_primary: snapshot.status.primary.is_some(),
            is_suspect: matches!(
                decision.assessment.verdict,
                Verdict::Suspect(_) | Verdict::Stuck(_) | Verdict::Gone(_)
            ),
            is_slow: decision.assessment.verdict == Verdict::Slow,
            managers: heard.len(),
            silent: heard.iter().filter(|(name, _)| snapshot.fresh_report(name).is_none()).count(),
        }
    }
}

struct Member {
    standing: Standing,
    suspect_since: Option<Instant>,
}

/// All shards that this operator looks after.
#[derive(Clone, Default)]
pub struct Company(Arc<Mutex<HashMap<(String, String), Member>>>);

impl Company {
    /// How a shard stands now.
    pub fn stand(&self, namespace: &str, shard: &str, standing: Standing, now: Instant) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let member =
            members.entry((namespace.to_owned(), shard.to_owned())).or_insert(Member { standing, suspect_since: None });
        member.suspect_since = if standing.is_suspect { member.suspect_since.or(Some(now)) } else { None };
        member.standing = standing;
    }

    /// A shard is gone.
    pub fn leave(&self, namespace: &str, shard: &str) {
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.remove(&(namespace.to_owned(), shard.to_owned()));
    }

    /// All of them together.
    pub fn fleet(&self, now: Instant) -> Fleet {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = |member: &&Member| {
            member.suspect_since.is_some_and(|since| now.saturating_duration_since(since) < TOGETHER)
        };
        Fleet {
            shards: members.values().filter(|member| member.standing.has_primary).count(),
            suspect: members.values().filter(lately).count(),
            slow: members.values().filter(|member| member.standing.is_slow).count(),
            managers: members.values().map(|member| member.standing.managers).sum(),
            silent: members.values().map(|member| member.standing.silent).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_count_together_only_while_their_trouble_is_new() {
        let start = Instant::now();
        let company = Company::default();
        let suspect = Standing { has_primary: true, is_suspect: true, is_slow: false, managers: 3, silent: 1 };
        company.stand("ns", "a", suspect, start);
        company.stand("ns", "b", Standing { is_suspect: false, is_slow: true, ..suspect }, start);
        assert_eq!(company.fleet(start), Fleet { shards: 2, suspect: 1, slow: 1, managers: 6, silent: 2 });
        company.stand("ns", "a", suspect, start + TOGETHER);
        assert_eq!(company.fleet(start + TOGETHER).suspect, 0);
        company.leave("ns", "a");
        assert_eq!(company.fleet(start).shards, 1);
    }
}
