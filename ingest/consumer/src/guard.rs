//! What a transaction must find in the shard before it may write. Pure.
//!
//! Three rows decide: the shard's epoch, the consumer's owner, and the next offset of each partition. They are in the same MySQL as the
//! data, so a server that was promoted with old data has the old rows too, and the three always agree with the data beside them.

use std::collections::BTreeMap;
use std::fmt;

use understudy_wire::Epoch;

/// One process of a consumer. A process that starts again is another owner: what it believed is forgotten, so it must not be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(String);

/// Longest owner that the column holds, in characters.
const OWNER_CHARS: usize = 128;

impl OwnerId {
    /// The pod and something no other process of it ever has.
    pub fn new(pod: &str, incarnation: &str) -> Self {
        Self(format!("{pod}/{incarnation}").chars().take(OWNER_CHARS).collect())
    }

    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Counts the changes of ownership of one consumer on one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// A row of `understudy.consumer_owner`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerRow {
    /// Empty when it was given up.
    pub owner: String,
    /// Grows with each change of owner.
    pub term: Term,
    /// Changes with each commit of the owner, and says nothing else.
    pub beat: u64,
}

/// Whether the process of the owner row has a connection to the server. A hint only: what may be written, the rows decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has one, or one of it has not ended yet.
    Connected,
    /// It has none, or nobody owns the consumer.
    Absent,
}

/// What a server says to a process that wants to write there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// None when the server has none.
    pub epoch: Option<Epoch>,
    /// None when the consumer never wrote here.
    pub owner: Option<OwnerRow>,
    /// Of that owner.
    pub presence: Presence,
}

/// What this process must be to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// This process.
    pub owner: OwnerId,
    /// The term it took.
    pub term: Term,
    /// The epoch of the route it follows.
    pub epoch: Epoch,
}

/// Why this process may not write here now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fenced {
    /// The server is of another epoch: it was not promoted yet, or no longer serves, or the route is old.
    #[error("the server is at epoch {found}, the route at {wanted}")]
    Epoch {
        /// That of the route.
        wanted: Epoch,
        /// That of the server.
        found: Epoch,
    },
    /// The server has no epoch: it was never a primary.
    #[error("the server has no epoch")]
    NoEpoch,
    /// Somebody else owns the consumer, or nobody, or this process in another life of the data.
    #[error("owned by {found:?} in term {}, not by this process in term {}", term.0, mine.0)]
    Owner {
        /// Who.
        found: String,
        /// In which term.
        term: Term,
        /// The term this process took.
        mine: Term,
    },
}

impl Guard {
    /// To be asked inside each transaction, with the rows locked.
    pub fn check(&self, epoch: Option<Epoch>, row: Option<&OwnerRow>) -> Result<(), Fenced> {
        check_epoch(self.epoch, epoch)?;
        let row = row.cloned().unwrap_or_default();
        if row.owner != self.owner.as_str() || row.term != self.term {
            return Err(Fenced::Owner { found: row.owner, term: row.term, mine: self.term });
        }
        Ok(())
    }
}

/// The part of the check that a claim needs too.
pub fn check_epoch(wanted: Epoch, found: Option<Epoch>) -> Result<(), Fenced> {
    match found {
        None => Err(Fenced::NoEpoch),
        Some(found) if found != wanted => Err(Fenced::Epoch { wanted, found }),
        Some(_) => Ok(()),
    }
}

/// A stored offset that is not the one this process wrote last: what it holds in memory does not follow on the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition} is stored up to {found:?}, expected {expected:?}")]
pub struct Diverged {
    /// Which partition.
    pub partition: i32,
    /// As this process remembers it; None for never stored.
    pub expected: Option<i64>,
    /// As it is stored.
    pub found: Option<i64>,
}

/// Holds the offsets that a transaction would move against what is stored.
pub fn check_offsets(expected: &BTreeMap<i32, Option<i64>>, stored: &BTreeMap<i32, i64>) -> Result<(), Diverged> {
    for (&partition, &expected) in expected {
        let found = stored.get(&partition).copied();
        if found != expected {
            return Err(Diverged { partition, expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(owner: &str, term: u64) -> OwnerRow {
        OwnerRow { owner: owner.to_owned(), term: Term(term), beat: 9 }
    }

    #[test]
    fn only_the_owner_of_the_term_under_the_epoch_may_write() {
        let guard = Guard { owner: OwnerId::new("a", "1"), term: Term(4), epoch: Epoch(7) };
        let mine = row("a/1", 4);
        let owner = |found: &str, term| Fenced::Owner { found: found.into(), term: Term(term), mine: Term(4) };
        for (case, epoch, row, expected) in [
            ("mine", Some(7), Some(mine.clone()), Ok(())),
            ("not promoted yet", Some(6), Some(mine.clone()), Err(Fenced::Epoch { wanted: Epoch(7), found: Epoch(6) })),
            ("an old route", Some(8), Some(mine.clone()), Err(Fenced::Epoch { wanted: Epoch(7), found: Epoch(8) })),
            ("never a primary", None, Some(mine), Err(Fenced::NoEpoch)),
            ("nobody's", Some(7), None, Err(owner("", 0))),
            ("given up", Some(7), Some(row("", 4)), Err(owner("", 4))),
            ("another process of the pod", Some(7), Some(row("a/2", 4)), Err(owner("a/2", 4))),
            ("mine before somebody took it and lost it", Some(7), Some(row("a/1", 3)), Err(owner("a/1", 3))),
        ] {
            assert_eq!(guard.check(epoch.map(Epoch), row.as_ref()), expected, "{case}");
        }
    }

    #[test]
    fn offsets_must_be_where_this_process_left_them() {
        let diverged = |expected, found| Err(Diverged { partition: 3, expected, found });
        for (case, expected, stored, outcome) in [
            ("as left", Some(5), Some(5), Ok(())),
            ("never stored", None, None, Ok(())),
            ("a lagging replica", Some(5), Some(2), diverged(Some(5), Some(2))),
            ("a lagging replica that has none", Some(5), None, diverged(Some(5), None)),
            ("somebody was here", Some(5), Some(6), diverged(Some(5), Some(6))),
            ("somebody was here first", None, Some(1), diverged(None, Some(1))),
        ] {
            let stored = stored.map(|offset| (3, offset)).into_iter().collect();
            assert_eq!(check_offsets(&BTreeMap::from([(3, expected)]), &stored), outcome, "{case}");
        }
    }
}
