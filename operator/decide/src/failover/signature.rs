//! The table of signatures: which facts name which cause, of which class, and how long they must hold. Pure.
//!
//! A row finds its facts in a [`Case`]; it is ripe when enough domains agree for long enough. The rows are in order: the
//! first ripe one names the verdict, and before that the first found one names the suspicion.

use strum::{Display, EnumIter, IntoStaticStr};
use understudy_wire::evidence::{Millis, Phase, ProbeError, Server, Stage};

use super::testimony::{Accusation, Case, Own};
use crate::space;

/// How sure a signature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A fact that cannot be mistaken once two domains agree.
    Hard,
    /// A judgement: the cooldown and the breaker over the fleet apply.
    Soft,
}

/// Whether the server is gone, or there and of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The process, the pod or the node is gone, or what it held.
    Gone,
    /// It is there and does not serve.
    Stuck,
}

/// What named a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Display, EnumIter, IntoStaticStr)]
pub enum Cause {
    /// mysqld ended.
    ProcessExited,
    /// The volume of the primary holds nothing, or nothing usable.
    DataLost,
    /// The volume answers with errors or is read-only.
    VolumeFailed,
    /// The volume is full, and commits fail.
    VolumeFull,
    /// mysqld was started again and does not take writes.
    Restarted,
    /// The pod is stopping, or ended, and the server serves no more.
    PodStopped,
    /// The manager is silent and nobody reaches the server: its pod or node is gone.
    Unreachable,
    /// The process is stopped: the kernel accepts connections and nobody greets.
    Stopped,
    /// Writes to the volume hang.
    VolumeStalled,
    /// The server accepts work, its volume is well, and nothing moves.
    Deadlocked,
    /// Commits fail and no signature fits.
    Unexplained,
}

/// One row of the table.
pub struct Signature {
    /// The name.
    pub cause: Cause,
    /// How sure it is.
    pub class: Class,
    /// What it says of the server.
    pub fate: Fate,
    /// Looks for the facts.
    pub find: fn(&Case<'_>) -> Option<Finding>,
}

/// Facts that fit a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How long they have held.
    pub since: Millis,
    /// Whether enough domains agree, for long enough.
    pub ripe: bool,
}

impl Finding {
    /// Facts that began with the accusations: `first` is the oldest, `agreed` since when enough domains accuse, if they do.
    fn of_accusers(first: Millis, agreed: Option<Millis>, hold: Millis) -> Option<Self> {
        Some(Self { since: agreed.unwrap_or(first), ripe: agreed.is_some_and(|since| since >= hold) })
    }

    /// A fact that the manager saw; one other domain has to bear it out.
    fn of_manager(since: Millis, borne_out: Option<Millis>) -> Option<Self> {
        Some(Self { since, ripe: borne_out.is_some() })
    }
}

/// The rows, the surest first.
pub const SIGNATURES: &[Signature] = &[
    Signature { cause: Cause::ProcessExited, class: Class::Hard, fate: Fate::Gone, find: process_exited },
    Signature { cause: Cause::DataLost, class: Class::Hard, fate: Fate::Gone, find: data_lost },
    Signature { cause: Cause::VolumeFailed, class: Class::Hard, fate: Fate::Stuck, find: volume_failed },
    Signature { cause: Cause::VolumeFull, class: Class::Hard, fate: Fate::Stuck, find: volume_full },
    Signature { cause: Cause::Restarted, class: Class::Hard, fate: Fate::Gone, find: restarted },
    Signature { cause: Cause::PodStopped, class: Class::Hard, fate: Fate::Gone, find: pod_stopped },
    Signature { cause: Cause::Unreachable, class: Class::Hard, fate: Fate::Gone, find: unreachable },
    Signature { cause: Cause::Stopped, class: Class::Hard, fate: Fate::Stuck, find: stopped },
    Signature { cause: Cause::VolumeStalled, class: Class::Hard, fate: Fate::Stuck, find: volume_stalled },
    Signature { cause: Cause::Deadlocked, class: Class::Soft, fate: Fate::Stuck, find: deadlocked },
];

/// The manager saw mysqld end, and one other domain cannot use the server: acts at once.
fn process_exited(case: &Case<'_>) -> Option<Finding> {
    match case.own {
        Own::Fresh(Server { phase: Phase::Exited { age, .. }, .. }, received) => {
            Finding::of_manager(age + received, case.first_accused())
        }
        _ => None,
    }
}

fn data_lost(case: &Case<'_>) -> Option<Finding> {
    match case.own {
        Own::Fresh(Server { phase: Phase::Empty | Phase::Unusable { .. } | Phase::Building, .. }, _)
            if settled(case) =>
        {
            Finding::of_accusers(0, case.first_accused(), 0)
        }
        _ => None,
    }
}

fn volume_failed(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, _) = case.own else { return None };
    volume_error(server)?;
    Finding::of_accusers(0, case.first_accused(), 0)
}

/// Of a server that runs and would take writes, and whose commits fail: without that it is only full, as what needs no room is still
/// written. One that refuses writes, is stopped, or whose volume hangs has another trouble that room does not mend.
fn volume_full(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, _) = case.own else { return None };
    let works = server.phase == Phase::Running && server.read_only != Some(true) && !is_stopped(server);
    let hanging = server.fsync.as_ref().and_then(|fsync| fsync.in_flight);
    let hangs = hanging.is_some_and(|hanging| hanging >= case.thresholds.suspect_after);
    if !works || hangs || !space::is_full(server) {
        return None;
    }
    let first = case.accused_since(1, |a| a.stage == Stage::Commit)?;
    Finding::of_accusers(first, Some(first), case.thresholds.suspect_after)
}

fn is_stopped(server: &Server) -> bool {
    matches!(server.process_state, Some('T' | 't'))
}

/// What the volume answers, when that is the end of it.
pub(crate) fn volume_error(server: &Server) -> Option<&str> {
    server.fsync.as_ref()?.error.as_deref().filter(|error| matches!(*error, "EIO" | "EROFS"))
}

/// Whatever the manager says about a server that has just taken office may be from before.
fn settled(case: &Case<'_>) -> bool {
    case.office_known > case.thresholds.fresh
}

fn restarted(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, _) = case.own else { return None };
    match server.phase {
        Phase::Starting if settled(case) => Finding::of_accusers(0, case.first_accused(), 0),
        Phase::Running if settled(case) && server.read_only == Some(true) => {
            Finding::of_accusers(0, case.first_accused(), case.thresholds.gone_after)
        }
        _ => None,
    }
}

fn pod_stopped(case: &Case<'_>) -> Option<Finding> {
    let stopped = match case.own {
        Own::Fresh(Server { phase: Phase::Stopping, .. }, _) => true,
        Own::Fresh(..) => false,
        // With its manager silent the kubelet is the one that saw it.
        Own::Silent(_) => case.pod_ended,
    };
    let first = case.first_accused().filter(|_| stopped)?;
    Finding::of_accusers(first, Some(first), case.thresholds.gone_after)
}

/// Two domains besides the silent manager. A pause of the whole machine looks the same until it ends, so the silence must
/// last longer than the evidence stays fresh.
fn unreachable(case: &Case<'_>) -> Option<Finding> {
    let Own::Silent(silent) = case.own else { return None };
    let t = case.thresholds;
    let agreed = case.accused_since(2, |_| true);
    let first = case.first_accused()?;
    let found = Finding::of_accusers(first, agreed, t.gone_after)?;
    Some(Finding { ripe: found.ripe && silent >= t.fresh + t.gone_after, ..found })
}

fn stopped(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, _) = case.own else { return None };
    let seen_stopped = is_stopped(server);
    let ungreeted = |a: &Accusation| is_silent(a) && matches!(a.stage, Stage::Greeting | Stage::Auth);
    let first = case.accused_since(1, |a| seen_stopped || ungreeted(a))?;
    let agreed = case.accused_since(if seen_stopped { 1 } else { 2 }, |a| seen_stopped || ungreeted(a));
    Finding::of_accusers(first, agreed, case.thresholds.stuck_after)
}

fn volume_stalled(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, received) = case.own else { return None };
    let hanging = server.fsync.as_ref()?.in_flight? + received;
    let still = server.lsn.as_ref().is_none_or(|lsn| lsn.age + received >= hanging.min(case.thresholds.stuck_after));
    if hanging < case.thresholds.suspect_after || !still {
        return None;
    }
    let first = case.first_waited()?;
    // The manager's own probe of the volume is the second voice.
    Finding::of_accusers(first, Some(first.min(hanging)), case.thresholds.stuck_after + 2_000)
}

fn deadlocked(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, received) = case.own else { return None };
    let volume_is_well = server.fsync.as_ref()?.succeeded? + received <= case.thresholds.fresh;
    if server.phase != Phase::Running || !volume_is_well || is_stopped(server) {
        return None;
    }
    let hold = case.thresholds.stuck_after + 5_000;
    let still = server.lsn.as_ref()?.age + received;
    let first = case.accused_since(1, is_silent)?;
    let agreed = case.accused_since(2, is_silent).map(|since| since.min(still));
    Finding::of_accusers(first, agreed, hold)
}

fn is_silent(accusation: &Accusation) -> bool {
    matches!(accusation.error, ProbeError::Timeout)
}
