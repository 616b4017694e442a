//! Whether the record of a change of primary is complete (invariant I5). Pure.

use anyhow::{Context, Result, ensure};
use understudy_api::v1alpha1::{
    EvidenceKind, EvidenceNote, Failover, FailoverKind, FailoverPhase, FailoverResult, FailoverStatus,
};

/// What a complete record of a failover holds, whether or not it was planned: each step in its order.
const UNPLANNED: [&str; 8] =
    ["Quorum", "Decided", "Claimed", "Reprobed", "Promoted", "Routed", "Condemned", "Redundant"];
const PLANNED: [&str; 4] = ["Claimed", "Fenced", "Promoted", "Routed"];
/// How the words of a server's own manager begin, and go on when it saw mysqld end; `understudy_decide::assess` has them.
const SAYS: &str = "its manager says ";
const EXITS: [&str; 3] = ["mysqld was ended", "mysqld exited", "mysqld ended"];
/// What it says when it saw mysqld stopped, and a write to its volume that does not end.
const STOPPED: &str = "its process is stopped";
const HANGS: &str = "its volume does not answer";

/// What the test knows to be true.
#[derive(Clone, Debug)]
pub struct Truth<'a> {
    /// The primary before.
    pub from: &'a str,
    /// The primary after.
    pub to: &'a str,
    /// The epoch of `to`.
    pub epoch: i64,
    /// What can be known of its commits.
    pub commits: Commits,
}

/// What an operator can know of a consumer's commits around a change of primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    /// A consumer commits, and one operator saw it before and after.
    Watched,
    /// A consumer commits, but an operator that saw it is gone. What only that one saw may be unknown: the last commit before, how the
    /// probe after the claim ended, and what the new primary began with.
    WatcherGone,
}

/// Fails with the first thing that is missing or wrong.
pub fn check(record: &Failover, truth: &Truth<'_>) -> Result<()> {
    let name = record.metadata.name.as_deref().unwrap_or("a record without a name");
    let status = record.status.as_ref().with_context(|| format!("{name} has no status"))?;
    check_status(record.spec.kind, status, truth)
        .with_context(|| format!("the record {name} is not complete: {status:?}"))
}

fn check_status(kind: FailoverKind, status: &FailoverStatus, truth: &Truth<'_>) -> Result<()> {
    ensure!(status.phase == FailoverPhase::Closed, "its phase is {}", status.phase);
    ensure!(status.result == Some(FailoverResult::Succeeded), "its result is {:?}", status.result);
    ensure!(status.from.as_deref() == Some(truth.from), "from is not {}", truth.from);
    ensure!(status.to.as_deref() == Some(truth.to), "to is not {}", truth.to);
    ensure!(status.epoch == Some(truth.epoch), "the epoch is not {}", truth.epoch);
    ensure!(status.cause.as_ref().is_some_and(|c| !c.is_empty()), "it names no cause");
    ensure!(status.message.as_ref().is_some_and(|m| !m.is_empty()), "it has no message for a person");
    let (began, ended) = (status.started_at.as_ref(), status.finished_at.as_ref());
    ensure!(began.is_some() && ended.is_some() && began <= ended, "it has no beginning or no end");

    let planned = kind == FailoverKind::Switchover;
    let may_be_unknown = truth.commits == Commits::WatcherGone;
    let expected = if planned { &PLANNED[..] } else { &UNPLANNED[..] };
    let is_expected = |step: &&&str| !(may_be_unknown && matches!(**step, "Quorum" | "Reprobed"));
    in_order(status, expected.iter().filter(is_expected).copied())?;
    ensure!(
        status.candidates.iter().any(|c| c.replica == truth.to && c.rejected.is_none()),
        "the one that was taken is no candidate"
    );
    if !planned {
        let is_first_hand = status.evidence.iter().any(|note| is_first_hand(note, status, truth));
        ensure!(is_first_hand || status.votes.len() >= 2, "fewer than two observers voted");
        ensure!(!status.evidence.is_empty(), "it holds no evidence");
        if status.cause.as_deref() == Some("VolumeStalled") {
            hung(status, truth)?;
        }
        let rebuild = status.rebuild.as_ref().context("it says nothing about the replacement")?;
        ensure!(
            rebuild.replica.as_deref().is_some_and(|r| r != truth.from && r != truth.to),
            "the replacement has no name of its own"
        );
        ensure!(
            rebuild.finished_at.is_some() && rebuild.seconds.is_some_and(|s| s > 0.0),
            "the replacement has no end"
        );
    }
    let has_after = !status.offsets_after.is_empty();
    ensure!(has_after || may_be_unknown, "the offsets on the new primary are missing");
    ensure!(planned || !status.offsets_before.is_empty(), "the offsets on the old primary are missing");
    ensure!(status.write_gap_seconds.map_or(may_be_unknown, |g| g >= 0.0), "the write gap is missing");
    let replayed = status.replayed_records;
    ensure!(planned || replayed.map_or(may_be_unknown, |r| r >= 0), "the replayed records are missing");
    ensure!(replayed.is_some() == has_after, "{replayed:?} records replayed, without the offsets that say so");
    Ok(())
}

/// How long a write to the volume had hung, and what the server's threads did meanwhile.
fn hung(status: &FailoverStatus, truth: &Truth<'_>) -> Result<()> {
    let manager = format!("manager {}", truth.from);
    let is_fsync = |note: &&EvidenceNote| note.observer == manager && note.kind == Some(EvidenceKind::Fsync);
    let fsync = status.evidence.iter().find(is_fsync).context("it says nothing of the volume")?;
    ensure!(fsync.lasted_ms.is_some_and(|lasted| lasted > 0), "the age of the write that hung is missing: {fsync:?}");
    let may_be_unknown = truth.commits == Commits::WatcherGone;
    ensure!(may_be_unknown || !status.stacks.is_empty(), "the stacks of the server that hung are missing");
    Ok(())
}

/// What a server's own manager saw with its own eyes; one more voice is enough then, and that may only wait for a lock.
fn is_first_hand(note: &EvidenceNote, status: &FailoverStatus, truth: &Truth<'_>) -> bool {
    let fact = note.fact.strip_prefix(SAYS).filter(|_| note.observer == format!("manager {}", truth.from));
    fact.is_some_and(|fact| match status.cause.as_deref() {
        Some("ProcessExited") => EXITS.iter().any(|exit| fact.starts_with(exit)),
        Some("Stopped") => fact.contains(STOPPED),
        Some("VolumeStalled") => fact.contains(HANGS),
        _ => false,
    })
}

fn in_order<'a>(status: &FailoverStatus, steps: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut entries = status.timeline.iter();
    for step in steps {
        ensure!(entries.any(|e| e.step == step), "the timeline has no {step} where it belongs");
    }
    ensure!(status.timeline.is_sorted_by(|a, b| a.elapsed_ms <= b.elapsed_ms), "the timeline goes backwards");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn complete() -> Value {
        let entry =
            |(i, step): (usize, &&str)| json!({"step": step, "at": "2026-01-01T00:00:00.000001Z", "elapsedMs": i * 10});
        let vote = |who: &str| json!({"observer": who, "says": "refused", "ageMs": 3});
        json!({
            "phase": "Closed", "result": "Succeeded", "cause": "ProcessExited", "message": "why", "from": "a", "to": "b", "epoch": 2,
            "startedAt": "2026-01-01T00:00:00.000001Z", "finishedAt": "2026-01-01T00:00:09.000001Z",
            "timeline": UNPLANNED.iter().enumerate().map(entry).collect::<Vec<_>>(),
            "votes": [vote("operator"), vote("peer c")],
            "evidence": [{"observer": "operator", "subject": "a", "fact": "refused", "ageMs": 3}],
            "candidates": [{"replica": "b"}, {"replica": "c", "rejected": "fewer transactions"}],
            "offsetsBefore": [{"consumer": "s", "topic": "t", "partition": 0, "nextOffset": 9}],
            "offsetsAfter": [{"consumer": "s", "topic": "t", "partition": 0, "nextOffset": 8}],
            "writeGapSeconds": 1.5, "replayedRecords": 1,
            "rebuild": {"replica": "d", "finishedAt": "2026-01-01T00:00:09.000001Z", "seconds": 9.0},
        })
    }

    /// What its manager tells of a volume that hangs.
    fn hung_volume() -> Value {
        json!({"observer": "manager a", "subject": "a", "fact": "f", "ageMs": 3, "kind": "Fsync", "lastedMs": 6200})
    }

    fn verdict(status: Value) -> Result<()> {
        let truth = Truth { from: "a", to: "b", epoch: 2, commits: Commits::Watched };
        check_status(FailoverKind::Failover, &serde_json::from_value(status).unwrap(), &truth)
    }

    #[test]
    fn a_complete_record_passes() {
        verdict(complete()).unwrap();
    }

    #[test]
    fn what_the_manager_itself_saw_needs_no_votes() {
        for (cause, fact) in [
            ("ProcessExited", "its manager says mysqld was ended by signal 9 0.1 s ago"),
            ("Stopped", "its manager says mysqld runs and does not answer; its process is stopped"),
            ("VolumeStalled", "its manager says mysqld runs and takes writes; its volume does not answer"),
        ] {
            let mut status = complete();
            status.as_object_mut().unwrap().remove("votes");
            status["cause"] = json!(cause);
            status["evidence"][0]["observer"] = json!("manager a");
            assert!(verdict(status.clone()).is_err(), "{cause}: it saw no such thing");
            status["evidence"][0]["fact"] = json!(fact);
            status["evidence"].as_array_mut().unwrap().push(hung_volume());
            status["stacks"] = json!(["1 in D: ib_log_flush"]);
            verdict(status.clone()).unwrap();
            status["cause"] = json!("Unreachable");
            assert!(verdict(status.clone()).is_err(), "{cause}: another cause");
            status["cause"] = json!(cause);
            status["evidence"][0]["observer"] = json!("manager c");
            assert!(verdict(status).is_err(), "{cause}: another's manager");
        }
    }

    #[test]
    fn of_a_volume_that_hung_the_age_of_the_write_and_the_stacks_are_asked_for() {
        let mut whole = complete();
        whole["cause"] = json!("VolumeStalled");
        whole["evidence"].as_array_mut().unwrap().push(hung_volume());
        whole["stacks"] = json!(["1 in D: ib_log_flush"]);
        verdict(whole.clone()).unwrap();
        for (case, at, value) in [
            ("no age", "/evidence/1/lastedMs", Value::Null),
            ("another's volume", "/evidence/1/observer", json!("manager c")),
            ("no stacks", "/stacks", json!([])),
        ] {
            let mut status = whole.clone();
            *status.pointer_mut(at).unwrap() = value;
            assert!(verdict(status).is_err(), "{case}");
        }
    }

    #[test]
    fn what_only_the_operator_that_is_gone_saw_may_be_unknown_and_nothing_else() {
        let without = |paths: &[&str]| {
            let mut status = complete();
            paths.iter().for_each(|path| drop(status.as_object_mut().unwrap().remove(*path)));
            status
        };
        let mut unprobed = complete();
        unprobed["timeline"].as_array_mut().unwrap().retain(|entry| entry["step"] != "Reprobed");
        for (case, status, allowed) in [
            ("the gap", without(&["writeGapSeconds"]), true),
            ("the probe after the claim", unprobed, true),
            ("what the new primary began with", without(&["offsetsAfter", "replayedRecords"]), true),
            ("replayed from nobody knows where", without(&["offsetsAfter"]), false),
            ("what the old primary had", without(&["offsetsBefore"]), false),
            ("who was considered", without(&["candidates"]), false),
        ] {
            let status: FailoverStatus = serde_json::from_value(status).unwrap();
            let truth = Truth { from: "a", to: "b", epoch: 2, commits: Commits::WatcherGone };
            assert_eq!(check_status(FailoverKind::Failover, &status, &truth).is_ok(), allowed, "{case}");
            let truth = Truth { commits: Commits::Watched, ..truth };
            assert!(check_status(FailoverKind::Failover, &status, &truth).is_err(), "{case}");
        }
    }

    #[test]
    fn each_missing_part_is_found() {
        for path in [
            "result",
            "cause",
            "message",
            "from",
            "to",
            "epoch",
            "startedAt",
            "finishedAt",
            "timeline",
            "votes",
            "evidence",
            "candidates",
            "offsetsBefore",
            "offsetsAfter",
            "writeGapSeconds",
            "replayedRecords",
            "rebuild",
        ] {
            let mut status = complete();
            status.as_object_mut().unwrap().remove(path);
            assert!(verdict(status).is_err(), "{path}");
        }
    }

    #[test]
    fn steps_in_the_wrong_order_are_found() {
        let mut status = complete();
        status["timeline"].as_array_mut().unwrap().swap(1, 3);
        assert!(verdict(status).is_err());
    }
}
