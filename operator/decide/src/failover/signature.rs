//! The table of signatures: which facts name which cause, of which class, and how long they must hold. Pure.
//!
//! A row finds its facts in a [`Case`]; it is ripe when enough domains agree for long enough. The rows are in order: the
//! first ripe one names the verdict, and before that the first found one names the suspicion.

use strum::{Display, EnumIter, IntoStaticStr};
use understudy_wire::evidence::{Millis, Phase, ProbeError, Server, Stage};
use understudy_wire::{Observer, account};

use super::testimony::{Accusation, Case, Met, Own, Testimony, Wait};
use crate::space;

/// A manager tells what it sees at least this often. What it saw is taken to last until its next report is due, and no longer: an end that a late
/// report would tell of must not count as going on.
const TOLD_EVERY: Millis = 250;
/// Accounts of those who accuse: probes and consumers. Where commits hang, theirs do, and keep their locks.
const OBSERVERS: [&str; 2] = [account::PROBE, account::CONSUMER];

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
    /// Time until enough has lasted for long enough, if nothing changes; 0: it has. None: somebody has to say more first.
    pub ripens: Option<Millis>,
}

impl Finding {
    /// Facts that began with the accusations: `first` is the oldest, `agreed` since when enough domains accuse, if they do.
    fn of_accusers(first: Millis, agreed: Option<Millis>, hold: Millis) -> Option<Self> {
        Some(Self { since: agreed.unwrap_or(first), ripens: agreed.map(|since| hold.saturating_sub(since)) })
    }

    /// A fact that the manager saw; one other domain has to bear it out.
    fn of_manager(since: Millis, borne_out: Option<Millis>) -> Option<Self> {
        Some(Self { since, ripens: borne_out.map(|_| 0) })
    }

    /// Whether enough domains agree, for long enough.
    pub fn is_ripe(self) -> bool {
        self.ripens == Some(0)
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

/// The manager saw mysqld end, and one other domain cannot use the server: acts at once. Where a process is gone connections are refused; who is
/// only not answered may be met by a pause, and bears it out with time.
fn process_exited(case: &Case<'_>) -> Option<Finding> {
    match case.own {
        Own::Fresh(Server { phase: Phase::Exited { age, .. }, .. }, received) => {
            let hold = case.thresholds.unreached_after();
            let refused = case.accused_since(1, |a| !is_silent(a));
            let found = Finding::of_manager(age + received, refused);
            let silent = || case.first_accused().map(|since| hold.saturating_sub(since));
            found.map(|found| Finding { ripens: found.ripens.or_else(silent), ..found })
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
    // A commit that hangs on it bears it out before its deadline is over.
    let hold = case.thresholds.suspect_after;
    let committing = || case.agreed_since(1, |t| t.committing.filter(|long| *long >= hold));
    let full = || case.first_found_full().filter(|long| *long >= hold);
    Finding::of_accusers(0, case.first_accused().or_else(committing).or_else(full), 0)
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
    let waits = |t: &Testimony| t.waits.filter(|wait| wait.stage == Stage::Commit && is_unexplained(server, t, *wait));
    let first = case.agreed_since(1, |t| match &t.accuses {
        Some(accusation) => (accusation.stage == Stage::Commit).then_some(accusation.since),
        None => waits(t).map(|wait| wait.since),
    })?;
    // A commit that hangs is told of when its deadline is over, which is no reason to wait longer than for one that is refused.
    let hold = case.thresholds.suspect_after;
    let refused = hold.saturating_sub(first);
    let begun = case.agreed_since(1, |t| Some(waits(t)?.begun));
    let waited = begun.map_or(refused, |begun| (2 * hold).saturating_sub(begun));
    // Whoever has committed since that wait began speaks against it.
    let since = begun.filter(|_| waited == 0 && refused > 0).unwrap_or(first);
    Some(Finding { since, ripens: Some(waited.min(refused)) })
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
/// last longer than the evidence stays fresh; and of the others too, as one who hears neither the manager nor the server may be cut off.
fn unreachable(case: &Case<'_>) -> Option<Finding> {
    let Own::Silent(silent) = case.own else { return None };
    let t = case.thresholds;
    // Who waits for a commit in vain has reached it, and without its manager nobody can tell a hang from somebody's lock but by the time.
    let unreached = |a: &Accusation| a.stage != Stage::Commit || !is_silent(a);
    let hung = |t: &Testimony| t.waits.filter(|_| !is_consumer(t)).map(|wait| wait.begun);
    // A lock that the manager named until a moment ago is no hang for having been waited for long before.
    let unheard = |begun: Millis| begun.min(silent) >= t.hung_unheard_after;
    let found = match (case.accused_since(1, unreached), case.agreed_since(2, hung)) {
        (_, Some(begun)) if unheard(begun) => Finding { since: begun, ripens: Some(0) },
        (Some(first), _) => Finding::of_accusers(first, case.accused_since(2, unreached), t.unreached_after())?,
        (None, begun) => Finding {
            since: begun.or_else(|| case.first_waited())?,
            ripens: begun.map(|begun| t.hung_unheard_after.saturating_sub(begun.min(silent))),
        },
    };
    let silence = (t.fresh + t.gone_after).saturating_sub(silent);
    Some(Finding { ripens: found.ripens.map(|left| left.max(silence)), ..found })
}

/// Two domains that are not greeted; or the manager sees the process stopped, and one other domain bears that out. Then the time counts that the
/// manager has seen it; one that does not tell for how long is a voice, and no more.
fn stopped(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, received) = case.own else { return None };
    let t = case.thresholds;
    let ungreeted = |a: &Accusation| is_silent(a) && matches!(a.stage, Stage::Greeting | Stage::Auth);
    let agreed = case.accused_since(2, ungreeted);
    let by_two = agreed.map(|since| t.stuck_after.saturating_sub(since));
    if !is_stopped(server) {
        let first = case.accused_since(1, ungreeted)?;
        return Some(Finding { since: agreed.unwrap_or(first), ripens: by_two });
    }
    let first = case.first_accused()?;
    let by_manager = match server.stopped {
        Some(told) => left_of_told(told, received, t.seen_stopped_after())
            .map(|left| left.max(t.borne_out_after().saturating_sub(first))),
        None => Some(t.stuck_after.saturating_sub(first)),
    };
    Some(Finding { since: first, ripens: by_manager.into_iter().chain(by_two).min() })
}

/// The manager's own probe of the volume is the first voice, and what it waits for is one write that has not come back: several slow ones in a
/// row are none.
fn volume_stalled(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, received) = case.own else { return None };
    let t = case.thresholds;
    let told = server.fsync.as_ref()?.in_flight?;
    let hanging = told + received;
    let still = server.lsn.as_ref().is_none_or(|lsn| lsn.age + received >= hanging.min(t.stuck_after));
    if hanging < t.suspect_after || !still {
        return None;
    }
    let first = case.first_waited()?;
    let left = left_of_told(told, received, t.stalled_after());
    let ripens = left.map(|left| left.max(t.stuck_after.saturating_sub(first)));
    Some(Finding { since: first.min(hanging), ripens })
}

/// Time until what a manager told has lasted for `hold`, `received` ago. None: only its next report can say that it has.
fn left_of_told(told: Millis, received: Millis, hold: Millis) -> Option<Millis> {
    (told + TOLD_EVERY >= hold).then(|| hold.saturating_sub(told + received))
}

/// Counted from the beginning of the attempts that hang. A commit that hangs keeps its lock, and whoever made it waits for that the next time.
fn deadlocked(case: &Case<'_>) -> Option<Finding> {
    let Own::Fresh(server, received) = case.own else { return None };
    let t = case.thresholds;
    let volume_is_well = server.fsync.as_ref()?.succeeded? + received <= t.fresh;
    if server.phase != Phase::Running || !volume_is_well || is_stopped(server) {
        return None;
    }
    let still = server.lsn.as_ref()?.age + received;
    let waits = |t: &Testimony| t.waits.filter(|wait| is_unexplained(server, t, *wait));
    let since = |needed| case.agreed_since(needed, |t| Some(waits(t)?.since));
    let first = since(1)?;
    // Somebody's lock that pauses fall into is no hang from the first of them on.
    let begun = case.agreed_since(2, |t| match waits(t)? {
        Wait { begun, answered: Some(answered), met: Met::Silence, .. } if !is_held_by_observer(server) => {
            Some(begun.min(answered))
        }
        Wait { begun, .. } => Some(begun),
    });
    Some(Finding {
        since: since(2).map_or(first, |agreed| agreed.min(still)),
        ripens: begun.map(|begun| t.deadlocked_after().saturating_sub(begun.min(still))),
    })
}

/// Whether what somebody waits for is not known to be held by a session that is none of those who wait. A probe is told of a lock before it gives
/// its commit up. So is a consumer, but one of an earlier version waits for no longer than the server lets it wait for a lock, and no report tells
/// which it is; even now a row that many wait for may be told of too late. A server may be full because of a lock, too.
fn is_unexplained(server: &Server, testimony: &Testimony, wait: Wait) -> bool {
    let may_be_lock =
        matches!(wait.met, Met::Lock | Met::Full) || (is_consumer(testimony) && wait.stage == Stage::Commit);
    !may_be_lock || server.lock_holder.is_none() || is_held_by_observer(server)
}

/// Whether what commits wait for is known to be held by one that observes, whose commit hangs. The manager's account probes the admin port, and a
/// row is all that such a commit holds; people and orders use it too.
fn is_held_by_observer(server: &Server) -> bool {
    let Some(holder) = server.lock_holder.as_ref().map(|read| &read.value) else { return false };
    let is_row = holder.locked == "row";
    let observes = |name: &str| OBSERVERS.contains(&name) || (is_row && name == account::ADMIN);
    holder.user.split('@').next().is_some_and(observes)
}

fn is_consumer(testimony: &Testimony) -> bool {
    matches!(testimony.observer, Observer::Consumer { .. })
}

fn is_silent(accusation: &Accusation) -> bool {
    matches!(accusation.error, ProbeError::Timeout)
}
