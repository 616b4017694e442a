//! `drill`: a rehearsal and its last run. Pure. Its JSON is the object itself, whole.

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde::{Serialize, Serializer};

use super::text::{Extent, Piece, Table, Text, Tone};
use super::time::{ago, measured, point, seconds_since, span};
use super::{Screen, tone_of_result};
use crate::objects::Drill;

/// One drill.
#[derive(Clone, Debug)]
pub struct DrillScreen {
    object: DynamicObject,
    drill: Drill,
    now: Timestamp,
}

/// The whole object, with what this program does not know.
impl Serialize for DrillScreen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

/// Puts the screen together.
pub fn screen(object: DynamicObject, now: Timestamp) -> DrillScreen {
    DrillScreen { drill: Drill::read(&object), object, now }
}

impl Screen for DrillScreen {
    fn text(&self, extent: Extent) -> Text {
        let (drill, now) = (&self.drill, self.now);
        let mut text = Text::default();
        let state = match drill.last.as_ref().map(|last| (last.result.as_deref(), last.finished)) {
            Some((Some(result), Some(_))) => Piece::new(result, tone_of_result(result)),
            Some((None, Some(_))) => Piece::new("ended without a result", Tone::Bad),
            Some((_, None)) => Piece::new("running", Tone::Busy),
            None => Piece::new("never run", Tone::Busy),
        };
        text.line([Piece::new(format!("Drill {}", drill.name), Tone::Head), ": ".into(), state]);
        let mut facts = Vec::new();
        let mut fact = |name: &'static str, value: Option<String>| facts.extend(value.map(|value| (name, value)));
        let moment = |at: Timestamp| match ago(Some(at), now) {
            Some(ago) if at <= now => format!("{}, {ago} ago", point(at)),
            _ => format!("{}, in {}", point(at), span(seconds_since(now, at))),
        };
        fact("datastore", drill.datastore.clone());
        fact("scope", drill.scope.clone());
        fact("fault", drill.fault.clone());
        fact("schedule", drill.schedule.clone());
        fact("suspended", drill.suspended.then(|| "it begins nothing".to_owned()));
        fact("now", drill.message.clone());
        fact("next run", drill.next.map(moment));
        fact("requested", drill.requested.map(moment));
        if let Some(last) = &drill.last {
            fact("last began", last.started.map(moment));
            let took = last.started.zip(last.finished).map(|(from, to)| span(seconds_since(from, to)));
            fact("last took", took);
            fact("message", last.message.clone().filter(|message| Some(message) != drill.message.as_ref()));
        }
        text.facts(facts);
        let gaps = drill.last.iter().flat_map(|last| &last.gaps);
        let mut table = Table::new(&["SHARD", "WRITE GAP", "FAILOVER"]).right("WRITE GAP");
        for gap in gaps.clone() {
            table.row(vec![(&gap.shard).into(), gap.seconds.map(measured).into(), (&gap.failover).into()]);
        }
        if gaps.count() > 0 {
            text.line([]);
            text.table(table, extent);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::fixtures::{at, object};

    #[test]
    fn a_drill_shows_its_last_run_and_the_next() {
        let drill = object(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Drill", "metadata": { "name": "nightly" },
            "spec": { "fault": "Freeze", "scope": { "kind": "Shard", "name": "m" }, "schedule": "0 3 * * *", "more": { "than": "is known" } },
            "status": {
                "nextRun": at(7_200),
                "lastRun": {
                    "startedAt": at(-90), "finishedAt": at(-30), "result": "Succeeded",
                    "gaps": [{ "shard": "m", "failover": "m-5", "writeGapSeconds": 2.3 }, { "shard": "n" }],
                },
            },
        }));
        let screen = screen(drill.clone(), at(0));
        let words = screen.text(Extent::Screen).words();
        for line in ["Drill nightly: Succeeded", "scope Shard m", "fault Freeze", "last took 1m", "m 2.3 s m-5", "n"] {
            assert!(words.iter().any(|found| found == line), "{line}: {words:#?}");
        }
        assert!(words.iter().any(|line| line.starts_with("next run") && line.ends_with("in 2h")), "{words:#?}");
        assert_eq!(serde_json::to_value(&screen).unwrap(), serde_json::to_value(&drill).unwrap());
    }

    #[test]
    fn a_drill_of_which_nothing_is_known_has_never_run() {
        let screen = screen(object(json!({ "metadata": { "name": "nightly" } })), at(0));
        assert_eq!(screen.text(Extent::Screen).words(), ["Drill nightly: never run"]);
    }
}
