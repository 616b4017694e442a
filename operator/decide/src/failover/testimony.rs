//! What each observer has to say about one replica, sorted into success, accusation and abstention. Pure.

use std::collections::{BTreeMap, BTreeSet};

use understudy_wire::evidence::{Evidence, Failing, Limit, Millis, Probe, ProbeError, Server, Stage};
use understudy_wire::{Observer, ReplicaName, Report};

use super::snapshot::{Received, Snapshot, Thresholds};

/// Something that fails as a whole. Two observers in one domain are one voice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    /// The replica's own pod: its manager sees processes, not the network.
    Own,
    /// A node.
    Node(String),
    /// All observers of one kind, where all of them run on one node or nobody knows where they run.
    Kind(&'static str),
}

/// What one observer says about the subject.
#[derive(Clone, Debug)]
pub struct Testimony {
    /// Who says it.
    pub observer: Observer,
    /// From where.
    pub domain: Domain,
    /// Age of its report.
    pub heard: Millis,
    /// Age of the last commit that it saw succeed.
    pub committed: Option<Millis>,
    /// How long that commit took.
    pub took: Option<Millis>,
    /// Whether the server has ever answered a statement of it.
    pub was_answered: bool,
    /// Its present run of failures.
    pub accuses: Option<Accusation>,
    /// Why it has no voice, or why what it met is no accusation.
    pub abstains: Option<Abstention>,
    /// How long it has not committed, when what it met last is a lock. Commits that hang keep their locks, so this accuses nobody by
    /// itself, and bears out that a volume hangs.
    pub behind_lock: Option<Millis>,
    /// How long it has waited in vain.
    pub waits: Option<Wait>,
    /// How long its attempt under way has waited for its commit. No failure yet, so it accuses nobody.
    pub committing: Option<Millis>,
}

impl Testimony {
    /// How long it has found the server without a connection left while nobody was answered through the admin port either.
    pub fn finds_full(&self) -> Option<Wait> {
        self.waits.filter(|wait| wait.met == Met::Full)
    }
}

/// A run of failures that counts.
#[derive(Clone, Debug)]
pub struct Accusation {
    /// Age of the first failure, and no more than that of the server's last answer where there is none any more.
    pub since: Millis,
    /// Age of the latest.
    pub latest: Millis,
    /// Where it fails.
    pub stage: Stage,
    /// How.
    pub error: ProbeError,
}

/// How long an observer has waited in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Age of the first failure of which that can be said.
    pub since: Millis,
    /// Age of the beginning of the first attempt that nobody answered; of an observer that does not tell it, of the end of its first failure.
    pub begun: Millis,
    /// Age of the server's last answer that something was in the way, if there was one.
    pub answered: Option<Millis>,
    /// Where it waited last.
    pub stage: Stage,
    /// What came of that.
    pub met: Met,
}

/// What an observer that waits in vain met last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Nothing came back.
    Silence,
    /// A lock, after a silence: that may be the lock of its own commit that hangs.
    Lock,
    /// No connection was left, and the manager is not answered through the admin port either, where clients cannot use them up. Sessions
    /// that hang are never given back, so a server in which nothing moves is full after a while. The stage is that of the admin port.
    Full,
}

/// Why an observer has no voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abstention {
    /// Its report is too old.
    Stale,
    /// It was paused itself.
    SelfSuspect,
    /// The server answered that it has no connection left.
    OutOfConnections,
    /// The server answered that a lock is in the way.
    Locked,
    /// The server does not let it in.
    NotLetIn,
    /// It met something that only a later version knows.
    NotUnderstood,
}

/// What the manager beside the server says.
#[derive(Clone, Debug)]
pub enum Own<'a> {
    /// Its word counts; the time since it was received.
    Fresh(&'a Server, Millis),
    /// It has been silent for this long.
    Silent(Millis),
}

/// All that is known about one replica.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    /// The thresholds of the shard.
    pub thresholds: &'a Thresholds,
    /// Its manager.
    pub own: Own<'a>,
    /// Whether the kubelet says that its pod ended: a witness of its own.
    pub pod_ended: bool,
    /// Age of the last commit that its manager saw succeed.
    pub own_commit: Option<Millis>,
    /// Everybody else.
    pub testimonies: Vec<Testimony>,
    /// How long the subject has been in office, as far as this process knows.
    pub office_known: Millis,
}

impl<'a> Case<'a> {
    /// Hears every observer about `subject`.
    pub fn hear(s: &'a Snapshot, subject: &ReplicaName) -> Self {
        let own = match s.fresh_report(subject) {
            Some((server, age)) => Own::Fresh(server, age),
            None => Own::Silent(s.silent_for(subject)),
        };
        // The manager's own commits veto like anybody's. Its failures are no second voice: it is the first.
        let beside = || s.reports.iter().filter(move |received| is_own(&received.report.observer, subject));
        let own_commit = beside()
            .flat_map(|received| received.report.evidence.iter().map(move |evidence| (evidence, received.age)))
            .filter(|(evidence, _)| evidence.subject == *subject)
            .filter_map(|(evidence, age)| Some(evidence.probe.as_ref()?.committed? + age))
            .min();
        let admin = beside().find_map(|received| AdminSilence::hear(received, subject, &s.policy.thresholds));
        let others: Vec<_> = s.reports.iter().filter(|received| !is_own(&received.report.observer, subject)).collect();
        let nodes: BTreeSet<_> = others.iter().filter_map(|received| received.node.as_deref()).collect();
        let by_node = nodes.len() > 1;
        let testimonies = others
            .into_iter()
            .flat_map(|received| received.report.evidence.iter().map(move |evidence| (received, evidence)))
            .filter(|(_, evidence)| evidence.subject == *subject)
            .filter_map(|(received, evidence)| hear_one(received, evidence, by_node, admin, &s.policy.thresholds))
            .collect();
        Self {
            thresholds: &s.policy.thresholds,
            own,
            pod_ended: s.pod_ended(subject),
            own_commit,
            testimonies,
            office_known: s.memory.office_known,
        }
    }

    /// Age of the newest commit that anybody saw succeed.
    pub fn newest_commit(&self) -> Option<Millis> {
        self.testimonies.iter().filter_map(|t| t.committed).chain(self.own_commit).min()
    }

    /// Since when at least `needed` other domains accuse, counting the accusations that `counts` lets through.
    pub fn accused_since(&self, needed: usize, counts: impl Fn(&Accusation) -> bool) -> Option<Millis> {
        self.agreed_since(needed, |testimony| testimony.accuses.as_ref().filter(|a| counts(a)).map(|a| a.since))
    }

    /// Since when at least `needed` other domains say so, as far as `age` finds it in their testimonies.
    pub fn agreed_since(&self, needed: usize, age: impl Fn(&Testimony) -> Option<Millis>) -> Option<Millis> {
        let mut domains = BTreeMap::<&Domain, Millis>::new();
        for testimony in &self.testimonies {
            if let Some(age) = age(testimony) {
                let longest = domains.entry(&testimony.domain).or_default();
                *longest = age.max(*longest);
            }
        }
        let mut since: Vec<_> = domains.into_values().collect();
        since.sort_unstable_by(|a, b| b.cmp(a));
        since.get(needed.checked_sub(1)?).copied()
    }

    /// Since when anybody's commits have hung, or waited for a lock that may be that of one that hangs, or found no connection left because
    /// sessions hang.
    pub fn first_waited(&self) -> Option<Millis> {
        let silent = |wait: &Wait| wait.met == Met::Silence;
        let hung = self.testimonies.iter().filter_map(|t| Some(t.waits.filter(silent)?.since));
        let behind_lock = self.testimonies.iter().filter_map(|testimony| testimony.behind_lock);
        hung.chain(behind_lock).chain(self.first_found_full()).max()
    }

    /// Since when anybody has found the server full and silent.
    pub fn first_found_full(&self) -> Option<Millis> {
        self.agreed_since(1, |testimony| Some(testimony.finds_full()?.since))
    }

    /// Age of the oldest accusation.
    pub fn first_accused(&self) -> Option<Millis> {
        self.accused_since(1, |_| true)
    }
}

fn is_own(observer: &Observer, subject: &ReplicaName) -> bool {
    matches!(observer, Observer::Manager { replica } if replica == subject)
}

fn hear_one(
    received: &Received,
    evidence: &Evidence,
    by_node: bool,
    admin: Option<AdminSilence>,
    t: &Thresholds,
) -> Option<Testimony> {
    let probe = evidence.probe.as_ref()?;
    let report = &received.report;
    let domain = match &received.node {
        Some(node) if by_node => Domain::Node(node.clone()),
        _ => Domain::Kind(kind_of(&report.observer)),
    };
    let mut testimony = Testimony {
        observer: report.observer.clone(),
        domain,
        heard: received.age,
        committed: probe.committed.map(|age| age + received.age),
        took: probe.commit_took,
        was_answered: probe.selected.is_some() || probe.committed.is_some(),
        accuses: None,
        abstains: None,
        behind_lock: None,
        waits: None,
        committing: None,
    };
    let paused = pause_of(report);
    if paused.is_none() && received.age <= t.fresh {
        let commit = probe.in_flight.filter(|attempt| attempt.stage == Stage::Commit);
        testimony.committing = commit.map(|attempt| attempt.age + received.age.min(report.interval));
    }
    match accusation(probe, received.age, paused, t) {
        Ok(accuses) => {
            let failing = probe.failing.as_ref().filter(|_| accuses.is_some());
            testimony.waits = failing.and_then(|failing| wait(failing, received.age));
            testimony.accuses = accuses;
        }
        Err(why) => {
            let failing = probe.failing.as_ref();
            let awake = failing.filter(|failing| paused.is_none_or(|own| failing.since > own));
            match why {
                Abstention::Locked => {
                    testimony.behind_lock = failing.map(|failing| failing.since + received.age);
                    testimony.waits = awake.and_then(|failing| wait(failing, received.age));
                }
                Abstention::OutOfConnections => {
                    testimony.waits = awake.zip(admin).map(|(failing, admin)| admin.bears_out(failing, received.age));
                }
                Abstention::Stale | Abstention::SelfSuspect | Abstention::NotLetIn | Abstention::NotUnderstood => {}
            }
            testimony.abstains = Some(why);
        }
    }
    Some(testimony)
}

/// How long a run of silences may be and still be the pause of whoever reports; None: it was not paused.
fn pause_of(report: &Report) -> Option<Millis> {
    (report.own_gap > 2 * report.interval).then_some(report.own_gap + 2 * report.interval)
}

/// How long the manager beside a server has waited in vain at its admin port.
#[derive(Clone, Copy, Debug)]
struct AdminSilence {
    wait: Wait,
    /// Age of the last commit that it was answered there, if there was one.
    answered: Option<Millis>,
}

impl AdminSilence {
    /// None: it is answered there, or nobody knows.
    fn hear(received: &Received, subject: &ReplicaName, t: &Thresholds) -> Option<Self> {
        let report = &received.report;
        let own = report.evidence.iter().find(|evidence| evidence.subject == *subject)?;
        let probe = own.server.as_ref()?.admin.as_ref()?;
        let failing = probe.failing.as_ref().filter(|failing| failing.latest + received.age <= t.fresh)?;
        if pause_of(report).is_some_and(|own| failing.since <= own) {
            return None;
        }
        let answered = probe.committed.map(|age| age + received.age);
        Some(Self { wait: wait(failing, received.age)?, answered })
    }

    /// What it makes of a run of failures that ends with no connection left: silences before that go on, but not from before the admin
    /// port last answered. Without them only the time counts for which both have lasted.
    fn bears_out(self, failing: &Failing, age: Millis) -> Wait {
        let since = failing.since + age;
        let begun = match failing.unanswered {
            Some(unanswered) => (unanswered + age).min(self.answered.unwrap_or(self.wait.begun)),
            None => since.min(self.wait.begun),
        };
        let silent = if failing.unanswered.is_some() { begun } else { self.wait.since };
        Wait { since: since.min(silent), begun, answered: None, stage: self.wait.stage, met: Met::Full }
    }
}

/// `paused`: how long a run of silences may be and still be the observer's own pause.
fn accusation(
    probe: &Probe,
    age: Millis,
    paused: Option<Millis>,
    t: &Thresholds,
) -> Result<Option<Accusation>, Abstention> {
    if age > t.fresh {
        return Err(Abstention::Stale);
    }
    let Some(failing) = &probe.failing else { return Ok(None) };
    let latest = failing.latest + age;
    if latest > t.fresh {
        return Err(Abstention::Stale);
    }
    match weigh(&failing.error) {
        Weight::Answered(why) => return Err(why),
        // Who was paused takes a late answer for none; a refusal it did receive, and a run that began long before the
        // longest pause or went on long after it is not explained by it.
        Weight::Silence if paused.is_some_and(|own| failing.since <= own) => return Err(Abstention::SelfSuspect),
        Weight::Silence | Weight::Refusal => {}
    }
    // A server that answered that a lock is in the way, or a statement whose commit then hung, was there until then, however long that
    // has been so.
    let answered = failing.answered.filter(|_| !failing.error.is_answer());
    let selected = probe.selected.filter(|_| failing.stage < Stage::Commit);
    let since = [answered, selected].into_iter().flatten().fold(failing.since, Millis::min);
    Ok(Some(Accusation { since: since + age, latest, stage: failing.stage, error: failing.error.clone() }))
}

/// What is in vain about a run of failures. One that somebody else's lock began and a silence went on with counts from the silence.
fn wait(failing: &Failing, age: Millis) -> Option<Wait> {
    let (met, begun) = match weigh(&failing.error) {
        Weight::Silence if failing.error == ProbeError::Timeout => {
            (Met::Silence, failing.unanswered.unwrap_or(failing.since))
        }
        Weight::Answered(Abstention::Locked) => (Met::Lock, failing.unanswered?),
        _ => return None,
    };
    let answered = failing.answered.map(|answered| answered + age);
    Some(Wait { since: failing.since.min(begun) + age, begun: begun + age, answered, stage: failing.stage, met })
}

enum Weight {
    /// Nothing came back.
    Silence,
    /// Something came back that only a server out of office sends.
    Refusal,
    /// The server works, and something else is in the way.
    Answered(Abstention),
}

fn weigh(error: &ProbeError) -> Weight {
    match error {
        ProbeError::Timeout | ProbeError::Other { .. } => Weight::Silence,
        ProbeError::Refused { .. } | ProbeError::ReadOnly => Weight::Refusal,
        ProbeError::TooManyConnections { whose: Limit::Server } => Weight::Answered(Abstention::OutOfConnections),
        ProbeError::TooManyConnections { whose: Limit::Account | Limit::Unknown } => {
            Weight::Answered(Abstention::NotLetIn)
        }
        ProbeError::Unknown => Weight::Answered(Abstention::NotUnderstood),
        ProbeError::Server { code, .. } => match code {
            // Lock wait timeout, deadlock, NOWAIT.
            1205 | 1213 | 3572 => Weight::Answered(Abstention::Locked),
            // Access denied, account locked, password expired.
            1044 | 1045 | 1698 | 1820 | 3118 => Weight::Answered(Abstention::NotLetIn),
            _ => Weight::Refusal,
        },
    }
}

fn kind_of(observer: &Observer) -> &'static str {
    match observer {
        Observer::Manager { .. } | Observer::Peer { .. } => "peer",
        Observer::Consumer { .. } => "consumer",
        Observer::Operator { .. } => "operator",
        Observer::Unknown => "unknown",
    }
}

/// An observer's kind and name, as records and messages show it.
pub fn name_of(observer: &Observer) -> String {
    match observer {
        Observer::Manager { replica } | Observer::Peer { replica } => format!("{} {replica}", kind_of(observer)),
        Observer::Consumer { pod } | Observer::Operator { pod } => format!("{} {pod}", kind_of(observer)),
        Observer::Unknown => observer.to_string(),
    }
}
