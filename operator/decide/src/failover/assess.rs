//! From evidence to a verdict on the primary. Pure.
//!
//! Rules, in the words of `operator/docs/failover.md`: two domains, fresh evidence, one fresh commit vetoes, and who was
//! paused himself accuses nobody.

use std::fmt;

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Limit, Millis, Phase, ProbeError, Server, Stage};

pub use super::signature::{Cause, Class, Fate};

use super::signature::SIGNATURES;
use super::snapshot::Snapshot;
use super::testimony::{Abstention, Accusation, Case, Own, Testimony, Wait, name_of};
use super::testimony_view::{lock_words, trouble_words};

/// Two observers never report at the same instant: a commit must be this much newer than the first sign of death to veto.
pub const SKEW: Millis = 100;

/// What is concluded from the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Commits succeed.
    Healthy,
    /// Commits succeed, slowly.
    Slow,
    /// Out of connections or behind a lock, and alive.
    Saturated,
    /// Something points to this cause, and it is not enough to act on.
    Suspect(Cause),
    /// The server is there and does not serve.
    Stuck(Cause),
    /// The process, the pod or the node is gone.
    Gone(Cause),
    /// Some observers cannot see it, and others see it commit.
    ObserverPartition,
    /// There is no evidence.
    Unknown,
}

impl Verdict {
    /// The word that the status shows.
    pub fn state(self) -> &'static str {
        match self {
            Self::Healthy => "Healthy",
            Self::Slow => "Slow",
            Self::Saturated => "Saturated",
            Self::Suspect(_) => "Suspect",
            Self::Stuck(_) => "Stuck",
            Self::Gone(_) => "Gone",
            Self::ObserverPartition => "ObserverPartition",
            Self::Unknown => "Unknown",
        }
    }

    /// The cause, when there is one.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Suspect(cause) | Self::Stuck(cause) | Self::Gone(cause) => Some(cause),
            Self::Healthy | Self::Slow | Self::Saturated | Self::ObserverPartition | Self::Unknown => None,
        }
    }

    /// Whether the primary is to be replaced.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Stuck(_) | Self::Gone(_))
    }

    /// Whether commits succeed.
    pub fn commits(self) -> bool {
        matches!(self, Self::Healthy | Self::Slow | Self::ObserverPartition)
    }
}

/// A verdict with what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// The conclusion.
    pub verdict: Verdict,
    /// How sure it is, when the primary is dead.
    pub class: Option<Class>,
    /// How long the first sign of what the verdict names is ago.
    pub since: Millis,
    /// Time until a cause that is suspected is ripe, if nothing changes meanwhile; None when that takes another word, or none is.
    pub ripens: Option<Millis>,
    /// Observers that say the primary is dead.
    pub votes: Vec<Ballot>,
    /// Observers that saw it commit within the time that counts.
    pub vetoes: Vec<Ballot>,
    /// Observers whose word does not count, and why.
    pub abstained: Vec<Ballot>,
    /// What the manager beside the server says.
    pub own: String,
    /// Age of its last word, as far as this process knows.
    pub own_age: Millis,
    /// How long this process has known the office: a verdict on one that has just begun is early.
    pub office_known: Millis,
}

/// What one observer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ballot {
    /// Its kind and name.
    pub observer: String,
    /// What it saw.
    pub says: String,
    /// How old that is.
    pub age: Millis,
}

impl Assessment {
    /// There is no primary to assess.
    pub fn nobody() -> Self {
        Self {
            verdict: Verdict::Unknown,
            class: None,
            since: 0,
            ripens: None,
            votes: Vec::new(),
            vetoes: Vec::new(),
            abstained: Vec::new(),
            own: "there is no primary".into(),
            own_age: 0,
            office_known: 0,
        }
    }

    /// What was seen and by whom, in one line.
    pub fn message(&self) -> String {
        let mut parts = vec![self.own.clone()];
        for (what, ballots) in [("accused", &self.votes), ("committed", &self.vetoes), ("not counted", &self.abstained)]
        {
            if !ballots.is_empty() {
                let said: Vec<_> = ballots.iter().map(|b| format!("{}: {}", b.observer, b.says)).collect();
                parts.push(format!("{what} by {}", said.join(", ")));
            }
        }
        parts.join("; ")
    }
}

/// Hears everybody about `subject` and concludes.
pub fn assess(s: &Snapshot, subject: &ReplicaName) -> Assessment {
    let case = Case::hear(s, subject);
    let (verdict, class, since) = conclude(&case);
    let fresh = case.thresholds.fresh;
    let full = |t: &Testimony| t.finds_full().map(|wait| (full_words(&wait), wait.since));
    let accused = |t: &Testimony| match &t.accuses {
        Some(a) => Some((format!("{} at {}", Said(&a.error), Named(a.stage)), a.since)),
        None => full(t),
    };
    let committed = |t: &Testimony| t.committed.filter(|age| *age <= fresh).map(|age| ("commits".to_owned(), age));
    let abstained = |t: &Testimony| {
        let why = t.abstains.as_ref().filter(|_| t.finds_full().is_none())?;
        Some((Said(why).to_string(), t.heard))
    };
    Assessment {
        verdict,
        class,
        since,
        ripens: (!verdict.is_dead()).then(|| ripens(&case)).flatten(),
        votes: ballots(&case, accused),
        vetoes: ballots(&case, committed),
        abstained: ballots(&case, abstained),
        own: own_words(&case),
        own_age: match case.own {
            Own::Silent(age) | Own::Fresh(_, age) => age,
        },
        office_known: case.office_known,
    }
}

fn ballots(case: &Case<'_>, says: impl Fn(&Testimony) -> Option<(String, Millis)>) -> Vec<Ballot> {
    let said = |t: &Testimony| says(t).map(|(says, age)| Ballot { observer: name_of(&t.observer), says, age });
    case.testimonies.iter().filter_map(said).collect()
}

/// Time until the first of the signatures that are found is ripe.
fn ripens(case: &Case<'_>) -> Option<Millis> {
    SIGNATURES.iter().filter_map(|row| (row.find)(case)?.ripens).filter(|left| *left > 0).min()
}

fn conclude(case: &Case<'_>) -> (Verdict, Option<Class>, Millis) {
    let fresh_commit = case.newest_commit().filter(|age| *age <= case.thresholds.fresh);
    // A commit vetoes what began before it.
    let vetoed = |since: Millis| fresh_commit.is_some_and(|commit| commit + SKEW < since);
    let found = || SIGNATURES.iter().filter_map(|row| Some((row, (row.find)(case)?)));
    if let Some((row, finding)) = found().find(|(_, finding)| finding.is_ripe() && !vetoed(finding.since)) {
        let verdict = match row.fate {
            Fate::Gone => Verdict::Gone(row.cause),
            Fate::Stuck => Verdict::Stuck(row.cause),
        };
        return (verdict, Some(row.class), finding.since);
    }
    let accused = case.first_accused();
    if let Some(since) = accused.filter(|since| vetoed(*since) && *since >= case.thresholds.suspect_after) {
        let verdict = if commits_late(case) { Verdict::Slow } else { Verdict::ObserverPartition };
        return (verdict, None, since);
    }
    let first_hand = |row_cause| matches!(row_cause, Cause::ProcessExited | Cause::DataLost | Cause::VolumeFailed);
    let suspicion = found().find(|(row, finding)| {
        !vetoed(finding.since) && (first_hand(row.cause) || finding.since >= case.thresholds.suspect_after)
    });
    if let Some((row, finding)) = suspicion {
        return (Verdict::Suspect(row.cause), None, finding.since);
    }
    // No connection is left, and the admin port does not answer either: nobody can say that it lives.
    let unexplained = accused.into_iter().chain(case.first_found_full());
    let unexplained = unexplained.filter(|since| !vetoed(*since) && *since >= case.thresholds.suspect_after).max();
    if let Some(since) = unexplained {
        return (Verdict::Suspect(Cause::Unexplained), None, since);
    }
    let blocked = |t: &Testimony| matches!(t.abstains, Some(Abstention::OutOfConnections | Abstention::Locked));
    if case.testimonies.iter().any(blocked) {
        return (Verdict::Saturated, None, 0);
    }
    let verdict = match fresh_commit {
        None => Verdict::Unknown,
        Some(_) if commits_slowly(case) => Verdict::Slow,
        Some(_) => Verdict::Healthy,
    };
    (verdict, None, 0)
}

/// Whether the quickest of the newest commits took long. One that took long beside quick ones is the trouble of who waited for it.
fn commits_slowly(case: &Case<'_>) -> bool {
    let fresh = case.testimonies.iter().filter(|t| t.committed.is_some_and(|age| age <= case.thresholds.fresh));
    fresh.filter_map(|t| t.took).min().is_some_and(|took| took >= case.thresholds.slow_commit)
}

/// Whether who gets no answer only waits too short: everybody comes as far as the commit, those that end take long, and the server's
/// own log moves.
fn commits_late(case: &Case<'_>) -> bool {
    let late = |a: &Accusation| a.stage == Stage::Commit && matches!(a.error, ProbeError::Timeout);
    let moves = match case.own {
        Own::Fresh(server, received) => {
            server.lsn.as_ref().is_some_and(|lsn| lsn.age + received <= case.thresholds.fresh)
        }
        Own::Silent(_) => false,
    };
    moves && commits_slowly(case) && case.testimonies.iter().filter_map(|t| t.accuses.as_ref()).all(late)
}

fn own_words(case: &Case<'_>) -> String {
    match &case.own {
        Own::Silent(silent) => format!("its manager has been silent for {}", Seconds(*silent)),
        Own::Fresh(server, age) => {
            let trouble = trouble_words(server, case.thresholds);
            format!("its manager says {}{trouble}{}", phase_words(server, Some(*age)), lock_words(server))
        }
    }
}

/// What a manager says of its server, for a person. With the time since the report was received it says how long ago; without,
/// the words stay the same for as long as the fact does.
pub fn phase_words(server: &Server, received: Option<Millis>) -> String {
    let ago = |age: Millis| received.map_or(String::new(), |received| format!(" {} ago", Seconds(age + received)));
    let said = server.last_error.as_ref().map_or(String::new(), |error| format!(", its last error: {error}"));
    match &server.phase {
        Phase::Empty => "the volume is empty".into(),
        Phase::Unusable { reason } => format!("the volume is unusable: {reason}"),
        Phase::Building => "the volume is being filled".into(),
        Phase::Starting => "mysqld is starting".into(),
        Phase::Running => match server.read_only {
            Some(true) => "mysqld runs and refuses writes".into(),
            Some(false) => "mysqld runs and takes writes".into(),
            None => "mysqld runs and does not answer".into(),
        },
        // Somebody killed it; what it had to say before has nothing to do with that.
        Phase::Exited { signal: Some(9), age, .. } => format!("mysqld was ended by signal 9{}", ago(*age)),
        Phase::Exited { signal: Some(signal), age, .. } => {
            format!("mysqld was ended by signal {signal}{}{said}", ago(*age))
        }
        Phase::Exited { code: Some(code), age, .. } => format!("mysqld exited with code {code}{}{said}", ago(*age)),
        Phase::Exited { age, .. } => format!("mysqld ended{}{said}", ago(*age)),
        Phase::Stopping => "the pod is stopping".into(),
        Phase::Unknown => "what is not known to this version of the operator".into(),
    }
}

/// Milliseconds, as a person reads them.
pub struct Seconds(pub Millis);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} s", self.0 / 1_000, self.0 % 1_000 / 100)
    }
}

pub(super) struct Said<'a, T>(pub(super) &'a T);

impl fmt::Display for Said<'_, ProbeError> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ProbeError::Timeout => f.write_str("no answer"),
            ProbeError::Refused { .. } => f.write_str("refused"),
            ProbeError::TooManyConnections { whose: Limit::Server } => f.write_str("too many connections"),
            ProbeError::TooManyConnections { whose: Limit::Account } => {
                f.write_str("too many connections of its account")
            }
            ProbeError::TooManyConnections { whose: Limit::Unknown } => {
                f.write_str("too many connections by a limit that is not known here")
            }
            ProbeError::ReadOnly => f.write_str("read-only"),
            ProbeError::Server { code, .. } => write!(f, "error {code}"),
            ProbeError::Other { message } => f.write_str(message),
            ProbeError::Unknown => f.write_str("what is not known to this version of the operator"),
        }
    }
}

impl fmt::Display for Said<'_, Abstention> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Abstention::Stale => "its evidence is old",
            Abstention::SelfSuspect => "it was paused itself",
            Abstention::OutOfConnections => "the server is out of connections",
            Abstention::Locked => "the server is behind a lock",
            Abstention::NotLetIn => "the server does not let it in",
            Abstention::NotUnderstood => "what it met is not known to this version of the operator",
        })
    }
}

/// What an observer says that finds the server full and silent.
pub(super) fn full_words(wait: &Wait) -> String {
    format!("too many connections, and no answer at {} through the admin port", Named(wait.stage))
}

pub(super) struct Named(pub(super) Stage);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Stage::Tcp => "tcp",
            Stage::Greeting => "greeting",
            Stage::Auth => "auth",
            Stage::Select => "select",
            Stage::Commit => "commit",
            Stage::Unknown => "a stage that is not known here",
        })
    }
}
