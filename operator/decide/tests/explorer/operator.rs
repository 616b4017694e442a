//! A model of the operator's shell: what it hears and remembers, and how it carries out steps. It forgets all of it when it dies.

use std::collections::BTreeMap;

use jiff::Timestamp;
use understudy_decide::decision::NewReplica;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Decision, Fact, Order, OrderKind, Step, plan};
use understudy_wire::evidence::*;
use understudy_wire::order::Peers;
use understudy_wire::{Epoch, Evidence, GtidSet, Observer, ReplicaName, Report, ShardName};

use super::world::{Disk, Letter, NodeW, PodW, Process, Rep, Watch, World};

struct Sent {
    epoch: Epoch,
    at: Millis,
    tries: u32,
    pod: String,
    outcome: OrderOutcome,
}

pub struct Operator {
    pub generation: u64,
    started: Millis,
    /// Latest report of each observer and when it came.
    heard: BTreeMap<String, (Report, Millis, Option<String>)>,
    connected: BTreeMap<ReplicaName, String>,
    peers: BTreeMap<ReplicaName, (String, Peers)>,
    orders: BTreeMap<(ReplicaName, OrderKind), Sent>,
    reprobe: Option<(Epoch, Millis, Option<ReprobeOutcome>)>,
    transition: Option<(Epoch, Millis)>,
    office: Option<((ReplicaName, Epoch), Millis)>,
    own: BTreeMap<ReplicaName, Watch>,
    /// What the caches held in the last turns.
    cached: Vec<BTreeMap<ReplicaName, Rep>>,
}

impl Operator {
    pub fn new(generation: u64, now: Millis) -> Self {
        Self {
            generation,
            started: now,
            heard: BTreeMap::new(),
            connected: BTreeMap::new(),
            peers: BTreeMap::new(),
            orders: BTreeMap::new(),
            reprobe: None,
            transition: None,
            office: None,
            own: BTreeMap::new(),
            cached: Vec::new(),
        }
    }

    /// Takes in reports, some of which get lost on the way.
    pub fn listen(&mut self, world: &mut World) {
        let now = world.now;
        let cut = |node: &NodeW| !node.up || node.cut;
        self.connected.clear();
        let mut reports = Vec::new();
        for (name, rep) in &world.replicas {
            let Some(pod) = rep.pod.as_ref().filter(|pod| !cut(&world.nodes[pod.node])) else { continue };
            self.connected.insert(name.clone(), pod.uid.clone());
            let mut evidence =
                vec![Evidence { subject: name.clone(), probe: None, server: Some(server(now, name, rep, pod)) }];
            if let Some((head, watch)) = &pod.probe {
                evidence.push(Evidence { subject: head.clone(), probe: Some(watch.probe(now)), server: None });
            }
            let observer = Observer::Manager { replica: name.clone() };
            reports.push((name.to_string(), report(observer, evidence), Some(world.nodes[pod.node].name.clone())));
        }
        let about = |(name, watch): (&ReplicaName, &Watch)| Evidence {
            subject: name.clone(),
            probe: Some(watch.probe(now)),
            server: None,
        };
        let seen = world.consumer.iter().map(about).collect();
        reports.push((
            "consumer".into(),
            report(Observer::Consumer { pod: "store-0".into() }, seen),
            Some("outside".into()),
        ));
        if let Some(primary) = &world.status.primary {
            self.own.retain(|name, _| name == primary);
            let outcome = world.try_commit(primary, Some("operator"));
            self.own.entry(primary.clone()).or_default().saw(now, outcome);
        }
        let seen = self.own.iter().map(about).collect();
        reports.push((
            "operator".into(),
            report(Observer::Operator { pod: "understudy-0".into() }, seen),
            Some("elsewhere".into()),
        ));
        for (key, report, node) in reports {
            if !(world.faults && world.random.one_in(12)) {
                self.heard.insert(key, (report, now, node));
            }
        }
        let connected = &self.connected;
        self.peers.retain(|name, (pod, _)| connected.get(name) == Some(pod));
        for (kind, sent) in &mut self.orders {
            let deadline = if kind.1 == OrderKind::Promote { 6_000 } else { 3_000 };
            if sent.outcome == OrderOutcome::InFlight && now - sent.at > deadline {
                sent.outcome = OrderOutcome::Failed("no answer".into());
            }
        }
        self.cached.push(world.replicas.clone());
        if self.cached.len() > 4 {
            self.cached.remove(0);
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
        let status = world.status.clone();
        match (&status.transition, &self.transition) {
            (Some(t), Some((epoch, _))) if t.epoch == *epoch => {}
            (Some(t), _) => self.transition = Some((t.epoch, now)),
            (None, _) => self.transition = None,
        }
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
            let rep = Rep { pod: then.pod.clone(), disk: then.disk.clone(), ..now.clone() };
            (name.clone(), self.replica(world, name, &rep))
        };
        let replicas: BTreeMap<_, _> = world.replicas.iter().map(view).collect();
        let snapshot = Snapshot {
            now: at(now),
            shard: ShardName::new("m"),
            uid: "shard".into(),
            policy: Policy {
                replicas: world.wanted,
                paused: false,
                mode: Mode::Automatic,
                thresholds: Thresholds {
                    lost_standby_after: 6_000,
                    unheard_after: 10_000,
                    broken_standby_after: 3_000,
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
            records: Vec::new(),
            consumers: ["store".to_owned()].into(),
            log: [(("samples".to_owned(), 0), 0)].into(),
            nodes: world.nodes[..world.nowhere()]
                .iter()
                .map(|node| (node.name.clone(), Node { zone: None, schedulable: true }))
                .collect(),
            fleet: Fleet { shards: 1, ..Fleet::default() },
            memory: Memory {
                awake: now - self.started,
                transition_known: self.transition.map_or(0, |(_, since)| now - since),
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
            },
        };
        let decision = plan(&snapshot);
        if let Some((_, _, outcome @ None)) = &mut self.reprobe
            && let Some(primary) = &world.status.primary
        {
            *outcome = match world.try_commit(primary, Some("operator")) {
                Ok(()) => Some(ReprobeOutcome::Committed),
                Err((_, ProbeError::Timeout)) => None,
                Err((stage, _)) => Some(ReprobeOutcome::Failed(format!("{stage:?}"))),
            };
        }
        (decision, snapshot)
    }

    fn replica(&self, world: &World, name: &ReplicaName, rep: &Rep) -> Replica {
        let pod = rep.pod.as_ref().map_or(Fact::Absent, |pod| {
            Fact::Present(Pod {
                uid: pod.uid.clone(),
                node: Some(world.nodes[pod.node].name.clone()).filter(|_| pod.node != world.nowhere()),
                ip: Some(pod.ip.clone()).filter(|_| pod.node != world.nowhere()),
                terminating: pod.terminating_at.is_some(),
                role: pod.role.clone(),
                unschedulable: (pod.node == world.nowhere()).then(|| "no room".into()),
                age: world.now.saturating_sub(pod.made),
            })
        });
        let volume = rep.disk.as_ref().map_or(Fact::Absent, |disk| {
            Fact::Present(VolumeClaim { uid: disk.uid.clone(), terminating: false, role: disk.role.clone() })
        });
        Replica {
            uid: rep.uid.clone(),
            server_id: rep.server_id,
            condemned: rep.condemned.clone(),
            avoid_nodes: rep.avoid.clone(),
            replaces: rep.replaces.clone(),
            pod,
            volume,
            server_uuid: Some(rep.source_id().to_string()),
            last_executed: None,
            link: Link {
                connected: self.connected.contains_key(name),
                peers: self.peers.get(name).map(|(_, peers)| peers.clone()),
            },
            age: world.now.saturating_sub(rep.made),
        }
    }

    /// Carries out one step the way the shell does: conditions are checked again where the API server checks them.
    pub fn act(&mut self, world: &mut World, seen: &Snapshot, step: &Step) -> Result<(), String> {
        // A write can fail, or somebody else may have written first.
        if world.faults && world.random.one_in(15) {
            world.say(|| format!("write fails: {step:?}"));
            return Ok(());
        }
        match step {
            Step::Order { replica, order } => {
                self.send(world, replica, order);
                return Ok(());
            }
            Step::Reprobe { epoch, .. } => self.reprobe = Some((*epoch, world.now, None)),
            Step::Claim(claim) => {
                if world.status.epoch > claim.after || world.status.epoch != seen.status.epoch {
                    return Ok(());
                }
                if world
                    .status
                    .transition
                    .as_ref()
                    .is_some_and(|t| t.kind != Kind::Bootstrap && t.kind != Kind::Switchover)
                {
                    world.counts.second_candidates += 1;
                }
                world.status.epoch = claim.epoch();
                world.status.transition = Some(Transition {
                    kind: claim.kind,
                    epoch: claim.epoch(),
                    from: claim.from.clone(),
                    to: claim.to.clone(),
                    record: claim.record.clone(),
                    cause: Some(claim.cause.clone()),
                });
                world.requests.retain(|request| Some(&request.name) != claim.record.as_ref());
            }
            Step::Publish { epoch, primary, address } => {
                let Some(t) = world.status.transition.clone().filter(|t| t.epoch == *epoch && t.to == *primary) else {
                    return Ok(());
                };
                let given_up = world.replicas.get(primary).is_none_or(|rep| rep.condemned.is_some());
                if t.kind == Kind::Bootstrap && given_up {
                    return Ok(());
                }
                match t.kind {
                    Kind::Failover => world.counts.failovers += 1,
                    Kind::Switchover => world.counts.switchovers += 1,
                    Kind::Confirm => world.counts.confirms += 1,
                    Kind::Bootstrap => {}
                }
                world.status.primary = Some(primary.clone());
                world.status.primary_address = Some(address.clone());
                world.status.transition = None;
                if let Some(bootstrap) = &mut world.status.bootstrap {
                    bootstrap.completed = true;
                }
                let at = Some(at(world.now));
                world.status.last_change = Some(LastChange {
                    kind: t.kind,
                    epoch: *epoch,
                    from: t.from,
                    record: t.record,
                    cause: t.cause,
                    at,
                });
            }
            Step::IntendBootstrap { replica } => {
                world.status.bootstrap = Some(Bootstrap { replica: replica.clone(), completed: false });
            }
            Step::Grow { first, replicas } => self.grow(world, *first, replicas),
            Step::MakeVolume { replica } => {
                let uid = world.uid("volume");
                if let Some(rep) = world.replicas.get_mut(replica) {
                    rep.disk.get_or_insert(Disk { uid, node: None, data: None, unusable: false, role: None });
                }
            }
            Step::MakePod { replica } => make_pod(world, replica),
            Step::Condemn { replica, uid, reason, .. } => {
                let node =
                    world.replicas.get(replica).and_then(|rep| Some(world.nodes[rep.pod.as_ref()?.node].name.clone()));
                if let Some(rep) =
                    world.replicas.get_mut(replica).filter(|rep| rep.uid == *uid && rep.condemned.is_none())
                {
                    let reason = reason.to_string();
                    rep.condemned = Some(Condemned { reason, successor_ready_at: None, node });
                }
            }
            Step::DeletePod { replica, uid, .. } => {
                if let Some(rep) = world.replicas.get_mut(replica)
                    && rep.pod.as_ref().is_some_and(|pod| pod.uid == *uid)
                {
                    rep.pod = None;
                }
            }
            Step::StartQuarantine { replica } => {
                if let Some(condemned) = world.replicas.get_mut(replica).and_then(|rep| rep.condemned.as_mut()) {
                    condemned.successor_ready_at = Some(at(world.now));
                }
            }
            Step::DeleteVolume { replica, uid } => delete_volume(world, replica, uid)?,
            Step::DeleteReplica { replica, uid } => {
                if world.replicas.get(replica).is_some_and(|rep| rep.uid == *uid && rep.disk.is_none()) {
                    world.replicas.remove(replica);
                }
            }
            Step::Refuse { request, .. } => world.requests.retain(|open| open.name != *request),
            Step::Label { replica, role } => {
                if let Some(rep) = world.replicas.get_mut(replica) {
                    let role = Some(role.to_string());
                    rep.pod.iter_mut().for_each(|pod| pod.role.clone_from(&role));
                    rep.disk.iter_mut().for_each(|disk| disk.role.clone_from(&role));
                }
            }
        }
        world.wrote(step);
        Ok(())
    }

    fn send(&mut self, world: &mut World, to: &ReplicaName, order: &Order) {
        let Some(pod) = world.replicas.get(to).and_then(|rep| rep.pod.as_ref()) else { return };
        let cut = !world.nodes[pod.node].up || world.nodes[pod.node].cut;
        let uid = pod.uid.clone();
        let key = (to.clone(), order.kind());
        let tries = self.orders.get(&key).filter(|sent| sent.epoch == order.epoch()).map_or(1, |sent| sent.tries + 1);
        let sent =
            Sent { epoch: order.epoch(), at: world.now, tries, pod: uid.clone(), outcome: OrderOutcome::InFlight };
        self.orders.insert(key, sent);
        if cut || (world.faults && world.random.one_in(20)) {
            return;
        }
        let slow = world.faults && world.random.one_in(10);
        let arrives = world.now + if slow { world.random.between(500, 9_000) } else { 0 };
        let answer_to = (!(world.faults && world.random.one_in(15))).then_some(self.generation);
        world.post.push(Letter { arrives, to: to.clone(), pod: uid, order: order.clone(), answer_to });
    }

    fn grow(&mut self, world: &mut World, first: u32, replicas: &[NewReplica]) {
        // The shell counts again past the cache, and the ids are taken by compare-and-set.
        let there = world.replicas.values().filter(|rep| rep.condemned.is_none()).count();
        if world.status.next_server_id.max(1) != first || there + replicas.len() > world.wanted {
            return;
        }
        world.status.next_server_id = first + u32::try_from(replicas.len()).expect("few");
        for new in replicas {
            let uid = world.uid("replica");
            let made = world.now;
            world.replicas.entry(new.name.clone()).or_insert(Rep {
                uid,
                server_id: new.server_id,
                condemned: None,
                replaces: new.replaces.clone(),
                avoid: new.avoid_nodes.clone(),
                pod: None,
                disk: None,
                made,
            });
            if world.faults && world.random.one_in(20) {
                return;
            }
        }
    }
}

fn delete_volume(world: &mut World, replica: &ReplicaName, uid: &str) -> Result<(), String> {
    let Some(rep) = world.replicas.get(replica).filter(|rep| rep.disk.as_ref().is_some_and(|disk| disk.uid == uid))
    else {
        return Ok(());
    };
    if rep.condemned.is_none() {
        return Err(format!("I6: the volume of {replica} is deleted and it was never condemned"));
    }
    let intact = world.replicas.values().filter(|rep| {
        rep.condemned.is_none() && rep.disk.as_ref().is_some_and(|disk| disk.data.is_some() && !disk.unusable)
    });
    if intact.count() == 0 {
        return Err(format!("I6: the volume of {replica} is deleted and no other copy is there"));
    }
    world.counts.volumes_deleted += 1;
    world.replicas.get_mut(replica).expect("seen above").disk = None;
    Ok(())
}

fn make_pod(world: &mut World, replica: &ReplicaName) {
    let taken: Vec<_> = world.replicas.values().filter_map(|rep| rep.pod.as_ref().map(|pod| pod.node)).collect();
    let Some(rep) = world.replicas.get(replica) else { return };
    if rep.pod.is_some() || rep.disk.is_none() {
        return;
    }
    let bound = rep.disk.as_ref().and_then(|disk| disk.node);
    let allowed: Vec<_> = (0..world.nowhere()).filter(|node| !rep.avoid.contains(&world.nodes[*node].name)).collect();
    let free: Vec<_> = allowed.iter().copied().filter(|node| !taken.contains(node)).collect();
    let chosen = bound.or_else(|| world.random.pick(&free).copied()).or_else(|| world.random.pick(&allowed).copied());
    let node = chosen.unwrap_or(world.nowhere());
    let uid = world.uid("pod");
    let ip = format!("10.0.{}.{}", uid.len(), uid.trim_start_matches("pod-"));
    let now = world.now;
    let rep = world.replicas.get_mut(replica).expect("seen above");
    let disk = rep.disk.as_mut().expect("seen above");
    disk.node = chosen;
    let known = disk.data.as_ref().and_then(|data| data.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
    let process = if disk.data.is_some() { Process::Starting { until: now + 1_000 } } else { Process::None };
    rep.pod = Some(PodW {
        uid,
        ip,
        node,
        process,
        frozen: false,
        terminating_at: None,
        read_only: true,
        source: None,
        received: GtidSet::new(),
        known,
        fenced: None,
        peers: None,
        probe: None,
        last_read: now,
        made: now,
        role: None,
    });
}

fn at(now: Millis) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(now).expect("small")).expect("a time")
}

fn report(observer: Observer, evidence: Vec<Evidence>) -> Report {
    Report { observer, seq: 0, own_gap: 250, interval: 250, evidence, log: vec![] }
}

fn server(now: Millis, name: &ReplicaName, rep: &Rep, pod: &PodW) -> Server {
    let disk = rep.disk.as_ref();
    let data = disk.and_then(|disk| disk.data.as_ref());
    let phase = match &pod.process {
        Process::None if disk.is_some_and(|disk| disk.unusable) => Phase::Unusable { reason: "interrupted".into() },
        Process::None => Phase::Empty,
        Process::Building { .. } => Phase::Building,
        Process::Starting { .. } => Phase::Starting,
        Process::Running => Phase::Running,
        Process::Exited { at } => Phase::Exited { code: None, signal: Some(9), age: now - at },
    };
    let running = phase == Phase::Running;
    let serves = data.and_then(|data| data.row.as_ref()).filter(|(_, head)| head == name && running && !pod.read_only);
    let read = now - pod.last_read;
    Server {
        phase,
        uuid: Some(rep.source_id().to_string()),
        process_state: Some(if pod.frozen { 'T' } else { 'S' }),
        threads_in_d: 0,
        epoch: pod.known.max(data.and_then(|data| data.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch)),
        serving: serves.map(|(epoch, _)| *epoch),
        read_only: (running && !pod.frozen).then_some(pod.read_only),
        fenced: pod.fenced.map(|epoch| Fence::Epoch { epoch, age: 0 }),
        executed: data.filter(|_| running).map(|data| Aged { age: read, value: data.executed.clone() }),
        offsets: data.filter(|_| running).map(|data| Aged {
            age: read,
            value: vec![StoredOffset {
                consumer: "store".into(),
                topic: "samples".into(),
                partition: 0,
                next_offset: data.offset,
            }],
        }),
        replication: pod.source.as_ref().filter(|_| running).map(|(_, address)| Aged {
            age: read,
            value: Replication {
                source: Some(address.clone()),
                receiving: true,
                applying: true,
                received: pod.received.clone(),
                delay: Some(0),
                receive_error: None,
                apply_error: None,
            },
        }),
        lsn: None,
        admin: None,
        fsync: None,
        volume: None,
        build: match &pod.process {
            Process::Building { donor, .. } => Some(BuildProgress {
                stage: "FILE COPY".into(),
                done: 0,
                total: 0,
                eta: None,
                donor: Some(donor.clone()),
                error: None,
            }),
            _ => None,
        },
    }
}
