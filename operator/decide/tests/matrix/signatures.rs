//! The table of signatures.

use understudy_decide::{Cause, Verdict};
use understudy_wire::evidence::*;

use super::Row;
use super::Then::{FailsOver, Stays, SwitchesOver};
use super::faults::*;
use super::support::*;

pub const SIGNATURES: &[Row] = &[
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
    // What is told is 50 ms old.
    (
        "S2 task state T, of a manager that does not tell for how long",
        |s| stops(s, 2_950),
        Verdict::Stuck(Cause::Stopped),
        FailsOver("b"),
        None,
    ),
    ("S2 the same, a millisecond before", |s| stops(s, 2_949), Verdict::Suspect(Cause::Stopped), Stays, None),
    (
        "S2 seen stopped for 2.5 s",
        |s| seen_stopped(s, 2_450, 1_450),
        Verdict::Stuck(Cause::Stopped),
        FailsOver("b"),
        None,
    ),
    ("S2 seen stopped for less", |s| seen_stopped(s, 2_449, 2_200), Verdict::Suspect(Cause::Stopped), Stays, None),
    (
        "S2 seen stopped for long, and borne out for less than 1.5 s",
        |s| seen_stopped(s, 60_000, 1_449),
        Verdict::Suspect(Cause::Stopped),
        Stays,
        None,
    ),
    (
        "S2 seen stopped for long, and borne out by one",
        |s| {
            seen_stopped(s, 60_000, 0);
            s.all_say(&Probe::default());
            s.says(&operator(), "a", Some(fails(Stage::Greeting, ProbeError::Timeout, 1_450)), None);
        },
        Verdict::Stuck(Cause::Stopped),
        FailsOver("b"),
        None,
    ),
    (
        "S2 no greeting for 3 s",
        |s| s.all_say(&waits(Stage::Greeting, ProbeError::Timeout, 2_950, 3_450)),
        Verdict::Stuck(Cause::Stopped),
        FailsOver("b"),
        None,
    ),
    (
        "S2 no greeting for less: it counts from the end of the attempt",
        |s| s.all_say(&waits(Stage::Greeting, ProbeError::Timeout, 2_949, 3_449)),
        Verdict::Suspect(Cause::Stopped),
        Stays,
        None,
    ),
    ("S2 for less than 3 s", |s| stops(s, 2_500), Verdict::Suspect(Cause::Stopped), Stays, None),
    ("S3 the volume hangs", |s| stalls(s, 5_500), Verdict::Stuck(Cause::VolumeStalled), FailsOver("b"), None),
    ("S3 for less than 5 s", |s| stalls(s, 4_500), Verdict::Suspect(Cause::VolumeStalled), Stays, None),
    (
        "S3 a write hangs for 5 s, and commits for 3 s",
        |s| hangs(s, 4_950, 2_950),
        Verdict::Stuck(Cause::VolumeStalled),
        FailsOver("b"),
        None,
    ),
    ("S3 a write hangs for less", |s| hangs(s, 4_949, 4_949), Verdict::Suspect(Cause::VolumeStalled), Stays, None),
    ("S3 commits hang for less", |s| hangs(s, 60_000, 2_949), Verdict::Suspect(Cause::VolumeStalled), Stays, None),
    (
        "S4 a deadlock counts from the beginning of the first attempt",
        |s| waits_in_vain(s, ProbeError::Timeout, 6_450, 7_950),
        Verdict::Stuck(Cause::Deadlocked),
        FailsOver("b"),
        None,
    ),
    (
        "S4 the same, a millisecond before",
        |s| waits_in_vain(s, ProbeError::Timeout, 6_449, 7_949),
        Verdict::Suspect(Cause::Deadlocked),
        Stays,
        None,
    ),
    (
        "S4 something moved less than 8 s ago",
        |s| {
            waits_in_vain(s, ProbeError::Timeout, 60_000, 61_500);
            s.server("a", |server| server.lsn = Some(Aged { age: 7_949, value: 1 }));
        },
        Verdict::Suspect(Cause::Deadlocked),
        Stays,
        None,
    ),
    (
        "S4 one domain is no agreement",
        |s| {
            waits_in_vain(s, ProbeError::Timeout, 0, 60_000);
            s.all_say(&Probe::default());
            s.says(&operator(), "a", Some(waits(Stage::Commit, ProbeError::Timeout, 60_000, 61_500)), None);
        },
        Verdict::Suspect(Cause::Deadlocked),
        Stays,
        None,
    ),
    (
        "S4 a lock was in the way for long, and nobody has been answered for less than 8 s",
        |s| waits_in_vain(s, ProbeError::Timeout, 60_000, 7_949),
        Verdict::Suspect(Cause::Deadlocked),
        Stays,
        None,
    ),
    (
        "S4 commits that hang hold the locks of those after them",
        |s| waits_in_vain(s, lock_wait(), 6_450, 7_950),
        Verdict::Stuck(Cause::Deadlocked),
        FailsOver("b"),
        None,
    ),
    (
        "S4 and are named as their holders",
        |s| {
            waits_in_vain(s, lock_wait(), 6_450, 7_950);
            holds_lock(s, "understudy_probe@10.0.0.2");
        },
        Verdict::Stuck(Cause::Deadlocked),
        FailsOver("b"),
        None,
    ),
    (
        "S4 and the manager's own probe of the admin port, which hung first, is named",
        |s| {
            waits_in_vain(s, lock_wait(), 6_450, 7_950);
            holds_lock(s, "understudy_admin@127.0.0.1");
        },
        Verdict::Stuck(Cause::Deadlocked),
        FailsOver("b"),
        None,
    ),
    (
        "S4 and a consumer whose commit hangs as well is named",
        |s| {
            waits_in_vain(s, lock_wait(), 6_450, 7_950);
            holds_lock(s, "understudy_consumer@10.0.0.9");
        },
        Verdict::Stuck(Cause::Deadlocked),
        FailsOver("b"),
        None,
    ),
    (
        "S3 a write hangs for 5 s, no connection is left, and the admin port has not answered for 3 s",
        |s| {
            hangs(s, 4_950, 0);
            full_with_admin(s, 4_900, fails(Stage::Commit, ProbeError::Timeout, 2_950));
        },
        Verdict::Stuck(Cause::VolumeStalled),
        FailsOver("b"),
        None,
    ),
    (
        "S3 and the admin port has not answered for less",
        |s| {
            hangs(s, 4_950, 0);
            full_with_admin(s, 4_900, fails(Stage::Commit, ProbeError::Timeout, 2_949));
        },
        Verdict::Suspect(Cause::VolumeStalled),
        Stays,
        None,
    ),
    ("S4 a deadlock inside", |s| deadlocks(s, 8_500), Verdict::Stuck(Cause::Deadlocked), FailsOver("b"), None),
    (
        "S4 out of connections, and the admin port has not answered for 8 s",
        |s| full_with_admin(s, 60_000, waits(Stage::Select, ProbeError::Timeout, 7_450, 7_950)),
        Verdict::Stuck(Cause::Deadlocked),
        FailsOver("b"),
        None,
    ),
    (
        "S4 the same, a millisecond less",
        |s| full_with_admin(s, 60_000, waits(Stage::Select, ProbeError::Timeout, 7_449, 7_949)),
        Verdict::Suspect(Cause::Deadlocked),
        Stays,
        None,
    ),
    (
        "S4 an admin port that has not answered for long, of a server that was full for less",
        |s| full_with_admin(s, 7_949, waits(Stage::Select, ProbeError::Timeout, 60_000, 60_500)),
        Verdict::Suspect(Cause::Deadlocked),
        Stays,
        None,
    ),
    (
        "S4 out of connections after 7 s of silence, which goes on",
        |s| full_after_silence(s, 7_950, 8_200),
        Verdict::Stuck(Cause::Deadlocked),
        FailsOver("b"),
        None,
    ),
    (
        "S4 out of connections after a silence in which the admin port answered",
        |s| full_after_silence(s, 60_000, 7_949),
        Verdict::Suspect(Cause::Deadlocked),
        Stays,
        None,
    ),
    ("S4 for less than 8 s", |s| deadlocks(s, 7_500), Verdict::Suspect(Cause::Deadlocked), Stays, None),
    ("S5 too many connections", out_of_connections, Verdict::Saturated, Stays, None),
    (
        "S5 too many connections, and the admin port answers",
        |s| full_with_admin(s, 600_000, commits()),
        Verdict::Saturated,
        Stays,
        None,
    ),
    (
        "S5 too many connections after a silence, and the admin port answers",
        |s| {
            full_after_silence(s, 60_000, 60_000);
            s.server("a", |server| server.admin = Some(commits()));
        },
        Verdict::Saturated,
        Stays,
        None,
    ),
    (
        "S5 too many connections, and a lock is in the way of who comes in by the admin port",
        |s| full_with_admin(s, 600_000, fails(Stage::Commit, lock_wait(), 600_000)),
        Verdict::Saturated,
        Stays,
        None,
    ),
    (
        "S5 too many connections of the account that probes",
        |s| s.all_say(&fails(Stage::Auth, ProbeError::TooManyConnections { whose: Limit::Account }, 20_000)),
        Verdict::Unknown,
        Stays,
        None,
    ),
    ("S6 slow for less than a minute", |s| slow(s, 59_000, 700), Verdict::Slow, Stays, None),
    ("S6 slow for a minute", |s| slow(s, 61_000, 700), Verdict::Slow, SwitchesOver("b"), None),
    (
        "S7 a lock with a holder, after commits that were not answered",
        |s| {
            waits_in_vain(s, lock_wait(), 60_000, 61_500);
            holds_lock(s, "someone@10.0.0.9");
        },
        Verdict::Saturated,
        Stays,
        None,
    ),
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
