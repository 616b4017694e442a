//! `timeline`: a change of primary step by step. Pure. Its JSON is the record itself, whole.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::text::{Extent, Piece, Table, Text, Tone};
use super::time::{ago, measured, point, seconds_since, span};
use super::{Screen, tone_of_result};
use crate::objects::{Candidate, Failover, Offset, Step, Word};

/// How wide the bars are.
const BAR: usize = 40;
/// Steps up to which the bars show the time at scale; what comes later takes so much longer that nothing else could be seen beside it.
const TO_SCALE: [&str; 10] = [
    "FirstSign",
    "Suspected",
    "Quorum",
    "Decided",
    "Claimed",
    "Reprobed",
    "CaughtUp",
    "Promoted",
    "Routed",
    "FirstCommit",
];
/// Lines of one stack that are shown.
const STACK: usize = 12;

/// One change of primary.
#[derive(Clone, Debug)]
pub struct TimelineScreen {
    object: DynamicObject,
    record: Failover,
    now: Timestamp,
}

/// The whole record, with what this program does not know.
impl Serialize for TimelineScreen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object.serialize(serializer)
    }
}

/// Puts the screen together.
pub fn screen(object: DynamicObject, now: Timestamp) -> TimelineScreen {
    TimelineScreen { record: Failover::read(&object), object, now }
}

/// The steps with their times since the first one, in order.
fn elapsed(steps: &[Step]) -> Vec<(i64, &Step)> {
    let first = steps.iter().filter_map(|step| step.at).min();
    let of = |step: &Step| {
        let told = || Some(step.at?.as_millisecond().saturating_sub(first?.as_millisecond()));
        step.elapsed_ms.or_else(told).unwrap_or(0)
    };
    let mut all: Vec<_> = steps.iter().map(|step| (of(step), step)).collect();
    all.sort_by_key(|(elapsed, _)| *elapsed);
    all
}

/// What the bars have for a full width, in milliseconds: at least one.
fn scale(steps: &[(i64, &Step)]) -> i64 {
    let early =
        steps.iter().filter(|(_, step)| TO_SCALE.contains(&step.step.as_str())).map(|(elapsed, _)| *elapsed).max();
    early.or_else(|| steps.iter().map(|(elapsed, _)| *elapsed).max()).unwrap_or(0).max(1)
}

/// From the step before to this one; `>` at its end when it goes on beyond the width.
fn bar(from: i64, to: i64, scale: i64) -> String {
    let width = i64::try_from(BAR).unwrap_or(i64::MAX);
    let cell = |at: i64| usize::try_from(at.clamp(0, scale).saturating_mul(width) / scale).unwrap_or(0);
    if to > scale {
        let begin = cell(from).min(BAR - 1);
        return format!("{}{}>", " ".repeat(begin), "=".repeat(BAR - 1 - begin));
    }
    let (begin, end) = (cell(from).min(BAR - 1), cell(to));
    format!("{}{}", " ".repeat(begin), "=".repeat(end.saturating_sub(begin).max(1)))
}

impl TimelineScreen {
    fn summary(&self, text: &mut Text) {
        let record = &self.record;
        let word = |word: &Option<String>, without: &str| word.clone().unwrap_or_else(|| without.to_owned());
        let kind = word(&record.kind, "Change of primary");
        let shard = word(&record.shard, "an unnamed shard");
        let state = match (&record.result, &record.phase) {
            (Some(result), _) => Piece::new(result.as_str(), tone_of_result(result)),
            (None, Some(phase)) => Piece::new(phase.as_str(), Tone::Busy),
            (None, None) => Piece::new("Pending: no operator has taken it up yet", Tone::Busy),
        };
        text.line([Piece::new(format!("{kind} of {shard}, {}", record.name), Tone::Head), ": ".into(), state]);
        let mut facts = Vec::new();
        let mut fact = |name: &'static str, value: Option<String>| facts.extend(value.map(|value| (name, value)));
        let took = record
            .started
            .zip(record.finished)
            .map(|(from, to)| format!(", ended after {}", span(seconds_since(from, to))));
        let began = record.started.or(record.made);
        let running = began.filter(|_| !record.is_closed()).and_then(|began| ago(Some(began), self.now));
        fact("message", record.message.clone());
        fact("cause", record.cause.clone());
        fact("in words", record.explanation.clone());
        fact("drill", record.drill.clone());
        fact("asked for", record.asked_because.clone());
        fact(
            "primary",
            record
                .from
                .as_ref()
                .or(record.to.as_ref())
                .map(|_| format!("{} -> {}", word(&record.from, "nobody"), word(&record.to, "nobody yet"))),
        );
        fact("epoch", record.epoch.map(|epoch| epoch.to_string()));
        fact(
            "began",
            began.map(|began| {
                let since = running.map(|running| format!(", under way for {running}")).unwrap_or_default();
                format!("{}{}{since}", point(began), took.unwrap_or_default())
            }),
        );
        fact("write gap", record.write_gap.map(measured));
        fact("replayed", record.replayed.map(|count| format!("{count} records")));
        fact(
            "rebuild",
            record.rebuild.as_ref().map(|rebuild| {
                let replica = word(&rebuild.replica, "a new replica");
                match (rebuild.seconds, rebuild.finished) {
                    (Some(seconds), _) => format!("{replica}, redundant after {}", measured(seconds)),
                    (None, Some(at)) => format!("{replica}, redundant at {}", point(at)),
                    (None, None) => format!("{replica}, not redundant yet"),
                }
            }),
        );
        text.facts(facts);
    }

    fn steps(&self, text: &mut Text, extent: Extent) {
        let steps = elapsed(&self.record.timeline);
        if steps.is_empty() {
            text.line([]);
            return text.say("Nothing has been done yet.");
        }
        let scale = scale(&steps);
        let mut table = Table::new(&["STEP", "AFTER", "TOOK", "WHEN", "DETAIL"]).right("AFTER").right("TOOK");
        let mut before = 0;
        for (elapsed, step) in &steps {
            let took = elapsed.saturating_sub(before);
            table.row(vec![
                step.step.as_str().into(),
                format!("+{elapsed} ms").into(),
                format!("{took} ms").into(),
                Piece::new(bar(before, *elapsed, scale), Tone::Good),
                (&step.detail).into(),
            ]);
            before = *elapsed;
        }
        text.line([]);
        text.table(table, extent);
    }

    fn words(&self, text: &mut Text, head: &str, words: &[Word], extent: Extent) {
        if words.is_empty() {
            return;
        }
        text.head(head);
        let mut table = Table::new(&["OBSERVER", "AGE", "SAYS"]).right("AGE");
        for word in words {
            table.row(vec![word.observer.as_str().into(), milliseconds(word.age_ms), (&word.says).into()]);
        }
        text.table(table, extent);
    }

    fn evidence(&self, text: &mut Text, extent: Extent) {
        if self.record.evidence.is_empty() {
            return;
        }
        text.head("Evidence at the decision");
        let heads = ["OBSERVER", "OF", "KIND", "AGE", "LASTED", "FACT"];
        let mut table = Table::new(&heads).right("AGE").right("LASTED");
        for said in &self.record.evidence {
            table.row(vec![
                said.observer.as_str().into(),
                (&said.subject).into(),
                (&said.kind).into(),
                milliseconds(said.age_ms),
                milliseconds(said.lasted_ms),
                (&said.fact).into(),
            ]);
        }
        text.table(table, extent);
    }

    fn candidates(&self, text: &mut Text, extent: Extent) {
        if self.record.candidates.is_empty() {
            return;
        }
        text.head("Candidates, best first");
        let heads = ["REPLICA", "ZONE", "TAKEN", "OFFSETS", "DELAY", "EXECUTED"];
        let mut table = Table::new(&heads).right("OFFSETS").right("DELAY");
        for Candidate { replica, zone, rejected, offsets, delay_ms, executed } in &self.record.candidates {
            let taken = match rejected {
                None => Piece::new("yes", Tone::Good),
                Some(why) => Piece::from(format!("no: {why}")),
            };
            let delay = milliseconds(*delay_ms);
            table.row(vec![replica.as_str().into(), zone.into(), taken, (*offsets).into(), delay, executed.into()]);
        }
        text.table(table, extent);
    }

    fn offsets(&self, text: &mut Text, extent: Extent) {
        let mut all: BTreeMap<_, (Option<i64>, Option<i64>)> = BTreeMap::new();
        for Offset { of, next } in &self.record.offsets_before {
            all.entry(of).or_default().0 = *next;
        }
        for Offset { of, next } in &self.record.offsets_after {
            all.entry(of).or_default().1 = *next;
        }
        if all.is_empty() {
            return;
        }
        text.head("Stored offsets");
        let mut table = Table::new(&["CONSUMER", "TOPIC", "PARTITION", "BEFORE", "AFTER", "REPLAYED"]);
        for column in ["PARTITION", "BEFORE", "AFTER", "REPLAYED"] {
            table = table.right(column);
        }
        for ((consumer, topic, partition), (before, after)) in all {
            let replayed = before.zip(after).map(|(before, after)| before.saturating_sub(after).max(0));
            table.row(vec![
                consumer.as_str().into(),
                topic.as_str().into(),
                (*partition).into(),
                before.into(),
                after.into(),
                replayed.into(),
            ]);
        }
        text.table(table, extent);
    }

    fn stacks(&self, text: &mut Text, extent: Extent) {
        let Some(stacks) = &self.record.stacks else { return };
        text.head("Stacks of the old primary");
        let lines = stack_lines(stacks);
        let shown = if extent == Extent::All { lines.len() } else { STACK };
        lines.iter().take(shown).for_each(|line| text.say(format!("  {line}")));
        if let Some(more) = lines.len().checked_sub(shown).filter(|more| *more > 0) {
            text.say(Piece::new(format!("  … and {more} more lines; --all shows them"), Tone::Faint));
        }
    }
}

fn milliseconds(age: Option<i64>) -> Piece {
    age.map(|age| format!("{age} ms")).into()
}

/// Text as its lines, a list as those of its items, anything else as JSON.
fn stack_lines(stacks: &Value) -> Vec<String> {
    match stacks {
        Value::String(text) => text.lines().map(|line| line.replace('\t', "    ")).collect(),
        Value::Array(items) => items.iter().flat_map(stack_lines).collect(),
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(text) if !text.contains('\n') => vec![format!("{name}: {text}")],
                Value::String(_) | Value::Array(_) | Value::Object(_) => {
                    let within = stack_lines(value).into_iter().map(|line| format!("  {line}"));
                    std::iter::once(format!("{name}:")).chain(within).collect()
                }
                other => vec![format!("{name}: {other}")],
            })
            .collect(),
        Value::Null => Vec::new(),
        other => vec![other.to_string()],
    }
}

impl Screen for TimelineScreen {
    fn text(&self, extent: Extent) -> Text {
        let mut text = Text::default();
        self.summary(&mut text);
        self.steps(&mut text, extent);
        self.words(&mut text, "Said that the primary is dead", &self.record.votes, extent);
        self.words(&mut text, "Said that it lives", &self.record.vetoes, extent);
        self.words(&mut text, "Said what did not count", &self.record.abstentions, extent);
        self.evidence(&mut text, extent);
        self.candidates(&mut text, extent);
        self.offsets(&mut text, extent);
        self.stacks(&mut text, extent);
        text
    }
}

#[cfg(test)]
mod tests;
