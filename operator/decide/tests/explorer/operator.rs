//! A model of the operator's shell: what it hears and remembers. It forgets all of it when it dies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use understudy_decide::decision::Subject;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Decision, Fact, Order, OrderKind, Verdict, pace, plan};
use understudy_wire::evidence::*;
use understudy_wire::order::Peers;
use understudy_wire::{Epoch, ReplicaName, Report, ShardName};

use super::cluster::{Letter, Rep};
use super::network::OPERATOR;
use super::watch::Watch;
use super::world::World;

/// For how long a node is silent until Kubernetes does not take it for ready any more.
const MISSED_AFTER: Millis = 5_000;

pub struct Sent {
    pub epoch: Epoch,
    pub at: Millis,
    pub tries: u32,
    pub pod: String,
    pub outcome: OrderOutcome,
}

/// An operator that was paused between its decision and its steps.
pub struct Asleep {
    pub until: Millis,
    pub operator: Operator,
    pub decision: Decision,
    pub snapshot: Snapshot,
}

pub struct Operator {
    pub generation: u64,
    /// The version of the status that it decided on, or wrote.
    pub seen: u64,
    /// Whether something that cannot be taken back was not done in this turn: nothing is recorded then.
    pub void: bool,
    started: Millis,
    /// Latest report of each observer and when it came.
    pub heard: BTreeMap<String, (Report, Millis, Option<String>)>,
    pub connected: BTreeMap<ReplicaName, String>,
    pub peers: BTreeMap<ReplicaName, (String, Peers)>,
    pub orders: BTreeMap<(ReplicaName, OrderKind), Sent>,
    pub reprobe: Option<(Epoch, Millis, Option<ReprobeOutcome>)>,
    transition: Option<(Epoch, Millis)>,
    transition_found: bool,
    has_looked: bool,
    office: Option<((ReplicaName, Epoch), Millis)>,
    pub own: BTreeMap<ReplicaName, Watch>,
    /// Steps that were refused, and when.
    pub held_back: BTreeMap<Subject, Millis>,
    course: Course,
    /// Whether it took the primary for suspect or dead in its last turn.
    suspects: bool,
    /// What the caches held in the last turns.
    pub cached: Vec<BTreeMap<ReplicaName, Rep>>,
}

impl Operator {
    pub fn new(generation: u64, now: Millis) -> Self {
        Self {
            generation,
            seen: 0,
            void: false,
            started: now,
            heard: BTreeMap::new(),
            connected: BTreeMap::new(),
            peers: BTreeMap::new(),
            orders: BTreeMap::new(),
            reprobe: None,
            transition: None,
            transition_found: false,
            has_looked: false,
            office: None,
            own: BTreeMap::new(),
            held_back: BTreeMap::new(),
            course: Course::default(),
            suspects: false,
            cached: Vec::new(),
        }
    }

    pub fn answered(&mut self, letter: &Letter, outcome: OrderOutcome) {
        let key = (letter.to.clone(), letter.order.kind());
        let Some(sent) = self.orders.get_mut(&key) else { return };
        if sent.epoch != letter.order.epoch() || sent.pod != letter.pod {
            return;
        }
        if let (Order::Peers(peers), OrderOutcome::Done(_)) = (&letter.order, &outcome) {
            self.peers.insert(letter.to.clone(), (letter.pod.clone(), peers.clone()));
        }
        sent.outcome = outcome;
    }

    pub fn decide(&mut self, world: &mut World) -> (Decision, Snapshot) {
        let now = world.now;
        (self.seen, self.void) = (world.version, false);
        let status = world.status.clone();
        match (&status.transition, &self.transition) {
            (Some(t), Some((epoch, _))) if t.epoch == *epoch => {}
            (Some(t), _) => {
                (self.transition, self.transition_found) = (Some((t.epoch, now)), !self.has_looked);
            }
            (None, _) => self.transition = None,
        }
        self.has_looked = true;
        let office =
            status.primary.clone().filter(|_| status.transition.is_none()).map(|primary| (primary, status.epoch));
        match (&office, &self.office) {
            (Some(present), Some((known, _))) if present == known => {}
            (Some(present), _) => self.office = Some((present.clone(), now)),
            (None, _) => self.office = None,
        }
        // A cache may be a few turns behind.
        let behind = if world.faults { usize::try_from(world.random.between(0, 3)).expect("small") } else { 0 };
        let cached = &self.cached[self.cached.len().saturating_sub(1 + behind)];
        // The shell sees what it wrote itself at once; pods and volumes change without it.
        let view = |(name, now): (&ReplicaName, &Rep)| {
            let then = cached.get(name).filter(|then| then.uid == now.uid).unwrap_or(now);
            (name.clone(), self.replica(world, name, now, then))
        };
        let replicas: BTreeMap<_, _> = world.replicas.iter().map(view).collect();
        let past = self.course.past(now);
        let mut snapshot = Snapshot {
            now: at(now),
            shard: ShardName::new("m"),
            uid: "shard".into(),
            policy: Policy {
                replicas: world.wanted,
                paused: false,
                mode: world.mode,
                thresholds: Thresholds {
                    lost_standby_after: 6_000,
                    unheard_after: 10_000,
                    broken_standby_after: 3_000,
                    stuck_standby_after: 6_000,
                    lagging_standby_after: 8_000,
                    cooldown: world.script.cooldown,
                    slow_after: 6_000,
                    replacement_pause: 3_000,
                    ..Thresholds::default()
                },
                quarantine_seconds: 5,
            },
            status,
            replicas,
            reports: self
                .heard
                .values()
                .map(|(report, heard, node)| Received { report: report.clone(), age: now - heard, node: node.clone() })
                .collect(),
            requests: world.requests.clone(),
            records: world.open_records(),
            consumers: ["store".to_owned()].into(),
            log: [(("samples".to_owned(), 0), world.earliest)].into(),
            feeds: BTreeMap::new(),
            nodes: world.nodes[..world.nowhere()]
                .iter()
                .map(|node| {
                    let ready_at = (now - node.spoke < MISSED_AFTER).then(|| at(node.spoke));
                    (node.name.clone(), Node { schedulable: true, ready_at, ..Node::default() })
                })
                .collect(),
            fleet: self.fleet(world, &past),
            memory: Memory {
                awake: now - self.started,
                transition_known: self.transition.map_or(0, |(_, since)| now - since),
                transition_found: self.transition.is_some() && self.transition_found,
                office_known: self.office.as_ref().map_or(0, |(_, since)| now - since),
                reprobe: self.reprobe.as_ref().map(|(epoch, since, outcome)| Reprobe {
                    epoch: *epoch,
                    outcome: outcome.clone().unwrap_or(ReprobeOutcome::Running(now - since)),
                }),
                orders: self
                    .orders
                    .iter()
                    .map(|(key, sent)| {
                        let fact = OrderFact {
                            epoch: sent.epoch,
                            sent: now - sent.at,
                            tries: sent.tries,
                            outcome: sent.outcome.clone(),
                        };
                        (key.clone(), fact)
                    })
                    .collect(),
                held_back: self.held_back.iter().filter(|(_, at)| now - **at < 2_000).map(|(s, _)| s.clone()).collect(),
                past,
                ..Memory::default()
            },
        };
        snapshot.fleet.replicas = snapshot.cast().count();
        snapshot.fleet.rebuilding = pace::rebuilding(&snapshot);
        let decision = plan(&snapshot);
        self.course.see(&snapshot, &decision.assessment, now);
        let verdict = decision.assessment.verdict;
        self.suspects = verdict.is_dead() || matches!(verdict, Verdict::Suspect(_));
        if let Some((_, _, outcome @ None)) = &mut self.reprobe
            && let Some(primary) = &world.status.primary
        {
            *outcome = match world.try_commit(primary, OPERATOR) {
                Ok(_) => Some(ReprobeOutcome::Committed),
                Err((_, ProbeError::Timeout)) => None,
                Err((stage, _)) => Some(ReprobeOutcome::Failed(format!("{stage:?}"))),
            };
        }
        (decision, snapshot)
    }

    /// What the other shards look like, with this one.
    fn fleet(&self, world: &World, past: &Past) -> Fleet {
        Fleet {
            shards: world.script.shards,
            suspect: world.others.suspect + usize::from(self.suspects),
            slow: world.others.slow + usize::from(past.was_slow),
            partitioned: world.others.partitioned + usize::from(past.was_partitioned),
            ..Fleet::default()
        }
    }

    /// It sees its own claim at once.
    pub fn has_claimed(&mut self, epoch: Epoch, now: Millis) {
        self.transition = Some((epoch, now));
    }

    /// A replica as it is now, with the pod and the volume that a cache had `then`.
    fn replica(&self, world: &World, name: &ReplicaName, rep: &Rep, then: &Rep) -> Replica {
        let pod = then.pod.as_ref().map_or(Fact::Absent, |pod| {
            Fact::Present(Pod {
                uid: pod.uid.clone(),
                node: Some(world.nodes[pod.node].name.clone()).filter(|_| pod.node != world.nowhere()),
                ip: Some(pod.ip.clone()).filter(|_| pod.node != world.nowhere()),
                phase: if pod.ended { PodPhase::Ended } else { PodPhase::Alive },
                terminating: pod.terminating_at.is_some(),
                role: pod.role.clone(),
                unschedulable: (pod.node == world.nowhere()).then(|| "no room".into()),
                age: world.now.saturating_sub(pod.made),
            })
        });
        let volume = then.disk.as_ref().map_or(Fact::Absent, |disk| {
            Fact::Present(VolumeClaim {
                uid: disk.uid.clone(),
                terminating: false,
                role: disk.role.clone(),
                bound: disk.node.is_some(),
                age: world.now.saturating_sub(rep.made),
            })
        });
        Replica {
            uid: rep.uid.clone(),
            server_id: rep.server_id,
            condemned: rep.condemned.clone(),
            avoid_nodes: rep.avoid.clone(),
            replaces: rep.replaces.clone(),
            pod,
            volume,
            server_uuid: rep.is_known.then(|| rep.source_id().to_string()),
            last_executed: None,
            last_volume: None,
            was_low: false,
            link: Link {
                connected: self.connected.contains_key(name),
                peers: self.peers.get(name).map(|(_, peers)| peers.clone()),
            },
            age: world.now.saturating_sub(rep.made),
        }
    }
}

pub fn at(now: Millis) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(now).expect("small")).expect("a time")
}
