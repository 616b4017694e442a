//! What was still answered, and still written, under an epoch that was over. Pure.
//!
//! The query API may give no answer under an epoch once a later one is in office: [`answers`] counts those that it gave. A
//! client with a connection of its own to the old primary follows no route; [`direct`] tells what it could still do.

use understudy_lab_outcome::Direct;

use crate::gaps::seconds;
use crate::ledger::book::{Book, Served};
use crate::ledger::watched::Watched;
use crate::ledger::{Act, Stamp};

/// Another primary took office.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Office {
    replica: String,
    epoch: u64,
    /// When its epoch was first seen, in microseconds.
    claimed: u64,
    /// When it was first named as primary, in microseconds.
    published: u64,
}

/// Answers of the query API that were over when they were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stale {
    /// How many.
    pub answers: u64,
    /// Of how many: those that were asked for after another primary was published, and say who answered for its shard.
    pub of: u64,
    /// From when the new primary was published to the last of them, in seconds.
    pub seconds: f64,
}

/// The changes of primary among what a shard's status named.
fn offices(primaries: &[(Stamp, String, u64)]) -> Vec<Office> {
    let changed = |pair: &[(Stamp, String, u64)]| {
        let [(_, before, _), (at, replica, epoch)] = pair else { return None };
        let first = primaries.iter().find(|(_, _, seen)| seen >= epoch)?;
        (before != replica).then(|| Office {
            replica: replica.clone(),
            epoch: *epoch,
            claimed: first.0.0.min(at.0),
            published: at.0,
        })
    };
    primaries.windows(2).filter_map(changed).collect()
}

/// Stale answers of the query API; None when no primary changed.
pub fn answers(book: &Book) -> Option<Stale> {
    let offices: Vec<(&String, Vec<Office>)> =
        book.shards.iter().map(|(shard, watched)| (shard, offices(&watched.primaries))).collect();
    if offices.iter().all(|(_, of)| of.is_empty()) {
        return None;
    }
    let over = |served: &Served| {
        let asked_after = |office: &&Office| office.published < served.asked.0;
        let lower = offices.iter().filter_map(|(shard, of)| {
            let epoch = served.shards.get(*shard)?.epoch;
            of.iter().filter(asked_after).find(|office| office.epoch > epoch)
        });
        let went_back = (!served.behind.is_empty())
            .then(|| offices.iter().flat_map(|(_, of)| of).filter(asked_after).max_by_key(|office| office.published));
        lower.chain(went_back.flatten()).map(|office| office.published).min()
    };
    let counts = |served: &Served| {
        let is_later = |office: &Office| office.published < served.asked.0;
        offices.iter().any(|(shard, of)| served.shards.contains_key(*shard) && of.iter().any(is_later))
    };
    let mut stale = Stale::default();
    for served in &book.served {
        stale.of += u64::from(counts(served));
        if let Some(published) = over(served) {
            stale.answers += 1;
            stale.seconds = stale.seconds.max(between(published, served.at.0));
        }
    }
    Some(stale)
}

/// What a client of the first primary could still do once its successor's epoch was claimed; None when it has no successor, or
/// there was no such client.
pub fn direct(watched: &Watched) -> Option<Direct> {
    let replica = &watched.direct.first()?.replica;
    let office = offices(&watched.primaries).into_iter().find(|office| office.replica != *replica)?;
    let mut direct = Direct::default();
    for done in watched.direct.iter().filter(|done| done.at.0 >= office.claimed) {
        let (count, last) = match done.act {
            Act::Read => (&mut direct.reads, &mut direct.read_seconds),
            Act::Write => (&mut direct.writes, &mut direct.write_seconds),
        };
        *count += 1;
        *last = last.max(between(office.claimed, done.at.0));
    }
    Some(direct)
}

fn between(from: u64, to: u64) -> f64 {
    seconds(to.saturating_sub(from))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::watched::Done;
    use crate::ledger::{FORMAT, Record, Server};
    use crate::plan::tests::small;

    fn at(ms: u64) -> Stamp {
        Stamp(ms * 1000, 1_700_000_000_000 + ms as i64)
    }

    /// a under 4; 5 is claimed at 3 s and b published at 4 s.
    fn failed_over() -> Vec<(Stamp, String, u64)> {
        vec![(at(0), "a".into(), 4), (at(3000), "a".into(), 5), (at(4000), "b".into(), 5)]
    }

    fn served(epoch: u64, behind: &[u64], asked_ms: u64) -> Served {
        let server = Server { replica: "x".into(), epoch, is_primary: true };
        let (asked, at) = (at(asked_ms), at(asked_ms + 500));
        Served { shards: BTreeMap::from([("s".to_owned(), server)]), behind: behind.to_vec(), asked, at }
    }

    fn book(primaries: Vec<(Stamp, String, u64)>, served: Vec<Served>) -> Book {
        let run = Record::Run { format: FORMAT, run: small(), at: at(0) };
        let mut book = Book::read([Ok(run)]).unwrap();
        book.shards.insert("s".into(), Watched { primaries, ..Watched::default() });
        book.served = served;
        book
    }

    #[test]
    fn an_answer_is_stale_when_it_was_asked_for_after_the_next_primary_was_published() {
        let unnamed = Served { shards: BTreeMap::new(), ..served(4, &[], 4100) };
        for (case, answer, of, stale, seconds) in [
            ("of the new epoch", served(5, &[], 4100), 1, 0, 0.0),
            ("of the old epoch", served(4, &[], 4100), 1, 1, 0.6),
            ("asked before", served(4, &[], 3900), 0, 0, 0.0),
            ("going back afterwards", served(5, &[3], 5000), 1, 1, 1.5),
            ("going back before", served(4, &[3], 2000), 0, 0, 0.0),
            ("of nobody knows whom", unnamed, 0, 0, 0.0),
        ] {
            let found = answers(&book(failed_over(), vec![answer])).unwrap();
            assert_eq!((found.of, found.answers, found.seconds), (of, stale, seconds), "{case}");
        }
    }

    #[test]
    fn without_a_change_of_primary_nothing_can_be_stale() {
        let confirmed = vec![(at(0), "a".into(), 4), (at(3000), "a".into(), 5)];
        assert_eq!(answers(&book(confirmed, vec![served(4, &[], 4100)])), None);
    }

    #[test]
    fn a_direct_client_is_counted_from_the_claim_on() {
        let done = |act, ms| Done { replica: "a".into(), act, at: at(ms) };
        let (read, write) = (Act::Read, Act::Write);
        let direct_acts =
            vec![done(write, 2900), done(read, 2950), done(write, 3200), done(read, 3300), done(read, 9000)];
        let watched = Watched { primaries: failed_over(), direct: direct_acts, ..Watched::default() };
        let expected = Direct { reads: 2, read_seconds: 6.0, writes: 1, write_seconds: 0.2 };
        assert_eq!(direct(&watched), Some(expected));
        let alone = Watched { primaries: vec![(at(0), "a".into(), 4)], ..watched };
        assert_eq!(direct(&alone), None);
    }
}
