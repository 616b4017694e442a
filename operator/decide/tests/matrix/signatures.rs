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
    ("S2 for less than 3 s", |s| stops(s, 2_500), Verdict::Suspect(Cause::Stopped), Stays, None),
    ("S3 the volume hangs", |s| stalls(s, 5_500), Verdict::Stuck(Cause::VolumeStalled), FailsOver("b"), None),
    ("S3 for less than 5 s", |s| stalls(s, 4_500), Verdict::Suspect(Cause::VolumeStalled), Stays, None),
    ("S4 a deadlock inside", |s| deadlocks(s, 8_500), Verdict::Stuck(Cause::Deadlocked), FailsOver("b"), None),
    ("S4 for less than 8 s", |s| deadlocks(s, 7_500), Verdict::Suspect(Cause::Deadlocked), Stays, None),
    ("S5 too many connections", out_of_connections, Verdict::Saturated, Stays, None),
    (
        "S5 too many connections of the account that probes",
        |s| s.all_say(&fails(Stage::Auth, ProbeError::TooManyConnections { whose: Limit::Account }, 20_000)),
        Verdict::Unknown,
        Stays,
        None,
    ),
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
