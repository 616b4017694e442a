//! What a Drill's status says after a decision. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use understudy_api::Drill;
use understudy_api::conditions::{self, Claim};
use understudy_api::v1alpha1::{DrillGap, DrillResult, DrillRun, DrillStatus, DrillVictim};
use understudy_decide::drill::snapshot::{Run, Victim};
use understudy_decide::drill::{
    DrillDecision, DrillSnapshot, Due, End, Ending, Gap, Hindrance, Report, rules, schedule,
};

use super::bounds::bounded;
use super::observe;

/// The status after this decision.
pub fn after(drill: &Drill, seen: &DrillSnapshot, decision: &DrillDecision, now: Timestamp) -> DrillStatus {
    let mut status = drill.status.clone().unwrap_or_default();
    let generation = drill.metadata.generation;
    status.observed_generation = generation;
    status.next_run = schedule::announced(seen, decision, now).map(Time);
    let standing = rules::standing(seen);
    status.message = match decision {
        DrillDecision::Wait { because, .. } => because.as_ref().map(words),
        DrillDecision::Skip { due, why } => {
            take_up(&mut status, *due);
            let run = skipped(seen, *due, why, now);
            keep(&mut status, run.clone(), drill.spec.history_limit);
            status.last_run = Some(run);
            Some(format!("not begun: {}", words(why)))
        }
        DrillDecision::Start { due, run } => {
            take_up(&mut status, *due);
            status.last_run = Some(started(run));
            Some(format!("{} of {} is about to begin", run.exercise.name(), observe::words(&run.victims)))
        }
        DrillDecision::Strike(places) => {
            let run = status.last_run.iter_mut().flat_map(|run| run.victims.iter_mut().enumerate());
            for (_, victim) in run.filter(|(place, _)| places.contains(place)) {
                victim.struck_at = Some(MicroTime(now));
            }
            Some("the victims are being hit".to_owned())
        }
        DrillDecision::GoOn { doing } => Some(doing.clone()),
        DrillDecision::LetGo { end, places } => {
            let victims = seen.status.run.as_ref().map(|run| run.victims.as_slice()).unwrap_or_default();
            let held: Vec<_> = places.iter().filter_map(|place| victims.get(*place).cloned()).collect();
            if let Some(run) = &mut status.last_run {
                run.ending = Some(result(end.ending));
                say(run, end);
            }
            Some(format!("{}; letting go of {}", end.message, observe::words(&held)))
        }
        DrillDecision::Finish(report) => {
            if report.end.ending == Ending::Succeeded {
                status.last_succeeded_at = Some(Time(now));
            }
            if let Some(mut run) = status.last_run.take() {
                finish(&mut run, report, now);
                keep(&mut status, run.clone(), drill.spec.history_limit);
                status.last_run = Some(run);
            }
            Some(report.end.message.clone())
        }
    };
    let (ready, progressing) = claims(seen, standing.as_ref(), &status);
    conditions::set(&mut status.conditions, ready, generation, &Time(now));
    conditions::set(&mut status.conditions, progressing, generation, &Time(now));
    bounded(status)
}

fn words(why: &Hindrance) -> String {
    format!("{}: {}", why.rule, why.message)
}

fn claims(seen: &DrillSnapshot, standing: Option<&Hindrance>, status: &DrillStatus) -> (Claim, Claim) {
    let ready = match (standing, &seen.policy.schedule) {
        (Some(why), _) => Claim::no(conditions::READY, why.rule.into(), why.message.clone()),
        (None, Some(_)) => Claim::yes(conditions::READY, "Scheduled", "a run begins when the schedule asks for it"),
        (None, None) => Claim::yes(conditions::READY, "OnRequest", "a run begins when spec.requestedAt asks for it"),
    };
    let run = status.last_run.as_ref().filter(|run| run.result.is_none());
    let progressing = match run {
        Some(run) => Claim::yes(conditions::PROGRESSING, "Running", format!("the run {} goes on", run.id)),
        None => Claim::no(conditions::PROGRESSING, "Idle", "no run goes on"),
    };
    (ready, progressing)
}

fn take_up(status: &mut DrillStatus, due: Due) {
    if let Due::Requested(at) = due {
        status.last_requested_at = Some(Time(at));
    }
}

/// Of those that were begun the last one stays, however many were not since: it alone tells whether what is rehearsed works.
fn keep(status: &mut DrillStatus, run: DrillRun, limit: i32) {
    let history = &mut status.history;
    history.insert(0, run);
    let limit = usize::try_from(limit).unwrap_or(1).max(1);
    while history.len() > limit {
        let last = history.len() - 1;
        let begun = history.iter().position(|run| run.result != Some(DrillResult::Skipped));
        let spare = if begun == Some(last) { last.saturating_sub(1).max(1) } else { last };
        history.remove(spare);
    }
}

fn started(run: &Run) -> DrillRun {
    DrillRun {
        id: run.id.clone(),
        started_at: MicroTime(run.started_at),
        finished_at: None,
        fault: observe::fault(run.exercise),
        hold_seconds: run.exercise.is_held().then(|| i32::try_from(run.hold.as_secs()).unwrap_or(i32::MAX)),
        victims: run.victims.iter().map(victim).collect(),
        result: None,
        ending: None,
        reason: None,
        message: None,
        gaps: Vec::new(),
        gap: None,
    }
}

fn victim(victim: &Victim) -> DrillVictim {
    DrillVictim {
        shard: victim.shard.to_string(),
        replica: victim.replica.to_string(),
        epoch: i64::try_from(victim.epoch.0).unwrap_or(i64::MAX),
        node: victim.node.clone(),
        struck_at: victim.struck_at.map(MicroTime),
        error: victim.error.clone(),
        released_at: victim.released_at.map(MicroTime),
        restarts: victim.restarts.and_then(|restarts| i32::try_from(restarts).ok()),
    }
}

fn skipped(seen: &DrillSnapshot, due: Due, why: &Hindrance, now: Timestamp) -> DrillRun {
    DrillRun {
        id: due.run_of(&seen.name),
        started_at: MicroTime(now),
        finished_at: Some(MicroTime(now)),
        fault: observe::fault(seen.policy.exercise),
        hold_seconds: None,
        victims: Vec::new(),
        result: Some(DrillResult::Skipped),
        ending: None,
        reason: Some(why.rule.to_string()),
        message: Some(words(why)),
        gaps: Vec::new(),
        gap: None,
    }
}

fn finish(run: &mut DrillRun, report: &Report, now: Timestamp) {
    run.finished_at = Some(MicroTime(now));
    run.result = Some(result(report.end.ending));
    run.ending = None;
    say(run, &report.end);
    run.gaps = report.gaps.iter().map(gap).collect();
    let longest = report.gaps.iter().filter_map(|gap| gap.seconds).reduce(f64::max);
    run.gap = longest.map(|seconds| format!("{seconds:.1}s"));
}

fn say(run: &mut DrillRun, end: &End) {
    run.reason = end.rule.map(|rule| rule.to_string());
    run.message = Some(end.message.clone());
}

/// As statuses and metrics have it.
pub fn result(ending: Ending) -> DrillResult {
    match ending {
        Ending::Succeeded => DrillResult::Succeeded,
        Ending::Aborted => DrillResult::Aborted,
        Ending::Failed => DrillResult::Failed,
    }
}

fn gap(gap: &Gap) -> DrillGap {
    DrillGap { shard: gap.shard.to_string(), failover: gap.failover.clone(), write_gap_seconds: gap.seconds }
}

/// The same status, with why these victims could not be hit.
pub fn with_errors(mut status: DrillStatus, errors: &[(usize, String)]) -> DrillStatus {
    for (place, error) in errors {
        if let Some(victim) = victim_of(&mut status, *place) {
            victim.error = Some(error.clone());
        }
    }
    bounded(status)
}

/// The same status, with these victims let go.
pub fn with_released(mut status: DrillStatus, places: &[usize], now: Timestamp) -> DrillStatus {
    for place in places {
        if let Some(victim) = victim_of(&mut status, *place) {
            victim.released_at = Some(MicroTime(now));
        }
    }
    status
}

fn victim_of(status: &mut DrillStatus, place: usize) -> Option<&mut DrillVictim> {
    status.last_run.as_mut()?.victims.get_mut(place)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_run_that_was_begun_is_kept_however_many_were_not_since() {
        let run = |id: u32, result: &str| -> DrillRun {
            let run =
                json!({ "id": format!("weekly-{id}"), "startedAt": "2026-03-02T10:00:00.000000Z", "result": result });
            serde_json::from_value(run).unwrap()
        };
        let kept = |limit: i32, results: &[&str]| {
            let mut status = DrillStatus::default();
            for (id, result) in (0..).zip(results.iter().copied()) {
                keep(&mut status, run(id, result), limit);
            }
            status.history.into_iter().map(|run| run.id).collect::<Vec<_>>()
        };
        for (case, limit, results, expected) in [
            ("all are begun", 2, &["Failed", "Succeeded", "Succeeded"][..], &["weekly-2", "weekly-1"][..]),
            ("none was since", 2, &["Failed", "Skipped", "Skipped", "Skipped"], &["weekly-3", "weekly-0"]),
            ("one was since", 2, &["Failed", "Succeeded", "Skipped", "Skipped"], &["weekly-3", "weekly-1"]),
            ("none was ever", 2, &["Skipped", "Skipped", "Skipped"], &["weekly-2", "weekly-1"]),
            ("there is room for one", 1, &["Failed", "Skipped"], &["weekly-1"]),
        ] {
            assert_eq!(kept(limit, results), expected, "{case}");
        }
    }
}
