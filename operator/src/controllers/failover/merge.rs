//! What a record should say, added to what it says already. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use strum::IntoEnumIterator;
use understudy_api::Failover;
use understudy_api::conditions::{self, Claim};
use understudy_api::v1alpha1::{
    CandidateNote, EvidenceKind, EvidenceNote, FailoverPhase, FailoverResult, FailoverStatus, OffsetNote, RebuildNote,
    TimelineEntry, Vote,
};
use understudy_decide::failover::assess::Ballot;
use understudy_decide::failover::exhibit::{Exhibit, Of};
use understudy_decide::failover::record::{Entry, Grounds, Milestone, Outcome, Phase, RecordUpdate, in_words};
use understudy_decide::failover::snapshot::Kind;
use understudy_wire::evidence::{Millis, StoredOffset};
use understudy_wire::{Epoch, ReplicaName};

use super::Job;

/// Adds what is missing. Whether anything was.
pub fn merge(failover: &mut Failover, job: &Job) -> bool {
    let before = failover.status.clone();
    let generation = failover.metadata.generation;
    let status = failover.status.get_or_insert_default();
    if status.phase == FailoverPhase::Closed {
        complete(status, job);
        conclude(status, generation, job.at);
        return failover.status != before;
    }
    let update = &job.update;
    status.observed_generation = generation;
    status.phase = match status.phase {
        // How far that is nobody here knows; how far it is now is known.
        FailoverPhase::Unknown => phase(update.phase),
        known => known.max(phase(update.phase)),
    };
    let epoch = i64::try_from(update.epoch.0).unwrap_or(i64::MAX);
    if status.epoch.is_none_or(|known| known <= epoch) {
        status.epoch = Some(epoch);
        fill(&mut status.from, update.from.as_ref().map(ToString::to_string));
        if let Some(to) = &update.to {
            status.to = Some(to.to_string());
        }
    }
    fill(&mut status.cause, update.cause.clone());
    let explanation = status.cause.as_deref().and_then(in_words).map(ToOwned::to_owned);
    fill(&mut status.explanation, explanation);
    fill(&mut status.message, update.message.clone());
    for entry in &update.entries {
        enter(status, entry, job);
    }
    // What was known first counts: whoever tells it again knows less of that moment.
    if let Some(grounds) = update.grounds.as_ref().filter(|_| status.evidence.is_empty()) {
        ground(status, grounds, update, job.at);
    }
    if update.kind != Kind::Confirm {
        take(status);
    }
    if let Some(after) = &update.offsets_after {
        status.offsets_after = after.iter().map(offset).collect();
        status.replayed_records = Some(replayed(&status.offsets_before, &status.offsets_after));
    }
    if update.phase == Phase::Closed {
        status.finished_at.get_or_insert(MicroTime(job.at));
        status.result = status.result.or(update.result.map(result));
    }
    complete(status, job);
    conclude(status, generation, job.at);
    failover.status != before
}

fn conclude(status: &mut FailoverStatus, generation: Option<i64>, at: Timestamp) {
    let claim = complete_claim(status);
    conditions::set(&mut status.conditions, claim, generation, &Time(at));
}

/// Whether it has come to its end, for `kubectl wait --for=condition=Complete`.
pub fn complete_claim(status: &FailoverStatus) -> Claim {
    let message = status.message.clone().unwrap_or_default();
    match (status.phase, status.result) {
        (FailoverPhase::Closed, result) => {
            Claim::yes(conditions::COMPLETE, result.map_or("Closed", |result| result.into()), message)
        }
        (phase, _) => Claim::no(conditions::COMPLETE, phase.into(), message),
    }
}

/// What may come in even after the end: measurements.
fn complete(status: &mut FailoverStatus, job: &Job) {
    if let Some(gap) = job.measured.write_gap.filter(|_| status.write_gap_seconds.is_none()) {
        status.write_gap_seconds = Some(gap);
        status.gap = Some(format!("{gap:.1}s"));
    }
    if let Some(stacks) = job.measured.stacks.as_ref().filter(|_| status.stacks.is_empty()) {
        status.stacks.clone_from(stacks);
    }
    if let Some(rebuild) = job.measured.rebuild.as_ref().filter(|_| status.rebuild.is_none()) {
        // Redundancy was lost with the first sign, not when the route was moved.
        let lost = status.started_at.as_ref().or(rebuild.started_at.as_ref()).map(|lost| lost.0);
        let seconds = lost.zip(rebuild.finished_at.as_ref()).map(|(lost, back)| seconds_between(lost, back.0));
        status.rebuild = Some(RebuildNote { seconds, ..rebuild.clone() });
    }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of hours are exact")]
    let tenths = ((to.as_millisecond() - from.as_millisecond()) as f64 / 100.0).round();
    tenths / 10.0
}

fn before(decided: Timestamp, ago: Millis) -> Timestamp {
    let ago = SignedDuration::from_millis(i64::try_from(ago).unwrap_or(0));
    decided.checked_sub(ago).unwrap_or(decided)
}

fn fill<T>(slot: &mut Option<T>, with: Option<T>) {
    if slot.is_none() {
        *slot = with;
    }
}

/// Adds a step to the timeline unless it is there. The same step under another epoch, with another candidate, is another; but what led to
/// the incident did so once, whoever tells of it.
fn enter(status: &mut FailoverStatus, entry: &Entry, job: &Job) {
    let step = entry.step.to_string();
    let is_of_incident = entry.step < Milestone::Claimed;
    let is_there =
        |there: &TimelineEntry| there.step == step && (is_of_incident || step_epoch(there) == Some(entry.epoch));
    if status.timeline.iter().any(is_there) {
        return;
    }
    let told = before(job.at, entry.ago);
    let at = match entry.step {
        // Another operator than the one that decided may come to tell it; the claim itself says when it was made.
        Milestone::Suspected | Milestone::Quorum | Milestone::Decided => {
            claimed_at(job, entry.epoch).map_or(told, |claimed| told.min(claimed))
        }
        Milestone::Claimed => {
            let at = claimed_at(job, entry.epoch).map_or(told, |claimed| told.min(claimed));
            earlier_claim(status, entry.epoch).map_or(at, |earlier| at.max(earlier))
        }
        // The status tells the second of a publication only.
        Milestone::Promoted | Milestone::Routed => earlier_steps(status, entry).map_or(told, |last| told.max(last)),
        _ => told,
    };
    let detail = in_epoch(entry);
    status.timeline.push(TimelineEntry { step, at: MicroTime(at), elapsed_ms: 0, detail: Some(detail) });
    status.timeline.sort_by_key(|there| there.at.0);
    let first = status.timeline[0].at.0;
    for there in &mut status.timeline {
        there.elapsed_ms = there.at.0.as_millisecond() - first.as_millisecond();
    }
    status.started_at = Some(MicroTime(first));
    if entry.step == Milestone::Promoted {
        status.promoted_at = Some(MicroTime(at));
    }
}

/// When the epoch was claimed, as the Shard's status says while the change is under way.
fn claimed_at(job: &Job, epoch: Epoch) -> Option<Timestamp> {
    let transition = job.shard.status.as_ref()?.transition.as_ref()?;
    let is_it = u64::try_from(transition.epoch).is_ok_and(|claimed| claimed == epoch.0);
    transition.since.as_ref().filter(|_| is_it).map(|since| since.0)
}

/// When the last epoch before this one was claimed, in the same incident.
fn earlier_claim(status: &FailoverStatus, epoch: Epoch) -> Option<Timestamp> {
    let claimed = Milestone::Claimed.to_string();
    let is_earlier =
        |there: &&TimelineEntry| there.step == claimed && step_epoch(there).is_some_and(|claim| claim < epoch);
    status.timeline.iter().filter(is_earlier).map(|there| there.at.0).max()
}

/// When the last of the steps that come before this one, under the same epoch, happened.
fn earlier_steps(status: &FailoverStatus, entry: &Entry) -> Option<Timestamp> {
    let comes_before = |step: &str| {
        let mut before = Milestone::iter().take_while(|earlier| *earlier < entry.step);
        before.any(|earlier| step == earlier.to_string())
    };
    let is_earlier = |there: &&TimelineEntry| step_epoch(there) == Some(entry.epoch) && comes_before(&there.step);
    status.timeline.iter().filter(is_earlier).map(|there| there.at.0).max()
}

/// The words of a step: they begin with the epoch that it belongs to.
fn in_epoch(entry: &Entry) -> String {
    let epoch = entry.epoch;
    entry.detail.as_ref().map_or_else(|| format!("epoch {epoch}"), |detail| format!("epoch {epoch}: {detail}"))
}

/// The epoch that a step of a timeline belongs to.
pub fn step_epoch(entry: &TimelineEntry) -> Option<Epoch> {
    let words = entry.detail.as_deref()?.strip_prefix("epoch ")?;
    words.split(": ").next()?.parse().ok().map(Epoch)
}

/// The one that was taken is the only candidate that was not rejected, also when it is not the first that was taken.
fn take(status: &mut FailoverStatus) {
    let (Some(to), false) = (&status.to, status.candidates.is_empty()) else { return };
    for candidate in &mut status.candidates {
        if candidate.replica == *to {
            candidate.rejected = None;
        } else if candidate.rejected.is_none() {
            candidate.rejected = Some("did not become primary".into());
        }
    }
    if !status.candidates.iter().any(|candidate| candidate.replica == *to) {
        status.candidates.push(CandidateNote { replica: to.clone(), ..CandidateNote::default() });
    }
}

fn ground(status: &mut FailoverStatus, grounds: &Grounds, update: &RecordUpdate, decided: Timestamp) {
    let vote = |ballot: &Ballot| Vote {
        observer: ballot.observer.clone(),
        says: ballot.says.clone(),
        age_ms: i64::try_from(ballot.age).unwrap_or(i64::MAX),
        at: Some(MicroTime(before(decided, ballot.age))),
    };
    status.votes = grounds.votes.iter().map(vote).collect();
    status.vetoes = grounds.vetoes.iter().map(vote).collect();
    status.abstentions = grounds.abstained.iter().map(vote).collect();
    let subject = update.from.as_ref().map(ToString::to_string).unwrap_or_default();
    status.evidence = vec![EvidenceNote {
        observer: format!("manager {subject}"),
        subject: subject.clone(),
        fact: grounds.own.clone(),
        age_ms: i64::try_from(grounds.own_age).unwrap_or(i64::MAX),
        ..EvidenceNote::default()
    }];
    status.evidence.extend(grounds.exhibits.iter().map(|exhibit| evidence(exhibit, &subject)));
    status.candidates = candidates(grounds, update.to.as_ref());
    status.offsets_before = grounds.offsets_before.iter().map(offset).collect();
}

fn evidence(exhibit: &Exhibit, subject: &str) -> EvidenceNote {
    EvidenceNote {
        observer: exhibit.observer.clone(),
        subject: subject.to_owned(),
        fact: exhibit.fact.clone(),
        age_ms: i64::try_from(exhibit.age).unwrap_or(i64::MAX),
        kind: Some(match exhibit.of {
            Of::Process => EvidenceKind::Process,
            Of::Threads => EvidenceKind::Threads,
            Of::Fsync => EvidenceKind::Fsync,
            Of::Log => EvidenceKind::Log,
            Of::Pressure => EvidenceKind::Pressure,
            Of::Lock => EvidenceKind::Lock,
            Of::AdminPort => EvidenceKind::AdminPort,
            Of::Probe => EvidenceKind::Probe,
        }),
        lasted_ms: exhibit.lasted.map(|lasted| i64::try_from(lasted).unwrap_or(i64::MAX)),
        stage: exhibit.stage.map(|stage| format!("{stage:?}")),
    }
}

/// Best first; the one that was taken is the only one that was not rejected, wherever it stands.
pub fn candidates(grounds: &Grounds, taken: Option<&ReplicaName>) -> Vec<CandidateNote> {
    let stood = |name: &ReplicaName| {
        let stood = grounds.standings.get(name).cloned().unwrap_or_default();
        CandidateNote {
            replica: name.to_string(),
            executed_gtid: None,
            offsets: stood.offsets,
            free_bytes: stood.free.and_then(|bytes| i64::try_from(bytes).ok()),
            delay_ms: stood.delay.and_then(|delay| i64::try_from(delay).ok()),
            zone: stood.zone,
            rejected: None,
        }
    };
    let fit = grounds.ranking.fit.iter().enumerate().map(|(rank, candidate)| CandidateNote {
        executed_gtid: Some(candidate.executed.to_string()),
        rejected: (Some(&candidate.name) != taken).then(|| format!("ranked {}", rank + 1)),
        ..stood(&candidate.name)
    });
    let unfit =
        grounds.ranking.unfit.iter().map(|(name, why)| CandidateNote { rejected: Some(why.words()), ..stood(name) });
    fit.chain(unfit).collect()
}

fn offset(stored: &StoredOffset) -> OffsetNote {
    OffsetNote {
        consumer: stored.consumer.clone(),
        topic: stored.topic.clone(),
        partition: stored.partition,
        next_offset: stored.next_offset,
    }
}

/// Records that the old primary had stored and the new one had not.
fn replayed(before: &[OffsetNote], after: &[OffsetNote]) -> i64 {
    let key = |note: &OffsetNote| (note.consumer.clone(), note.topic.clone(), note.partition);
    let behind = before.iter().filter_map(|had| {
        let has = after.iter().find(|has| key(has) == key(had))?;
        Some(had.next_offset.saturating_sub(has.next_offset).max(0))
    });
    behind.sum()
}

fn phase(phase: Phase) -> FailoverPhase {
    match phase {
        Phase::Claimed => FailoverPhase::Claimed,
        Phase::Fencing => FailoverPhase::Fencing,
        Phase::Promoting => FailoverPhase::Promoting,
        Phase::Rebuilding => FailoverPhase::Rebuilding,
        Phase::Closed => FailoverPhase::Closed,
    }
}

fn result(outcome: Outcome) -> FailoverResult {
    match outcome {
        Outcome::Succeeded => FailoverResult::Succeeded,
        Outcome::Confirmed => FailoverResult::Confirmed,
        Outcome::Refused => FailoverResult::Refused,
        Outcome::Failed => FailoverResult::Failed,
    }
}
