//! Drives `plan` against a model of replicas, nodes, observers and an operator that dies between any two steps.
//!
//! `UNDERSTUDY_SEEDS` is how many seeds are tried (`SEEDS` without it), or which, as `first..end`; `UNDERSTUDY_SEED` tries one and prints
//! its trace.
//! A failing seed is run again and prints its trace, everything that happened in order, and its script: what befell the world, one
//! misfortune a line. `UNDERSTUDY_SCRIPT` names a file with a script, which may have been edited, and runs that. One that went wrong once is kept in `scripts`.

mod cluster;
mod evidence;
mod invariants;
mod manager;
mod misfortune;
mod operator;
mod random;
mod records;
mod script;
mod servers;
mod steps;
mod watch;
mod world;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

const SEEDS: u64 = 100_000;

/// Runs that went wrong once, by what they are about.
const KEPT: &[(&str, &str)] = &[
    ("asked-to-stop", include_str!("scripts/asked-to-stop.txt")),
    ("breaks-before-it-joins", include_str!("scripts/breaks-before-it-joins.txt")),
    ("every-node-is-avoided", include_str!("scripts/every-node-is-avoided.txt")),
    ("nobody-is-left-to-be-first", include_str!("scripts/nobody-is-left-to-be-first.txt")),
];

/// Runs one seed: a time of faults, then a time in which everything must become well again.
fn run(seed: u64, traced: bool) -> (World, Result<(), String>) {
    let mut world = World::new(seed, traced);
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

#[test]
fn a_script_replays_what_was_drawn() {
    for seed in 0..50 {
        let (drawn, outcome) = run(seed, true);
        let script = drawn.script.to_string().parse().expect("a script");
        let (replayed, again) = replay(script);
        assert_eq!(again, outcome, "seed {seed}");
        assert!(replayed.trace() == drawn.trace(), "seed {seed} and its script differ");
    }
}

#[test]
fn what_went_wrong_once_ends_well() {
    let folder =
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/explorer/scripts")).expect("the scripts");
    assert_eq!(folder.count(), KEPT.len(), "each script is run");
    for (name, script) in KEPT {
        if let (world, Err(broken)) = replay(script.parse().expect("a script")) {
            panic!("{}\n{name}: {broken}", world.trace());
        }
    }
}

#[test]
fn no_run_of_faults_breaks_an_invariant_and_every_one_ends_well() {
    if let Ok(file) = std::env::var("UNDERSTUDY_SCRIPT") {
        let text = std::fs::read_to_string(&file).expect("a file");
        let (world, outcome) = replay(text.parse().expect("a script"));
        println!("{}", world.trace());
        return outcome.unwrap_or_else(|broken| panic!("{file}: {broken}"));
    }
    if let Some(seed) = std::env::var("UNDERSTUDY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        match run(seed, true) {
            (world, Ok(())) => println!("{}\nseed {seed} ends well", world.trace()),
            (world, Err(broken)) => panic!("{}\n\n{}\nseed {seed}: {broken}", world.trace(), world.script),
        }
        return;
    }
    let asked = std::env::var("UNDERSTUDY_SEEDS").map(|seeds| range(&seeds).expect("a number of seeds, or first..end"));
    let Range { start: first, end } = asked.unwrap_or(0..SEEDS);
    let (seeds, next) = (end.saturating_sub(first), AtomicU64::new(first));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let totals = std::thread::scope(|scope| {
        let work = || {
            let mut counts = world::Counts::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return counts;
                }
                match run(seed, false) {
                    (world, Ok(())) => counts.add(&world.counts),
                    (_, Err(broken)) => {
                        next.store(end, Ordering::Relaxed);
                        let (world, _) = run(seed, true);
                        let (trace, script) = (world.trace(), &world.script);
                        panic!(
                            "{trace}\n\n{script}\nseed {seed}: {broken}\nagain: UNDERSTUDY_SEED={seed}, or the lines from `seed` on in a \
                             file and UNDERSTUDY_SCRIPT=FILE"
                        );
                    }
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut totals = world::Counts::default();
        for worker in workers {
            totals.add(&worker.join().expect("a seed failed, see above"));
        }
        totals
    });
    println!("{seeds} seeds: {totals:?}");
    // A model in which nothing happens proves nothing.
    if seeds >= 1_000 {
        assert!(totals.failovers > seeds / 4, "too few failovers: {totals:?}");
        assert!(totals.switchovers > 0 && totals.confirms > 0 && totals.crashes > 0, "{totals:?}");
        assert!(totals.sleepers > 0, "{totals:?}");
        assert!(totals.second_candidates > 0 && totals.volumes_deleted > 0, "{totals:?}");
    }
}
