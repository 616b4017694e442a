//! A primary that works and had better hand over, because its volume is slow or nearly full and a standby's is not, or because no
//! consumer reaches it. Pure.
//!
//! Always a switchover, never a failover: the primary commits, so there is time to do it without a gap. What load or a statement
//! makes slow would be as slow on another primary, and so would what a shared cause does; so both are told apart first.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, Server};

use super::assess::{Assessment, Seconds, Verdict};
use super::candidate::{Candidate, NO_ROOM_EITHER, Ranking, VOLUME_FILLING, rank};
use super::cooldown;
use super::cut_off::{self, Way};
use super::plan::{AGAIN, Change, TOO_LATE, by_hand, claim, hands_over, in_time};
use super::snapshot::{Kind, Mode, Snapshot};
use crate::decision::{Draft, Reason};
use crate::space;

/// For how long a standby must have been quicker all along: some ten probes of its volume. What was slow everywhere ends here sooner than
/// there, and a standby has a quick moment.
const QUICKER_FOR: Millis = 5_000;

/// Why a primary that commits should hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strain {
    /// No consumer has reached it for so long.
    CutOff(Millis),
    /// Its commits have been slow for long.
    Slow,
    /// Its volume is nearly full.
    Filling,
}

impl Strain {
    /// The stable word of the record.
    fn cause(self) -> &'static str {
        match self {
            Self::CutOff(_) => "CutOff",
            Self::Slow => "SlowVolume",
            Self::Filling => VOLUME_FILLING,
        }
    }
}

/// Hands over from a primary that is under strain, or says why not.
pub(crate) fn plan(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    let Some((server, _)) = s.fresh_report(primary).filter(|_| a.verdict.commits()) else { return };
    let mut withheld = Vec::new();
    for strain in strains(s, a, primary, server) {
        match successor(s, a, primary, strain, server) {
            Ok((to, ranking)) => {
                let since = if strain == Strain::Slow { a.since.max(s.memory.past.slow_for) } else { a.since };
                let a = Assessment { since, ..a.clone() };
                return claim(s, &a, Change::new(Kind::Switchover, primary, &to, strain.cause()), ranking, d);
            }
            Err(why) => {
                let words = words(s, strain, server);
                withheld.push(format!("{primary} had better hand over ({words}) and does not: {why}"));
            }
        }
    }
    if !withheld.is_empty() {
        d.note_about(Reason::SwitchoverWithheld, primary, withheld.join("; "));
    }
}

/// Who takes over because of this strain, or why nobody does.
fn successor(
    s: &Snapshot,
    a: &Assessment,
    primary: &ReplicaName,
    strain: Strain,
    server: &Server,
) -> Result<(ReplicaName, Ranking), String> {
    if let Some(why) = not_its_own(s, strain, server) {
        return Err(format!("{why}. {AGAIN}"));
    }
    if s.policy.mode != Mode::Automatic {
        let mode = s.policy.mode;
        return Err(format!("failover.mode is {mode}. {}", by_hand(s, Kind::Switchover)));
    }
    // What fills up does not wait, unless it was tried and came to nothing.
    let tried = || s.status.last_change.as_ref().is_some_and(|change| change.kind == Kind::Confirm);
    let until = match strain {
        Strain::CutOff(_) => cooldown::until_again(s, strain.cause()),
        Strain::Slow => cooldown::until(s),
        Strain::Filling => cooldown::until(s).filter(|_| tried()),
    };
    if let Some(until) = until {
        return Err(format!("the primary was changed a moment ago. It is looked at again at {until}"));
    }
    let ranking = rank(s, Some(primary), &[primary]);
    let relieves = |candidate: &&Candidate| in_time(s, candidate) && relieves(s, primary, strain, server, candidate);
    let Some(to) = ranking.fit.iter().find(relieves).map(|candidate| candidate.name.clone()) else {
        let nobody = nobody(s, strain, &ranking);
        return Err(format!("{nobody}. {AGAIN}"));
    };
    if !hands_over(s, a, primary) {
        return Err("its manager cannot be told. It is looked at again as soon as that is connected".to_owned());
    }
    Ok((to, ranking))
}

/// The one that cannot wait first. Where nobody has room, one that is slow as well may still go to one that is not.
fn strains(s: &Snapshot, a: &Assessment, primary: &ReplicaName, server: &Server) -> impl Iterator<Item = Strain> {
    let (t, closed_for) = (&s.policy.thresholds, s.memory.past.cut_off_for);
    // What has failed for long at something else, as at a lock, and meets a moment's trouble on the way is not cut off.
    let is_cut_off = match cut_off::way(s, primary) {
        Way::Closed(lasted) => lasted >= t.stuck_after + 2_000 && closed_for >= t.stuck_after,
        Way::Open | Way::Unknown => false,
    };
    let fills = server.volume.is_some_and(space::is_filling);
    let is_slow = a.verdict == Verdict::Slow && s.memory.past.slow_for >= t.slow_after;
    let cut_off = is_cut_off.then_some(Strain::CutOff(closed_for));
    [cut_off, fills.then_some(Strain::Filling), is_slow.then_some(Strain::Slow)].into_iter().flatten()
}

fn words(s: &Snapshot, strain: Strain, server: &Server) -> String {
    match strain {
        Strain::CutOff(lasted) => {
            format!("no consumer has reached it for {}, and others see it commit", Seconds(lasted))
        }
        Strain::Slow => {
            let fsync = fsync_took(server).map_or("unknown".into(), |took| format!("{took} ms"));
            format!("its commits have been slow for {}, the last fsync took {fsync}", Seconds(s.memory.past.slow_for))
        }
        Strain::Filling => "less than a twentieth of its volume is free".to_owned(),
    }
}

/// Why another primary would be no better.
fn not_its_own(s: &Snapshot, strain: Strain, server: &Server) -> Option<String> {
    match strain {
        Strain::Filling => None,
        Strain::CutOff(_) => {
            let others = s.fleet.partitioned.saturating_sub(1) + s.fleet.suspect;
            let shards = s.fleet.shards;
            (others > 0 && (others + 1) * 20 > shards).then(|| {
                format!("{others} other shards of {shards} are not reached by all, or are suspect, too, which is a shared cause")
            })
        }
        Strain::Slow => {
            let others = s.fleet.slow.saturating_sub(1) + s.fleet.suspect;
            // One of twenty may have trouble of its own at the same time.
            if others > 0 && (others + 1) * 20 > s.fleet.shards {
                let shards = s.fleet.shards;
                return Some(format!(
                    "{others} other shards of {shards} are slow or suspect too, which is a shared cause"
                ));
            }
            let is_slow = fsync_took(server).is_some_and(|took| took >= s.policy.thresholds.slow_fsync);
            if !is_slow {
                let why = "its volume is not slow, so it is the load or a statement, and they would go with the office";
                return Some(why.to_owned());
            }
            let quicker_for = s.memory.past.quicker_for;
            (quicker_for < QUICKER_FOR)
                .then(|| format!("no standby's volume has been quicker for {}", Seconds(QUICKER_FOR)))
        }
    }
}

fn relieves(s: &Snapshot, primary: &ReplicaName, strain: Strain, server: &Server, candidate: &Candidate) -> bool {
    let Some((other, _)) = s.fresh_report(&candidate.name) else { return false };
    let fills = |server: &Server| server.volume.is_some_and(space::is_filling);
    match strain {
        // It would hand over at once to whoever has room, and that may be the one that is slow or cut off.
        Strain::CutOff(_) | Strain::Slow if fills(other) && !fills(server) => false,
        // What is in the way may be in the way to the whole node.
        Strain::CutOff(_) => match (s.node_of(&candidate.name), s.node_of(primary)) {
            (Some(its), Some(node)) => its != node,
            _ => false,
        },
        Strain::Slow => is_quicker(s, other, server),
        Strain::Filling => other.volume.is_some_and(space::has_room),
    }
}

/// A quarter at most: less is no reason to change a primary.
fn is_quicker(s: &Snapshot, other: &Server, server: &Server) -> bool {
    match (fsync_took(other), fsync_took(server)) {
        (Some(its), Some(took)) => its < s.policy.thresholds.slow_fsync && its.saturating_mul(4) <= took,
        _ => false,
    }
}

/// Whether the primary's volume is slow and that of a standby is not, as far as both are heard.
pub(crate) fn is_slow_alone(s: &Snapshot, primary: &ReplicaName) -> bool {
    let Some((server, _)) = s.fresh_report(primary) else { return false };
    let mut others = s.cast().filter(|(name, _)| *name != primary).filter_map(|(name, _)| s.fresh_report(name));
    fsync_took(server).is_some_and(|took| took >= s.policy.thresholds.slow_fsync)
        && others.any(|(other, _)| is_quicker(s, other, server))
}

/// How long the last fsync took. One that is under way takes at least as long as it has taken.
pub(crate) fn fsync_took(server: &Server) -> Option<Millis> {
    let fsync = server.fsync.as_ref()?;
    Some(fsync.took?.max(fsync.in_flight.unwrap_or(0)))
}

fn nobody(s: &Snapshot, strain: Strain, ranking: &Ranking) -> String {
    if ranking.fit.is_empty() && ranking.unfit.is_empty() {
        return ranking.words();
    }
    let against = |candidate: &Candidate| match strain {
        _ if !in_time(s, candidate) => TOO_LATE,
        Strain::CutOff(_) => "it is on the same node, or nobody knows where it is, or its volume is nearly full",
        Strain::Slow => "its volume is no quicker, or is nearly full",
        Strain::Filling => NO_ROOM_EITHER,
    };
    format!("nobody is better, {}", ranking.words_with(|candidate| Some(against(candidate).to_owned())))
}
