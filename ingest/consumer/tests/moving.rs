//! A partition that moves between two shards, in a model: the pods of each shard's consumer and the operator hear of each other as late as
//! they like, and a pod that stood by takes over with what it has heard. What decides where a record goes is the code that runs in production
//! (placement, lanes); Kafka, MySQL and the API server are modelled.
//!
//! The offset of a move is put ahead of the end of the log, so that the old owner hears of it in time. That is a hope and no barrier: an old
//! owner whose watch is late passes it. So an entry is pending until the old owner has said that it stops there. What it says would bind
//! itself alone, and not the pod that takes over from it: so it says so only after the row of the partition does.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use understudy_consumer::lanes::{Holes, Lanes, Note, Offer};
use understudy_consumer::placement::{Entry, placement_of, within};

/// How far ahead of the end a move is put.
const AHEAD: i64 = 5;
/// There, back, and there again.
const MOVES: usize = 3;

/// When the new owner may begin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Barrier {
    /// As soon as it hears of the move.
    None,
    /// Once the old owner has said that it stops there.
    Acknowledged,
    /// Once the row of the old shard says so, and its owner has.
    Stored,
}

/// What a shard stores beside the data.
#[derive(Clone)]
struct Row {
    next_offset: i64,
    note: Note,
}

/// What a status says of a partition: where it ends, and what is stored.
type Said = (Option<i64>, i64);

/// The shard, and the two pods of its consumer.
struct Owner {
    shard: &'static str,
    barrier: Barrier,
    /// What the active pod has heard of the placement.
    heard: Vec<Entry>,
    /// What the pod that stands by has heard of it.
    standby: Vec<Entry>,
    /// The active pod's.
    lanes: Lanes,
    row: Option<Row>,
    said: Option<Said>,
    has: Vec<i64>,
}

impl Owner {
    fn new(shard: &'static str, barrier: Barrier, entries: &[Entry]) -> Self {
        let (heard, standby) = (entries.to_vec(), entries.to_vec());
        let mut owner =
            Self { shard, barrier, heard, standby, lanes: Lanes::default(), row: None, said: None, has: Vec::new() };
        owner.load();
        owner
    }

    fn hear(&mut self, entries: &[Entry]) {
        self.heard = entries.to_vec();
        self.load();
    }

    fn load(&mut self) {
        let row = self.row.clone();
        let promised = row.as_ref().filter(|_| self.barrier == Barrier::Stored).and_then(|row| row.note.until);
        let promised = promised.map(|end| (0, end)).into_iter().collect();
        let placement = within(placement_of(self.shard, &self.heard), &promised);
        self.lanes.load(&placement, &[], &row.iter().map(|row| (0, row.next_offset)).collect());
        if let Some(row) = row {
            self.lanes.recall(0, row.note);
        }
    }

    fn work(&mut self, end: i64, most: usize) {
        self.lanes.heard(0, 0, end);
        for _ in 0..most {
            let Some(&(_, at)) = self.lanes.positions().first() else { break };
            if at >= end || self.lanes.offer(0, at, Holes::Refused) != Offer::Take {
                break;
            }
            self.has.push(at);
        }
        if let Some(next_offset) = self.lanes.get(0).and_then(|lane| lane.next()) {
            self.row = Some(Row { next_offset, note: self.lanes.note(0).0 });
            self.lanes.committed([0]);
        }
    }

    fn tell(&mut self) {
        let Some(lane) = self.lanes.get(0) else { return };
        let until = if self.barrier == Barrier::Stored { lane.promised() } else { lane.until() };
        self.said = Some((until, lane.stored().unwrap_or(0)));
    }

    /// The pod that stands by takes over; the one that stands by from now on has heard this.
    fn fail(&mut self, heard: &[Entry]) {
        self.heard = std::mem::replace(&mut self.standby, heard.to_vec());
        self.lanes = Lanes::default();
        self.load();
    }
}

struct World {
    barrier: Barrier,
    end: i64,
    entries: Vec<Entry>,
    owners: [Owner; 2],
}

const OLD: usize = 0;
const NEW: usize = 1;
const SHARDS: [&str; 2] = ["old", "new"];

#[derive(Clone, Debug)]
enum Op {
    Produce(i64),
    /// The partition is to feed the other shard.
    Move,
    /// The operator looks at what is pending.
    Settle,
    Hears(usize),
    StandbyHears(usize),
    Works(usize, usize),
    Tells(usize),
    /// The active pod dies and the one that stands by takes over. A new one stands by, and has heard what is so now.
    Fails(usize),
    /// The pod that stands by takes over, and the one that was active stands by.
    Swaps(usize),
    Restarts(usize),
}

impl World {
    fn new(barrier: Barrier) -> Self {
        let entries = vec![Entry { partition: 0, shard: SHARDS[OLD].to_owned(), from: 0, pending: false }];
        let owners = SHARDS.map(|shard| Owner::new(shard, barrier, &entries));
        Self { barrier, end: 0, entries, owners }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Produce(count) => self.end += count,
            Op::Move => self.begin_move(),
            Op::Settle => self.settle_move(),
            Op::Hears(who) => self.owners[who].hear(&self.entries),
            Op::StandbyHears(who) => self.owners[who].standby = self.entries.clone(),
            Op::Works(who, most) => self.owners[who].work(self.end, most),
            Op::Tells(who) => self.owners[who].tell(),
            Op::Fails(who) => self.owners[who].fail(&self.entries),
            Op::Swaps(who) => {
                let heard = self.owners[who].heard.clone();
                self.owners[who].fail(&heard);
            }
            Op::Restarts(who) => {
                self.owners[who].lanes = Lanes::default();
                self.owners[who].load();
            }
        }
    }

    fn begin_move(&mut self) {
        let last = self.entries.last().unwrap();
        if last.pending || self.entries.len() > MOVES {
            return;
        }
        let from = (self.end + AHEAD).max(last.from + 1);
        let shard = SHARDS[self.entries.len() % 2].to_owned();
        let pending = self.barrier > Barrier::None;
        self.entries.push(Entry { partition: 0, shard, from, pending });
    }

    fn settle_move(&mut self) {
        let before = self.entries.len() % 2;
        let Some(last) = self.entries.last_mut().filter(|last| last.pending) else { return };
        match self.owners[before].said {
            // It had passed the offset before it heard; nobody else was there, so the move is put ahead again.
            Some((Some(until), stored)) if until == last.from && stored > until => {
                last.from = self.end.max(stored) + AHEAD;
            }
            Some((Some(until), _)) if until == last.from => last.pending = false,
            _ => {}
        }
    }

    /// Everybody hears of everything.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.run(Op::Settle);
            for who in [OLD, NEW] {
                for op in [Op::Hears(who), Op::StandbyHears(who), Op::Works(who, 100), Op::Tells(who)] {
                    self.run(op);
                }
            }
            self.run(Op::Produce(3));
        }
        self.run(Op::Works(OLD, 100));
        self.run(Op::Works(NEW, 100));
    }

    /// In how many shards each record is, where that is not one.
    fn wrong(&self) -> BTreeMap<i64, usize> {
        let mut times: BTreeMap<i64, usize> = (0..self.end).map(|offset| (offset, 0)).collect();
        for offset in self.owners.iter().flat_map(|owner| &owner.has) {
            *times.entry(*offset).or_default() += 1;
        }
        times.retain(|_, times| *times != 1);
        times
    }
}

fn after(barrier: Barrier, ops: Vec<Op>) -> World {
    let mut world = World::new(barrier);
    for op in ops {
        world.run(op);
    }
    world.settle();
    world
}

/// The old owner hears of the move only after it has read past it.
fn a_late_watch(barrier: Barrier) -> World {
    let ops = vec![
        Op::Produce(10),
        Op::Works(OLD, 100),
        Op::Move,
        Op::Hears(NEW),
        Op::Produce(20),
        Op::Works(OLD, 100),
        Op::Works(NEW, 100),
    ];
    after(barrier, ops)
}

#[test]
fn an_offset_ahead_of_the_end_alone_lets_both_shards_store_what_lies_between() {
    let world = a_late_watch(Barrier::None);
    assert_eq!(world.wrong(), (15..30).map(|offset| (offset, 2)).collect());
}

#[test]
fn a_move_that_waits_for_the_old_owner_is_put_ahead_again_if_it_was_passed() {
    for barrier in [Barrier::Acknowledged, Barrier::Stored] {
        let world = a_late_watch(barrier);
        assert_eq!(world.wrong(), BTreeMap::new());
        assert!(world.entries[1].from > 30 && !world.entries[1].pending);
        assert_eq!(world.owners[NEW].has.first(), Some(&world.entries[1].from));
    }
}

/// The old owner hears of the move, says so, and dies. The pod that takes over from it has not heard.
fn a_late_standby(barrier: Barrier) -> World {
    let ops = vec![
        Op::Produce(10),
        Op::Works(OLD, 100),
        Op::Move,
        Op::Hears(OLD),
        Op::Works(OLD, 100),
        Op::Tells(OLD),
        Op::Settle,
        Op::Hears(NEW),
        Op::Fails(OLD),
        Op::Produce(20),
        Op::Works(OLD, 100),
        Op::Works(NEW, 100),
    ];
    after(barrier, ops)
}

#[test]
fn what_the_old_owner_said_alone_lets_the_pod_that_takes_over_store_what_the_new_shard_stores() {
    let world = a_late_standby(Barrier::Acknowledged);
    assert_eq!(world.wrong(), (15..30).map(|offset| (offset, 2)).collect());
}

#[test]
fn what_the_row_says_binds_the_pod_that_takes_over() {
    let world = a_late_standby(Barrier::Stored);
    assert_eq!(world.wrong(), BTreeMap::new());
    assert_eq!(world.owners[OLD].has.last(), Some(&(world.entries[1].from - 1)));
}

#[test]
fn an_owner_that_dies_between_its_row_and_its_word_holds_up_nothing() {
    let mut world = World::new(Barrier::Stored);
    for op in [
        Op::Produce(10),
        Op::Works(OLD, 100),
        Op::Move,
        Op::Hears(OLD),
        Op::Works(OLD, 100),
        Op::Fails(OLD),
        Op::Works(OLD, 100),
        Op::Tells(OLD),
        Op::Settle,
    ] {
        world.run(op);
    }
    assert!(!world.entries[1].pending, "the pod that took over says what the row says, although it has not heard");
    world.settle();
    assert_eq!(world.wrong(), BTreeMap::new());
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..2_usize;
    prop_oneof![
        3 => (1..12_i64).prop_map(Op::Produce),
        2 => Just(Op::Move),
        3 => Just(Op::Settle),
        3 => who.clone().prop_map(Op::Hears),
        1 => who.clone().prop_map(Op::StandbyHears),
        4 => (who.clone(), 1..15_usize).prop_map(|(who, most)| Op::Works(who, most)),
        3 => who.clone().prop_map(Op::Tells),
        1 => who.clone().prop_map(Op::Fails),
        1 => who.clone().prop_map(Op::Swaps),
        1 => who.prop_map(Op::Restarts),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_hears_when_each_record_is_in_one_shard(ops in prop::collection::vec(op(), 1..120)) {
        let world = after(Barrier::Stored, ops);
        prop_assert_eq!(world.wrong(), BTreeMap::new());
        prop_assert!(world.entries.iter().all(|entry| !entry.pending), "{:?}", world.entries);
    }
}
