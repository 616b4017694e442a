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
use crate::ledger::{Record, Stamp};
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
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = ticks.tick(), if reads.len() < AT_ONCE => {
                let furthest_behind = newest.values().copied().min().unwrap_or(run.start_ms);
                let now = Timestamp::now().as_millisecond();
                let from = furthest_behind.max(now - REACH_MS);
                reads.push(read(&run, &query, &ledger, (from, now + 1000), None));
            }
            Some((asked, outcome)) = reads.next() => {
                let at = ledger.clock.now();
                let record = match outcome {
                    Ok(answer) => Record::Visible { newest: advance(&mut newest, newest_of(&run, &answer.series)), asked, at },
                    Err(failure) => Record::VisibleFailed { why: format!("{failure:#}"), at },
                };
                ledger.record(record)?;
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
}
