//! Which shard a partition feeds, from which offset on. Pure.
//!
//! Entries are only ever added. At first partition p feeds shard p modulo the shards, from offset 0. When there are more
//! shards, the partitions that belong to another shard by the same rule move, each at an offset that is a little ahead: the
//! consumer that reads the partition now should know of the move before it gets there, so it is put ten seconds of the present
//! traffic beyond the end.
//!
//! That alone would be a hope: a consumer whose watch is late would store what the new shard stores too. So a new entry is
//! pending, which ends the one before it and lets nobody begin, until each Consumer has said that it stops there. One that had
//! passed the offset before it heard says so by what it has stored; then the entry moves on to there, and waits again. A
//! Consumer says it only after its rows in the shard do, so it holds for every pod that reads there later, whatever that has heard.
//!
//! The first entries are written before any shard is made, so shards that have served without any say that the entries were lost. They are
//! not made up then: new ones from offset 0 would have shards read anew what others hold, and queries miss what a shard held before.
//!
//! Nobody waits at the offset of a move that does not come about, because one Consumer does not answer: while it waits, the entry is
//! kept ahead of the end. Whoever stopped there already goes on, as ends only go up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use understudy_api::names;
use understudy_api::v1alpha1::{ConsumerStatus, DatastoreStatus, Placement, ShardStatus};

/// Between the two looks at the ends that tell how fast they move.
pub const MEASURE: Duration = Duration::from_secs(2);
/// How many times what came in during [`MEASURE`] a move is put ahead.
const AHEAD: i64 = 5;
/// What a move is put ahead at least, in records.
const LEAST: i64 = 100;
/// How many times what came in during [`MEASURE`] a move that waits is kept ahead at least: more than comes in until the next look.
const MARGIN: i64 = 10;
/// And where it is put then.
const FAR_AHEAD: i64 = 30;

/// What to do about the placements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placing {
    /// They are as they should be.
    Keep,
    /// They are gone, and must not be made up.
    Lost {
        /// The shards that have served, so that there were some.
        served: Vec<String>,
    },
    /// The new shards cannot take data yet.
    Wait {
        /// Those without a primary.
        shards: Vec<String>,
    },
    /// The ends of the partitions must be known first.
    NeedEnds,
    /// Add these.
    Write {
        /// New entries.
        entries: Vec<Placement>,
        /// How many shards the topic is then spread over.
        shards: i32,
    },
    /// Write these in place of those that are there: some that were pending are not any more, or move on.
    Settle {
        /// All entries.
        placements: Vec<Placement>,
        /// Consumers that have not said yet where they stop.
        waiting: BTreeSet<String>,
    },
}

impl Placing {
    /// Whether nothing is left to do after this.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Keep => true,
            Self::Write { entries, .. } => !entries.iter().any(|entry| entry.pending),
            Self::Lost { .. } | Self::Wait { .. } | Self::NeedEnds | Self::Settle { .. } => false,
        }
    }
}

/// Whether a shard has ever had a primary.
pub fn has_served(status: &ShardStatus) -> bool {
    status.epoch > 0 || status.primary.is_some()
}

/// The first entries, when there are none; `served` are the shards that have served already.
pub fn begin(
    datastore: &str,
    shards: i32,
    partitions: i32,
    status: &DatastoreStatus,
    served: Vec<String>,
) -> Option<Placing> {
    if !status.placements.is_empty() {
        return None;
    }
    if !served.is_empty() {
        return Some(Placing::Lost { served });
    }
    let entries = (0..partitions)
        .map(|partition| Placement {
            partition,
            from_offset: 0,
            shard: names::shard_of(datastore, partition % shards),
            pending: false,
        })
        .collect();
    Some(Placing::Write { entries, shards })
}

/// What to do when there are more shards, as far as it can be told without asking the brokers.
pub fn plan(datastore: &str, shards: i32, status: &DatastoreStatus, serves: impl Fn(i32) -> bool) -> Placing {
    if status.placed_shards >= shards {
        return Placing::Keep;
    }
    let waiting: Vec<_> = (status.placed_shards..shards)
        .filter(|index| !serves(*index))
        .map(|index| names::shard_of(datastore, index))
        .collect();
    if waiting.is_empty() { Placing::NeedEnds } else { Placing::Wait { shards: waiting } }
}

/// The entries that spread the topic over more shards, from the ends seen at two moments [`MEASURE`] apart. A partition whose
/// end is not known leaves everything for the next pass.
pub fn grow(
    datastore: &str,
    shards: i32,
    partitions: i32,
    status: &DatastoreStatus,
    first: &BTreeMap<i32, i64>,
    second: &BTreeMap<i32, i64>,
) -> Placing {
    let mut entries = Vec::new();
    for partition in 0..partitions {
        let shard = names::shard_of(datastore, partition % shards);
        let last = status.placements.iter().filter(|entry| entry.partition == partition).max();
        if last.is_some_and(|last| last.shard == shard) {
            continue;
        }
        let (Some(before), Some(end)) = (first.get(&partition), second.get(&partition)) else {
            return Placing::NeedEnds;
        };
        let ahead = ahead(*before, *end, AHEAD);
        // Never before an entry that is there: offsets of a partition only go up.
        let from_offset = last.map_or(ahead, |last| ahead.max(last.from_offset + 1));
        entries.push(Placement { partition, from_offset, shard, pending: last.is_some() });
    }
    Placing::Write { entries, shards }
}

/// The offset that lies so many times what came in between two looks beyond the end.
fn ahead(before: i64, end: i64, times: i64) -> i64 {
    end + ((end - before).max(0) * times).max(LEAST)
}

/// Keeps moves that still wait ahead of the ends, which were seen at two moments [`MEASURE`] apart. One whose end is not known stays.
pub fn keep_ahead(
    placements: &mut [Placement],
    status: &DatastoreStatus,
    first: &BTreeMap<i32, i64>,
    second: &BTreeMap<i32, i64>,
) {
    for entry in placements.iter_mut().filter(|entry| entry.pending && status.placements.contains(entry)) {
        let (Some(before), Some(end)) = (first.get(&entry.partition), second.get(&entry.partition)) else { continue };
        if entry.from_offset < ahead(*before, *end, MARGIN) {
            entry.from_offset = entry.from_offset.max(ahead(*before, *end, FAR_AHEAD));
        }
    }
}

/// What becomes of the entries that are pending, by what each Consumer of the Datastore says; `None` when none is. A Consumer that
/// never read the partition into its old shard, and has no pod there that could, needs not be waited for: a pod that starts
/// reads the placements first.
pub fn settle(status: &DatastoreStatus, consumers: &[(String, ConsumerStatus)]) -> Option<Placing> {
    let mut placements = status.placements.clone();
    let mut waiting = BTreeSet::new();
    placements.iter().find(|entry| entry.pending)?;
    for entry in placements.iter_mut().filter(|entry| entry.pending) {
        let before = |other: &&Placement| {
            other.partition == entry.partition && other.from_offset < entry.from_offset && !other.pending
        };
        let Some(old) = status.placements.iter().filter(before).max() else {
            entry.pending = false;
            continue;
        };
        let (mut reached, mut all_know) = (entry.from_offset, true);
        for (name, consumer) in consumers {
            let says = consumer.partitions.iter().find(|p| p.partition == entry.partition && p.shard == old.shard);
            // A pod that is not ready may have stored something already that it has not told of yet.
            let here = consumer.workloads.iter().filter(|workload| workload.shard == old.shard);
            let works = here.into_iter().any(|workload| workload.desired > 0 || workload.ready > 0);
            match says {
                Some(says) if says.until == Some(entry.from_offset) => reached = reached.max(says.next_offset),
                None if !works => {}
                _ => {
                    waiting.insert(name.clone());
                    all_know = false;
                }
            }
        }
        if all_know {
            (entry.pending, entry.from_offset) = (reached > entry.from_offset, reached);
        }
    }
    Some(Placing::Settle { placements, waiting })
}

#[cfg(test)]
mod tests {
    use understudy_api::v1alpha1::{ConsumerWorkload, PartitionStatus};

    use super::*;

    fn placed(shards: i32, partitions: i32) -> DatastoreStatus {
        let Some(Placing::Write { entries, shards }) =
            begin("m", shards, partitions, &DatastoreStatus::default(), vec![])
        else {
            panic!("the first placements need nothing")
        };
        DatastoreStatus { placements: entries, placed_shards: shards, ..DatastoreStatus::default() }
    }

    fn ends(offsets: &[i64]) -> BTreeMap<i32, i64> {
        (0..).zip(offsets.iter().copied()).collect()
    }

    #[test]
    fn at_first_each_partition_feeds_one_shard_from_the_beginning() {
        let status = placed(2, 5);
        let shards: Vec<_> = status.placements.iter().map(|entry| entry.shard.as_str()).collect();
        assert_eq!(shards, ["m-0", "m-1", "m-0", "m-1", "m-0"]);
        assert!(status.placements.iter().all(|entry| entry.from_offset == 0));
    }

    #[test]
    fn placements_that_fit_are_left_alone() {
        assert_eq!(plan("m", 2, &placed(2, 4), |_| false), Placing::Keep);
    }

    #[test]
    fn placements_are_not_made_up_once_a_shard_has_served() {
        let served = || vec!["m-0".to_owned()];
        let lost = begin("m", 2, 4, &DatastoreStatus::default(), served());
        assert_eq!(lost, Some(Placing::Lost { served: served() }));
        assert!(!lost.unwrap().is_settled());
        assert_eq!(begin("m", 2, 4, &placed(2, 4), served()), None, "they are there");
    }

    #[test]
    fn a_shard_has_served_when_it_has_a_primary_or_an_epoch_was_claimed() {
        for (case, status, served) in [
            ("just made", ShardStatus::default(), false),
            ("its replicas are being made", ShardStatus { next_server_id: 4, ..ShardStatus::default() }, false),
            ("it has a primary", ShardStatus { primary: Some("m-0-a".to_owned()), ..ShardStatus::default() }, true),
            ("it had one", ShardStatus { epoch: 3, ..ShardStatus::default() }, true),
        ] {
            assert_eq!(has_served(&status), served, "{case}");
        }
    }

    #[test]
    fn new_shards_get_data_only_once_they_have_a_primary() {
        let status = placed(2, 6);
        let waiting = plan("m", 4, &status, |index| index != 3);
        assert_eq!(waiting, Placing::Wait { shards: vec!["m-3".to_owned()] });
        assert_eq!(plan("m", 4, &status, |_| true), Placing::NeedEnds);
    }

    #[test]
    fn only_partitions_that_change_their_shard_move_and_they_move_ahead_of_the_end() {
        let status = placed(2, 4);
        let grown = grow("m", 3, 4, &status, &ends(&[5, 5, 100, 100]), &ends(&[5, 5, 150, 101]));
        let Placing::Write { entries, shards } = grown else { panic!("{grown:?}") };
        assert_eq!(shards, 3);
        let moved: Vec<_> = entries.iter().map(|e| (e.partition, e.from_offset, e.shard.as_str())).collect();
        assert_eq!(moved, [(2, 150 + 250, "m-2"), (3, 101 + 100, "m-0")]);
        assert!(entries.iter().all(|entry| entry.pending), "nobody begins there yet");
        assert!(!Placing::Write { entries, shards }.is_settled());
    }

    #[test]
    fn an_unknown_end_moves_nothing() {
        assert_eq!(grow("m", 3, 4, &placed(2, 4), &ends(&[1, 1]), &ends(&[1, 1])), Placing::NeedEnds);
    }

    #[test]
    fn the_offsets_of_a_partition_only_go_up() {
        let mut status = placed(2, 3);
        status.placements.push(Placement { partition: 2, from_offset: 1000, shard: "m-1".to_owned(), pending: false });
        let grown = grow("m", 3, 3, &status, &ends(&[0, 0, 0]), &ends(&[0, 0, 0]));
        let Placing::Write { entries, .. } = grown else { panic!("{grown:?}") };
        assert_eq!((entries[0].partition, entries[0].from_offset), (2, 1001));
    }

    /// A Consumer with pods for `m-0`, all of them ready, that says this of partition 0: its end as it knows it, and what it has stored.
    fn consumer(said: Option<(Option<i64>, i64)>, pods: i32) -> ConsumerStatus {
        with_pods(said, pods, pods)
    }

    fn with_pods(said: Option<(Option<i64>, i64)>, ready: i32, desired: i32) -> ConsumerStatus {
        let partitions = said.map(|(until, next_offset)| PartitionStatus {
            shard: "m-0".to_owned(),
            until,
            next_offset,
            ..PartitionStatus::default()
        });
        ConsumerStatus {
            partitions: partitions.into_iter().collect(),
            workloads: vec![ConsumerWorkload {
                shard: "m-0".to_owned(),
                ready,
                desired,
                ..ConsumerWorkload::default()
            }],
            ..ConsumerStatus::default()
        }
    }

    #[test]
    fn a_move_takes_effect_once_every_consumer_has_said_that_it_stops_there() {
        let mut status = placed(1, 1);
        assert_eq!(settle(&status, &[]), None);
        status.placements.push(Placement { partition: 0, from_offset: 500, shard: "m-1".to_owned(), pending: true });
        let knows = consumer(Some((Some(500), 400)), 1);
        let stands = (500, true);
        for (case, said, expected) in [
            ("nobody reads", vec![], (500, false)),
            ("it knows", vec![knows.clone()], (500, false)),
            ("it knows and has come there", vec![consumer(Some((Some(500), 500)), 1)], (500, false)),
            ("it knows and stopped since", vec![consumer(Some((Some(500), 400)), 0)], (500, false)),
            ("it does not know", vec![consumer(Some((None, 400)), 1)], stands),
            ("it does not know and does not run", vec![consumer(Some((None, 400)), 0)], stands),
            ("it knows of an earlier end", vec![consumer(Some((Some(450), 400)), 1)], stands),
            ("a pod that has said nothing", vec![consumer(None, 1)], stands),
            ("a pod that is not ready and has said nothing", vec![with_pods(None, 0, 1)], stands),
            ("it never read", vec![consumer(None, 0)], (500, false)),
            ("one of two knows", vec![knows.clone(), consumer(Some((None, 400)), 1)], stands),
            ("it had passed the offset before it heard", vec![consumer(Some((Some(500), 620)), 1)], (620, true)),
            ("one of two had", vec![knows, consumer(Some((Some(500), 620)), 1)], (620, true)),
        ] {
            let consumers: Vec<_> = (0..).map(|number: i32| format!("c{number}")).zip(said).collect();
            let Some(Placing::Settle { placements, waiting }) = settle(&status, &consumers) else { panic!("{case}") };
            assert_eq!(placements[0], status.placements[0], "{case}");
            assert_eq!((placements[1].from_offset, placements[1].pending), expected, "{case}");
            assert_eq!(waiting.is_empty(), expected != stands, "{case}");
        }
    }

    #[test]
    fn a_move_that_waits_is_kept_ahead_of_the_end() {
        let mut status = placed(1, 1);
        status.placements.push(Placement { partition: 0, from_offset: 5_000, shard: "m-1".to_owned(), pending: true });
        for (case, seen, expected) in [
            ("far from the end", Some((1_000, 1_010)), 5_000),
            ("near to it, with little traffic", Some((4_950, 4_960)), 4_960 + 300),
            ("near to it, with much", Some((4_000, 4_300)), 4_300 + 9_000),
            ("the end is there", Some((5_000, 5_000)), 5_100),
            ("the end is past it", Some((8_000, 8_100)), 8_100 + 3_000),
            ("nobody knows the end", None, 5_000),
        ] {
            let (first, second) = seen.map(|(first, second)| (ends(&[first]), ends(&[second]))).unwrap_or_default();
            let mut placements = status.placements.clone();
            keep_ahead(&mut placements, &status, &first, &second);
            assert_eq!(placements[0], status.placements[0], "{case}");
            assert_eq!((placements[1].from_offset, placements[1].pending), (expected, true), "{case}");
        }
    }

    #[test]
    fn a_move_that_was_settled_or_moved_on_just_now_stays_where_it_is() {
        let mut status = placed(1, 1);
        status.placements.push(Placement { partition: 0, from_offset: 500, shard: "m-1".to_owned(), pending: true });
        for (from_offset, pending) in [(500, false), (620, true)] {
            let mut placements = status.placements.clone();
            (placements[1].from_offset, placements[1].pending) = (from_offset, pending);
            let before = placements.clone();
            keep_ahead(&mut placements, &status, &ends(&[600]), &ends(&[700]));
            assert_eq!(placements, before);
        }
    }
}
