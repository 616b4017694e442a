//! How a replica that is being filled, or whose server starts, gets on: one that comes no further holds nobody up, and is replaced at
//! last. Pure.
//!
//! What can be seen of it is the phase, the stage, and the bytes that are copied. Its manager gives up a clone that hangs and begins
//! anew, so a rebuild may fail at the same point for ever: how far it came counts over all tries. A restarted operator begins to count
//! anew, and what nobody saw counts for nobody.

use std::collections::BTreeSet;

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{BuildProgress, Millis, Phase, Server};

use crate::decision::{Draft, Reason};
use crate::failover::snapshot::Snapshot;

/// Bytes: less than this is no coming further. The slowest clone that can be asked for copies as much in a second.
const LEAST: u64 = 1 << 20;
/// So many stages of one try are told apart. A clone has about ten.
const STAGES: usize = 32;
/// For longer than this, in milliseconds, nobody looked.
const UNSEEN: Millis = 5_000;
/// The stage of a server that starts.
const STARTING: &str = "starting";

/// How long a replica that is being filled, or whose server starts, has come no further.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standstill {
    /// Than in any try.
    pub ever: Millis,
    /// Than before in the present try; zero between two tries.
    pub in_this_try: Millis,
}

/// How far a replica has come, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    farthest: (usize, u64),
    since: Millis,
    attempt: Option<Attempt>,
    last: Millis,
}

/// One try: its stages until now, and its bytes.
#[derive(Clone, Debug)]
struct Attempt {
    stages: BTreeSet<String>,
    done: u64,
    since: Millis,
}

impl Attempt {
    fn begin(now: Millis) -> Self {
        Self { stages: BTreeSet::new(), done: 0, since: now }
    }

    /// Takes in how far it is; whether that is further than before. A stage that was there before is none, or two that take turns would
    /// be progress.
    fn advance(&mut self, server: &Server) -> bool {
        let build = server.build.as_ref().filter(|_| server.phase == Phase::Building);
        let stage = match (&server.phase, build) {
            (Phase::Starting, _) => STARTING,
            (_, build) => build.map_or("", |build| build.stage.as_str()),
        };
        let is_new = self.stages.len() < STAGES && self.stages.insert(stage.to_owned());
        let done = build.map_or(0, |build| build.done);
        let is_further = done >= self.done.saturating_add(LEAST);
        if is_further {
            self.done = done;
        }
        is_new || is_further
    }

    fn point(&self) -> (usize, u64) {
        (self.stages.len(), self.done)
    }
}

impl Progress {
    /// What it comes to with what its manager says now; None: it is not being filled and does not start.
    pub(crate) fn go_on(before: Option<Self>, server: &Server, now: Millis) -> Option<Self> {
        let is_trying = match server.phase {
            Phase::Building | Phase::Starting => true,
            Phase::Empty => false,
            Phase::Running | Phase::Unusable { .. } | Phase::Exited { .. } | Phase::Stopping | Phase::Unknown => {
                return None;
            }
        };
        let begun = || is_trying.then_some(Self { farthest: (0, 0), since: now, attempt: None, last: now });
        let mut progress = before.or_else(begun)?;
        let unseen = Some(now.saturating_sub(progress.last)).filter(|unseen| *unseen > UNSEEN).unwrap_or(0);
        (progress.since, progress.last) = (progress.since + unseen, now);
        if !is_trying {
            progress.attempt = None;
            return Some(progress);
        }
        let attempt = progress.attempt.get_or_insert_with(|| Attempt::begin(now));
        attempt.since = if attempt.advance(server) { now } else { attempt.since + unseen };
        if attempt.point() > progress.farthest {
            (progress.farthest, progress.since) = (attempt.point(), now);
        }
        Some(progress)
    }

    /// How long it has come no further.
    pub(crate) fn standstill(&self) -> Standstill {
        let since = |then: Millis| self.last.saturating_sub(then);
        let in_this_try = self.attempt.as_ref().map_or(0, |attempt| since(attempt.since));
        Standstill { ever: since(self.since), in_this_try }
    }
}

fn standstill(s: &Snapshot, name: &ReplicaName) -> Standstill {
    s.memory.past.standstill.get(name).copied().unwrap_or_default()
}

/// Whether a replica has come no further in any try for so long that nobody waits for it.
pub(crate) fn stands_still(s: &Snapshot, name: &ReplicaName) -> bool {
    standstill(s, name).ever >= s.policy.thresholds.idle_rebuild_after
}

/// Why a replica that is being filled, or whose server starts, will not come to an end as it is.
pub(crate) fn hangs(s: &Snapshot, name: &ReplicaName, server: &Server) -> Option<String> {
    let after = s.policy.thresholds.hung_rebuild_after;
    (standstill(s, name).in_this_try >= after)
        .then(|| format!("it has come no further for {} min: {}", after / 60_000, where_it_is(server)))
}

/// How far it is, for a person.
fn where_it_is(server: &Server) -> String {
    let mebibytes = |bytes: u64| bytes >> 20;
    match (&server.phase, &server.build) {
        (Phase::Starting, _) => "its server starts".into(),
        (Phase::Building, Some(BuildProgress { stage, done, total, .. })) => {
            format!("it is being filled ({stage}, {} of {} MiB)", mebibytes(*done), mebibytes(*total))
        }
        (Phase::Building, None) => "it is being filled".into(),
        _ => "it waits to be filled again".into(),
    }
}

/// Says of each that stands still what that means.
pub(crate) fn tell(s: &Snapshot, d: &mut Draft) {
    let t = &s.policy.thresholds;
    let (idle, hung) = (t.idle_rebuild_after / 60_000, t.hung_rebuild_after / 60_000);
    for (name, _) in s.cast().filter(|(name, _)| stands_still(s, name)) {
        let Some((server, _)) = s.fresh_report(name) else { continue };
        let is_at = where_it_is(server);
        let message = format!(
            "{name} has come no further for {idle} min: {is_at}. It counts in no budget of rebuilds now and nobody waits for it. A try that \
             fails is begun anew, and one that hangs for {hung} min ends with a replacement while another copy is there. Its log says \
             more: kubectl logs {name} -c mysql"
        );
        d.note_about(Reason::BuildStalled, name, message);
    }
}
