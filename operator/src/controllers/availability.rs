//! Availability as statuses show it: from what was decided of it and back. Pure.

use std::ops::Deref;

use k8s_openapi::jiff::Timestamp;
use understudy_api::Failover;
use understudy_api::v1alpha1::{
    Availability, AvailabilityDay, AvailabilityLedger, FailoverKind, FailoverPhase, FailoverResult, FailoverStatus,
};
use understudy_decide::availability::{
    COMMIT_PATIENCE, Day, Incident, Ledger, Sort, Summary, Tally, WINDOW_DAYS, apart,
};
use understudy_decide::failover::record::Milestone;
use understudy_wire::Epoch;
use understudy_wire::evidence::Millis;

/// Seconds before the first sign of a change within which a consumer that was at work has committed: it does so four times a second, and a
/// statement that hangs is a sign after two.
const COMMITS_WITHIN: i64 = 10;

/// The times without writes that records tell of. Requests that nobody took up tell of none.
pub fn incidents<F: Deref<Target = Failover>>(records: &[F], now: Timestamp) -> Vec<Incident> {
    apart(records.iter().filter_map(|record| incident(record, now)).collect(), now)
}

fn incident(record: &Failover, now: Timestamp) -> Option<Incident> {
    let status = record.status.as_ref()?;
    let epoch = epoch_of(record)?;
    let begun = status.started_at.as_ref()?.0;
    let closed = (status.phase == FailoverPhase::Closed).then(|| status.finished_at.as_ref().map_or(begun, |at| at.0));
    let sort = sort(record, status);
    // From there on a write would have been taken, whether or not there was one: that the new primary does not take any is a verdict.
    let routed = at(status, Milestone::Routed).or(status.promoted_at.as_ref().map(|at| at.0));
    let writers = Writers::of(status, begun, routed.or(closed), now);
    let taken = writers.came().or(routed).or(closed);
    let (from, until) = match (writers, sort) {
        (Writers::Waited { from, until }, _) => (from, Some(until)),
        (_, Sort::Confirmation) => (begun, Some(begun)),
        // Consumers go on storing until the old primary refuses writes.
        (_, Sort::Switchover) => match at(status, Milestone::Fenced) {
            Some(fenced) => (fenced, taken),
            None => (begun, Some(begun)),
        },
        (_, Sort::Failover | Sort::Drill) => (begun, taken),
    };
    Some(Incident { epoch, sort, from, until, closed })
}

/// What is known of those who write, around a change of primary.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writers {
    /// One was committing when the primary fell, and has committed since: the time between the two commits.
    Waited { from: Timestamp, until: Timestamp },
    /// One committed soon after the route was moved; what it did before is not known.
    Came(Timestamp),
    /// None did. Perhaps there was none: it is not known that anybody was kept waiting after the route was moved.
    Unseen,
}

impl Writers {
    /// `begun` is the first sign of the change, `routed` when the new primary could be found.
    fn of(status: &FailoverStatus, begun: Timestamp, routed: Option<Timestamp>, now: Timestamp) -> Self {
        let committed = at(status, Milestone::FirstCommit);
        if let Some(gap) = status.write_gap_seconds {
            let until = committed.or(routed).unwrap_or(now);
            let from = earlier(until, gap);
            if begun.as_second().saturating_sub(from.as_second()) <= COMMITS_WITHIN {
                return Self::Waited { from, until };
            }
        }
        let is_soon = |commit: &Timestamp| {
            routed.is_none_or(|routed| commit.as_second().saturating_sub(routed.as_second()) <= COMMIT_PATIENCE)
        };
        committed.filter(is_soon).map_or(Self::Unseen, Self::Came)
    }

    /// When one committed that may have waited.
    fn came(self) -> Option<Timestamp> {
        match self {
            Self::Waited { until, .. } => Some(until),
            Self::Came(at) => Some(at),
            Self::Unseen => None,
        }
    }
}

/// The latest epoch of a record; None of a request that was not taken up.
pub fn epoch_of(record: &Failover) -> Option<Epoch> {
    let epoch = u64::try_from(record.status.as_ref()?.epoch?).ok()?;
    Some(Epoch(epoch))
}

fn sort(record: &Failover, status: &FailoverStatus) -> Sort {
    let stays = status.from.is_some() && status.from == status.to;
    match (status.result, record.spec.kind) {
        (Some(FailoverResult::Confirmed | FailoverResult::Failed | FailoverResult::Refused), _) => Sort::Confirmation,
        // What a later version wrote: only what it measured is known.
        (Some(FailoverResult::Unknown), _) | (_, FailoverKind::Unknown) => Sort::Confirmation,
        _ if stays => Sort::Confirmation,
        _ if record.drill().is_some() => Sort::Drill,
        (_, FailoverKind::Failover) => Sort::Failover,
        (_, FailoverKind::Switchover) => Sort::Switchover,
    }
}

fn at(status: &FailoverStatus, step: Milestone) -> Option<Timestamp> {
    let step = step.to_string();
    status.timeline.iter().find(|entry| entry.step == step).map(|entry| entry.at.0)
}

fn earlier(than: Timestamp, seconds: f64) -> Timestamp {
    Timestamp::from_millisecond(than.as_millisecond().saturating_sub(signed(millis(seconds)))).unwrap_or(than)
}

/// What decisions know of a ledger. An entry that is none is left out.
pub fn ledger(told: &AvailabilityLedger) -> Ledger {
    let count = |count: i32| u32::try_from(count).unwrap_or(0);
    let epoch = |epoch: i64| Epoch(u64::try_from(epoch).unwrap_or(0));
    let day = |entry: &AvailabilityDay| {
        let tally = Tally {
            unavailable: millis(entry.unavailable_seconds),
            repair: millis(entry.repair_seconds),
            failovers: count(entry.failovers),
            switchovers: count(entry.switchovers),
            drills: count(entry.drills),
        };
        Some((Day::parse(&entry.day)?, tally))
    };
    Ledger {
        days: told.days.iter().filter_map(day).collect(),
        counted: epoch(told.counted_epoch),
        open: told.open_epochs.iter().copied().map(epoch).collect(),
    }
}

/// The same as a status tells it.
pub fn told(ledger: &Ledger) -> AvailabilityLedger {
    let epoch = |epoch: Epoch| i64::try_from(epoch.0).unwrap_or(i64::MAX);
    let day = |(day, tally): (&Day, &Tally)| AvailabilityDay {
        day: day.to_string(),
        unavailable_seconds: seconds(tally.unavailable),
        repair_seconds: seconds(tally.repair),
        failovers: count(tally.failovers),
        switchovers: count(tally.switchovers),
        drills: count(tally.drills),
    };
    AvailabilityLedger {
        days: ledger.days.iter().map(day).collect(),
        counted_epoch: epoch(ledger.counted),
        open_epochs: ledger.open.iter().copied().map(epoch).collect(),
    }
}

/// A summary as a status tells it.
pub fn availability(sum: &Summary) -> Availability {
    #[allow(clippy::cast_precision_loss, reason = "a month has fewer seconds than 2^52")]
    let mtbf = |seconds: u64| seconds as f64;
    Availability {
        window_days: i32::try_from(WINDOW_DAYS).unwrap_or(i32::MAX),
        unavailable_seconds: seconds(sum.unavailable),
        failovers: count(sum.failovers),
        switchovers: count(sum.switchovers),
        drills: count(sum.drills),
        mtbf_seconds: sum.mtbf_seconds().map(mtbf),
        mttr_seconds: sum.mttr().map(seconds),
    }
}

/// That of a store, from those of its shards.
pub fn of_store<'a>(shards: impl IntoIterator<Item = &'a Availability>, observed_days: i64) -> Availability {
    let number = |count: i32| u32::try_from(count).unwrap_or(0);
    let summary = |shard: &Availability| Summary {
        observed_days,
        unavailable: millis(shard.unavailable_seconds),
        repair: millis(shard.mttr_seconds.unwrap_or(0.0) * f64::from(shard.failovers)),
        failovers: number(shard.failovers),
        switchovers: number(shard.switchovers),
        drills: number(shard.drills),
    };
    availability(&Summary::of_all(shards.into_iter().map(summary), observed_days))
}

fn count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn seconds(millis: Millis) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a month has fewer milliseconds than 2^52")]
    let millis = millis as f64;
    millis / 1_000.0
}

/// Nothing for what is no length of time.
fn millis(seconds: f64) -> Millis {
    let millis = (seconds * 1_000.0).round().clamp(0.0, 1e15);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was clamped; NaN becomes 0")]
    let millis = millis as Millis;
    millis
}

fn signed(millis: Millis) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use understudy_decide::availability::SETTLED;

    use super::*;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A record with these steps, each so many seconds after the first.
    fn record(kind: &str, steps: &[(&str, i64)], more: Value) -> Box<Failover> {
        let timeline: Vec<_> = steps
            .iter()
            .map(|(step, second)| json!({ "step": step, "at": time(*second).to_string(), "elapsedMs": second * 1_000 }))
            .collect();
        let mut status = json!({ "epoch": 5, "startedAt": time(0).to_string(), "timeline": timeline });
        for (key, value) in more.as_object().unwrap() {
            status[key] = value.clone();
        }
        let object = json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover", "metadata": { "name": "m-5", "namespace": "prod" },
            "spec": { "shard": "m", "kind": kind, "epoch": 5 }, "status": status,
        });
        Box::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_record_tells_when_writes_ended_and_when_they_were_taken_again() {
        let closed = |result: &str| json!({ "phase": "Closed", "result": result, "finishedAt": time(30).to_string() });
        let with = |mut of: Value, key: &str, value: Value| {
            of[key] = value;
            of
        };
        let commits = [("FirstSign", 0), ("Claimed", 2), ("Fenced", 3), ("Promoted", 4), ("FirstCommit", 6)];
        let promoted = &commits[..4];
        let gap = with(closed("Succeeded"), "writeGapSeconds", json!(5.5));
        let open = json!({ "phase": "Rebuilding", "promotedAt": time(4).to_string() });
        let unseen = with(closed("Succeeded"), "promotedAt", json!(time(4).to_string()));
        let gap_of = |seconds: f64| with(unseen.clone(), "writeGapSeconds", json!(seconds));
        // A consumer that was scaled to nothing comes back, or one that was lost with the primary's node.
        let later = [("FirstSign", 0), ("Claimed", 2), ("Routed", 4), ("FirstCommit", 3_600)];
        let confirmed = with(closed("Confirmed"), "writeGapSeconds", json!(7_200.0));
        let milli = |millis: i64| Timestamp::from_millisecond(time(0).as_millisecond() + millis).unwrap();
        for (case, kind, steps, more, sort, from, until) in [
            ("measured", "Failover", &commits[..], gap.clone(), Sort::Failover, 500, Some(6_000)),
            ("a planned one, measured", "Switchover", &commits[..], gap, Sort::Switchover, 500, Some(6_000)),
            ("nobody measured", "Failover", &commits[..], closed("Succeeded"), Sort::Failover, 0, Some(6_000)),
            ("nobody is primary yet", "Failover", &commits[..2], json!({}), Sort::Failover, 0, None),
            ("nobody committed yet", "Failover", promoted, open.clone(), Sort::Failover, 0, Some(4_000)),
            ("nobody commits at all", "Failover", promoted, unseen.clone(), Sort::Failover, 0, Some(4_000)),
            ("nobody was there for an hour", "Failover", &later[..], unseen.clone(), Sort::Failover, 0, Some(4_000)),
            ("nobody was there before", "Failover", &later[..], gap_of(7_200.0), Sort::Failover, 0, Some(4_000)),
            ("one waited for an hour", "Failover", &later[..], gap_of(3_600.5), Sort::Failover, -500, Some(3_600_000)),
            (
                "a planned one without consumers",
                "Switchover",
                promoted,
                gap_of(7_200.0),
                Sort::Switchover,
                3_000,
                Some(4_000),
            ),
            ("a near miss without consumers", "Failover", &commits[..2], confirmed, Sort::Confirmation, 0, Some(0)),
            ("a planned one that goes on", "Switchover", promoted, open, Sort::Switchover, 3_000, Some(4_000)),
            ("a planned one that has just begun", "Switchover", &commits[..2], json!({}), Sort::Switchover, 0, Some(0)),
            ("a near miss", "Failover", &commits[..2], closed("Confirmed"), Sort::Confirmation, 0, Some(0)),
            ("given up for another", "Failover", &commits[..2], closed("Failed"), Sort::Confirmation, 0, Some(0)),
        ] {
            let found = incident(&record(kind, steps, more), time(60)).unwrap();
            assert_eq!((found.sort, found.from, found.until), (sort, milli(from), until.map(milli)), "{case}");
        }
        let later = record("Failover", promoted, json!({ "phase": "Closed", "result": "Admired" }));
        assert_eq!(incident(&later, time(60)).unwrap().sort, Sort::Confirmation, "how it ended is not known here");
        let mut rehearsed = record("Failover", &commits, closed("Succeeded"));
        rehearsed.spec.drill = Some("nightly".to_owned());
        assert_eq!(incident(&rehearsed, time(60)).unwrap().sort, Sort::Drill);
        let mut request = record("Switchover", &[], json!({}));
        request.status.as_mut().unwrap().epoch = None;
        assert_eq!(incident(&request, time(60)), None, "nobody took it up");
    }

    #[test]
    fn a_ledger_is_read_as_it_was_written() {
        let gap = json!({
            "phase": "Closed", "result": "Succeeded", "finishedAt": time(6).to_string(), "writeGapSeconds": 5.534,
        });
        let records = [record("Failover", &[("FirstCommit", 6)], gap)];
        let now = time(6 + SETTLED);
        let mut of = Ledger { open: [Epoch(2)].into(), counted: Epoch(3), ..Ledger::default() };
        of.take_over(&incidents(&records, now), now);
        let written = serde_json::to_value(told(&of)).unwrap();
        assert_eq!(ledger(&serde_json::from_value(written).unwrap()), of);
        let shown = availability(&of.summary(&[], None, time(0), now));
        assert_eq!((shown.failovers, shown.unavailable_seconds, shown.mttr_seconds), (1, 5.534, Some(5.534)));
    }

    #[test]
    fn a_store_is_its_shards_together() {
        let shard = |failovers: i32, unavailable_seconds: f64, mttr_seconds: Option<f64>| Availability {
            failovers,
            unavailable_seconds,
            mttr_seconds,
            switchovers: 2,
            ..Availability::default()
        };
        let store = of_store(&[shard(1, 4.0, Some(4.0)), shard(3, 6.5, Some(2.0)), shard(0, 0.5, None)], 10);
        assert_eq!((store.failovers, store.switchovers, store.unavailable_seconds), (4, 6, 11.0));
        assert_eq!((store.mttr_seconds, store.mtbf_seconds), (Some(2.5), Some(215_997.0)));
    }
}
