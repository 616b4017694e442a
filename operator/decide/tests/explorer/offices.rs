//! What must hold of each claim of another primary and of each promotion: who may not be replaced, how soon not, and not for what.

use std::collections::{BTreeMap, BTreeSet};

use understudy_decide::decision::Claim;
use understudy_decide::failover::assess::{Class, SKEW};
use understudy_decide::failover::snapshot::{Kind, Mode, Snapshot, Transition};
use understudy_decide::{Decision, Order, Reason, Step};
use understudy_wire::evidence::Millis;
use understudy_wire::{Epoch, ReplicaName};

use super::world::World;

/// Causes of a switchover that nobody asked for, from a primary that stays.
const RELIEFS: [&str; 3] = ["CutOff", "SlowVolume", FILLING];
const FILLING: &str = "VolumeFilling";
/// The first pause after a second failover in a row, and the longest.
const PAUSES: (Millis, Millis) = (30_000, 600_000);
/// For how long a change of primary may be that of a drain.
const DRAINED_FOR: Millis = 35_000;

/// Who was in office, what it was changed for, and when.
#[derive(Clone, Debug, Default)]
pub struct Offices {
    /// When each epoch was claimed.
    claimed: BTreeMap<Epoch, Millis>,
    /// The epochs under which somebody was told to become primary.
    pub told: BTreeSet<Epoch>,
    /// When any change was published last.
    published: Option<Millis>,
    /// When another replica took office last.
    changed: Option<Millis>,
    /// How many failovers have followed each other.
    in_a_row: u32,
    /// The last switchover that nobody asked for, unless the primary was changed for something else since.
    relief: Option<Relief>,
    /// Whose pods were asked to stop, and when.
    pub drained: BTreeMap<ReplicaName, Millis>,
}

#[derive(Clone, Debug)]
struct Relief {
    cause: String,
    from: ReplicaName,
    to: ReplicaName,
    at: Millis,
}

impl World {
    /// I4: nobody is told to take over while a commit of the old primary is fresh that was seen after the claim.
    pub fn may_promote(&self, step: &Step, seen: &Snapshot) -> Result<(), String> {
        let Step::Order { replica, order: Order::Promote(promote) } = step else { return Ok(()) };
        // Who was told once may serve already.
        if self.offices.told.contains(&promote.epoch) {
            return Ok(());
        }
        let is_this = |t: &&Transition| t.kind == Kind::Failover && t.epoch == promote.epoch && t.to == *replica;
        let Some(t) = seen.status.transition.as_ref().filter(is_this) else { return Ok(()) };
        // One that commits and could not be confirmed is not waited for: no consumer stores anything there.
        let Some(old) = t.from.as_ref().filter(|_| t.cause.as_deref() != Some("NotConfirmed")) else { return Ok(()) };
        let Some(claimed) = self.offices.claimed.get(&t.epoch) else { return Ok(()) };
        match newest_commit(seen, old).filter(|(age, _)| *age <= seen.policy.thresholds.fresh) {
            Some((age, who)) if decided_at(seen) - age > claimed + SKEW => Err(format!(
                "I4: {replica} is told to take over under epoch {}, and {who} saw {old} commit {age} ms before, after the claim",
                t.epoch
            )),
            _ => Ok(()),
        }
    }

    /// What must hold of a claim that was just taken.
    pub fn claimed(&mut self, claim: &Claim, decision: &Decision, seen: &Snapshot) -> Result<(), String> {
        self.offices.claimed.insert(claim.epoch(), self.now);
        let under_way = seen.status.transition.as_ref();
        // A confirmation keeps the primary, so what follows it is as good as the first claim.
        let is_first = under_way.is_none_or(|t| t.kind == Kind::Confirm);
        let is_change = matches!(claim.kind, Kind::Failover | Kind::Switchover);
        let Some(old) = claim.from.as_ref().filter(|_| is_first && is_change) else { return Ok(()) };
        self.must_be_allowed(claim, old, seen)?;
        self.must_not_be_benign(claim, old, decision)?;
        if claim.request.is_some() || under_way.is_some() {
            return Ok(());
        }
        *self.counts.causes.entry(claim.cause.clone()).or_default() += 1;
        match claim.kind {
            Kind::Failover => {
                must_not_be_vetoed(old, decision, seen)?;
                self.must_not_be_too_soon(claim, decision, seen)
            }
            _ => self.must_not_flap(claim, old, seen),
        }
    }

    /// The mode does not leave it to a person, or the person asked for it.
    fn must_be_allowed(&self, claim: &Claim, old: &ReplicaName, seen: &Snapshot) -> Result<(), String> {
        let may = match seen.policy.mode {
            Mode::Automatic => true,
            Mode::Manual => claim.request.is_some(),
            Mode::Paused => false,
        };
        let (to, cause, mode) = (&claim.to, &claim.cause, seen.policy.mode);
        if may { Ok(()) } else { Err(format!("{to} is to take over from {old} ({cause}), and the mode is {mode}")) }
    }

    /// Nothing that is benign changes the primary, but a drain.
    fn must_not_be_benign(&self, claim: &Claim, old: &ReplicaName, decision: &Decision) -> Result<(), String> {
        let drained = self.offices.drained.get(old).is_some_and(|at| self.now - at <= DRAINED_FOR);
        if !self.script.benign || drained {
            return Ok(());
        }
        let (to, cause, seen) = (&claim.to, &claim.cause, decision.assessment.message());
        Err(format!("benign: {to} is to take over from {old} ({cause}), and all trouble is benign. Seen: {seen}"))
    }

    /// I7: a judgement waits for the cooldown and for the fleet; a fact for the pause.
    fn must_not_be_too_soon(&self, claim: &Claim, decision: &Decision, seen: &Snapshot) -> Result<(), String> {
        let decided = decided_at(seen);
        let (cause, cooldown) = (&claim.cause, seen.policy.thresholds.cooldown);
        let since = |at: Option<Millis>| at.map(|at| decided.saturating_sub(at));
        if decision.assessment.class == Some(Class::Soft) {
            if let Some(passed) = since(self.offices.published).filter(|passed| *passed < cooldown) {
                return Err(format!(
                    "I7: a failover for {cause}, {passed} ms after a change, the cooldown is {cooldown} ms"
                ));
            }
            let (suspect, shards) = (seen.fleet.suspect, seen.fleet.shards);
            if suspect >= 3 && suspect * 5 > shards {
                return Err(format!("I7: a failover for {cause} while {suspect} of {shards} shards are suspect"));
            }
        }
        // A shard may be on several lost nodes in a row, and an errant one is taken when nobody else is left.
        let is_last_resort = decision.notes.iter().any(|note| note.reason == Reason::LastResort);
        if cause == "Unreachable" || is_last_resort || has_healed(seen, None) {
            return Ok(());
        }
        let (in_a_row, pause) = (self.offices.in_a_row, self.offices.pause(cooldown));
        match since(self.offices.changed).filter(|passed| *passed < pause) {
            Some(passed) => Err(format!(
                "I7: a failover for {cause}, {passed} ms after the last of {in_a_row} in a row, the pause is {pause} ms"
            )),
            None => Ok(()),
        }
    }

    /// No two switchovers of one cause, nor one there and back, within the cooldown: unless the new primary's own volume has filled up since.
    fn must_not_flap(&mut self, claim: &Claim, old: &ReplicaName, seen: &Snapshot) -> Result<(), String> {
        if !RELIEFS.contains(&claim.cause.as_str()) {
            return Ok(());
        }
        let cooldown = seen.policy.thresholds.cooldown;
        let filled = self.replicas.get(old).and_then(|rep| rep.disk.as_ref()?.filled);
        let recent = self.offices.relief.as_ref().filter(|last| decided_at(seen).saturating_sub(last.at) < cooldown);
        if let Some(last) = recent {
            let is_back = last.from == claim.to && last.to == *old;
            let is_anew = claim.cause == FILLING && filled.is_some_and(|filled| filled > last.at);
            if (last.cause == claim.cause || is_back) && !is_anew {
                let (passed, cause, to) = (self.now - last.at, &claim.cause, &claim.to);
                return Err(format!("flapping: {to} is to take over from {old} ({cause}) {passed} ms after {last:?}"));
            }
        }
        let (cause, to) = (claim.cause.clone(), claim.to.clone());
        self.offices.relief = Some(Relief { cause, from: old.clone(), to, at: self.now });
        Ok(())
    }

    /// A change takes effect.
    pub fn published(&mut self, t: &Transition, seen: &Snapshot) {
        let (now, cooldown) = (self.now, seen.policy.thresholds.cooldown);
        let offices = &mut self.offices;
        let lasts = cooldown + offices.pause(cooldown);
        let is_recent = offices.changed.is_some_and(|at| decided_at(seen).saturating_sub(at) < lasts);
        let before = if has_healed(seen, t.record.as_ref()) || !is_recent { 0 } else { offices.in_a_row };
        offices.in_a_row = match t.kind {
            Kind::Failover => before + 1,
            Kind::Confirm | Kind::Switchover => before,
            Kind::Bootstrap => 0,
        };
        offices.published = Some(now);
        if t.kind != Kind::Confirm {
            offices.changed = Some(now);
        }
        let is_relief = t.cause.as_deref().is_some_and(|cause| RELIEFS.contains(&cause));
        if t.kind != Kind::Confirm && !(t.kind == Kind::Switchover && is_relief && t.request.is_none()) {
            offices.relief = None;
        }
        // It need not be the one that was chosen first.
        if let Some(relief) = offices.relief.as_mut().filter(|_| t.kind == Kind::Switchover) {
            relief.to.clone_from(&t.to);
        }
    }
}

impl Offices {
    /// How long the next failover has to wait.
    fn pause(&self, cooldown: Millis) -> Millis {
        let (first, longest) = PAUSES;
        self.in_a_row.checked_sub(2).map_or(0, |further| (first << further.min(8)).min(longest).min(cooldown))
    }
}

/// I4: no commit that anybody saw is fresh and newer than the first sign.
fn must_not_be_vetoed(old: &ReplicaName, decision: &Decision, seen: &Snapshot) -> Result<(), String> {
    let since = decision.assessment.since;
    match newest_commit(seen, old) {
        Some((age, who)) if age <= seen.policy.thresholds.fresh && age + SKEW < since => {
            Err(format!("I4: {who} saw {old} commit {age} ms ago, and it is replaced for a sign of {since} ms ago"))
        }
        _ => Ok(()),
    }
}

/// Age of the newest commit that anybody saw, and who.
fn newest_commit(seen: &Snapshot, old: &ReplicaName) -> Option<(Millis, String)> {
    let told =
        seen.reports.iter().flat_map(|received| received.report.evidence.iter().map(move |said| (said, received)));
    let about = told.filter(|(said, _)| said.subject == *old);
    let commits = about.filter_map(|(said, received)| Some((said.probe.as_ref()?.committed? + received.age, received)));
    let (age, received) = commits.min_by_key(|(age, _)| *age)?;
    Some((age, received.report.observer.to_string()))
}

/// Whether no record of a change is open, but of confirmations and of the change that is being published.
fn has_healed(seen: &Snapshot, but: Option<&String>) -> bool {
    !seen.records.iter().any(|record| record.kind != Kind::Confirm && Some(&record.name) != but)
}

fn decided_at(seen: &Snapshot) -> Millis {
    Millis::try_from(seen.now.as_millisecond()).expect("after the beginning")
}
