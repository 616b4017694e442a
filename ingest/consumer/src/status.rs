//! What a consumer is doing, for metrics, for `GET /v1/status` and for the Consumer's status. Pure.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::Instant;
use understudy_kafka::Trouble;

use crate::lanes::{Fault, Lane};
use crate::log::{End, Ends};
use crate::machine::State;

/// One moment of one consumer process.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The shard it feeds.
    pub shard: String,
    /// The word of its [`State`].
    pub state: &'static str,
    /// For a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether it applies records, or would if there were any.
    pub active: bool,
    /// The epoch of the route it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The primary it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The term it took, the last time it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Each partition that feeds the shard.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Its number.
    pub partition: i32,
    /// What it is doing.
    pub state: PartitionState,
    /// The offset of the next record to store; None when nothing was ever stored.
    pub next_offset: Option<i64>,
    /// The end of the log, as last heard.
    pub end: Option<i64>,
    /// Records in the log that are not stored.
    pub lag_records: i64,
    /// Age of the oldest of them, in seconds; None while that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// Everything acknowledged before this time is stored; milliseconds since 1970.
    pub complete_until_ms: i64,
    /// The offset that nobody passes who reads it into this shard, because another one is fed from there on; told once its row says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Records, or parts of records, that were put aside since the shard was made.
    pub dead_letters: u64,
    /// The word of the [`Fault`] that keeps it from going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<&'static str>,
    /// For a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// As the Consumer's status has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum PartitionState {
    /// It advances, or there is nothing to read.
    Running,
    /// It is told not to read it.
    Paused,
    /// It may not write where it is, or cannot reach the primary.
    Fenced,
    /// It cannot advance.
    Stuck,
}

impl Snapshot {
    /// Nothing known yet.
    pub fn idle(shard: &str) -> Self {
        Self {
            shard: shard.to_owned(),
            state: State::Idle.word(),
            message: None,
            active: false,
            epoch: None,
            primary: None,
            term: None,
            partitions: Vec::new(),
        }
    }
}

/// What there is to say about a state; None for the good ones.
pub fn message(state: &State) -> Option<String> {
    match state {
        State::Idle => Some("there is no primary to follow".to_owned()),
        State::Claiming { owner: Some(owner) } => Some(format!("{owner} owns the data")),
        State::Fenced(why) => Some(why.to_string()),
        State::Cut(why) => Some(why.to_string()),
        State::Stuck(why) => Some(why.clone()),
        State::Claiming { owner: None } | State::Running | State::Paused | State::Stopped => None,
    }
}

/// What a partition is doing, by what its consumer is doing and what its lane says.
pub fn partition_state(state: &State, lane: &Lane) -> (PartitionState, Option<String>) {
    match (state, lane.fault()) {
        (State::Fenced(_) | State::Cut(_) | State::Idle | State::Claiming { .. } | State::Stopped, _) => {
            (PartitionState::Fenced, message(state))
        }
        (_, Some(fault)) => (PartitionState::Stuck, Some(advice(fault))),
        (State::Stuck(_), None) => (PartitionState::Stuck, message(state)),
        (State::Paused, None) => (PartitionState::Paused, None),
        (State::Running, None) if lane.is_paused() => (PartitionState::Paused, None),
        (State::Running, None) => (PartitionState::Running, None),
    }
}

/// How old the oldest record is that is not stored, in seconds. `lag_records` is how many there are, if that is known; `oldest_ms` when the
/// first of them was sent, or a time up to which all is stored, in milliseconds since 1970. None while nothing tells.
pub fn delay(lag_records: Option<i64>, oldest_ms: Option<i64>, now_ms: i64) -> Option<f64> {
    match lag_records? {
        0 => Some(0.0),
        _ => oldest_ms.map(|oldest| (now_ms - oldest).max(0) as f64 / 1000.0),
    }
}

/// How long nothing may come before it is said that nothing does.
const PATIENCE: Duration = Duration::from_secs(5);
/// How old the ends of the log may be to tell that there is nothing to read. They are asked for every 2 s.
const FRESH: Duration = Duration::from_secs(10);

/// What is known of the delivery of one partition.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// What the reader was last told by the brokers, whichever partition it was about.
    pub trouble: Option<&'a Trouble>,
    /// The ends of the log.
    pub ends: &'a Ends,
    /// When the last record of the partition came, if one did.
    pub came: Option<(Instant, SystemTime)>,
}

/// Why nothing comes of a partition that is read, for a person; None as long as records come, or are known not to be there. It names times
/// and not ages, so that it stays the same while nothing changes.
pub fn silence(partition: i32, lane: &Lane, delivery: Delivery<'_>, now: Instant) -> Option<String> {
    let Delivery { trouble, ends, came } = delivery;
    let fresh = |end: &&End| now.saturating_duration_since(end.asked) < FRESH;
    let known = ends.partitions.get(&partition).filter(fresh);
    if lane.is_finished() || known.is_some_and(|end| lane.to_store(end.end) == 0) {
        return None;
    }
    let lasting = |(since, _): &(Instant, SystemTime)| now.saturating_duration_since(*since) >= PATIENCE;
    let reader = trouble.filter(|trouble| {
        let unanswered = came.is_none_or(|(at, _)| at < trouble.last);
        unanswered && trouble.is_going_on(now)
    });
    let silent = reader.and_then(|trouble| {
        let began = (trouble.since, trouble.since_time);
        let (_, time) = came.filter(|came| came.0 > began.0).or(Some(began)).filter(lasting)?;
        Some(format!("nothing of it came since {}: {}", clock(time), trouble.what))
    });
    silent.or_else(|| {
        let trouble = ends.trouble.as_ref().filter(|_| known.is_none())?;
        let (_, time) = Some((trouble.since, trouble.since_time)).filter(lasting)?;
        Some(format!("how far the topic goes is not known since {}: {}", clock(time), trouble.what))
    })
}

fn advice(fault: &Fault) -> String {
    format!("{fault}; {}; other partitions go on", fault.remedy())
}

/// Whole seconds of the clock on the wall.
fn clock(time: SystemTime) -> String {
    let text = |at: jiff::Timestamp| at.strftime("%FT%TZ").to_string();
    jiff::Timestamp::try_from(time).map_or_else(|_| "an unknown time".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lanes::{Holes, Lanes};
    use crate::placement::Spans;

    /// A partition that is stored up to 10.
    fn lanes(spans: Spans) -> Lanes {
        let mut lanes = Lanes::default();
        lanes.load(&[(0, spans)].into(), &[], &[(0, 10)].into());
        lanes
    }

    #[test]
    fn what_is_not_stored_is_as_old_as_is_known_and_never_new_because_nothing_is() {
        for (case, records, oldest, expected) in [
            ("all is stored", Some(0), Some(1_000), Some(0.0)),
            ("all is stored, and nothing ever was", Some(0), None, Some(0.0)),
            ("there is more, and all before is stored", Some(3), Some(1_000), Some(9.0)),
            ("the clock of who sent it is ahead", Some(3), Some(11_000), Some(0.0)),
            ("there is more, and nothing tells since when", Some(3), None, None),
            ("how much there is was not heard", None, Some(1_000), None),
        ] {
            assert_eq!(delay(records, oldest, 10_000), expected, "{case}");
        }
    }

    #[test]
    fn a_partition_of_which_nothing_comes_says_why_unless_nothing_is_there() {
        let (start, time) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let at = |seconds| start + Duration::from_secs(seconds);
        let wall = |seconds| time + Duration::from_secs(seconds);
        // Complaints from a first second to a last one.
        let run = |(first, last): (u64, u64), what: &str| {
            let mut trouble = None;
            for second in first..=last {
                Trouble::add(&mut trouble, what.to_owned(), at(second), wall(second));
            }
            trouble
        };
        let refused = "nothing of it came since 1970-01-01T00:00:40Z: refused";
        let unknown = "how far the topic goes is not known since 1970-01-01T00:00:45Z: no answer";
        for (case, reader, end, ends, came, says) in [
            ("all is well", None, Some((59, 12)), None, Some(58), None),
            ("behind, and nobody complains", None, Some((59, 12)), None, Some(30), None),
            ("complaints, and records since", Some((40, 50)), Some((59, 12)), None, Some(55), None),
            ("complaints, and none since", Some((40, 60)), Some((59, 12)), None, Some(30), Some(refused)),
            ("the same, of one that never came", Some((40, 60)), Some((59, 12)), None, None, Some(refused)),
            ("records between complaints", Some((30, 60)), Some((59, 12)), None, Some(40), Some(refused)),
            ("complaints, for a moment", Some((57, 60)), Some((59, 12)), None, Some(30), None),
            ("records until a moment ago", Some((30, 60)), Some((59, 12)), None, Some(57), None),
            ("complaints, and nothing to read", Some((40, 60)), Some((59, 10)), None, Some(30), None),
            ("nothing to read, as it was long ago", Some((40, 60)), Some((45, 10)), None, Some(30), Some(refused)),
            ("complaints, and no end ever heard", Some((40, 60)), None, None, None, Some(refused)),
            ("no end heard, and why", None, None, Some((45, 60)), None, Some(unknown)),
            ("the end not heard any more, and why", None, Some((44, 10)), Some((45, 60)), Some(30), Some(unknown)),
            ("not heard, for a moment", None, None, Some((57, 60)), None, None),
            ("both", Some((40, 60)), None, Some((45, 60)), None, Some(refused)),
        ] {
            let end = end.map(|(asked, end)| (0, End { earliest: 0, end, asked: at(asked), asked_ms: 0 }));
            let trouble = ends.and_then(|span| run(span, "no answer"));
            let ends = Ends { origin: None, partitions: end.into_iter().collect(), trouble };
            let reader = reader.and_then(|span| run(span, "refused"));
            let came = came.map(|second| (at(second), wall(second)));
            let delivery = Delivery { trouble: reader.as_ref(), ends: &ends, came };
            let lanes = lanes(Spans::from(0));
            let said = silence(0, lanes.get(0).unwrap(), delivery, at(60));
            assert_eq!(said.as_deref(), says, "{case}");
        }
    }

    #[test]
    fn an_old_complaint_is_not_told_of_a_partition_that_was_just_assigned() {
        let (now, mut trouble) = (Instant::now() + Duration::from_secs(3600), None);
        Trouble::add(&mut trouble, "refused".to_owned(), now - Duration::from_secs(600), SystemTime::UNIX_EPOCH);
        let delivery = Delivery { trouble: trouble.as_ref(), ends: &Ends::default(), came: None };
        assert_eq!(silence(0, lanes(Spans::from(0)).get(0).unwrap(), delivery, now), None);
    }

    #[test]
    fn a_partition_that_is_another_shards_from_here_on_is_not_missed() {
        let (start, mut trouble) = (Instant::now(), None);
        Trouble::add(&mut trouble, "refused".to_owned(), start, SystemTime::UNIX_EPOCH);
        let ends = Ends { origin: None, partitions: BTreeMap::new(), trouble: trouble.clone() };
        let delivery = Delivery { trouble: trouble.as_ref(), ends: &ends, came: None };
        let mut lanes = lanes(Spans::from(0).within(Some(11)));
        let now = start + Duration::from_secs(20);
        assert!(silence(0, lanes.get(0).unwrap(), delivery, now).is_some());
        assert_eq!(lanes.offer(0, 10, Holes::Refused), crate::lanes::Offer::Take);
        assert_eq!(silence(0, lanes.get(0).unwrap(), delivery, now), None);
    }
}
