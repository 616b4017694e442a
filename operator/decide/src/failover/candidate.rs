//! Who may become primary, and who first. Pure.
//!
//! Order: the greatest set of transactions, then the highest stored offsets, then free space, then another zone than the
//! one that was lost, then the name. Never one with transactions of its own, and never one whose offsets Kafka no longer has.

use std::cmp::{Ordering, Reverse};

use understudy_wire::evidence::{Millis, Phase, Server, StoredOffset};
use understudy_wire::gtid::SourceId;
use understudy_wire::{GtidSet, ReplicaName};

use super::assess::{Seconds, phase_words};
use super::relief::fsync_took;
use super::retention::retention;
use super::signature::{Cause, volume_error};
use super::snapshot::{Pod, PodPhase, Replica, Snapshot};
use crate::space;

/// Received transactions count as executed when the applier is no more than this behind.
pub const APPLIES_IN_TIME: Millis = 1_000;

/// A write that has hung for so long does not come back: one that is only slow has, even on a disk that all of a machine wait for.
pub(crate) const HANGS_FOR_LONG: Millis = 60_000;
/// What stands against a candidate that is as full as the primary, or nearly.
pub(crate) const NO_ROOM_EITHER: &str = "its volume has no room either, 20 % of it would have to be free";
/// What stands against a primary that was to be left because its volume was full.
const STILL_FULL: &str = "its volume is still full, more than 5 % of it would have to be free";
/// The cause of a switchover away from a volume that fills up.
pub(crate) const VOLUME_FILLING: &str = "VolumeFilling";

/// A replica that may become primary.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Who.
    pub name: ReplicaName,
    /// What it has executed.
    pub executed: GtidSet,
    /// What it will have executed once promoted: with what it received, when it applies that in time.
    pub reach: GtidSet,
    /// Sum of its stored offsets.
    pub offsets: i64,
    /// Free bytes on its volume.
    pub free: u64,
    /// Whether it is in another zone than the replica it replaces.
    pub elsewhere: bool,
    /// How far behind it is, when known.
    pub delay: Option<Millis>,
}

/// Why a replica may not become primary.
#[derive(Clone, Debug, PartialEq)]
pub enum Unfit {
    /// It is to be replaced.
    Condemned,
    /// It has no pod with an address, or the pod is leaving or ended.
    NoPod,
    /// Its manager is silent.
    Silent,
    /// Its server does not run; what its manager says instead.
    NotRunning(String),
    /// Its volume fails or hangs, in these words.
    Volume(String),
    /// What it has executed and stored is not known, or was read too long ago.
    NothingRead,
    /// It has these transactions that no other replica has.
    Errant(GtidSet),
    /// Kafka no longer has what it would need: partition, its offset, the earliest that is left.
    Retention {
        /// Topic and partition.
        partition: String,
        /// Its stored offset.
        needs: i64,
        /// The lowest offset that Kafka holds.
        earliest: i64,
    },
    /// Nobody knows what Kafka still holds, and it is too far behind to be promoted on trust.
    RetentionUnknown,
}

impl Unfit {
    /// For a person.
    pub fn words(&self) -> String {
        match self {
            Self::Condemned => "condemned".into(),
            Self::NoPod => "it has no running pod".into(),
            Self::Silent => "its manager is silent".into(),
            Self::NotRunning(instead) | Self::Volume(instead) => instead.clone(),
            Self::NothingRead => "what it has executed and stored is not known".into(),
            Self::Errant(own) => format!("it has transactions that no other replica has: {own}"),
            Self::Retention { partition, needs, earliest } => {
                format!("it needs offset {needs} of {partition} and Kafka begins at {earliest}")
            }
            Self::RetentionUnknown => "it is far behind and nobody knows what Kafka still holds".into(),
        }
    }
}

/// Everybody who was considered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ranking {
    /// Best first.
    pub fit: Vec<Candidate>,
    /// The rest.
    pub unfit: Vec<(ReplicaName, Unfit)>,
}

impl Ranking {
    /// The best one, or the wanted one if it is fit.
    pub fn choose(&self, wanted: Option<&ReplicaName>) -> Option<&Candidate> {
        match wanted {
            Some(name) => self.fit.iter().find(|candidate| candidate.name == *name),
            None => self.fit.first(),
        }
    }

    /// Why nobody, or not the wanted one, for a person.
    pub fn words(&self) -> String {
        self.words_with(|_| None)
    }

    /// The same, with what stands against those that are fit as well.
    pub(crate) fn words_with(&self, against: impl Fn(&Candidate) -> Option<String>) -> String {
        let unfit = self.unfit.iter().map(|(name, why)| format!("{name}: {}", why.words()));
        let fit = self.fit.iter().filter_map(|candidate| Some(format!("{}: {}", candidate.name, against(candidate)?)));
        let words: Vec<_> = unfit.chain(fit).collect();
        if words.is_empty() { "there is no other replica".into() } else { words.join("; ") }
    }

    /// The same of those whose volumes have room: who takes over from a primary whose volume is full must not be full next. That primary
    /// has everything and may stay as soon as it is not about to be full again.
    fn with_room(self, s: &Snapshot, old: &ReplicaName) -> Self {
        let volume = |name: &ReplicaName| s.fresh_report(name).and_then(|(server, _)| server.volume);
        let has_room = |candidate: &Candidate| {
            let is_old = candidate.name == *old;
            let suffices = |volume| if is_old { !space::is_filling(volume) } else { space::has_room(volume) };
            volume(&candidate.name).is_some_and(suffices)
        };
        let (fit, full): (Vec<_>, Vec<_>) = self.fit.into_iter().partition(has_room);
        let no_room = |candidate: Candidate| {
            let is_old = candidate.name == *old;
            let words = if is_old { STILL_FULL } else { NO_ROOM_EITHER };
            (candidate.name, Unfit::Volume(words.into()))
        };
        Self { fit, unfit: self.unfit.into_iter().chain(full.into_iter().map(no_room)).collect() }
    }

    /// The same of those whose volumes answer: where all of them hang, as behind storage that they share, another primary is no better. While other
    /// shards are in doubt as well, one quick write may be luck.
    fn with_answers(self, s: &Snapshot) -> Self {
        let (t, others) = (&s.policy.thresholds, s.fleet.doubtful.saturating_sub(1) + s.fleet.slow);
        let is_shared = others > 0 && s.memory.past.quicker_for < t.stuck_after;
        let against = |candidate: &Candidate| match s
            .fresh_report(&candidate.name)
            .and_then(|(server, _)| fsync_took(server))
        {
            None => Some("how long a write to its volume takes is not known".to_owned()),
            Some(took) if took >= t.suspect_after => {
                Some(format!("a write to its own volume takes {} as well", Seconds(took)))
            }
            Some(_) if is_shared => Some(format!(
                "{others} other shards are slow or suspect too, and no standby's volume has been quicker for {}, which is a shared cause",
                Seconds(t.stuck_after)
            )),
            Some(_) => None,
        };
        let mut ranking = Self { fit: Vec::new(), unfit: self.unfit };
        for candidate in self.fit {
            match against(&candidate) {
                Some(why) => ranking.unfit.push((candidate.name, Unfit::Volume(why))),
                None => ranking.fit.push(candidate),
            }
        }
        ranking
    }

    /// Whether it was only Kafka's retention that stood against somebody.
    pub fn retention_violated(&self) -> bool {
        let retention = |why: &Unfit| matches!(why, Unfit::Retention { .. } | Unfit::RetentionUnknown);
        self.fit.is_empty() && self.unfit.iter().any(|(_, why)| retention(why))
    }
}

/// Ranks every replica but those in `but`; `old` is the primary until now.
pub fn rank(s: &Snapshot, old: Option<&ReplicaName>, but: &[&ReplicaName]) -> Ranking {
    let mut ranking = Ranking::default();
    for (name, replica) in s.replicas.iter().filter(|(name, _)| !but.contains(name)) {
        match examine(s, old, name, replica) {
            Ok(candidate) => ranking.fit.push(candidate),
            Err(why) => ranking.unfit.push((name.clone(), why)),
        }
    }
    best_first(&mut ranking.fit);
    ranking
}

/// What a change of primary needs in whoever takes over, besides being fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing else.
    Nothing,
    /// Room on its volume, as that of the old primary is full or about to be.
    Room,
    /// A volume that answers, as that of the old primary does not.
    Answers,
}

impl Need {
    /// Of a change with this cause.
    pub(crate) fn of(cause: &str) -> Self {
        let is_full = cause == <&str>::from(Cause::VolumeFull) || cause == VOLUME_FILLING;
        if is_full { Self::Room } else { Self::Nothing }
    }

    /// Of the first choice in place of a dead primary. What has hung for long is left for whoever can take over.
    pub(crate) fn of_dead(s: &Snapshot, cause: Cause, primary: &ReplicaName) -> Self {
        let hanging = || s.fresh_report(primary).and_then(|(server, _)| server.fsync.as_ref()?.in_flight);
        match cause {
            Cause::VolumeStalled if hanging().is_some_and(|hanging| hanging < HANGS_FOR_LONG) => Self::Answers,
            _ => Self::of(cause.into()),
        }
    }
}

/// Ranks every replica but those in `but` to take over from `old`: the first choice of a change, and each one after it.
pub(crate) fn rank_for(s: &Snapshot, need: Need, old: &ReplicaName, but: &[&ReplicaName]) -> Ranking {
    let ranking = rank(s, Some(old), but);
    match need {
        Need::Nothing => ranking,
        Need::Room => ranking.with_room(s, old),
        Need::Answers => ranking.with_answers(s),
    }
}

fn best_first(fit: &mut [Candidate]) {
    let sets: Vec<_> = fit.iter().map(|candidate| candidate.reach.clone()).collect();
    // "Contains" is no total order: who contains the most others leads, and the count decides between incomparable ones.
    let contained = |of: &Candidate| sets.iter().filter(|set| of.reach.contains(set)).count();
    let key = |c: &Candidate| (contained(c), c.reach.count(), c.offsets, c.free, c.elsewhere);
    fit.sort_by(|a, b| match Reverse(key(a)).cmp(&Reverse(key(b))) {
        Ordering::Equal => a.name.cmp(&b.name),
        unequal => unequal,
    });
}

/// The same ranking with the errant ones among the fit, as far as nothing else stands against them.
pub(crate) fn rank_errant(s: &Snapshot, old: &ReplicaName, ranking: &Ranking) -> Ranking {
    let mut all = Ranking { fit: ranking.fit.clone(), unfit: Vec::new() };
    for (name, why) in &ranking.unfit {
        let examined = match (why, s.replicas.get(name)) {
            (Unfit::Errant(_), Some(replica)) => able(s, Some(old), name, replica)
                .and_then(|candidate| retention(s, Some(old), &candidate).map(|()| candidate)),
            _ => Err(why.clone()),
        };
        match examined {
            Ok(candidate) => all.fit.push(candidate),
            Err(why) => all.unfit.push((name.clone(), why)),
        }
    }
    best_first(&mut all.fit);
    all
}

/// Whether a replica may become primary in place of `old`.
pub fn examine(
    s: &Snapshot,
    old: Option<&ReplicaName>,
    name: &ReplicaName,
    replica: &Replica,
) -> Result<Candidate, Unfit> {
    let candidate = able(s, old, name, replica)?;
    let errant = errant(s, old, name, &candidate.executed);
    if !errant.is_empty() {
        return Err(Unfit::Errant(errant));
    }
    retention(s, old, &candidate)?;
    Ok(candidate)
}

/// Whether a replica could take office, whatever data it holds.
fn able(s: &Snapshot, old: Option<&ReplicaName>, name: &ReplicaName, replica: &Replica) -> Result<Candidate, Unfit> {
    let t = &s.policy.thresholds;
    if replica.condemned.is_some() {
        return Err(Unfit::Condemned);
    }
    let is_there = |pod: &&Pod| !pod.terminating && pod.ip.is_some() && pod.phase == PodPhase::Alive;
    if replica.pod.present().filter(is_there).is_none() {
        return Err(Unfit::NoPod);
    }
    let Some((server, age)) = s.fresh_report(name) else { return Err(Unfit::Silent) };
    if server.phase != Phase::Running {
        return Err(Unfit::NotRunning(phase_words(server, None)));
    }
    if let Some(error) = volume_error(server) {
        return Err(Unfit::Volume(format!("its volume answers {error}")));
    }
    if let Some(error) = space::answers_full(server) {
        return Err(Unfit::Volume(format!("its volume is full: {error}")));
    }
    if server.fsync.as_ref().and_then(|fsync| fsync.in_flight).is_some_and(|hanging| hanging + age >= t.stuck_after) {
        return Err(Unfit::Volume("writes to its volume hang".into()));
    }
    let executed = match &server.executed {
        Some(read) if read.age + age <= t.fresh => &read.value,
        _ => return Err(Unfit::NothingRead),
    };
    if server.offsets.is_none() && !s.consumers.is_empty() {
        return Err(Unfit::NothingRead);
    }
    let replication = server.replication.as_ref();
    let delay = replication.and_then(|read| Some(read.value.delay? + read.age + age));
    let applies_in_time = delay.is_some_and(|delay| delay <= APPLIES_IN_TIME + t.fresh);
    let reach = match replication.filter(|_| applies_in_time) {
        Some(read) => executed.union(&read.value.received),
        None => executed.clone(),
    };
    let offsets = offsets_of(s, name);
    let zone = s.zone_of(name);
    Ok(Candidate {
        name: name.clone(),
        executed: executed.clone(),
        reach,
        offsets: offsets.iter().map(|stored| stored.next_offset).fold(0, i64::saturating_add),
        free: server.volume.map_or(0, |volume| volume.free),
        elsewhere: zone.is_some() && old.is_none_or(|old| s.zone_of(old) != zone),
        delay,
    })
}

/// What this replica has executed and should not have.
///
/// First, transactions that it committed itself and that nobody else is known to have: a standby takes no writes. Second,
/// what did not come from the old primary and the old primary lacked while it was in office: it will have been written
/// there again from Kafka. The last word of the old primary is always a little old, so its own transactions never count.
pub fn errant(s: &Snapshot, old: Option<&ReplicaName>, name: &ReplicaName, executed: &GtidSet) -> GtidSet {
    let mut errant = written_alone(s, name, executed);
    if let Some(old) = old.filter(|old| *old != name)
        && let Some((head, received)) = s.own_report(old)
        && let Some(read) = &head.executed
        && let Some(source) = source_of(s, old)
        && read.age + received < s.memory.office_known
    {
        let lacks = executed.subtract(&read.value);
        errant = errant.union(&lacks.subtract(&lacks.of(source)));
    }
    errant
}

/// Transactions with this replica's own mark that nobody else is known to have. Without anybody to compare with, none.
fn written_alone(s: &Snapshot, name: &ReplicaName, executed: &GtidSet) -> GtidSet {
    let Some(source) = source_of(s, name).filter(|_| s.status.primary.as_ref() != Some(name)) else {
        return GtidSet::new();
    };
    let mut others = None::<GtidSet>;
    let mut known = |set: &GtidSet| others = Some(others.take().unwrap_or_default().union(set));
    for (other, replica) in s.replicas.iter().filter(|(other, _)| *other != name) {
        replica.last_executed.iter().for_each(&mut known);
        let Some((server, _)) = s.own_report(other) else { continue };
        server.executed.iter().for_each(|read| known(&read.value));
        server.replication.iter().for_each(|read| known(&read.value.received));
    }
    others.map(|others| executed.of(source).subtract(&others)).unwrap_or_default()
}

/// The offsets stored on a replica, as last heard.
pub(super) fn offsets_of<'a>(s: &'a Snapshot, replica: &ReplicaName) -> &'a [StoredOffset] {
    let read = s.own_report(replica).and_then(|(server, _)| server.offsets.as_ref());
    read.map_or(&[], |read| &read.value)
}

/// What a replica has executed, as last heard.
pub(super) fn executed_of<'a>(s: &'a Snapshot, replica: &ReplicaName) -> Option<&'a GtidSet> {
    Some(&s.own_report(replica)?.0.executed.as_ref()?.value)
}

/// `server_uuid` of a replica, as far as anybody knows it.
pub fn source_of(s: &Snapshot, replica: &ReplicaName) -> Option<SourceId> {
    let reported = s.own_report(replica).and_then(|(server, _)| server.uuid.as_deref());
    reported.or_else(|| s.replicas.get(replica)?.server_uuid.as_deref())?.parse().ok()
}

/// Whether a server that was primary has everything that this candidate will have.
pub fn has_all(server: &Server, candidate: &Candidate) -> bool {
    server.executed.as_ref().is_some_and(|read| read.value.contains(&candidate.reach))
}
