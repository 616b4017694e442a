//! The newest readable sample of each group, asked for every 100 ms through the query API. I/O, but for [`newest_of`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::ledger::writer::{Ledger, LedgerError};
use crate::ledger::{Record, Server, Stamp};
use crate::plan::{CANARY, Run, Series};
use crate::prom::TimeSeries;
use crate::query::{Answer, Query};

/// Time between two reads.
const EVERY: Duration = Duration::from_millis(100);
/// Reads that may be unanswered at once; a slow one does not hold up the next.
const AT_ONCE: usize = 8;
/// How far back a read reaches at most. A group further behind is seen again once it comes this near.
const REACH_MS: i64 = 60_000;
/// Time between two looks at which shard holds which group.
const LOCATE_EVERY: Duration = Duration::from_secs(10);

/// Reads and records until cancelled.
pub async fn watch_visible(
    run: Arc<Run>,
    query: Query,
    ledger: Ledger,
    cancel: CancellationToken,
) -> Result<(), LedgerError> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut reads = FuturesUnordered::new();
    let mut newest: BTreeMap<u64, i64> = (0..run.groups()).map(|group| (group, run.start_ms - 1)).collect();
    let mut shown = Shown::default();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = ticks.tick(), if reads.len() < AT_ONCE => {
                let furthest_behind = newest.values().copied().min().unwrap_or(run.start_ms);
                let now = Timestamp::now().as_millisecond();
                let from = furthest_behind.max(now - REACH_MS);
                let before = Before { generation: shown.generation, newest: shown.newest.clone(), from };
                let reading = read(&run, &query, &ledger, (from, now + 1000), None);
                reads.push(async move { (before, reading.await) });
            }
            Some((before, (asked, outcome))) = reads.next() => {
                let at = ledger.clock.now();
                match outcome {
                    Ok(answer) => {
                        let found = newest_of(&run, &answer.series);
                        let behind = shown.take(&before, &answer.served, &found);
                        ledger.record(Record::Visible { newest: advance(&mut newest, found), asked, at })?;
                        ledger.record(Record::Served { shards: answer.served, behind, asked, at })?;
                    }
                    Err(failure) => ledger.record(Record::VisibleFailed { why: format!("{failure:#}"), at })?,
                }
            }
        }
    }
}

/// Records which shard holds which group, until cancelled. Only names figures; nothing is missed when it fails.
pub async fn locate_groups(
    run: Arc<Run>,
    query: Query,
    shards: Vec<String>,
    ledger: Ledger,
    cancel: CancellationToken,
) -> Result<(), LedgerError> {
    let mut ticks = interval(LOCATE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Nothing has been stored yet.
    ticks.reset();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let now = Timestamp::now().as_millisecond();
        for shard in &shards {
            let range = (now - LOCATE_EVERY.as_millis() as i64, now);
            let answer = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                (_, answer) = read(&run, &query, &ledger, range, Some(shard)) => answer,
            };
            let Ok(answer) = answer else { continue };
            let groups = newest_of(&run, &answer.series).into_keys().collect();
            ledger.record(Record::Where { shard: shard.clone(), groups, at: ledger.clock.now() })?;
        }
    }
}

async fn read(
    run: &Run,
    query: &Query,
    ledger: &Ledger,
    range_ms: (i64, i64),
    shard: Option<&str>,
) -> (Stamp, anyhow::Result<Answer>) {
    let asked = ledger.clock.now();
    (asked, query.read(range_ms, &[("__name__", CANARY), ("run", &run.id)], shard).await)
}

/// The newest timestamp of each group's canary.
fn newest_of(run: &Run, series: &[TimeSeries]) -> BTreeMap<u64, i64> {
    let newest = |series: &TimeSeries| {
        let labels = series.labels.iter().map(|label| (label.name.as_str(), label.value.as_str()));
        let Some(Series::Canary(group)) = run.series_of(labels) else { return None };
        Some((group, series.samples.iter().map(|sample| sample.timestamp).max()?))
    };
    series.iter().filter_map(newest).collect()
}

/// Takes over what is newer than known, and returns just that: answers may overtake each other.
fn advance(known: &mut BTreeMap<u64, i64>, found: BTreeMap<u64, i64>) -> BTreeMap<u64, i64> {
    let is_newer = |(group, timestamp): &(u64, i64)| known.get(group).is_none_or(|known| timestamp > known);
    let newer: BTreeMap<u64, i64> = found.into_iter().filter(is_newer).collect();
    known.extend(&newer);
    newer
}

/// The newest canaries that primaries have shown since one of them took office: a later read must not show less.
#[derive(Debug, Default)]
struct Shown {
    generation: u64,
    epochs: BTreeMap<String, u64>,
    newest: BTreeMap<u64, i64>,
}

/// What had been shown when a read was asked for, and from when on it reads.
#[derive(Debug)]
struct Before {
    generation: u64,
    newest: BTreeMap<u64, i64>,
    from: i64,
}

impl Shown {
    /// Takes an answer in; the groups in which it shows less than had been shown before it was asked for. Whoever takes office
    /// may have less than the one before until it has caught up, so that begins anew; and a standby may be behind.
    fn take(&mut self, before: &Before, served: &BTreeMap<String, Server>, found: &BTreeMap<u64, i64>) -> Vec<u64> {
        let is_higher =
            |(shard, server): (&String, &Server)| self.epochs.get(shard).is_none_or(|known| server.epoch > *known);
        if served.iter().any(is_higher) {
            self.generation += 1;
            self.newest.clear();
            for (shard, server) in served {
                let known = self.epochs.entry(shard.clone()).or_default();
                *known = server.epoch.max(*known);
            }
        }
        let in_office =
            |(shard, epoch): (&String, &u64)| served.get(shard).is_some_and(|s| s.is_primary && s.epoch == *epoch);
        if self.epochs.is_empty() || !self.epochs.iter().all(in_office) {
            return Vec::new();
        }
        let shows_less = |(group, known): &(&u64, &i64)| {
            **known >= before.from && found.get(*group).is_none_or(|found| found < *known)
        };
        let is_comparable = before.generation == self.generation;
        let behind =
            before.newest.iter().filter(|_| is_comparable).filter(shows_less).map(|(group, _)| *group).collect();
        for (group, timestamp) in found {
            let known = self.newest.entry(*group).or_insert(*timestamp);
            *known = (*timestamp).max(*known);
        }
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::small;
    use crate::prom::{Label, Sample};

    fn series(run: &Run, of: Series, timestamps: &[i64]) -> TimeSeries {
        let labels = run.labels(of).into_iter().map(|(name, value)| Label { name: name.into(), value });
        let samples = timestamps.iter().map(|timestamp| Sample { value: 0.0, timestamp: *timestamp });
        TimeSeries { labels: labels.collect(), samples: samples.collect() }
    }

    #[test]
    fn only_canaries_of_this_run_count() {
        let run = small();
        let mut foreign = series(&run, Series::Canary(3), &[99]);
        foreign.labels[3].value = "another".into();
        let answer = [
            series(&run, Series::Canary(1), &[5, 7, 6]),
            series(&run, Series::Counted(1), &[9]),
            series(&run, Series::Canary(2), &[]),
            foreign,
        ];
        assert_eq!(newest_of(&run, &answer), BTreeMap::from([(1, 7)]));
    }

    #[test]
    fn an_answer_that_was_overtaken_changes_nothing() {
        let mut known = BTreeMap::from([(1, 10), (2, 10)]);
        assert_eq!(advance(&mut known, BTreeMap::from([(1, 9), (2, 11)])), BTreeMap::from([(2, 11)]));
        assert_eq!(known, BTreeMap::from([(1, 10), (2, 11)]));
    }

    fn by(epochs: &[(&str, u64, bool)]) -> BTreeMap<String, Server> {
        let server = |epoch, is_primary| Server { replica: "r".into(), epoch, is_primary };
        epochs.iter().map(|(shard, epoch, is_primary)| ((*shard).to_owned(), server(*epoch, *is_primary))).collect()
    }

    fn before(shown: &Shown) -> Before {
        Before { generation: shown.generation, newest: shown.newest.clone(), from: 0 }
    }

    #[test]
    fn an_answer_goes_back_only_against_what_the_same_primaries_had_shown_before_it_was_asked_for() {
        let old = by(&[("s-0", 4, true), ("s-1", 7, true)]);
        let new = by(&[("s-0", 5, true), ("s-1", 7, true)]);
        let standby = by(&[("s-0", 4, true), ("s-1", 7, false)]);
        let part = by(&[("s-0", 4, true)]);
        let (more, less, none) = ([(1, 10), (2, 20)].into(), [(1, 9), (2, 20)].into(), BTreeMap::new());
        for (case, served, found, expected) in [
            ("no less", &old, &more, &[][..]),
            ("less", &old, &less, &[1][..]),
            ("nothing", &old, &none, &[1, 2][..]),
            ("less by a new primary that has yet to catch up", &new, &less, &[][..]),
            ("less by a standby", &standby, &less, &[][..]),
            ("without a shard", &part, &none, &[][..]),
        ] {
            let mut shown = Shown::default();
            let first = before(&shown);
            assert!(shown.take(&first, &old, &more).is_empty(), "{case}");
            let asked = before(&shown);
            assert_eq!(shown.take(&asked, served, found), expected, "{case}");
        }
    }

    #[test]
    fn a_read_that_was_asked_for_earlier_may_show_less() {
        let primaries = by(&[("s-0", 4, true)]);
        let mut shown = Shown::default();
        let first = before(&shown);
        shown.take(&first, &primaries, &[(1, 5)].into());
        let early = before(&shown);
        shown.take(&early, &primaries, &[(1, 9)].into());
        assert!(shown.take(&early, &primaries, &[(1, 7)].into()).is_empty());
        let late = before(&shown);
        assert_eq!(shown.take(&late, &primaries, &[(1, 7)].into()), [1]);
    }
}
