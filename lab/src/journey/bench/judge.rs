//! Whether a run came out as its row says. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::rows::{Act, Must, Row};

/// How a run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// As the row says.
    AsItMust,
    /// Something acknowledged was lost or doubled, something was read that was never sent, or nothing was acknowledged.
    Inexact,
    /// The query API answered from a primary that had been replaced.
    Stale,
    /// A primary was changed that should not have been.
    FalseFailover,
    /// A primary was not changed that should have been.
    Missed,
    /// One fault changed the primary of a shard more than once: a loop, or the way back.
    Repeated,
    /// It was changed, and no record tells of it.
    Unrecorded,
    /// It was changed for a cause that the fault does not have.
    WrongCause,
    /// It was changed, and the query API gave no answer afterwards that says whose it is: nobody knows whether there were stale ones.
    Unseen,
    /// The fault showed nowhere, so nobody knows whether it was there.
    NoEffect,
    /// Not everything was there again by the end.
    NotRedundant,
}

/// What kind of change of primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Unplanned.
    Failover,
    /// Planned.
    Switchover,
    /// The same primary under a new epoch.
    Confirm,
}

/// A change of primary, as its record tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of which shard.
    pub shard: String,
    /// What kind.
    pub kind: Kind,
    /// Whether it was begun and came to nothing.
    pub failed: bool,
    /// What named the death of the old primary.
    pub cause: Option<String>,
    /// The name of its record; empty when there is none, which is a fault of the product.
    pub record: String,
}

/// All that a run is judged by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Shards that the fault hits.
    pub hit: Vec<String>,
    /// Changes of primary since the fault.
    pub changes: Vec<Change>,
    /// Nothing acknowledged was lost or doubled, and something was acknowledged.
    pub exact: bool,
    /// Answers of the query API that were stale.
    pub stale_answers: u64,
    /// Answers after a change among which there could have been such; none where no change was seen.
    pub answers_after: Option<u64>,
    /// Verdicts of the shard that was aimed at, each with its cause.
    pub verdicts: Vec<String>,
    /// Every shard had everything in the end.
    pub redundant: bool,
}

impl Change {
    /// Reads a Failover; None when it changed nothing: it was refused, or waits.
    pub fn of(failover: &Value) -> Option<Self> {
        let (spec, status) = (&failover["spec"], &failover["status"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (from, to) = (text(&status["from"]), text(&status["to"]));
        let kind = match (status["result"].as_str(), spec["kind"].as_str()) {
            (Some("Refused"), _) => return None,
            (Some("Confirmed"), _) => Kind::Confirm,
            _ if from.is_some() && from == to => Kind::Confirm,
            (_, Some("Failover")) => Kind::Failover,
            _ => Kind::Switchover,
        };
        epoch_of(failover)?;
        Some(Self {
            shard: text(&spec["shard"])?,
            kind,
            failed: status["result"] == "Failed",
            cause: text(&status["cause"]),
            record: text(&failover["metadata"]["name"])?,
        })
    }
}

/// The epoch that a Failover is the record of; None when it has none.
pub fn epoch_of(failover: &Value) -> Option<i64> {
    let of = |part: &str| failover[part]["epoch"].as_i64();
    of("status").or_else(|| of("spec"))
}

/// Whether the row lets this change be.
fn is_allowed(row: &Row, facts: &Facts, change: &Change) -> bool {
    let is_hit = facts.hit.contains(&change.shard);
    match (row.must, change.kind) {
        (_, Kind::Confirm) => true,
        (Must::Nothing, _) | (Must::Switchover | Must::Handover, Kind::Failover) => false,
        _ => is_hit,
    }
}

/// Changes of primary that the row does not let be.
pub fn false_failovers(row: &Row, facts: &Facts) -> u64 {
    facts.changes.iter().filter(|change| !is_allowed(row, facts, change)).count() as u64
}

/// Times a primary was suspected, and confirmed under the next epoch.
pub fn near_misses(facts: &Facts) -> u64 {
    facts.changes.iter().filter(|change| change.kind == Kind::Confirm).count() as u64
}

/// How the run came out; the gravest counts.
pub fn judge(row: &Row, facts: &Facts) -> Judgement {
    let satisfies = |change: &Change| {
        let is_it = match row.must {
            Must::Failover => change.kind == Kind::Failover,
            Must::Switchover | Must::Handover => change.kind == Kind::Switchover,
            Must::Change => change.kind != Kind::Confirm,
            Must::Nothing => true,
        };
        is_it && !change.failed
    };
    let is_missed = |shard: &String| !facts.changes.iter().any(|change| change.shard == *shard && satisfies(change));
    let moves = |shard: &String| {
        let its = facts.changes.iter().filter(|change| change.shard == *shard && change.kind != Kind::Confirm);
        its.count()
    };
    let is_one_fault = row.act != Act::KillBoth;
    let is_wrong = |change: &Change| {
        let cause = change.cause.as_deref().unwrap_or_default();
        change.kind != Kind::Confirm && !row.causes.is_empty() && !row.causes.contains(&cause)
    };
    if !facts.exact {
        Judgement::Inexact
    } else if facts.stale_answers > 0 {
        Judgement::Stale
    } else if false_failovers(row, facts) > 0 {
        Judgement::FalseFailover
    } else if row.owes_change() && (facts.hit.is_empty() || facts.hit.iter().any(is_missed)) {
        Judgement::Missed
    } else if is_one_fault && facts.hit.iter().any(|shard| moves(shard) > 1) {
        Judgement::Repeated
    } else if facts.changes.iter().any(|change| change.record.is_empty()) {
        Judgement::Unrecorded
    } else if facts.changes.iter().any(is_wrong) {
        Judgement::WrongCause
    } else if facts.answers_after == Some(0) {
        Judgement::Unseen
    } else if row.shows.is_some_and(|state| !facts.verdicts.iter().any(|verdict| verdict.starts_with(state))) {
        Judgement::NoEffect
    } else if !facts.redundant {
        Judgement::NotRedundant
    } else {
        Judgement::AsItMust
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::rows::ROWS;
    use super::*;

    fn row(name: &str) -> &'static Row {
        ROWS.iter().find(|row| row.name == name).unwrap()
    }

    fn change(shard: &str, kind: Kind, cause: &str) -> Change {
        Change { shard: shard.into(), kind, failed: false, cause: Some(cause.into()), record: "r".into() }
    }

    fn facts(changes: Vec<Change>) -> Facts {
        let answers_after = (!changes.is_empty()).then_some(7);
        let (hit, verdicts) = (vec!["s-0".into()], Vec::new());
        Facts { hit, changes, exact: true, stale_answers: 0, answers_after, verdicts, redundant: true }
    }

    #[test]
    fn each_run_is_judged_by_its_row() {
        use Judgement::{AsItMust, FalseFailover, Missed, Repeated, Unrecorded, WrongCause};
        use Kind::{Confirm, Failover, Switchover};
        let killed = || change("s-0", Failover, "ProcessExited");
        for (case, name, changes, expected) in [
            ("failed over", "kill", vec![killed()], AsItMust),
            ("failed over twice", "second-failure", vec![killed(), killed()], AsItMust),
            ("failed over twice for one fault", "kill", vec![killed(), killed()], Repeated),
            ("and handed back", "kill", vec![killed(), change("s-0", Switchover, "Requested")], Repeated),
            ("confirmed before", "kill", vec![change("s-0", Confirm, "Stopped"), killed()], AsItMust),
            (
                "handed over twice",
                "drain",
                vec![change("s-0", Switchover, "x"), change("s-0", Switchover, "x")],
                Repeated,
            ),
            ("not failed over", "kill", vec![], Missed),
            ("begun and failed", "kill", vec![Change { failed: true, ..killed() }], Missed),
            ("without a record", "kill", vec![Change { record: String::new(), ..killed() }], Unrecorded),
            ("without a record, for any cause", "slow", vec![Change { record: String::new(), ..killed() }], Unrecorded),
            ("only confirmed", "kill", vec![change("s-0", Confirm, "ProcessExited")], Missed),
            ("handed over in place of a failover", "kill", vec![change("s-0", Switchover, "Requested")], Missed),
            ("for another cause", "kill", vec![change("s-0", Failover, "Stopped")], WrongCause),
            ("cut off and handed over", "cut-clients", vec![change("s-0", Switchover, "CutOff")], AsItMust),
            ("handed over for another cause", "cut-clients", vec![change("s-0", Switchover, "Slow")], WrongCause),
            ("for any cause", "switchover", vec![change("s-0", Switchover, "Unexplained")], AsItMust),
            ("slow and failed over for another cause", "slow", vec![change("s-0", Failover, "Deadlocked")], WrongCause),
            ("another shard too", "kill", vec![killed(), change("s-1", Failover, "Unreachable")], FalseFailover),
            ("slow and handed over", "slow", vec![change("s-0", Switchover, "SlowVolume")], AsItMust),
            ("slow and failed over", "slow", vec![change("s-0", Failover, "VolumeStalled")], AsItMust),
            ("asked for", "switchover", vec![change("s-0", Switchover, "Requested")], AsItMust),
            ("asked for and failed over", "switchover", vec![killed()], FalseFailover),
            ("benign and left alone", "long-ddl", vec![], AsItMust),
            ("benign and a near miss", "long-ddl", vec![change("s-0", Confirm, "Deadlocked")], AsItMust),
            ("benign and failed over", "long-ddl", vec![change("s-0", Failover, "Deadlocked")], FalseFailover),
            ("benign and handed over", "long-ddl", vec![change("s-0", Switchover, "x")], FalseFailover),
            ("drained and handed over", "drain", vec![change("s-0", Switchover, "x")], AsItMust),
            ("drained and left alone", "drain", vec![], Missed),
            ("drained and failed over", "drain", vec![change("s-0", Failover, "PodStopped")], FalseFailover),
        ] {
            assert_eq!(judge(row(name), &facts(changes)), expected, "{case}");
        }
    }

    #[test]
    fn loss_is_graver_than_anything_and_missing_redundancy_is_a_failure_too() {
        let killed = vec![change("s-0", Kind::Failover, "ProcessExited")];
        let inexact = Facts { exact: false, ..facts(vec![]) };
        assert_eq!(judge(row("kill"), &inexact), Judgement::Inexact);
        let alone = Facts { redundant: false, ..facts(killed.clone()) };
        assert_eq!(judge(row("kill"), &alone), Judgement::NotRedundant);
        let nobody_hit = Facts { hit: vec![], ..facts(vec![]) };
        assert_eq!(judge(row("kill"), &nobody_hit), Judgement::Missed);
    }

    #[test]
    fn one_stale_answer_is_enough_for_a_run_not_to_be_as_it_must() {
        let killed = || vec![change("s-0", Kind::Failover, "ProcessExited")];
        let stale = Facts { stale_answers: 1, ..facts(killed()) };
        assert_eq!(judge(row("kill"), &stale), Judgement::Stale);
        assert_eq!(judge(row("long-ddl"), &Facts { stale_answers: 1, ..facts(vec![]) }), Judgement::Stale);
        assert_eq!(judge(row("kill"), &Facts { exact: false, ..stale }), Judgement::Inexact);
    }

    #[test]
    fn a_fault_from_which_nothing_came_must_have_shown() {
        let seen = |verdict: &str| {
            let verdicts = vec!["Healthy".to_owned(), verdict.to_owned()];
            judge(row("lie"), &Facts { verdicts, ..facts(vec![]) })
        };
        assert_eq!(seen("ObserverPartition"), Judgement::AsItMust);
        assert_eq!(seen("Healthy"), Judgement::NoEffect);
    }

    #[test]
    fn a_change_after_which_no_answer_was_seen_says_nothing_of_stale_ones() {
        let unseen = |changes| Facts { answers_after: Some(0), ..facts(changes) };
        let killed = vec![change("s-0", Kind::Failover, "ProcessExited")];
        assert_eq!(judge(row("kill"), &unseen(killed)), Judgement::Unseen);
    }

    #[test]
    fn false_failovers_and_near_misses_are_counted() {
        let both = vec![change("s-0", Kind::Failover, "x"), change("s-1", Kind::Confirm, "x")];
        let facts = facts(both);
        assert_eq!((false_failovers(row("idle"), &facts), near_misses(&facts)), (1, 1));
    }

    #[test]
    fn a_record_is_read_by_its_contract() {
        let failover = |kind: &str, result: &str, to: &str| {
            json!({"metadata": {"name": "s-0-5"}, "spec": {"shard": "s-0", "kind": kind},
                "status": {"epoch": 5, "result": result, "from": "a", "to": to, "cause": "Stopped"}})
        };
        let kind = |kind, result, to| Change::of(&failover(kind, result, to)).map(|change| change.kind);
        assert_eq!(
            Change::of(&failover("Failover", "Succeeded", "b")),
            Some(Change { record: "s-0-5".into(), ..change("s-0", Kind::Failover, "Stopped") })
        );
        assert_eq!(kind("Switchover", "Succeeded", "b"), Some(Kind::Switchover));
        assert_eq!(kind("Failover", "Confirmed", "a"), Some(Kind::Confirm));
        assert_eq!(kind("Failover", "Succeeded", "a"), Some(Kind::Confirm));
        assert_eq!(kind("Failover", "Failed", "b"), Some(Kind::Failover), "an epoch was spent");
        assert_eq!(kind("Switchover", "Refused", "b"), None);
        assert_eq!(Change::of(&json!({"metadata": {"name": "waits"}, "spec": {"shard": "s-0"}})), None);
    }
}
