//! What a stage remembers between passes: nothing that would be missed after a restart but a little time. I/O: a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use understudy_decide::failover::snapshot::{
    Course, Memory, OrderFact, OrderOutcome, Received, Reprobe, ReprobeOutcome, Snapshot, Status,
};
use understudy_decide::{Assessment, OrderKind, Verdict};
use understudy_wire::evidence::{Millis, millis};
use understudy_wire::order::Peers;
use understudy_wire::{Epoch, ReplicaName};

use crate::evidence::Pulse;
use crate::evidence::own::Attempt;

struct Sent {
    epoch: Epoch,
    at: Instant,
    tries: u32,
    number: u64,
    outcome: OrderOutcome,
}

/// What became of an order.
#[derive(Debug)]
pub struct Answer {
    /// To whom.
    pub replica: ReplicaName,
    /// Which kind.
    pub kind: OrderKind,
    /// The number it was sent under.
    pub number: u64,
    /// What came of it.
    pub outcome: OrderOutcome,
    /// The peers that were acknowledged, and on which connection.
    pub peers: Option<(Peers, u64)>,
}

/// What a stage remembers.
#[derive(Default)]
pub struct Remembered {
    orders: BTreeMap<(ReplicaName, OrderKind), Sent>,
    peers: BTreeMap<ReplicaName, (u64, Peers)>,
    /// Since when the primary has been suspect, or worse.
    suspected: Option<Instant>,
    /// Where the partitions ended when the present primary took office, as far as consumers told.
    ends: BTreeMap<(String, i32), i64>,
    transition: Option<(Epoch, Instant)>,
    /// Whether that was under way at the first look.
    transition_found: bool,
    has_looked: bool,
    office: Option<(ReplicaName, Epoch, Instant)>,
    numbers: u64,
    /// When the first pass ended: what the times of the course count from.
    begun: Option<Instant>,
    course: Course,
}

impl Remembered {
    /// Takes note of what the status says now, and of where the topic ends when that names another primary.
    pub fn note(&mut self, status: &Status, reports: &[Received], now: Instant) {
        self.transition = match (&status.transition, self.transition) {
            (Some(t), Some((epoch, since))) if t.epoch == epoch => Some((epoch, since)),
            (Some(t), _) => {
                self.transition_found = !self.has_looked;
                Some((t.epoch, now))
            }
            (None, _) => None,
        };
        self.has_looked = true;
        let office = status.primary.as_ref().filter(|_| status.transition.is_none());
        self.office = match (office, self.office.take()) {
            (Some(primary), Some((known, epoch, since))) if known == *primary && epoch == status.epoch => {
                Some((known, epoch, since))
            }
            (Some(primary), _) => {
                self.ends.clear();
                Some((primary.clone(), status.epoch, now))
            }
            (None, _) => None,
        };
        // Whoever begins to lead later takes the first that is told: what is stored up to there is more than was asked for.
        if self.ends.is_empty() && self.office.is_some() {
            self.ends = ends(reports);
        }
    }

    /// Takes note of what a pass saw and concluded.
    pub fn concluded(&mut self, s: &Snapshot, a: &Assessment, now: Instant) {
        self.suspect(a.verdict, now);
        self.begun.get_or_insert(now);
        let now = self.time(now);
        self.course.see(s, a, now);
    }

    fn suspect(&mut self, verdict: Verdict, now: Instant) {
        let suspect = verdict.is_dead() || matches!(verdict, Verdict::Suspect(_));
        self.suspected = suspect.then(|| self.suspected.unwrap_or(now));
    }

    fn time(&self, now: Instant) -> Millis {
        self.begun.map_or(0, |begun| millis(now.saturating_duration_since(begun)))
    }

    /// An order goes out. Gives the number that its answer must bear.
    pub fn sent(&mut self, replica: &ReplicaName, kind: OrderKind, epoch: Epoch, now: Instant) -> u64 {
        self.numbers += 1;
        let before = self.orders.get(&(replica.clone(), kind)).filter(|sent| sent.epoch == epoch);
        let tries = before.map_or(1, |sent| sent.tries.saturating_add(1));
        let sent = Sent { epoch, at: now, tries, number: self.numbers, outcome: OrderOutcome::InFlight };
        self.orders.insert((replica.clone(), kind), sent);
        self.numbers
    }

    /// An order was answered, or not in time.
    pub fn answered(&mut self, answer: Answer) {
        let Some(sent) = self.orders.get_mut(&(answer.replica.clone(), answer.kind)) else { return };
        if sent.number != answer.number {
            return;
        }
        sent.outcome = answer.outcome;
        if let Some((peers, session)) = answer.peers {
            self.peers.insert(answer.replica, (session, peers));
        }
    }

    /// The peers that a manager acknowledged on this connection.
    pub fn peers(&self, replica: &ReplicaName, session: Option<u64>) -> Option<Peers> {
        let (on, peers) = self.peers.get(replica)?;
        (Some(*on) == session).then(|| peers.clone())
    }

    /// Forgets replicas that are no more.
    pub fn forget(&mut self, keep: impl Fn(&ReplicaName) -> bool) {
        self.orders.retain(|(replica, _), _| keep(replica));
        self.peers.retain(|replica, _| keep(replica));
    }

    /// All of it, with ages as of now.
    pub fn facts(&self, pulse: &Pulse, reprobe: Option<&Attempt>, now: Instant) -> Memory {
        let age = |at: Instant| millis(now.saturating_duration_since(at));
        let fact = |sent: &Sent| OrderFact {
            epoch: sent.epoch,
            sent: age(sent.at),
            tries: sent.tries,
            outcome: sent.outcome.clone(),
        };
        Memory {
            awake: millis(pulse.awake(now)),
            transition_known: self.transition.map_or(0, |(_, since)| age(since)),
            transition_found: self.transition.is_some() && self.transition_found,
            suspected: self.suspected.map(age),
            ends: self.ends.clone(),
            office_known: self.office.as_ref().map_or(0, |(_, _, since)| age(*since)),
            reprobe: reprobe.map(|attempt| Reprobe {
                epoch: attempt.epoch,
                outcome: attempt.outcome.clone().unwrap_or_else(|| ReprobeOutcome::Running(age(attempt.since))),
            }),
            orders: self.orders.iter().map(|(key, sent)| (key.clone(), fact(sent))).collect(),
            // The stage knows it.
            held_back: BTreeSet::new(),
            past: self.course.past(self.time(now)),
        }
    }
}

/// Where the partitions end, as consumers told last.
fn ends(reports: &[Received]) -> BTreeMap<(String, i32), i64> {
    let mut ends = BTreeMap::new();
    for range in reports.iter().flat_map(|received| &received.report.log) {
        let known = ends.entry((range.topic.clone(), range.partition)).or_insert(range.end);
        *known = range.end.max(*known);
    }
    ends
}

#[cfg(test)]
mod tests {
    use understudy_decide::Cause;
    use understudy_wire::evidence::LogRange;
    use understudy_wire::{Observer, Report};

    use super::*;

    fn name() -> ReplicaName {
        ReplicaName::new("m-a")
    }

    fn answer(number: u64, outcome: OrderOutcome) -> Answer {
        Answer { replica: name(), kind: OrderKind::Promote, number, outcome, peers: None }
    }

    #[test]
    fn a_late_answer_to_an_earlier_order_is_no_answer_to_this_one() {
        let now = Instant::now();
        let mut memory = Remembered::default();
        let first = memory.sent(&name(), OrderKind::Promote, Epoch(5), now);
        let second = memory.sent(&name(), OrderKind::Promote, Epoch(6), now);
        memory.answered(answer(first, OrderOutcome::Done(None)));
        let (pulse, _task) = Pulse::new(tokio_util::sync::CancellationToken::new());
        let fact = |memory: &Remembered| memory.facts(&pulse, None, now).orders[&(name(), OrderKind::Promote)].clone();
        assert_eq!((fact(&memory).outcome, fact(&memory).tries), (OrderOutcome::InFlight, 1));
        memory.answered(answer(second, OrderOutcome::Failed("no".into())));
        assert_eq!(fact(&memory).outcome, OrderOutcome::Failed("no".into()));
        memory.sent(&name(), OrderKind::Promote, Epoch(6), now);
        assert_eq!(fact(&memory).tries, 2);
    }

    #[test]
    fn an_office_is_known_from_its_epoch_on() {
        let start = Instant::now();
        let later = start + std::time::Duration::from_secs(5);
        let (pulse, _task) = Pulse::new(tokio_util::sync::CancellationToken::new());
        let mut memory = Remembered::default();
        let mut status = Status { primary: Some(name()), epoch: Epoch(4), ..Status::default() };
        memory.note(&status, &[], start);
        assert_eq!(memory.facts(&pulse, None, later).office_known, 5_000);
        status.epoch = Epoch(5);
        memory.note(&status, &[], later);
        assert_eq!(
            memory.facts(&pulse, None, later).office_known,
            0,
            "the same primary under another epoch is another office"
        );
    }

    fn tells_end(end: i64) -> Vec<Received> {
        let observer = Observer::Consumer { pod: "store-0".into() };
        let range = |end| LogRange { topic: "t".into(), topic_id: None, partition: 0, earliest: 0, end, age: 100 };
        let log = vec![range(end), range(end - 1)];
        let report = Report { observer, seq: 1, own_gap: 0, interval: 250, evidence: vec![], log };
        vec![Received { report, age: 10, node: None }]
    }

    #[test]
    fn where_the_topic_ended_is_that_of_the_moment_when_the_primary_took_office() {
        let now = Instant::now();
        let mut memory = Remembered::default();
        let mut status = Status { primary: Some(name()), epoch: Epoch(4), ..Status::default() };
        let end = |memory: &Remembered| memory.ends.get(&("t".to_owned(), 0)).copied();
        memory.note(&status, &[], now);
        assert_eq!(end(&memory), None, "nobody told yet");
        memory.note(&status, &tells_end(500), now);
        memory.note(&status, &tells_end(900), now);
        assert_eq!(end(&memory), Some(500), "what came later is not asked for");
        status.epoch = Epoch(5);
        memory.note(&status, &tells_end(950), now);
        assert_eq!(end(&memory), Some(950), "another office");
    }

    #[test]
    fn a_primary_is_suspect_from_the_first_suspicion_until_it_is_cleared() {
        let start = Instant::now();
        let later = start + std::time::Duration::from_secs(2);
        let mut memory = Remembered::default();
        memory.suspect(Verdict::Healthy, start);
        assert_eq!(memory.suspected, None);
        memory.suspect(Verdict::Suspect(Cause::Unexplained), start);
        memory.suspect(Verdict::Stuck(Cause::Stopped), later);
        assert_eq!(memory.suspected, Some(start));
        memory.suspect(Verdict::ObserverPartition, later);
        assert_eq!(memory.suspected, None);
    }
}
