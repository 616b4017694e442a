//! What is told while a change of primary or a drill is waited for, and what its end comes to. Pure.

use std::collections::BTreeSet;

use super::time::measured;
use crate::objects::{Drill, Failover, Gap, LastRun};

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it is what was asked for.
    pub is_well: bool,
    /// In words.
    pub words: String,
}

/// What was told of a record already.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    steps: BTreeSet<(String, Option<String>)>,
    phase: Option<String>,
}

impl Progress {
    /// What is new: each step once, and each phase in which a person wonders what is waited for.
    pub fn news(&mut self, record: &Failover) -> Vec<String> {
        let mut news = Vec::new();
        for step in &record.timeline {
            if self.steps.insert((step.step.clone(), step.detail.clone())) {
                let after = step.elapsed_ms.map(|ms| format!(" (+{ms} ms)")).unwrap_or_default();
                let detail = step.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
                news.push(format!("{}{after}{detail}", step.step));
            }
        }
        let phase = record.phase.as_deref().unwrap_or("Pending");
        if self.phase.as_deref() != Some(phase) {
            self.phase = Some(phase.to_owned());
            let to = record.to.as_deref().unwrap_or("the new primary");
            news.extend(match phase {
                "Pending" => Some("waiting for the operator to take it up".to_owned()),
                "Rebuilding" => Some(format!("{to} takes writes; waiting until redundancy is back")),
                _ => None,
            });
        }
        news
    }
}

/// How a change of primary ended; none while it has not.
pub fn outcome(record: &Failover) -> Option<Outcome> {
    if !record.is_closed() {
        return None;
    }
    let shard = record.shard.as_deref().unwrap_or("the shard");
    let message = record.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
    let word = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".into());
    let name = &record.name;
    let (is_well, words) = match record.result.as_deref() {
        Some("Succeeded") => {
            let gap = record.write_gap.map(|gap| format!(", write gap {}", measured(gap))).unwrap_or_default();
            let (to, from) = (word(&record.to), word(&record.from));
            // Whoever was asked for could not, and a shard without a primary is worse.
            let other = record.target.as_ref().filter(|target| **target != to);
            let other = other.map(|target| format!(", and not {target} as asked{message}")).unwrap_or_default();
            (true, format!("{name}: {to} is the primary of {shard} in place of {from}{gap}{other}"))
        }
        Some("Confirmed") => {
            (false, format!("{name}: the primary of {shard} turned out to live and was confirmed{message}"))
        }
        Some("Refused") => (false, format!("{name} was refused{message}")),
        Some("Failed") => (false, format!("{name} failed{message}")),
        Some(other) => (false, format!("{name} ended as {other}{message}")),
        None => (false, format!("{name} ended without a result{message}")),
    };
    Some(Outcome { is_well, words })
}

/// How far it is when nobody waits for its end any more, and how it is followed or taken back.
pub fn so_far(name: &str, record: Option<&Failover>) -> String {
    let word = |named: Option<&String>| named.map_or("nobody", String::as_str).to_owned();
    let state = match record.and_then(|record| Some((record, record.phase.as_deref()?))) {
        None | Some((_, "Pending")) => {
            let shard = record.and_then(|record| record.shard.as_deref());
            let why = shard.map(|shard| format!("; `kubectl understudy explain {shard}` says what stands in the way"));
            let why = why.unwrap_or_default();
            return format!(
                "{name} has not been taken up yet, and still may be{why}; `kubectl delete failover {name}` takes it back"
            );
        }
        Some((record, "Rebuilding")) => {
            let (to, from) = (word(record.to.as_ref()), word(record.from.as_ref()));
            let shard = record.shard.as_deref().unwrap_or("the shard");
            format!("{to} is the primary of {shard} in place of {from}, and redundancy is not back yet")
        }
        Some((_, phase)) => format!("{name} is {phase}"),
    };
    format!("{state}; it goes on, and `kubectl understudy timeline {name}` shows how far it is")
}

/// A run of a drill that somebody waits for.
#[derive(Clone, Debug)]
pub struct Awaited {
    /// The last run when it was asked for: another one is waited for.
    before: Option<LastRun>,
    told: Option<String>,
}

impl Awaited {
    /// The run after the last one of this drill.
    pub fn after(drill: &Drill) -> Self {
        Self { before: drill.last.clone(), told: drill.message.clone() }
    }

    /// The run, once it has begun. No clocks are compared: that of whoever asked may differ from the operator's.
    fn run<'a>(&self, drill: &'a Drill) -> Option<&'a LastRun> {
        let last = drill.last.as_ref()?;
        let old = self.before.as_ref().and_then(|before| before.started.or(before.finished));
        (last.started.or(last.finished) != old).then_some(last)
    }

    /// What is being done, or why nothing is, when that is new.
    pub fn news(&mut self, drill: &Drill) -> Option<String> {
        if drill.message == self.told {
            return None;
        }
        self.told.clone_from(&drill.message);
        drill.message.clone()
    }

    /// How it ended; none while it has not.
    pub fn outcome(&self, drill: &Drill) -> Option<Outcome> {
        let run = self.run(drill).filter(|run| run.finished.is_some())?;
        let result = run.result.as_deref().unwrap_or("no result");
        let message = run.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
        let felt = |gap: &Gap| Some(format!("{} {}", gap.shard.as_deref()?, measured(gap.seconds?)));
        let gaps: Vec<_> = run.gaps.iter().filter_map(felt).collect();
        let gaps = if gaps.is_empty() { String::new() } else { format!(", write gap of {}", gaps.join(", ")) };
        Some(Outcome { is_well: run.is_well(), words: format!("{} ended: {result}{gaps}{message}", drill.name) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::fixtures::{self, at};

    fn record(fields: &[(&str, serde_json::Value)]) -> Failover {
        Failover::read(&fixtures::with(fixtures::record(), fields))
    }

    #[test]
    fn each_step_is_told_once_and_a_phase_when_it_begins() {
        let mut progress = Progress::default();
        let pending = record(&[("/status", json!({}))]);
        assert_eq!(progress.news(&pending), ["waiting for the operator to take it up"]);
        assert!(progress.news(&pending).is_empty());
        let whole = record(&[("/status/phase", "Rebuilding".into())]);
        let news = progress.news(&whole);
        assert_eq!(news.len(), whole.timeline.len() + 1, "{news:?}");
        assert_eq!(news[0], "FirstSign (+0 ms): epoch 5");
        assert!(news.last().is_some_and(|last| last.contains("m-b takes writes")), "{news:?}");
        assert!(progress.news(&whole).is_empty());
    }

    #[test]
    fn only_another_primary_is_what_was_asked_for() {
        for (result, is_well, says) in [
            ("Succeeded", true, "m-b is the primary of m in place of m-a, write gap 4.1 s"),
            ("Confirmed", false, "turned out to live"),
            ("Refused", false, "was refused: why"),
            ("Failed", false, "failed: why"),
            ("Bewitched", false, "ended as Bewitched: why"),
        ] {
            let record = record(&[("/status/result", result.into()), ("/status/message", "why".into())]);
            let outcome = outcome(&record).unwrap();
            assert_eq!(outcome.is_well, is_well, "{result}");
            assert!(outcome.words.contains(says), "{result}: {}", outcome.words);
        }
        let other = record(&[("/spec/target", "m-c".into())]);
        assert!(outcome(&other).is_some_and(|outcome| outcome.words.ends_with("4.1 s, and not m-c as asked")));
        assert_eq!(outcome(&record(&[("/status/phase", "Rebuilding".into())])), None);
        assert_eq!(outcome(&record(&[("/status", json!({}))])), None);
    }

    #[test]
    fn who_does_not_wait_any_more_is_told_how_far_it_is_and_what_can_be_done() {
        for (phase, says) in [
            (
                "Pending",
                "`kubectl understudy explain m` says what stands in the way; `kubectl delete failover m-5` takes it back",
            ),
            ("Fencing", "m-5 is Fencing; it goes on"),
            ("Rebuilding", "m-b is the primary of m in place of m-a, and redundancy is not back yet"),
        ] {
            let words = so_far("m-5", Some(&record(&[("/status/phase", phase.into())])));
            assert!(words.contains(says), "{phase}: {words}");
            assert_eq!(words.contains("timeline m-5"), phase != "Pending", "{words}");
        }
        for unseen in [None, Some(&record(&[("/status", json!({}))]))] {
            assert!(so_far("m-5", unseen).contains("has not been taken up yet"));
        }
    }

    #[test]
    fn a_run_that_was_there_before_is_not_the_one_that_was_asked_for() {
        let run = |second: i64, finished: bool, result: &str| LastRun {
            started: Some(at(second)),
            finished: finished.then(|| at(second + 30)),
            result: Some(result.into()),
            gaps: vec![Gap { shard: Some("m".into()), seconds: Some(1.5), ..Gap::default() }, Gap::default()],
            ..LastRun::default()
        };
        let drill = |last: Option<LastRun>| Drill { name: "nightly".into(), last, ..Drill::default() };
        let mut awaited = Awaited::after(&drill(Some(run(-900, true, "Succeeded"))));
        assert_eq!(awaited.news(&drill(Some(run(-900, true, "Succeeded")))), None);
        assert_eq!(awaited.outcome(&drill(Some(run(-900, true, "Succeeded")))), None);
        let running = Drill { message: Some("the victims are being hit".into()), ..drill(Some(run(5, false, ""))) };
        assert_eq!(awaited.news(&running).as_deref(), Some("the victims are being hit"));
        assert_eq!((awaited.news(&running), awaited.outcome(&running)), (None, None));
        let ended = awaited.outcome(&drill(Some(run(5, true, "Succeeded")))).unwrap();
        assert_eq!(ended.words, "nightly ended: Succeeded, write gap of m 1.5 s");
        assert!(ended.is_well);
        assert!(!awaited.outcome(&drill(Some(run(5, true, "Aborted")))).unwrap().is_well);
        let first = Awaited::after(&drill(None));
        assert!(first.outcome(&drill(Some(run(5, true, "Succeeded")))).is_some(), "the first run of all");
    }
}
