//! Trouble that must not end an office.

use jiff::SignedDuration;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Cause, Fact, Reason, Verdict};
use understudy_wire::evidence::*;

use super::Row;
use super::Then::{Replaces, Stays, SwitchesOver};
use super::faults::*;
use super::support::*;

pub const MUST_NOT: &[Row] = &[
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
        "B1 and a pause of the primary's machine of nearly 2 s (B8)",
        |s| {
            s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 1_900));
            cut_off_operator(s);
        },
        Verdict::Suspect(Cause::Unreachable),
        Stays,
        None,
    ),
    (
        "B1 and a lock of everything (B5)",
        |s| {
            locked(s);
            for observer in [consumer(), other_consumer()] {
                s.says(&observer, "a", Some(fails(Stage::Commit, ProbeError::Timeout, 600_000)), None);
            }
            cut_off_operator(s);
        },
        Verdict::Suspect(Cause::Unreachable),
        Stays,
        None,
    ),
    (
        "B1 in the midst of a long lock (B5) with a pause (B8) at its beginning",
        |s| {
            s.all_say(&waits(Stage::Commit, lock_wait(), 600_000, 598_000));
            cut_off_operator(s);
            s.silent("a", 50_000);
        },
        Verdict::Suspect(Cause::Unreachable),
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
    (
        "B4 and nothing is written, for the admin port answers",
        |s| full_with_admin(s, 600_000, commits()),
        Verdict::Saturated,
        Stays,
        None,
    ),
    (
        "B4 under a load in which the admin port waits too short for its commits, and the log moves",
        |s| {
            full_with_admin(s, 600_000, waits(Stage::Commit, ProbeError::Timeout, 600_000, 601_500));
            s.server("a", |server| server.lsn = Some(Aged { age: 100, value: 1 }));
        },
        Verdict::Suspect(Cause::Unexplained),
        Stays,
        None,
    ),
    (
        "B4 and consumers commit on the connections that they have",
        |s| {
            full_with_admin(s, 600_000, waits(Stage::Commit, ProbeError::Timeout, 600_000, 601_500));
            s.says(&consumer(), "a", Some(commits()), None);
        },
        Verdict::Saturated,
        Stays,
        None,
    ),
    (
        "B4 of a manager that was paused itself",
        |s| {
            full_with_admin(s, 9_000, waits(Stage::Select, ProbeError::Timeout, 9_000, 9_500));
            s.report(&manager("a")).report.own_gap = 9_000;
        },
        Verdict::Saturated,
        Stays,
        None,
    ),
    (
        "B4 behind a lock with a holder, which the admin port meets after a silence",
        |s| {
            full_with_admin(s, 600_000, waits(Stage::Commit, lock_wait(), 600_000, 601_500));
            holds_lock(s, "someone@10.0.0.9");
        },
        Verdict::Suspect(Cause::Unexplained),
        Stays,
        None,
    ),
    ("B5 long DDL", locked, Verdict::Saturated, Stays, None),
    (
        "B5 a lock of everything that a person took through the account of the manager, and a pause (B8) at its beginning",
        |s| {
            waits_in_vain(s, lock_wait(), 12_000, 11_000);
            let holder = LockHolder {
                user: "understudy_admin@localhost".into(),
                locked: "GLOBAL".into(),
                ..LockHolder::default()
            };
            s.server("a", |server| server.lock_holder = Some(Aged { age: 50, value: holder }));
        },
        Verdict::Saturated,
        Stays,
        None,
    ),
    (
        "B5 a lock of everything",
        |s| {
            s.server("a", |server| server.lsn = Some(Aged { age: 600_000, value: 1 }));
            locked(s);
        },
        Verdict::Saturated,
        Stays,
        None,
    ),
    (
        "B5 and a pause of a second (B8)",
        |s| {
            stops(s, 12_000);
            s.server("a", |server| server.stopped = Some(1_200));
            s.all_say(&after_answers(fails(Stage::Greeting, ProbeError::Timeout, 12_000), 1_400));
        },
        Verdict::Suspect(Cause::Stopped),
        Stays,
        None,
    ),
    (
        "B5 and pauses (B8) from its beginning on",
        |s| {
            let lately = waits(Stage::Greeting, ProbeError::Timeout, 12_000, 11_000);
            s.server("a", |server| server.lsn = Some(Aged { age: 12_000, value: 1 }));
            s.all_say(&after_answers(lately, 1_400));
            holds_lock(s, "backup@10.0.0.9");
        },
        Verdict::Suspect(Cause::Stopped),
        Stays,
        None,
    ),
    (
        "B5 a lock of everything, behind which consumers on two nodes are not told of it before they give up",
        |s| {
            s.server("a", |server| server.lsn = Some(Aged { age: 600_000, value: 1 }));
            locked(s);
            holds_lock(s, "backup@10.0.0.9");
            for observer in [consumer(), other_consumer()] {
                s.says(&observer, "a", Some(fails(Stage::Commit, ProbeError::Timeout, 600_000)), None);
            }
        },
        Verdict::Suspect(Cause::Unexplained),
        Stays,
        None,
    ),
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
        "B8 a pause of mysqld of 2 s, seen in it",
        |s| seen_stopped(s, 2_000, 1_500),
        Verdict::Suspect(Cause::Stopped),
        Stays,
        None,
    ),
    (
        "B8 a pause of mysqld of 2 s, of whose end the report is late",
        |s| {
            seen_stopped(s, 2_000, 1_500);
            s.report(&manager("a")).age = 1_900;
        },
        Verdict::Suspect(Cause::Stopped),
        Stays,
        None,
    ),
    (
        "B8 a pause of mysqld of 2 s, of which one has not got over the one before",
        |s| {
            seen_stopped(s, 2_000, 1_500);
            s.all_say(&Probe::default());
            s.says(&operator(), "a", Some(fails(Stage::Greeting, ProbeError::Timeout, 4_500)), None);
        },
        Verdict::Suspect(Cause::Stopped),
        Stays,
        None,
    ),
    (
        "B8 a pause of mysqld of 2 s, just over",
        |s| s.all_say(&waits(Stage::Greeting, ProbeError::Timeout, 1_600, 2_100)),
        Verdict::Suspect(Cause::Stopped),
        Stays,
        None,
    ),
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
    (
        "B13 writes of all volumes hang",
        all_hang,
        Verdict::Stuck(Cause::VolumeStalled),
        Stays,
        Some(Reason::NoCandidate),
    ),
    (
        "B13 writes of other shards hang too, and a standby has a quick moment",
        |s| {
            stalls(s, 30_000);
            s.0.fleet.doubtful = 2;
            s.0.memory.past.quicker_for = 2_000;
        },
        Verdict::Stuck(Cause::VolumeStalled),
        Stays,
        Some(Reason::NoCandidate),
    ),
    (
        "B13 each fsync takes 4 s, and ends",
        |s| {
            hangs(s, 3_950, 60_000);
            s.all_say(&waits(Stage::Commit, ProbeError::Timeout, 60_000, 61_500));
        },
        Verdict::Suspect(Cause::VolumeStalled),
        Stays,
        None,
    ),
    (
        "B13 an fsync of 4 s, of whose end the report is late",
        |s| {
            hangs(s, 3_950, 60_000);
            s.report(&manager("a")).age = 1_900;
        },
        Verdict::Suspect(Cause::VolumeStalled),
        Stays,
        None,
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
        "B16 its manager lies, and a pause of a second (B8)",
        |s| {
            s.server("a", |server| server.phase = Phase::Exited { code: Some(1), signal: None, age: 60_000 });
            s.all_say(&fails(Stage::Greeting, ProbeError::Timeout, 1_000));
        },
        Verdict::Suspect(Cause::Stopped),
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
