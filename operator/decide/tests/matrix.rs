//! The faults that the product is for, row by row: what each is called, and what is done about it.
//!
//! Rows that begin with S are the signatures, with A what must end an office, with B what must not. What a pass cannot see is there in the
//! nearest form of it that a snapshot has.

mod support;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use support::*;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Cause, Fact, Order, Reason, Step, Verdict};
use understudy_wire::evidence::*;

/// What a pass does about it.
#[derive(Clone, Debug, PartialEq)]
enum Then {
    /// Another one takes over without the old primary.
    FailsOver(&'static str),
    /// Another one takes over from it.
    SwitchesOver(&'static str),
    /// Only a standby, or what was primary before, is replaced.
    Replaces(&'static str),
    /// Nothing is done to any server.
    Stays,
}

use Then::{FailsOver, Replaces, Stays, SwitchesOver};

type Row = (&'static str, fn(&mut Scene), Verdict, Then, Option<Reason>);

fn letter(of: &understudy_wire::ReplicaName) -> &'static str {
    ["a", "b", "c"].into_iter().find(|letter| name(letter) == *of).expect("a replica of the scene")
}

/// What is really done.
fn done(scene: &Scene) -> Then {
    let steps = scene.steps();
    let claimed = steps.iter().find_map(|step| match step {
        Step::Claim(claim) => Some((claim.kind, letter(&claim.to))),
        _ => None,
    });
    match claimed {
        Some((Kind::Failover, to)) => return FailsOver(to),
        Some((Kind::Switchover, to)) => return SwitchesOver(to),
        Some(other) => panic!("{other:?}"),
        None => {}
    }
    let changes = |step: &Step| {
        matches!(step, Step::Publish { .. } | Step::Order { order: Order::Promote(_) | Order::Fence(_), .. })
    };
    assert!(!steps.iter().any(changes), "{steps:?}");
    let condemned = steps.iter().find_map(|step| match step {
        Step::Condemn { replica, .. } => Some(letter(replica)),
        _ => None,
    });
    condemned.map_or(Stays, Replaces)
}

fn hold(rows: &[Row]) {
    for (row, spoil, verdict, then, reason) in rows {
        let mut scene = Scene::well();
        spoil(&mut scene);
        let plan = scene.plan();
        assert_eq!(plan.assessment.verdict, *verdict, "{row}: {}", plan.assessment.message());
        assert_eq!(done(&scene), *then, "{row}: {:?}", plan.notes);
        if let Some(reason) = reason {
            let note = plan.notes.iter().find(|note| note.reason == *reason);
            assert!(note.is_some_and(|note| !note.message.is_empty()), "{row}: {:?}", plan.notes);
        }
    }
}

fn probed(scene: &mut Scene, letter: &str, fsync: Fsync) {
    scene.server(letter, |server| server.fsync = Some(fsync));
}

fn answers(error: &str) -> Fsync {
    Fsync { error: Some(error.into()), ..Fsync::default() }
}

/// A volume on which nothing has been written for so long.
fn stalls(scene: &mut Scene, since: Millis) {
    probed(scene, "a", Fsync { succeeded: Some(since + 500), in_flight: Some(since), ..Fsync::default() });
    scene.server("a", |server| {
        server.lsn = Some(Aged { age: since, value: 1 });
        server.threads_in_d = 1;
    });
    scene.all_say(&Probe { selected: Some(100), ..fails(Stage::Commit, ProbeError::Timeout, since) });
}

fn deadlocks(scene: &mut Scene, since: Millis) {
    scene.server("a", |server| server.lsn = Some(Aged { age: since + 100, value: 1 }));
    scene.all_say(&fails(Stage::Commit, ProbeError::Timeout, since));
}

fn stops(scene: &mut Scene, since: Millis) {
    scene.server("a", |server| server.process_state = Some('T'));
    scene.all_say(&fails(Stage::Greeting, ProbeError::Timeout, since));
}

/// Commits have taken 800 ms for this long; an fsync takes so long.
fn slow(scene: &mut Scene, since: Millis, fsync: Millis) {
    scene.all_say(&Probe { commit_took: Some(800), ..commits() });
    probed(scene, "a", Fsync { succeeded: Some(100), took: Some(fsync), ..Fsync::default() });
    scene.0.memory.past.slow_for = since;
    scene.0.fleet.slow = 1;
}

fn free(scene: &mut Scene, letter: &str, free: u64) {
    scene.server(letter, |server| server.volume = Some(Volume { total: 1_000, free: free * 10 }));
}

fn locked(scene: &mut Scene) {
    scene.all_say(&fails(Stage::Commit, ProbeError::Server { code: 1205, message: "lock wait".into() }, 600_000));
}

fn out_of_connections(scene: &mut Scene) {
    scene.all_say(&fails(Stage::Auth, ProbeError::TooManyConnections, 20_000));
}

/// The consumer has nothing to store, and knows nothing of Kafka.
fn no_kafka(scene: &mut Scene) {
    scene.says(&consumer(), "a", Some(Probe::default()), None);
    scene.0.log.clear();
}

/// So many failovers went before, the last one five seconds ago.
fn row_of(scene: &mut Scene, in_a_row: u32) {
    scene.kill_primary(300);
    scene.0.status.in_a_row = in_a_row;
    let (kind, epoch, from) = (Kind::Failover, EPOCH, Some(name("gone")));
    let at = Some(scene.0.now - SignedDuration::from_secs(5));
    scene.0.status.last_change =
        Some(LastChange { kind, epoch, from: from.clone(), record: Some("m-4".into()), cause: None, at });
    scene.0.records.push(Record { name: "m-4".into(), kind, epoch, from, to: Some(name("a")), steps: vec![] });
}

fn lags(scene: &mut Scene) {
    scene.far_behind();
    scene.server("a", |server| server.offsets = Some(Aged { age: 50, value: vec![offset(900)] }));
    for letter in ["b", "c"] {
        scene.server(letter, |server| server.replication.as_mut().expect("replicates").value.delay = Some(600_000));
    }
}

/// `b` took over from `a`, and `a` says what it said before.
fn thawed(scene: &mut Scene) {
    scene.0.status.primary = Some(name("b"));
    scene.0.status.primary_address = Some("10.0.0.2:3306".into());
    scene.0.status.epoch = EPOCH.next();
    scene.0.memory.office_known = 5_000;
    scene.0.status.last_change = Some(LastChange {
        kind: Kind::Failover,
        epoch: EPOCH.next(),
        from: Some(name("a")),
        record: Some("m-5".into()),
        cause: Some("Stopped".into()),
        at: Some(scene.0.now - SignedDuration::from_secs(5)),
    });
    scene.server("b", |server| {
        server.serving = Some(EPOCH.next());
        server.epoch = EPOCH.next();
        server.read_only = Some(false);
        server.replication = None;
    });
    for observer in [manager("a"), manager("c"), consumer(), operator()] {
        scene.says(&observer, "b", Some(commits()), None);
    }
}

fn drained(scene: &mut Scene) {
    scene.replica("a", |replica| {
        if let Fact::Present(pod) = &mut replica.pod {
            pod.terminating = true;
        }
    });
}

const SIGNATURES: &[Row] = &[
    ("S1 process exited", |s| s.kill_primary(100), Verdict::Gone(Cause::ProcessExited), FailsOver("b"), None),
    (
        "S1 EIO",
        |s| {
            probed(s, "a", answers("EIO"));
            s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 1_000));
        },
        Verdict::Stuck(Cause::VolumeFailed),
        FailsOver("b"),
        None,
    ),
    (
        "S1 read-only remount",
        |s| {
            probed(s, "a", answers("EROFS"));
            s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 1_000));
        },
        Verdict::Stuck(Cause::VolumeFailed),
        FailsOver("b"),
        None,
    ),
    (
        "S1 node object gone",
        |s| {
            s.lose_node(3_500);
            s.0.nodes.remove("node-1");
        },
        Verdict::Gone(Cause::Unreachable),
        FailsOver("b"),
        None,
    ),
    (
        "S2 no greeting: the kernel answers for a stopped process",
        |s| s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 3_500)),
        Verdict::Stuck(Cause::Stopped),
        FailsOver("b"),
        None,
    ),
    ("S2 task state T", |s| stops(s, 3_500), Verdict::Stuck(Cause::Stopped), FailsOver("b"), None),
    ("S2 for less than 3 s", |s| stops(s, 2_500), Verdict::Suspect(Cause::Stopped), Stays, None),
    ("S3 the volume hangs", |s| stalls(s, 5_500), Verdict::Stuck(Cause::VolumeStalled), FailsOver("b"), None),
    ("S3 for less than 5 s", |s| stalls(s, 4_500), Verdict::Suspect(Cause::VolumeStalled), Stays, None),
    ("S4 a deadlock inside", |s| deadlocks(s, 8_500), Verdict::Stuck(Cause::Deadlocked), FailsOver("b"), None),
    ("S4 for less than 8 s", |s| deadlocks(s, 7_500), Verdict::Suspect(Cause::Deadlocked), Stays, None),
    ("S5 too many connections", out_of_connections, Verdict::Saturated, Stays, None),
    ("S6 slow for less than a minute", |s| slow(s, 59_000, 700), Verdict::Slow, Stays, None),
    ("S6 slow for a minute", |s| slow(s, 61_000, 700), Verdict::Slow, SwitchesOver("b"), None),
    ("S7 a lock with a holder", locked, Verdict::Saturated, Stays, None),
    ("S8 the consumer sees no progress because Kafka has none", no_kafka, Verdict::Healthy, Stays, None),
    (
        "S9 only the operator cannot see it",
        |s| s.says(&operator(), "a", Some(unreachable(30_000)), None),
        Verdict::ObserverPartition,
        Stays,
        None,
    ),
    (
        "S10 who was paused itself accuses nobody",
        |s| {
            s.silent("a", 4_000);
            s.all_say(&unreachable(3_000));
            for observer in [manager("b"), manager("c"), consumer(), operator()] {
                s.report(&observer).report.own_gap = 3_000;
            }
        },
        Verdict::Unknown,
        Stays,
        None,
    ),
];

const MUST: &[Row] = &[
    ("A1 kill", |s| s.kill_primary(100), Verdict::Gone(Cause::ProcessExited), FailsOver("b"), None),
    ("A2 freeze", |s| stops(s, 3_200), Verdict::Stuck(Cause::Stopped), FailsOver("b"), None),
    ("A2 thaw after another took over", thawed, Verdict::Healthy, Replaces("a"), None),
    (
        "A3 frozen with its manager",
        |s| {
            s.silent("a", 3_500);
            s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 3_300));
        },
        Verdict::Gone(Cause::Unreachable),
        FailsOver("b"),
        None,
    ),
    ("A4 internal deadlock", |s| deadlocks(s, 8_500), Verdict::Stuck(Cause::Deadlocked), FailsOver("b"), None),
    (
        "A5 full stall: nothing is read either",
        |s| {
            stalls(s, 5_500);
            s.all_say(&fails(Stage::Select, ProbeError::Timeout, 5_500));
        },
        Verdict::Stuck(Cause::VolumeStalled),
        FailsOver("b"),
        None,
    ),
    ("A6 wedge: reads go on", |s| stalls(s, 5_500), Verdict::Stuck(Cause::VolumeStalled), FailsOver("b"), None),
    (
        "A7 EIO",
        |s| {
            probed(s, "a", answers("EIO"));
            s.all_say(&refused(500));
        },
        Verdict::Stuck(Cause::VolumeFailed),
        FailsOver("b"),
        None,
    ),
    (
        "A7 read-only volume",
        |s| {
            probed(s, "a", answers("EROFS"));
            s.all_say(&fails(Stage::Commit, ProbeError::ReadOnly, 500));
        },
        Verdict::Stuck(Cause::VolumeFailed),
        FailsOver("b"),
        None,
    ),
    ("A8 fail-slow disk on one shard", |s| slow(s, 61_000, 700), Verdict::Slow, SwitchesOver("b"), None),
    ("A9 node loss", |s| s.lose_node(3_500), Verdict::Gone(Cause::Unreachable), FailsOver("b"), None),
    (
        "A10 node with several primaries: the breaker does not hold facts",
        |s| {
            s.lose_node(3_500);
            (s.0.fleet.suspect, s.0.fleet.silent) = (4, 4);
        },
        Verdict::Gone(Cause::Unreachable),
        FailsOver("b"),
        None,
    ),
    (
        "A11 zone loss: a standby went with the primary",
        |s| {
            s.lose_node(3_500);
            s.silent("b", 3_500);
            (s.0.fleet.suspect, s.0.fleet.silent, s.0.fleet.rebuilding) = (8, 16, 2);
        },
        Verdict::Gone(Cause::Unreachable),
        FailsOver("c"),
        None,
    ),
    (
        "A12 cut off from Kafka and clients: its manager is not heard, and nobody reaches it",
        |s| {
            s.silent("a", 3_500);
            s.all_say(&unreachable(3_300));
        },
        Verdict::Gone(Cause::Unreachable),
        FailsOver("b"),
        None,
    ),
    (
        "A13 dead, and all standbys are far behind",
        |s| {
            s.kill_primary(300);
            lags(s);
        },
        Verdict::Gone(Cause::ProcessExited),
        FailsOver("b"),
        None,
    ),
    (
        "A13 and Kafka no longer has what they lack",
        |s| {
            s.kill_primary(300);
            lags(s);
            s.0.log.insert(("samples".into(), 0), 600);
        },
        Verdict::Gone(Cause::ProcessExited),
        Stays,
        Some(Reason::RetentionViolated),
    ),
    (
        "A14 API server away: nothing is known of nodes",
        |s| {
            s.kill_primary(300);
            s.0.nodes.clear();
        },
        Verdict::Gone(Cause::ProcessExited),
        FailsOver("b"),
        None,
    ),
    (
        "A15 another operator leads since a moment ago",
        |s| {
            s.kill_primary(300);
            s.0.memory = Memory { awake: 500, office_known: 400, ..Memory::default() };
        },
        Verdict::Gone(Cause::ProcessExited),
        FailsOver("b"),
        None,
    ),
    (
        "A16 the candidate dies within its promotion",
        |s| {
            s.kill_primary(1_500);
            s.claimed(Kind::Failover, "b");
            s.reprobed(ReprobeOutcome::Failed("refused".into()));
            s.server("b", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 100 });
        },
        Verdict::Gone(Cause::ProcessExited),
        FailsOver("c"),
        Some(Reason::CandidateFailed),
    ),
    ("A17 95 % full", |s| free(s, "a", 5), Verdict::Healthy, SwitchesOver("b"), None),
    (
        "A17 full",
        |s| {
            probed(s, "a", answers("ENOSPC"));
            s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 1_500));
        },
        Verdict::Stuck(Cause::VolumeFull),
        FailsOver("b"),
        None,
    ),
    (
        "A17 all full",
        |s| {
            probed(s, "a", answers("ENOSPC"));
            s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 1_500));
            free(s, "b", 0);
            free(s, "c", 20);
        },
        Verdict::Stuck(Cause::VolumeFull),
        Stays,
        Some(Reason::NoCandidate),
    ),
    ("A18 out of memory", |s| s.kill_primary(100), Verdict::Gone(Cause::ProcessExited), FailsOver("b"), None),
    ("A18 and the next", |s| row_of(s, 1), Verdict::Gone(Cause::ProcessExited), FailsOver("b"), None),
    (
        "A18 and the one after it: a pause",
        |s| row_of(s, 2),
        Verdict::Gone(Cause::ProcessExited),
        Stays,
        Some(Reason::FailoverPaced),
    ),
];

const MUST_NOT: &[Row] = &[
    (
        "B1 operator cut off from the primary",
        |s| {
            s.says(&operator(), "a", Some(unreachable(900_000)), None);
            s.silent("a", 900_000);
        },
        Verdict::ObserverPartition,
        Stays,
        None,
    ),
    (
        "B2 primary cut off from its standbys",
        |s| {
            for letter in ["b", "c"] {
                s.says(&manager(letter), "a", Some(unreachable(20_000)), None);
                s.server(letter, |server| {
                    let replication = &mut server.replication.as_mut().expect("replicates").value;
                    (replication.receiving, replication.receive_error) = (false, Some("2003: timed out".into()));
                    server.lsn = Some(Aged { age: 20_000, value: 1 });
                });
                s.0.memory.past.stray_for.insert(name(letter), 900_000);
            }
        },
        Verdict::ObserverPartition,
        Stays,
        None,
    ),
    (
        "B3 API server away",
        |s| {
            s.0.nodes.clear();
            s.replica("c", |replica| (replica.pod, replica.volume) = (Fact::Unknown, Fact::Unknown));
        },
        Verdict::Healthy,
        Stays,
        None,
    ),
    ("B4 connections exhausted", out_of_connections, Verdict::Saturated, Stays, None),
    ("B5 long DDL", locked, Verdict::Saturated, Stays, None),
    (
        "B6 saturating load: commits take longer than a probe waits, and the log moves",
        |s| s.all_say(&fails(Stage::Commit, ProbeError::Timeout, 60_000)),
        Verdict::Suspect(Cause::Unexplained),
        Stays,
        None,
    ),
    (
        "B6 some of them end",
        |s| {
            slow(s, 600_000, 10);
            s.says(&operator(), "a", Some(fails(Stage::Commit, ProbeError::Timeout, 60_000)), None);
        },
        Verdict::Slow,
        Stays,
        Some(Reason::SwitchoverWithheld),
    ),
    ("B7 heavy queries", |s| slow(s, 600_000, 10), Verdict::Slow, Stays, Some(Reason::SwitchoverWithheld)),
    ("B8 a pause of 2 s, seen in it", |s| s.lose_node(2_000), Verdict::Suspect(Cause::Unexplained), Stays, None),
    ("B8 a pause of 2 s, a little late", |s| s.lose_node(2_400), Verdict::Suspect(Cause::Unreachable), Stays, None),
    (
        "B8 a pause of 2 s, over",
        |s| {
            s.report(&manager("a")).report.own_gap = 2_000;
            s.silent("b", 2_500);
        },
        Verdict::Healthy,
        Stays,
        None,
    ),
    (
        "B9 lossy network: a probe here and there fails",
        |s| {
            s.says(&operator(), "a", Some(unreachable(700)), None);
            s.says(&manager("b"), "a", Some(unreachable(300)), None);
        },
        Verdict::Healthy,
        Stays,
        None,
    ),
    ("B10 the clock jumps ahead", |s| s.0.now += SignedDuration::from_hours(1), Verdict::Healthy, Stays, None),
    (
        "B10 the clock is set back before the last change",
        |s| {
            let at = Some(s.0.now + SignedDuration::from_hours(1));
            let change = LastChange { kind: Kind::Failover, epoch: EPOCH, from: None, record: None, cause: None, at };
            s.0.status.last_change = Some(change);
        },
        Verdict::Healthy,
        Stays,
        None,
    ),
    ("B11 Kafka down", no_kafka, Verdict::Healthy, Stays, None),
    (
        "B12 idle tenant: canaries commit, and nothing is stored",
        |s| {
            s.0.log.insert(("samples".into(), 0), 500);
        },
        Verdict::Healthy,
        Stays,
        None,
    ),
    (
        "B13 all disks slow",
        |s| {
            slow(s, 600_000, 700);
            s.0.fleet.slow = 8;
        },
        Verdict::Slow,
        Stays,
        Some(Reason::SwitchoverWithheld),
    ),
    ("B14 drain", drained, Verdict::Healthy, SwitchesOver("b"), None),
    (
        "B14 rolling restart: the manager was told to stop",
        |s| s.server("a", |server| server.phase = Phase::Stopping),
        Verdict::Healthy,
        SwitchesOver("b"),
        None,
    ),
    (
        "B15 DNS: one cannot find it",
        |s| {
            let error = ProbeError::Other { message: "no such host".into() };
            s.says(&consumer(), "a", Some(fails(Stage::Tcp, error, 60_000)), None);
        },
        Verdict::ObserverPartition,
        Stays,
        None,
    ),
    (
        "B15 password rotated: nobody is let in",
        |s| s.all_say(&fails(Stage::Auth, ProbeError::Server { code: 1045, message: "denied".into() }, 60_000)),
        Verdict::Unknown,
        Stays,
        None,
    ),
    (
        "B15 image pull: a standby does not start",
        |s| {
            s.silent("b", 170_000);
            s.replica("b", |replica| {
                if let Fact::Present(pod) = &mut replica.pod {
                    pod.age = 170_000;
                }
            });
        },
        Verdict::Healthy,
        Stays,
        None,
    ),
    (
        "B16 one observer lies",
        |s| {
            s.says(&operator(), "a", Some(refused(60_000)), None);
            let observer = "operator understudy-0".to_owned();
            s.0.memory.past.dissenters = vec![Dissenter { observer, dissents: Dissents::For(60_000) }];
        },
        Verdict::ObserverPartition,
        Stays,
        Some(Reason::ObserverSuspect),
    ),
    (
        "B16 its manager lies",
        |s| s.server("a", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 5_000 }),
        Verdict::Healthy,
        Stays,
        None,
    ),
    (
        "B17 standby killed",
        |s| s.server("b", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: 2_000 }),
        Verdict::Healthy,
        Replaces("b"),
        None,
    ),
    (
        "B17 standby frozen",
        |s| {
            s.server("b", |server| {
                server.process_state = Some('T');
                server.executed.as_mut().expect("read").age = 61_000;
            });
        },
        Verdict::Healthy,
        Replaces("b"),
        None,
    ),
    (
        "B17 standby corrupt",
        |s| {
            s.server("b", |server| {
                let replication = &mut server.replication.as_mut().expect("replicates").value;
                (replication.applying, replication.apply_error) = (false, Some("1062: duplicate".into()));
                server.lsn = Some(Aged { age: 20_000, value: 1 });
            });
        },
        Verdict::Healthy,
        Replaces("b"),
        None,
    ),
    (
        "B18 clones at full speed",
        |s| {
            s.server("c", |server| {
                (server.phase, server.replication, server.executed) = (Phase::Building, None, None);
            });
        },
        Verdict::Healthy,
        Stays,
        None,
    ),
];

#[test]
fn each_signature_is_called_by_its_name_and_acted_on_in_its_time() {
    hold(SIGNATURES);
}

#[test]
fn what_must_end_an_office_ends_it() {
    hold(MUST);
}

#[test]
fn what_must_not_end_an_office_does_not() {
    hold(MUST_NOT);
    for (row, _, verdict, then, _) in MUST_NOT {
        assert!(!verdict.is_dead() && !matches!(then, FailsOver(_)), "{row}");
    }
}

#[test]
fn no_row_is_missing() {
    let rows: BTreeSet<_> = [SIGNATURES, MUST, MUST_NOT]
        .into_iter()
        .flatten()
        .filter_map(|(row, ..)| row.split(' ').next().map(ToOwned::to_owned))
        .collect();
    let all = |kind: &'static str, count: u32| (1..=count).map(move |number| format!("{kind}{number}"));
    let missing: Vec<_> =
        all("S", 10).chain(all("A", 18)).chain(all("B", 18)).filter(|row| !rows.contains(row)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
