//! Where each observer of the primary stands, for a person. Pure.
//!
//! Ages are not in the words, so they stay the same for as long as what they say does, and whoever shows them writes only on a change. A single
//! failure between two commits is no change: it becomes an accusation once it is as old as a suspicion.

use understudy_wire::evidence::{Millis, Phase, Server, Stage};
use understudy_wire::{Observer, ReplicaName};

use super::assess::{Named, Said, full_words, phase_words};
use super::signature::volume_error;
use super::snapshot::{Snapshot, Thresholds};
use super::testimony::{Abstention, Case, Domain, Own, Testimony};

/// The longest text of an observer, characters.
const LONGEST: usize = 200;

/// Where an observer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// It sees commits succeed.
    Commits,
    /// It sees the primary fail.
    Accuses,
    /// What it met is no accusation, or it has no voice.
    Abstains,
    /// It has seen nothing yet that counts, or nothing has come from it lately.
    Silent,
}

/// What one observer sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Who.
    pub observer: Observer,
    /// The node it runs on.
    pub node: Option<String>,
    /// What fails as a whole with it.
    pub domain: Domain,
    /// Where it stands.
    pub stance: Stance,
    /// What it sees.
    pub says: String,
    /// The stage at which its probes fail.
    pub stage: Option<Stage>,
    /// Age of the first failure, or of the end that it saw; None for what has no beginning that it knows.
    pub since: Option<Millis>,
    /// Why its word does not count; None: it does.
    pub not_counted: Option<String>,
}

/// Every observer of `subject`, its own manager first.
pub fn observers(s: &Snapshot, subject: &ReplicaName) -> Vec<Seen> {
    let case = Case::hear(s, subject);
    let own = own(&case, s, subject);
    std::iter::once(own).chain(case.testimonies.iter().map(|testimony| other(testimony, s))).collect()
}

/// What a domain is called.
pub fn domain_words(domain: &Domain) -> String {
    match domain {
        Domain::Own => "pod".to_owned(),
        Domain::Node(node) => format!("node {node}"),
        Domain::Kind(kind) => (*kind).to_owned(),
    }
}

fn own(case: &Case<'_>, s: &Snapshot, subject: &ReplicaName) -> Seen {
    let seen = Seen {
        observer: Observer::Manager { replica: subject.clone() },
        node: s.node_of(subject).map(str::to_owned),
        domain: Domain::Own,
        stance: Stance::Silent,
        says: "nothing has come from it lately".to_owned(),
        stage: None,
        since: None,
        not_counted: Some("it is silent".to_owned()),
    };
    let Own::Fresh(server, received) = case.own else { return seen };
    let commits = case.own_commit.is_some_and(|age| age <= case.thresholds.fresh);
    Seen {
        stance: match (is_in_trouble(server, case.thresholds), commits) {
            (true, _) => Stance::Accuses,
            (false, true) => Stance::Commits,
            (false, false) if server.lock_holder.is_some() => Stance::Abstains,
            (false, false) => Stance::Silent,
        },
        says: shortened(&own_words(server, case.thresholds)),
        since: match server.phase {
            Phase::Exited { age, .. } => Some(age + received),
            _ => None,
        },
        not_counted: None,
        ..seen
    }
}

/// Whether the manager says something by which a signature knows a dead primary.
fn is_in_trouble(server: &Server, t: &Thresholds) -> bool {
    !matches!(server.phase, Phase::Running | Phase::Unknown)
        || is_stopped(server)
        || volume_error(server).is_some()
        || hangs(server, t)
}

fn is_stopped(server: &Server) -> bool {
    matches!(server.process_state, Some('T' | 't'))
}

fn hangs(server: &Server, t: &Thresholds) -> bool {
    server.fsync.as_ref().and_then(|fsync| fsync.in_flight).is_some_and(|hanging| hanging >= t.suspect_after)
}

fn own_words(server: &Server, t: &Thresholds) -> String {
    phase_words(server, None) + &trouble_words(server, t) + &lock_words(server)
}

/// What else a manager sees of a server that runs, to be put behind its phase; empty when nothing is wrong. The same for as long as that
/// lasts.
pub(super) fn trouble_words(server: &Server, t: &Thresholds) -> String {
    let mut words = String::new();
    if is_stopped(server) {
        words.push_str("; its process is stopped");
    }
    if let Some(error) = volume_error(server) {
        words.push_str("; its volume answers ");
        words.push_str(error);
    } else if hangs(server, t) {
        words.push_str("; its volume does not answer");
    }
    words
}

/// Who holds the lock that commits wait for, to be put behind what else is said of the server; empty when nobody is known to.
pub(super) fn lock_words(server: &Server) -> String {
    let Some(holder) = server.lock_holder.as_ref().map(|read| &read.value) else { return String::new() };
    let user: &str = if holder.user.is_empty() { "the server itself" } else { &holder.user };
    let connection = holder.connection.map_or(String::new(), |number| format!(" (connection {number})"));
    format!("; commits wait for {user}{connection}, who holds a lock: {}", holder.locked)
}

fn other(testimony: &Testimony, s: &Snapshot) -> Seen {
    let t = &s.policy.thresholds;
    let node = s.reports.iter().find(|received| received.report.observer == testimony.observer);
    let seen = |stance, says: &str, not_counted: Option<&str>| Seen {
        observer: testimony.observer.clone(),
        node: node.and_then(|received| received.node.clone()),
        domain: testimony.domain.clone(),
        stance,
        says: shortened(says),
        stage: None,
        since: None,
        not_counted: not_counted.map(str::to_owned),
    };
    let commits = testimony.committed.is_some_and(|age| age <= t.fresh);
    if let Some(full) = testimony.finds_full().filter(|full| !commits || full.since >= t.suspect_after) {
        let said = seen(Stance::Accuses, &full_words(&full), None);
        return Seen { stage: Some(full.stage), since: Some(full.since), ..said };
    }
    match (&testimony.accuses, &testimony.abstains) {
        (Some(accuses), _) if !commits || accuses.since >= t.suspect_after => Seen {
            stage: Some(accuses.stage),
            since: Some(accuses.since),
            ..seen(Stance::Accuses, &format!("{} at {}", Said(&accuses.error), Named(accuses.stage)), None)
        },
        _ if commits => seen(Stance::Commits, "commits", None),
        (_, Some(Abstention::Stale)) => {
            let why = Said(&Abstention::Stale).to_string();
            seen(Stance::Silent, "nothing has come from it lately", Some(&why))
        }
        (_, Some(why)) => {
            let why = Said(why).to_string();
            seen(Stance::Abstains, &why, Some(&why))
        }
        (_, None) => seen(Stance::Silent, "it has seen no commit lately", None),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
