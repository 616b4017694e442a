//! How much a Drill's status may hold. Pure.
//!
//! An object may have 1.5 MiB in etcd, and everybody who watches Drills gets all of it with each change. Names are bounded by their schemas and the
//! victims of a run by [`MOST_VICTIMS`](understudy_decide::drill::rules::MOST_VICTIMS), so that a run has some 42 KiB at most, in the worst of all
//! names; texts and the history are bounded here. All together stays below 100 KiB.

use understudy_api::v1alpha1::{DrillRun, DrillStatus};

/// Bytes of a text for a person.
const MESSAGE: usize = 1024;
/// Bytes of why one victim could not be hit.
const ERROR: usize = 128;
/// Bytes of the history as JSON. The newest run is kept whatever it has.
const HISTORY: usize = 40 * 1024;
/// Where a text was cut.
const CUT: &str = " …";

/// The same status within its bounds. One that is within them stays as it is.
pub fn bounded(mut status: DrillStatus) -> DrillStatus {
    for run in status.last_run.iter_mut().chain(&mut status.history) {
        run.message.iter_mut().for_each(|text| cut(text, MESSAGE));
        run.victims.iter_mut().flat_map(|victim| &mut victim.error).for_each(|text| cut(text, ERROR));
    }
    status.message.iter_mut().for_each(|text| cut(text, MESSAGE));
    status.conditions.iter_mut().for_each(|condition| cut(&mut condition.message, MESSAGE));
    let mut used = 0_usize;
    let fits = |run: &&DrillRun| {
        used = used.saturating_add(size(run));
        used <= HISTORY
    };
    let kept = status.history.iter().take_while(fits).count();
    status.history.truncate(kept.max(1));
    status
}

fn size(run: &DrillRun) -> usize {
    serde_json::to_vec(run).map_or(usize::MAX, |json| json.len())
}

/// At most so many bytes, without what JSON would make six bytes of.
fn cut(text: &mut String, most: usize) {
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
    if text.len() <= most {
        return;
    }
    let end = (0..=most.saturating_sub(CUT.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text.push_str(CUT);
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use understudy_decide::drill::rules::MOST_VICTIMS;

    use super::*;

    /// A run of the most victims, each of the longest names that there are, and of texts that JSON makes longer.
    fn worst(id: usize) -> DrillRun {
        let at = "2026-03-02T10:00:00.123456Z";
        let text = format!("\u{1}é{}", "\"".repeat(2000));
        let victim = json!({
            "shard": "s".repeat(40), "replica": "r".repeat(63), "epoch": i64::MAX, "node": "n".repeat(253), "struckAt": at,
            "releasedAt": at, "restarts": i32::MAX, "error": text,
        });
        let gap = json!({ "shard": "s".repeat(40), "failover": "f".repeat(100), "writeGapSeconds": 1234.567 });
        let run = json!({
            "id": format!("{}-{id}", "d".repeat(40)), "startedAt": at, "finishedAt": at, "fault": "Freeze", "holdSeconds": 600,
            "result": "Aborted", "reason": "ScheduleUnusable", "message": text, "gap": "1234.5s",
            "victims": vec![victim; MOST_VICTIMS], "gaps": vec![gap; MOST_VICTIMS],
        });
        serde_json::from_value(run).unwrap()
    }

    fn bytes(status: &DrillStatus) -> usize {
        serde_json::to_vec(status).unwrap().len()
    }

    #[test]
    fn a_status_stays_far_below_what_an_object_may_have_whatever_its_texts_are() {
        let text = "\"\n".repeat(1000);
        let condition = |kind: &str| {
            json!({
                "type": kind, "status": "False", "reason": "ScheduleUnusable", "message": text,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let all: DrillStatus = serde_json::from_value(json!({
            "message": text, "lastRun": worst(100), "history": (0..100).map(worst).collect::<Vec<_>>(),
            "conditions": [condition("Ready"), condition("Progressing")],
        }))
        .unwrap();
        let status = bounded(all);
        assert!(bytes(&status) < 100 * 1024, "{} bytes", bytes(&status));
        assert_eq!(status.history, [bounded_run(worst(0))], "the newest is kept whole, but for its texts");
        assert_eq!(bounded(status.clone()), status, "what is within its bounds stays as it is");
    }

    fn bounded_run(run: DrillRun) -> DrillRun {
        let alone = DrillStatus { last_run: Some(run), ..DrillStatus::default() };
        bounded(alone).last_run.unwrap()
    }

    #[test]
    fn runs_as_they_are_every_day_are_all_kept() {
        let run = |id: usize| DrillRun {
            victims: worst(id).victims.into_iter().take(1).collect(),
            gaps: Vec::new(),
            message: Some("m-0-a of m-0: was hit and replaced".to_owned()),
            ..worst(id)
        };
        let status = DrillStatus { history: (0..20).map(run).collect(), ..DrillStatus::default() };
        assert_eq!(bounded(status).history.len(), 20);
    }

    #[test]
    fn a_text_is_cut_between_letters_and_says_so() {
        let mut text = "é".repeat(100);
        cut(&mut text, 21);
        assert_eq!(text, format!("{}{CUT}", "é".repeat(8)));
        cut(&mut text, 21);
        assert!(text.len() <= 21 && text.ends_with(CUT));
        let mut short = "one\nline".to_owned();
        cut(&mut short, 21);
        assert_eq!(short, "one line");
    }
}
