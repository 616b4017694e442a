//! Faults that must end an office.

use understudy_decide::failover::snapshot::*;
use understudy_decide::{Cause, Reason, Verdict};
use understudy_wire::evidence::*;

use super::Row;
use super::Then::{FailsOver, Replaces, Stays, SwitchesOver};
use super::faults::*;
use super::support::*;

pub const MUST: &[Row] = &[
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
        "A4 internal deadlock, whose sessions have used up the connections",
        |s| full_with_admin(s, 60_000, waits(Stage::Select, ProbeError::Timeout, 59_000, 59_500)),
        Verdict::Stuck(Cause::Deadlocked),
        FailsOver("b"),
        None,
    ),
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
    (
        "A6 wedge, whose commits have used up the connections",
        |s| {
            stalls(s, 60_000);
            full_with_admin(s, 60_000, waits(Stage::Commit, lock_wait(), 58_000, 59_500));
        },
        Verdict::Stuck(Cause::VolumeStalled),
        FailsOver("b"),
        None,
    ),
    ("A6 wedge: reads go on", |s| stalls(s, 5_500), Verdict::Stuck(Cause::VolumeStalled), FailsOver("b"), None),
    (
        "A6 wedge, while other shards are in doubt and a standby is quicker all along",
        |s| {
            stalls(s, 5_500);
            s.0.fleet.doubtful = 2;
            s.0.memory.past.quicker_for = 5_000;
        },
        Verdict::Stuck(Cause::VolumeStalled),
        FailsOver("b"),
        None,
    ),
    (
        "A6 wedge, while writes of the others' volumes are slow, for a minute",
        |s| {
            all_hang(s);
            stalls(s, 60_500);
        },
        Verdict::Stuck(Cause::VolumeStalled),
        FailsOver("b"),
        None,
    ),
    (
        "A6 wedge, and nothing of its manager is heard",
        |s| {
            stalls(s, 60_000);
            s.all_say(&waits(Stage::Commit, lock_wait(), 58_000, 60_500));
            cut_off_operator(s);
        },
        Verdict::Gone(Cause::Unreachable),
        FailsOver("b"),
        None,
    ),
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
    (
        "A7 EIO, and no connection is left",
        |s| {
            full_with_admin(s, 1_500, fails(Stage::Commit, ProbeError::Timeout, 1_000));
            probed(s, "a", answers("EIO"));
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
        "A12 cut off from Kafka and clients, and seen by everybody else",
        |s| s.consumers_cut_off(5_500),
        Verdict::ObserverPartition,
        SwitchesOver("b"),
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
        "A17 full, and the commits that hang have used up the connections",
        |s| {
            full_with_admin(s, 2_500, waits(Stage::Commit, ProbeError::Timeout, 500, 2_000));
            probed(s, "a", answers("ENOSPC"));
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
