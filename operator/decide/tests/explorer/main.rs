//! Drives `plan` against a model of replicas, nodes, observers and an operator that dies between any two steps.
//!
//! `UNDERSTUDY_SEEDS` is how many seeds are tried (`SEEDS` without it), or which, as `first..end`; `UNDERSTUDY_SEED` tries one and prints
//! its trace. Beside them a tenth as many are tried in which all trouble is benign.
//! A failing seed is run again and prints its trace, everything that happened in order, and its script: what befell the world, one
//! misfortune a line. `UNDERSTUDY_SCRIPT` names a file with a script, which may have been edited, and runs that. One that went wrong once is kept in `scripts`.

mod benign;
mod cluster;
mod consumers;
mod evidence;
mod fate;
mod heal;
mod hearing;
mod invariants;
mod manager;
mod misfortune;
mod network;
mod offices;
mod operator;
mod pauses;
mod random;
mod records;
mod script;
mod servers;
mod steps;
mod verb;
mod watch;
mod world;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Counts, World};

const SEEDS: u64 = 100_000;
/// Of so many seeds one more is tried in which all trouble is benign.
const BENIGN: u64 = 10;

/// What a primary is changed for without being asked, and that the model must come to.
const CAUSES: [&str; 12] = [
    "ProcessExited",
    "VolumeFailed",
    "VolumeFull",
    "PodStopped",
    "Unreachable",
    "Stopped",
    "VolumeStalled",
    "Deadlocked",
    "CutOff",
    "SlowVolume",
    "VolumeFilling",
    "PodLeaving",
];

/// Runs one seed: a time of faults, then a time in which everything must become well again.
fn run(seed: u64, benign: bool, traced: bool) -> (World, Result<(), String>) {
    let mut world = World::new(seed, benign, traced);
    let outcome = world.live_through();
    (world, outcome)
}

/// `1000`, or `1000..2000`.
fn range(seeds: &str) -> Option<Range<u64>> {
    let (first, end) = seeds.split_once("..").unwrap_or(("0", seeds));
    Some(first.parse().ok()?..end.parse().ok()?)
}

/// The same script makes the same run.
fn replay(script: script::Script) -> (World, Result<(), String>) {
    let mut world = World::scripted(script, true);
    let outcome = world.live_through();
    (world, outcome)
}

/// Which seeds are asked for; None: something else is, a script or one seed.
fn asked() -> Option<Range<u64>> {
    let is_set = |name| std::env::var_os(name).is_some();
    if is_set("UNDERSTUDY_SCRIPT") || is_set("UNDERSTUDY_SEED") {
        return None;
    }
    let asked = std::env::var("UNDERSTUDY_SEEDS").map(|seeds| range(&seeds).expect("a number of seeds, or first..end"));
    Some(asked.unwrap_or(0..SEEDS))
}

/// Runs seeds on all processors, and panics with the trace and the script of the first that breaks anything.
fn sweep(Range { start, end }: Range<u64>, benign: bool) -> Counts {
    let next = AtomicU64::new(start);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let mut counts = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return counts;
            }
            match run(seed, benign, false) {
                (world, Ok(())) => counts.add(&world.counts),
                (_, Err(broken)) => {
                    next.store(end, Ordering::Relaxed);
                    let (world, _) = run(seed, benign, true);
                    let (trace, script) = (world.trace(), &world.script);
                    panic!(
                        "{trace}\n\n{script}\nseed {seed}: {broken}\nagain: the lines from `seed` on in a file and \
                         UNDERSTUDY_SCRIPT=FILE"
                    );
                }
            }
        }
    };
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut totals = Counts::default();
        for worker in workers {
            totals.add(&worker.join().expect("a seed failed, see above"));
        }
        totals
    });
    println!("{} seeds, benign: {benign}: {totals:?}", end.saturating_sub(start));
    totals
}

#[test]
fn a_script_replays_what_was_drawn() {
    for seed in 0..50 {
        for benign in [false, true] {
            let (drawn, outcome) = run(seed, benign, true);
            let script = drawn.script.to_string().parse().expect("a script");
            let (replayed, again) = replay(script);
            assert_eq!(again, outcome, "seed {seed}");
            assert!(replayed.trace() == drawn.trace(), "seed {seed} and its script differ");
        }
    }
}

#[test]
fn what_went_wrong_once_ends_well() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explorer/scripts");
    let files = std::fs::read_dir(&folder).expect("the folder of scripts");
    let mut kept: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    kept.sort();
    assert!(!kept.is_empty(), "{folder:?} holds no script");
    for file in kept {
        let text = std::fs::read_to_string(&file).expect("a file");
        let script = text.parse::<script::Script>().unwrap_or_else(|why| panic!("{file:?}: {why}"));
        if let (world, Err(broken)) = replay(script) {
            panic!("{}\n{file:?}: {broken}", world.trace());
        }
    }
}

#[test]
fn a_script_or_a_seed_that_is_asked_for_ends_well() {
    if let Ok(file) = std::env::var("UNDERSTUDY_SCRIPT") {
        let text = std::fs::read_to_string(&file).expect("a file");
        let (world, outcome) = replay(text.parse().expect("a script"));
        println!("{}", world.trace());
        return outcome.unwrap_or_else(|broken| panic!("{file}: {broken}"));
    }
    if let Some(seed) = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        match run(seed, false, true) {
            (world, Ok(())) => println!("{}\nseed {seed} ends well", world.trace()),
            (world, Err(broken)) => panic!("{}\n\n{}\nseed {seed}: {broken}", world.trace(), world.script),
        }
    }
}

#[test]
fn no_run_of_faults_breaks_an_invariant_and_every_one_ends_well() {
    let Some(asked) = asked() else { return };
    let seeds = asked.end.saturating_sub(asked.start);
    let totals = sweep(asked, false);
    // A model in which nothing happens proves nothing.
    if seeds >= 1_000 {
        assert!(totals.failovers > seeds / 4, "too few failovers: {totals:?}");
        assert!(totals.switchovers > 0 && totals.confirms > 0 && totals.crashes > 0, "{totals:?}");
        assert!(totals.sleepers > 0, "{totals:?}");
        assert!(totals.second_candidates > 0 && totals.volumes_deleted > 0, "{totals:?}");
    }
    if seeds >= 50_000 {
        for cause in CAUSES {
            assert!(totals.causes.contains_key(cause), "the model never comes to {cause}: {totals:?}");
        }
    }
}

#[test]
fn no_benign_trouble_changes_a_primary_but_a_drain() {
    let Some(Range { start, end }) = asked() else { return };
    let seeds = (end / BENIGN).saturating_sub(start / BENIGN);
    let totals = sweep(start / BENIGN..end / BENIGN, true);
    if seeds >= 1_000 {
        assert!(totals.switchovers > seeds / 20, "too few drains: {totals:?}");
    }
}
