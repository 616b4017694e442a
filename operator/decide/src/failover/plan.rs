//! A shard with a primary in office: when its office ends, and by which kind of change. Pure.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, Phase};

use super::assess::{Assessment, Cause, Class, Seconds, Verdict};
use super::candidate::{Candidate, Need, Ranking, has_all, rank, rank_for};
use super::cooldown::Pause;
use super::last_resort::{LastResort, last_resort};
use super::record::{self, Entry, Grounds, Milestone, RecordUpdate};
use super::snapshot::{Cleared, Dissenter, Dissents, Kind, Mode, PodPhase, Request, Snapshot, Transition};
use super::{bootstrap, cooldown, next_target, relief, request, transition};
use crate::decision::{Claim, Draft, Reason, Step};

/// A dead primary without a candidate is left alone for this long, so that others can come forward.
pub const LAST_COPY_PATIENCE: Millis = 5_000;

/// When what is not done now is looked at again, for a person.
pub(crate) const AGAIN: &str = "It is looked at again with every report";
/// What stands against a standby to which nobody hands over, although it may be promoted.
pub(crate) const TOO_LATE: &str = "it is too far behind, or not known to keep up";

/// Plans the change of primary, if there is to be one.
pub(crate) fn plan(s: &Snapshot, a: &Assessment, d: &mut Draft) {
    match (&s.status.transition, &s.status.primary) {
        (Some(change), _) => transition::go_on(s, a, change, d),
        (None, None) => {
            bootstrap::plan(s, d);
            request::without_primary(s, d);
        }
        (None, Some(primary)) => in_office(s, a, primary, d),
    }
}

fn in_office(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    if let Some(change) = &s.status.last_change
        && change.epoch == s.status.epoch
        && let Some(old) = &change.from
    {
        transition::note_fence(s, change.kind, old, change.epoch, d);
    }
    note_past(s, a, primary, d);
    if a.verdict.is_dead() {
        return replace(s, a, primary, d);
    }
    if s.known_epoch() > s.status.epoch && a.verdict != Verdict::Unknown {
        let known = s.known_epoch();
        d.note(Reason::StatusLost, format!("a manager knows epoch {known}, the status says {}", s.status.epoch));
        return claim(s, a, Change::new(Kind::Confirm, primary, primary, "StatusLost"), Ranking::default(), d);
    }
    let leaving = leaving(s, primary);
    for request in &s.requests {
        let before = d.steps.len() + d.held.len();
        request::take_up(s, a, primary, request, d);
        // It waits for its target, for which a primary that is about to go cannot wait.
        let waits = d.steps.len() + d.held.len() == before;
        if waits && leaving.is_some() && s.policy.mode == Mode::Automatic {
            d.doing = None;
            break;
        }
        // One that is turned down, and whose record could not be written a moment ago, stands in nobody's way.
        let is_held = |step: &Step| matches!(step, Step::Refuse { request: held, .. } if *held == request.name);
        if !d.held.iter().any(is_held) {
            return;
        }
    }
    if let Some(cause) = leaving {
        return leave(s, a, primary, cause, d);
    }
    relief::plan(s, a, primary, d);
}

/// What came to nothing leaves a word as well: a suspicion that a commit ended, and who contradicts everybody else.
fn note_past(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    let past = &s.memory.past;
    if let Some(Cleared { state, cause, lasted, message }) = &past.cleared {
        let lasted = Seconds(*lasted);
        let message = format!(
            "{primary} commits: that it was {state} ({cause}) has come to nothing, the first sign was {lasted} old. Seen then: {message}"
        );
        d.note_about(Reason::SuspicionCleared, primary, message);
    }
    // Of one that is dead by now they were right, or nobody sees it commit any more.
    if past.dissenters.is_empty() || a.verdict.is_dead() {
        return;
    }
    let how = |dissenter: &Dissenter| match dissenter.dissents {
        Dissents::For(long) => format!("{} (for {})", dissenter.observer, Seconds(long)),
        Dissents::Times(times) => format!("{} ({times} times within a minute)", dissenter.observer),
    };
    let who: Vec<_> = past.dissenters.iter().map(how).collect();
    let message = format!(
        "others see {primary} commit and these cannot use it: {}. The trouble is theirs or on the way there, and nobody is failed over \
         for it. Their word counts as before, and this is over once they see a commit themselves",
        who.join(", ")
    );
    d.note(Reason::ObserverSuspect, message);
}

/// Why a primary that serves should hand over.
fn leaving(s: &Snapshot, primary: &ReplicaName) -> Option<&'static str> {
    let replica = s.replicas.get(primary)?;
    let stopping = s.fresh_report(primary).is_some_and(|(server, _)| server.phase == Phase::Stopping);
    if replica.condemned.is_some() {
        return Some("Condemned");
    }
    (stopping || replica.pod.present().is_some_and(|pod| pod.terminating)).then_some("PodLeaving")
}

fn leave(s: &Snapshot, a: &Assessment, primary: &ReplicaName, cause: &str, d: &mut Draft) {
    if s.policy.mode != Mode::Automatic {
        let message = format!(
            "{primary} is leaving ({cause}), failover.mode is {}: it does not hand over. {}",
            s.policy.mode,
            by_hand(s, Kind::Switchover)
        );
        return d.note_about(Reason::FailoverLeftToPerson, primary, message);
    }
    if !hands_over(s, a, primary) {
        return cannot_be_told(s, a, primary, cause, d);
    }
    let ranking = rank(s, Some(primary), &[primary]);
    match ranking.fit.iter().find(|candidate| in_time(s, candidate)).cloned() {
        Some(to) => claim(s, a, Change::new(Kind::Switchover, primary, &to.name, cause), ranking, d),
        None => {
            let words = late_words(s, &ranking);
            d.note(Reason::NoCandidate, format!("{primary} is leaving and cannot hand over: {words}. {AGAIN}"));
        }
    }
}

/// A primary that is leaving and cannot be told to hand over. While it is suspect that is said, and it is soon dead or commits again.
fn cannot_be_told(s: &Snapshot, a: &Assessment, primary: &ReplicaName, cause: &str, d: &mut Draft) {
    d.doing(format!("waiting to hand over from {primary}, which is leaving"));
    if matches!(a.verdict, Verdict::Suspect(_)) {
        return;
    }
    let why = if a.verdict.commits() {
        "its manager cannot be told. It is looked at again as soon as that is connected".to_owned()
    } else {
        let (state, by_hand) = (a.verdict.state(), by_hand(s, Kind::Failover));
        format!(
            "it is {state}, and only one that commits hands over. {AGAIN}, and it is failed over once it is dead for certain. \
             {by_hand} Seen: {}",
            a.message()
        )
    };
    let message = format!("{primary} is leaving ({cause}) and does not hand over: {why}");
    d.note_about(Reason::SwitchoverWithheld, primary, message);
}

/// The primary is dead: another takes its place, or the same again if it was only restarted and has everything.
fn replace(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    let cause = a.verdict.cause().unwrap_or(Cause::Unexplained);
    let request = s.requests.first();
    // Whoever asks for it has looked.
    let need = if request.is_some() { Need::of(cause.into()) } else { Need::of_dead(s, cause, primary) };
    let ranking = rank_for(s, need, primary, &[primary]);
    let wanted = request.and_then(|request| request.target.as_ref());
    let best = ranking.choose(wanted).or_else(|| ranking.choose(None)).cloned();
    // The primary stays the same, so no mode speaks against it; without it a pause of the network would be an outage until a person
    // comes.
    if cause == Cause::Restarted
        && let Some((server, _)) = s.fresh_report(primary)
        && server.phase == Phase::Running
        && s.address_of(primary).is_some()
        && best.as_ref().is_none_or(|best| has_all(server, best))
    {
        let change = Change::new(Kind::Confirm, primary, primary, cause.into());
        let request = request.filter(|_| s.policy.mode != Mode::Paused);
        return claim(s, a, change.recorded_in(request), ranking, d);
    }
    match s.policy.mode {
        Mode::Paused => return left_to_person(s, a, primary, d),
        Mode::Manual if request.is_none() => return left_to_person(s, a, primary, d),
        Mode::Manual | Mode::Automatic => {}
    }
    if request.is_none() && a.class == Some(Class::Soft) && held_back(s, a, d) {
        return;
    }
    // Without anybody who could take over there is nothing to pause.
    if let Some(pause) = cooldown::pause(s, cause, primary).filter(|_| request.is_none() && best.is_some()) {
        return wait_for_pause(s, a, primary, pause, d);
    }
    let (to, ranking) = match best {
        Some(to) => (to.name, ranking),
        // It lives and has everything: room brings it back, and an errant one would throw it away.
        None if cause == Cause::VolumeFull => {
            let open = request.filter(|request| !request::refuse_without_room(primary, request, &ranking, d));
            return nobody_else(s, primary, &ranking, open, d);
        }
        // Whoever has transactions of its own is no better where volumes do not answer.
        None if need == Need::Answers => return nobody_else(s, primary, &ranking, None, d),
        None => match errant(s, primary, wanted, &ranking, d) {
            Some(taken) => taken,
            None => return nobody_else(s, primary, &ranking, request, d),
        },
    };
    let change = Change::new(Kind::Failover, primary, &to, cause.into());
    claim(s, a, change.recorded_in(request), ranking, d);
}

/// An errant replica to take over from `old`, once nobody else will.
pub(crate) fn errant(
    s: &Snapshot,
    old: &ReplicaName,
    wanted: Option<&ReplicaName>,
    ranking: &Ranking,
    d: &mut Draft,
) -> Option<(ReplicaName, Ranking)> {
    match last_resort(s, old, ranking) {
        LastResort::Nobody => None,
        LastResort::Wait { best, others } => {
            let others: Vec<_> = others.iter().map(ReplicaName::as_str).collect();
            let first = if others.is_empty() { "somebody else".to_owned() } else { others.join(", ") };
            d.doing(format!(
                "waiting for {first}: {best} has transactions of its own and takes over only if nobody else can"
            ));
            None
        }
        LastResort::Take(errant) => {
            let to = errant.choose(wanted).or_else(|| errant.choose(None))?.name.clone();
            let message = format!(
                "{to} takes over from {old} although it has transactions of its own, because nobody without is left: {}",
                ranking.words()
            );
            d.note(Reason::LastResort, message);
            Some((to, errant))
        }
    }
}

fn left_to_person(s: &Snapshot, a: &Assessment, primary: &ReplicaName, d: &mut Draft) {
    d.doing(match s.policy.mode {
        Mode::Paused => "nothing: failover.mode is Paused".to_owned(),
        Mode::Manual | Mode::Automatic => wait_for_request(s),
    });
    let (state, mode) = (a.verdict.state(), s.policy.mode);
    let message =
        format!("{primary} is {state}, failover.mode is {mode}. {} Seen: {}", by_hand(s, Kind::Failover), a.message());
    d.note(Reason::FailoverLeftToPerson, message);
}

/// What is being done while a person decides.
pub(crate) fn wait_for_request(s: &Snapshot) -> String {
    format!("waiting for a person to create a Failover with spec.shard {} and spec.kind Failover", s.shard)
}

/// How a person does what the mode keeps the operator from.
pub(crate) fn by_hand(s: &Snapshot, kind: Kind) -> String {
    let shard = &s.shard;
    if s.policy.mode == Mode::Paused {
        return format!(
            "Nobody changes the primary in this mode. To leave it: kubectl patch shard {shard} --type merge -p \
             '{{\"spec\":{{\"failover\":{{\"mode\":\"Automatic\"}}}}}}'."
        );
    }
    let kind = if kind == Kind::Failover { "Failover" } else { "Switchover" };
    format!(
        "To do it all the same: echo '{{\"apiVersion\":\"understudy.dev/v1alpha1\",\"kind\":\"Failover\",\"metadata\":{{\"generateName\":\"{shard}-\"}},\
         \"spec\":{{\"shard\":\"{shard}\",\"kind\":\"{kind}\"}}}}' | kubectl create -f - (in the namespace of the shard)."
    )
}

/// One primary after the other has died.
fn wait_for_pause(s: &Snapshot, a: &Assessment, primary: &ReplicaName, pause: Pause, d: &mut Draft) {
    let Pause { in_a_row, until } = pause;
    d.doing(format!("waiting until {until}: {in_a_row} primaries died one after the other"));
    let message = format!(
        "{primary} is {}, and {in_a_row} failovers followed each other before the shard had all its copies again: what ended them may \
         end the next as well. It is failed over at {until}. {} Seen: {}",
        a.verdict.state(),
        by_hand(s, Kind::Failover),
        a.message()
    );
    d.note(Reason::FailoverPaced, message);
}

/// Whether evidence that is a judgement may not be acted on now.
fn held_back(s: &Snapshot, a: &Assessment, d: &mut Draft) -> bool {
    if let Some(until) = cooldown::until(s) {
        let by_hand = by_hand(s, Kind::Failover);
        d.doing(format!(
            "waiting until {until}: the primary was changed a moment ago, and what is seen is a judgement"
        ));
        let message = format!(
            "the primary was changed a moment ago: only HARD evidence counts, and this is looked at again at {until}, when the \
             cooldown is over. {by_hand} Seen: {}",
            a.message()
        );
        d.note(Reason::Cooldown, message);
        return true;
    }
    let fleet = &s.fleet;
    if fleet.suspect >= 3 && fleet.suspect * 5 > fleet.shards {
        d.doing("waiting: many shards are suspect at once, and what is seen of this one is a judgement");
        d.note(
            Reason::FleetBreaker,
            format!(
                "{} of {} shards are suspect at once, which is a shared cause: only HARD evidence counts. {AGAIN}, \
                 and the shards that were suspect before count for a minute. {} Seen: {}",
                fleet.suspect,
                fleet.shards,
                by_hand(s, Kind::Failover),
                a.message()
            ),
        );
        return true;
    }
    false
}

/// No replica may be promoted: what ended is started again. A request that is open stays so, and is said to.
pub(crate) fn nobody_else(
    s: &Snapshot,
    primary: &ReplicaName,
    ranking: &Ranking,
    open: Option<&Request>,
    d: &mut Draft,
) {
    let reason = if ranking.retention_violated() { Reason::RetentionViolated } else { Reason::NoCandidate };
    let words = ranking.words();
    let open = open.map_or(String::new(), |request| format!(". {} stays open until somebody does", request.name));
    if bootstrap::nothing_left(s) {
        d.doing(bootstrap::wait_for_person(s));
        let by_hand = bootstrap::anew_by_hand(s);
        d.note(reason, format!("nobody can take over from {primary}: {by_hand}. Seen: {words}{open}"));
    } else {
        d.doing("waiting for a replica that can be promoted");
        let stays = s.status.transition.as_ref().is_some_and(|t| next_target::stays(s, t));
        let then = if stays { "" } else { ", and whoever can takes over at once" };
        d.note(reason, format!("nobody can take over from {primary}: {words}. {AGAIN}{then}{open}"));
    }
    start_again(s, d);
}

/// Servers that ended, and those whose pods did, are started again where they are, on their volumes: each may hold the last copy.
pub(crate) fn start_again(s: &Snapshot, d: &mut Draft) {
    if s.memory.awake < LAST_COPY_PATIENCE {
        return;
    }
    let in_office = |name: &ReplicaName| s.status.primary.as_ref() == Some(name);
    for (name, replica) in s.replicas.iter().filter(|(name, replica)| replica.condemned.is_none() || in_office(name)) {
        let Some(pod) = replica.pod.present().filter(|pod| !pod.terminating) else { continue };
        let ended = match (s.fresh_report(name).map(|(server, received)| (&server.phase, received)), pod.phase) {
            (Some((Phase::Exited { age, .. }, received)), _) => age + received,
            // Since when is not known; a pod that ends as soon as it is made is made again this often.
            (None, PodPhase::Ended) => pod.age,
            (Some(_), _) | (None, PodPhase::Alive) => continue,
        };
        if ended >= LAST_COPY_PATIENCE
            && d.step(Step::DeletePod { replica: name.clone(), uid: pod.uid.clone(), restart: true })
        {
            let message = format!("{name} may be the last copy: its pod is started again on its volume");
            d.note_about(Reason::LastCopyRestarted, name, message);
        }
    }
}

/// Whether a primary serves and can be told to stop: what a planned change begins with.
pub(crate) fn hands_over(s: &Snapshot, a: &Assessment, primary: &ReplicaName) -> bool {
    let heard =
        s.fresh_report(primary).is_some_and(|(server, _)| matches!(server.phase, Phase::Running | Phase::Stopping));
    a.verdict.commits() && heard && s.replicas.get(primary).is_some_and(|replica| replica.link.connected)
}

pub(crate) fn in_time(s: &Snapshot, candidate: &Candidate) -> bool {
    candidate.delay.is_some_and(|delay| delay <= s.policy.thresholds.switchover_within)
}

/// Why nobody can be handed over to, for a person.
pub(crate) fn late_words(s: &Snapshot, ranking: &Ranking) -> String {
    ranking.words_with(|candidate| (!in_time(s, candidate)).then(|| TOO_LATE.to_owned()))
}

/// A change of primary to be claimed.
pub(crate) struct Change {
    kind: Kind,
    from: Option<ReplicaName>,
    to: ReplicaName,
    cause: String,
    record: Option<String>,
    request: Option<String>,
}

impl Change {
    pub(crate) fn new(kind: Kind, from: &ReplicaName, to: &ReplicaName, cause: &str) -> Self {
        Self { kind, from: Some(from.clone()), to: to.clone(), cause: cause.into(), record: None, request: None }
    }

    pub(crate) fn out_of_nothing(kind: Kind, to: &ReplicaName, cause: &str) -> Self {
        Self { kind, from: None, to: to.clone(), cause: cause.into(), record: None, request: None }
    }

    /// The same change, under a further epoch.
    pub(crate) fn again(t: &Transition) -> Self {
        let cause = t.cause.clone().unwrap_or_else(|| "StatusLost".into());
        let change = Self { kind: t.kind, from: t.from.clone(), to: t.to.clone(), cause, record: None, request: None };
        change.of_incident(t)
    }

    pub(crate) fn recorded_in(mut self, request: Option<&Request>) -> Self {
        self.record = request.map(|request| request.name.clone());
        self.request.clone_from(&self.record);
        self
    }

    /// A further step of what `t` began: told in its record, and asked for by whoever asked for that.
    pub(crate) fn of_incident(mut self, t: &Transition) -> Self {
        self.record.clone_from(&t.record);
        self.request.clone_from(&t.request);
        self
    }
}

/// Claims the next epoch for a change and begins its record.
pub(crate) fn claim(s: &Snapshot, a: &Assessment, change: Change, ranking: Ranking, d: &mut Draft) {
    let Change { kind, from, to, cause, record, request } = change;
    let after = s.known_epoch();
    let epoch = after.next();
    let first = record.is_none() || s.requests.iter().any(|request| Some(&request.name) == record.as_ref());
    let record = match kind {
        Kind::Bootstrap => None,
        _ => Some(record.unwrap_or_else(|| format!("{}-{epoch}", s.shard))),
    };
    let claim = Claim {
        after,
        kind,
        from: from.clone(),
        to: to.clone(),
        record: record.clone(),
        request,
        cause: cause.clone(),
    };
    if !d.step(Step::Claim(claim)) {
        return;
    }
    let office = from.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    d.doing(format!("changing the primary to {to}"));
    let begun = match kind {
        // That a first primary is being made was said when its name was written down.
        Kind::Bootstrap => None,
        Kind::Failover => Some(Reason::FailoverBegun),
        Kind::Switchover => Some(Reason::SwitchoverBegun),
        Kind::Confirm => Some(Reason::ConfirmBegun),
    };
    if let Some(begun) = begun {
        d.note(begun, format!("epoch {epoch} claimed for {to} in place of {office}: {cause}"));
    }
    let Some(name) = record else { return };
    let mut entries = if first { record::beginning(s, a, from.as_ref(), epoch, &cause) } else { Vec::new() };
    entries.push(Entry::now(Milestone::Claimed, epoch).saying(format!("for {to}")));
    d.records.push(RecordUpdate {
        name,
        kind,
        epoch,
        to: Some(to),
        cause: Some(cause),
        message: Some(a.message()),
        phase: record::Phase::Claimed,
        result: None,
        entries,
        grounds: first.then(|| Grounds::of(s, a, from.as_ref(), ranking)),
        offsets_after: None,
        from,
    });
}
