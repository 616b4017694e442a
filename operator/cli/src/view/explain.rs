//! `explain`: what is wrong with a shard, since when, who says so, what is being done, and why nothing when nothing. Pure.

use jiff::Timestamp;
use serde::Serialize;
use understudy_api::conditions;
use understudy_api::v1alpha1::VerdictState;

use super::runbook::{self, Runbook};
use super::text::{Extent, Piece, Table, Text, Tone};
use super::time::{ago, measured, point, seconds_since, span};
use super::{Screen, inaction, status, tone_of, tone_of_ready};
use crate::leader::Leader;
use crate::objects::{
    Availability, Condition, Event, LastFailover, LastSuspicion, Observer, ReplicaSummary, Shard, Transition, Verdict,
    Withheld,
};

/// Conditions that say something is wrong when they do not hold. `UpToDate` is none: an older replica serves as well.
const SHOULD_HOLD: [&str; 6] = [
    conditions::PRIMARY_HEALTHY,
    conditions::PROMOTABLE,
    conditions::REDUNDANT,
    conditions::PROVISIONED,
    conditions::CONSUMERS_CURRENT,
    conditions::READY,
];
/// These only sum up what the others say.
const SUMMARIES: [&str; 2] = [conditions::READY, conditions::PRIMARY_HEALTHY];

/// What is known of a shard.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExplainScreen {
    namespace: String,
    shard: String,
    datastore: Option<String>,
    at: Timestamp,
    operator: Leader,
    primary: Option<String>,
    epoch: Option<i64>,
    ready: Option<String>,
    verdict: Option<Verdict>,
    for_seconds: Option<i64>,
    /// The answer in one sentence.
    answer: String,
    /// What is wrong beside the verdict.
    wrong: Vec<Wrong>,
    observers: Vec<Observer>,
    doing: Option<String>,
    transition: Option<Transition>,
    why_nothing: Vec<String>,
    /// What is held back now, as the status has it.
    withheld: Vec<Withheld>,
    /// What to read and to look at.
    runbooks: Vec<Runbook>,
    replicas: Vec<ReplicaSummary>,
    last_failover: Option<LastFailover>,
    last_suspicion: Option<LastSuspicion>,
    availability: Option<Availability>,
    /// What was said of the shard, newest first.
    events: Vec<Event>,
    /// What could not be read, and why.
    not_read: Vec<String>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Wrong {
    condition: String,
    reason: Option<String>,
    message: Option<String>,
    since: Option<Timestamp>,
    for_seconds: Option<i64>,
}

/// What was read of a shard.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The namespace.
    pub namespace: String,
    /// Which operator acts on it.
    pub operator: Leader,
    /// The shard.
    pub shard: Shard,
    /// Whether its Datastore is paused.
    pub datastore_paused: bool,
    /// What was said of it.
    pub events: Vec<Event>,
    /// What could not be read, and why.
    pub not_read: Vec<String>,
}

/// Puts the screen together.
pub fn screen(seen: Seen, now: Timestamp) -> ExplainScreen {
    let Seen { namespace, operator, shard, datastore_paused, mut events, not_read } = seen;
    let is_absent = operator.absence().is_some();
    let mut why_nothing = inaction::reasons(&shard, datastore_paused, &events, now);
    if is_absent {
        why_nothing.insert(0, "no operator acts: whatever is wanted waits until one does".into());
    }
    events.sort_by_key(|event| std::cmp::Reverse(event.at));
    let since = shard.verdict.as_ref().and_then(|verdict| verdict.since);
    let wrong = wrong(&shard, now);
    let answer = answer(&shard, &wrong, now);
    let runbooks = runbook::runbooks(&shard, &namespace);
    ExplainScreen {
        answer: if is_absent && shard.has_status { format!("What was known last: {answer}") } else { answer },
        namespace,
        shard: shard.name,
        datastore: shard.datastore,
        at: now,
        operator,
        primary: shard.primary,
        epoch: shard.epoch,
        ready: shard.ready,
        for_seconds: since.map(|since| seconds_since(since, now)),
        verdict: shard.verdict,
        wrong,
        observers: shard.observers,
        doing: shard.doing,
        transition: shard.transition,
        why_nothing,
        withheld: shard.withheld,
        runbooks,
        replicas: shard.replicas,
        last_failover: shard.last_failover,
        last_suspicion: shard.last_suspicion,
        availability: shard.availability,
        events,
        not_read,
    }
}

fn wrong(shard: &Shard, now: Timestamp) -> Vec<Wrong> {
    let holds_not = |condition: &&Condition| {
        SHOULD_HOLD.contains(&condition.kind.as_str()) && condition.status.as_deref() == Some("False")
    };
    // One replica that was asked for has no standby, and that is as it was asked.
    let is_asked = |condition: &&Condition| condition.reason.as_deref() == Some("SingleReplica");
    let is_degraded =
        |condition: &&Condition| condition.kind == conditions::DEGRADED && condition.status.as_deref() == Some("True");
    let found: Vec<_> = shard
        .conditions
        .iter()
        .filter(|condition| (holds_not(condition) || is_degraded(condition)) && !is_asked(condition))
        .collect();
    let says_more = found.iter().any(|condition| !SUMMARIES.contains(&condition.kind.as_str()));
    found
        .into_iter()
        .filter(|condition| !says_more || !SUMMARIES.contains(&condition.kind.as_str()))
        .map(|condition| Wrong {
            condition: condition.kind.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: condition.since,
            for_seconds: condition.since.map(|since| seconds_since(since, now)),
        })
        .collect()
}

fn answer(shard: &Shard, wrong: &[Wrong], now: Timestamp) -> String {
    let name = &shard.name;
    let Some(verdict) = &shard.verdict else {
        return match shard.has_status {
            true => format!("{name} has no verdict: nobody has said anything of its primary yet."),
            false => format!("{name} has no status: no operator has looked at it yet."),
        };
    };
    let since = match verdict.since {
        Some(since) => format!(" for {} (since {})", span(seconds_since(since, now)), point(since)),
        None => String::new(),
    };
    let primary = shard.primary.as_deref().map(|primary| format!(" The primary is {primary}.")).unwrap_or_default();
    match (verdict.known(), wrong.len()) {
        (Some(VerdictState::Healthy), 0) if shard.transition.is_none() => {
            format!("Nothing is wrong with {name}: it has been Healthy{since}.{primary}")
        }
        (Some(VerdictState::Healthy), _) if shard.transition.is_some() => {
            format!("{name} is Healthy{since}, and its primary is being changed.{primary}")
        }
        (Some(VerdictState::Healthy), _) => {
            format!("The primary of {name} has been Healthy{since}, but the shard is not whole.{primary}")
        }
        _ => format!("{name} has been {}{since}.{primary}", verdict.words()),
    }
}

impl ExplainScreen {
    fn is_old(&self) -> bool {
        self.operator.absence().is_some()
    }

    fn verdict(&self, text: &mut Text) {
        if let Some(absence) = self.operator.absence() {
            text.say(Piece::new(absence, Tone::Bad));
        }
        let known = self.verdict.as_ref().and_then(Verdict::known);
        let tone = match tone_of(known) {
            Tone::Good if !self.wrong.is_empty() || self.is_old() => Tone::Busy,
            tone => tone,
        };
        text.say(Piece::new(self.answer.as_str(), tone));
        let healthy = known == Some(VerdictState::Healthy);
        if let Some(message) = self.verdict.as_ref().and_then(|verdict| verdict.message.as_deref()).filter(|_| !healthy)
        {
            text.say(message);
        }
        if !self.wrong.is_empty() {
            text.head("What is wrong");
            for wrong in &self.wrong {
                let since = wrong.for_seconds.map(|seconds| format!(" for {}", span(seconds))).unwrap_or_default();
                let reason = wrong.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                let head = Piece::new(format!("  {}{reason}{since}", wrong.condition), Tone::Busy);
                let message = wrong.message.as_deref().map(|message| format!(": {message}")).unwrap_or_default();
                text.line([head, message.into()]);
            }
        }
    }

    fn observers(&self, text: &mut Text, extent: Extent) {
        text.head("Who says so");
        if self.observers.is_empty() {
            let words = "  The status does not tell observer by observer; what they said together is in the verdict and the events.";
            return text.say(Piece::new(words, Tone::Faint));
        }
        let mut table = Table::new(&["OBSERVER", "NAME", "DOMAIN", "STANCE", "FOR", "COUNTS", "SAYS"]);
        for observer in &self.observers {
            let counts = match (observer.counts, &observer.not_counted) {
                (Some(true), _) => Piece::from("yes"),
                (Some(false), Some(why)) => Piece::new(format!("no: {why}"), Tone::Faint),
                (Some(false), None) => Piece::new("no", Tone::Faint),
                (None, _) => Piece::default(),
            };
            let tone = match observer.stance.as_deref() {
                Some("Commits") => Tone::Good,
                Some("Accuses") => Tone::Bad,
                _ => Tone::Plain,
            };
            table.row(vec![
                (&observer.kind).into(),
                (&observer.name).into(),
                (&observer.domain).into(),
                Piece::new(observer.stance.clone().unwrap_or_default(), tone),
                ago(observer.since, self.at).into(),
                counts,
                (&observer.says).into(),
            ]);
        }
        text.table(table, extent);
    }

    fn action(&self, text: &mut Text) {
        text.head(if self.is_old() { "What was being done" } else { "What is being done" });
        if let Some(transition) = &self.transition {
            let kind = transition.kind.as_deref().unwrap_or("Change of primary");
            let word = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".into());
            let epoch = transition.epoch.map(|epoch| format!(" under epoch {epoch}")).unwrap_or_default();
            let since = ago(transition.since, self.at).map(|since| format!(", for {since}")).unwrap_or_default();
            let (from, to) = (word(&transition.from), word(&transition.to));
            text.say(Piece::new(format!("  {kind} from {from} to {to}{epoch}{since}"), Tone::Busy));
            if let Some(record) = &transition.record {
                text.say(Piece::new(format!("  kubectl understudy timeline {record}"), Tone::Faint));
            }
        }
        match (&self.doing, &self.transition, self.why_nothing.is_empty()) {
            (Some(doing), _, _) => text.say(format!("  {doing}")),
            (None, None, true) => text.say(self.idle()),
            (None, None, false) => text.say("  Nothing."),
            (None, Some(_), _) => {}
        }
        if !self.why_nothing.is_empty() {
            text.head(if self.doing.is_some() { "Why not more" } else { "Why nothing" });
            self.why_nothing.iter().for_each(|reason| text.say(format!("  {reason}")));
        }
    }

    /// In place of what is being done, where nobody says that anything is.
    fn idle(&self) -> &'static str {
        let healthy = self.verdict.as_ref().and_then(Verdict::known) == Some(VerdictState::Healthy);
        match (healthy, self.wrong.is_empty()) {
            (true, true) => "  Nothing is to be done.",
            (true, false) => "  Nothing about the primary. What becomes of each replica is below.",
            (false, _) => "  Nothing that the status tells of yet.",
        }
    }

    fn replicas(&self, text: &mut Text, extent: Extent) {
        if self.replicas.is_empty() {
            return;
        }
        text.line([]);
        let heads = ["REPLICA", "ROLE", "PHASE", "NODE", "READY", "PROMOTABLE", "DELAY", "WHAT"];
        let mut table = Table::new(&heads).right("DELAY");
        let word = |yes: bool, tone: Tone| if yes { Piece::from("yes") } else { Piece::new("no", tone) };
        for replica in &self.replicas {
            let is_primary = Some(&replica.name) == self.primary.as_ref();
            let tone = if replica.is_condemned() { Tone::Faint } else { Tone::Busy };
            table.row(vec![
                replica.name.as_str().into(),
                (&replica.role).into(),
                (&replica.phase).into(),
                (&replica.node).into(),
                word(replica.ready, tone),
                if is_primary { Piece::default() } else { word(replica.promotable, tone) },
                replica.delay_seconds.map(measured).into(),
                (&replica.message).into(),
            ]);
        }
        text.table(table, extent);
    }

    /// Of a suspicion that a commit ended before anything was done about it.
    fn suspicion(&self, last: &LastSuspicion) -> String {
        let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "something".into());
        let when = ago(last.cleared_at, self.at).map(|ago| format!(" {ago} ago")).unwrap_or_default();
        let lasted = last.lasted_ms.map(|lasted| format!(", its first sign {lasted} ms old")).unwrap_or_default();
        let count = last.count.filter(|count| *count > 1).map(|count| format!("; {count} so far")).unwrap_or_default();
        let (state, cause, replica) = (word(&last.state), word(&last.cause), word(&last.replica));
        format!("Last suspicion that a commit ended: {state} ({cause}) of {replica}{when}{lasted}{count}")
    }

    fn history(&self, text: &mut Text, extent: Extent) {
        if let Some(last) = &self.last_failover {
            let kind = last.kind.as_deref().unwrap_or("change");
            let when = ago(last.time, self.at).map(|ago| format!(" {ago} ago")).unwrap_or_default();
            let gap = last.gap.as_deref().map(|gap| format!(", write gap {gap}")).unwrap_or_default();
            let why = last.reason.as_deref().map(|why| format!(", because of {why}")).unwrap_or_default();
            let record =
                last.name.as_deref().map(|name| format!(": kubectl understudy timeline {name}")).unwrap_or_default();
            text.line([]);
            text.say(format!("Last change of primary: {kind}{when}{gap}{why}{record}"));
        }
        if let Some(last) = &self.last_suspicion {
            text.say(self.suspicion(last));
        }
        if let Some(words) = status::unavailable(self.availability.as_ref()) {
            text.say(format!("Without commits: {words}{}", means(self.availability.as_ref())));
        }
        if !self.events.is_empty() {
            text.head("Said lately");
            let mut table = Table::new(&["AGO", "TIMES", "REASON", "MESSAGE"]).right("AGO").right("TIMES");
            let shown = if extent == Extent::All { usize::MAX } else { 8 };
            for event in self.events.iter().take(shown) {
                let tone = if event.warning { Tone::Busy } else { Tone::Plain };
                let times = Some(event.count).filter(|count| *count > 1);
                table.row(vec![
                    ago(event.at, self.at).into(),
                    times.into(),
                    Piece::new(event.reason.as_str(), tone),
                    event.message.as_str().into(),
                ]);
            }
            text.table(table, extent);
        }
    }
}

fn means(availability: Option<&Availability>) -> String {
    let Some(availability) = availability else { return String::new() };
    let count = |count: Option<i64>, what: &str| count.map(|count| format!(", {count} {what}")).unwrap_or_default();
    let mean =
        |time: Option<f64>, what: &str| time.map(|time| format!(", {what} {}", measured(time))).unwrap_or_default();
    [
        count(availability.failovers, "failovers"),
        count(availability.switchovers, "switchovers"),
        count(availability.drills, "drills"),
        mean(availability.mtbf_seconds, "mean time between failures"),
        mean(availability.mttr_seconds, "mean time to recovery"),
    ]
    .concat()
}

impl Screen for ExplainScreen {
    fn text(&self, extent: Extent) -> Text {
        let mut text = Text::default();
        self.verdict(&mut text);
        let healthy = self.verdict.as_ref().and_then(Verdict::known) == Some(VerdictState::Healthy);
        if !healthy || !self.observers.is_empty() {
            self.observers(&mut text, extent);
        }
        self.action(&mut text);
        runbook::show(&self.runbooks, &mut text, extent);
        if let Some(ready) = self.ready.as_deref() {
            text.line([]);
            text.line(["Replicas ready: ".into(), Piece::new(ready, tone_of_ready(Some(ready)))]);
        }
        self.replicas(&mut text, extent);
        self.history(&mut text, extent);
        self.not_read.iter().for_each(|what| text.say(Piece::new(format!("Not read: {what}"), Tone::Busy)));
        if let Some(doubt) = self.operator.doubt() {
            text.say(Piece::new(doubt, Tone::Busy));
        }
        text
    }
}

#[cfg(test)]
mod tests;
