//! A partition that moves to another shard, in a model: the old owner, the new one and the operator hear of each other as late as they like.
//! What decides where a record goes is the code that runs in production (placement, lanes); Kafka, MySQL and the API server are modelled.
//!
//! The offset of a move is put ahead of the end of the log, so that the old owner hears of it in time. That is a hope and no barrier: an old
//! owner whose watch is late passes it. So an entry is pending until the old owner has said that it stops there.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use understudy_consumer::lanes::{Holes, Lanes, Offer};
use understudy_consumer::placement::{Entry, placement_of};

/// How far ahead of the end a move is put.
const AHEAD: i64 = 5;

/// When the new owner may begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Barrier {
    /// As soon as it hears of the move.
    None,
    /// Once the old owner has said that it stops there.
    Acknowledged,
}

/// The consumer of one shard, and the shard.
struct Owner {
    shard: &'static str,
    /// What it has heard.
    entries: Vec<Entry>,
    lanes: Lanes,
    stored: BTreeMap<i32, i64>,
    has: Vec<i64>,
}

impl Owner {
    fn new(shard: &'static str, entries: &[Entry]) -> Self {
        let mut owner =
            Self { shard, entries: Vec::new(), lanes: Lanes::default(), stored: BTreeMap::new(), has: Vec::new() };
        owner.hear(entries);
        owner
    }

    fn hear(&mut self, entries: &[Entry]) {
        self.entries = entries.to_vec();
        self.lanes.load(&placement_of(self.shard, entries), &[], &self.stored);
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
        self.lanes.committed(self.lanes.taken());
        if let Some(stored) = self.lanes.get(0).and_then(|lane| lane.stored()) {
            self.stored.insert(0, stored);
        }
    }
}

struct World {
    barrier: Barrier,
    end: i64,
    entries: Vec<Entry>,
    old: Owner,
    new: Owner,
}

#[derive(Clone, Debug)]
enum Op {
    Produce(i64),
    Operate,
    OldHears,
    NewHears,
    OldWorks(usize),
    NewWorks(usize),
    OldRestarts,
}

impl World {
    fn new(barrier: Barrier) -> Self {
        let entries = vec![Entry { partition: 0, shard: "old".to_owned(), from: 0, pending: false }];
        let (old, new) = (Owner::new("old", &entries), Owner::new("new", &entries));
        Self { barrier, end: 0, entries, old, new }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Produce(count) => self.end += count,
            Op::Operate => self.operate(),
            Op::OldHears => self.old.hear(&self.entries),
            Op::NewHears => self.new.hear(&self.entries),
            Op::OldWorks(most) => self.old.work(self.end, most),
            Op::NewWorks(most) => self.new.work(self.end, most),
            Op::OldRestarts => {
                self.old.lanes = Lanes::default();
                let heard = self.old.entries.clone();
                self.old.hear(&heard);
            }
        }
    }

    fn operate(&mut self) {
        let Some(last) = self.entries.get_mut(1) else {
            let pending = self.barrier == Barrier::Acknowledged;
            let from = self.end + AHEAD;
            return self.entries.push(Entry { partition: 0, shard: "new".to_owned(), from, pending });
        };
        let Some(lane) = self.old.lanes.get(0) else { return };
        if last.pending && lane.until() == Some(last.from) {
            match lane.stored() {
                // It had passed the offset before it heard; nobody else was there, so the move is put ahead again.
                Some(stored) if stored > last.from => last.from = self.end.max(stored) + AHEAD,
                _ => last.pending = false,
            }
        }
    }

    /// Everybody hears of everything.
    fn settle(&mut self) {
        for _ in 0..10 {
            for op in [Op::Operate, Op::OldHears, Op::NewHears, Op::OldWorks(100), Op::NewWorks(100)] {
                self.run(op);
            }
            self.run(Op::Produce(3));
        }
        self.run(Op::OldWorks(100));
        self.run(Op::NewWorks(100));
    }

    /// In how many shards each record is, where that is not one.
    fn wrong(&self) -> BTreeMap<i64, usize> {
        let mut times: BTreeMap<i64, usize> = (0..self.end).map(|offset| (offset, 0)).collect();
        for offset in self.old.has.iter().chain(&self.new.has) {
            *times.entry(*offset).or_default() += 1;
        }
        times.retain(|_, times| *times != 1);
        times
    }
}

/// The old owner hears of the move only after it has read past it.
fn a_late_watch(barrier: Barrier) -> World {
    let mut world = World::new(barrier);
    for op in [
        Op::Produce(10),
        Op::OldWorks(100),
        Op::Operate,
        Op::NewHears,
        Op::Produce(20),
        Op::OldWorks(100),
        Op::NewWorks(100),
    ] {
        world.run(op);
    }
    world.settle();
    world
}

#[test]
fn an_offset_ahead_of_the_end_alone_lets_both_shards_store_what_lies_between() {
    let world = a_late_watch(Barrier::None);
    assert_eq!(world.wrong(), (15..30).map(|offset| (offset, 2)).collect());
}

#[test]
fn a_move_that_waits_for_the_old_owner_is_put_ahead_again_if_it_was_passed() {
    let world = a_late_watch(Barrier::Acknowledged);
    assert_eq!(world.wrong(), BTreeMap::new());
    assert!(world.entries[1].from > 30 && !world.entries[1].pending);
    assert_eq!(world.new.has.first(), Some(&world.entries[1].from));
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (1..12_i64).prop_map(Op::Produce),
        Just(Op::Operate),
        Just(Op::OldHears),
        Just(Op::NewHears),
        (1..15_usize).prop_map(Op::OldWorks),
        (1..15_usize).prop_map(Op::NewWorks),
        Just(Op::OldRestarts),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_hears_when_each_record_is_in_one_shard(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new(Barrier::Acknowledged);
        for op in ops {
            world.run(op);
        }
        world.settle();
        prop_assert_eq!(world.wrong(), BTreeMap::new());
    }
}
