//! The world outside the operator: nodes, volumes, servers, managers, a consumer. And what must hold in it.

use std::collections::{BTreeMap, BTreeSet};

use understudy_decide::failover::snapshot::*;
use understudy_decide::{Order, Step};
use understudy_wire::evidence::*;
use understudy_wire::gtid::SourceId;
use understudy_wire::order::{Origin, Peers};
use understudy_wire::{Epoch, GtidSet, ReplicaName};

use super::operator::Operator;
use super::random::Random;

/// Milliseconds of one turn of the world.
pub const TURN: Millis = 250;
const FAULTS_FOR: Millis = 25_000;
const WELL_WITHIN: Millis = 180_000;
/// Passes without a step after which the shard counts as settled.
const CALM: u32 = 12;

#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub failovers: u64,
    pub switchovers: u64,
    pub confirms: u64,
    pub second_candidates: u64,
    pub crashes: u64,
    pub volumes_deleted: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.failovers += other.failovers;
        self.switchovers += other.switchovers;
        self.confirms += other.confirms;
        self.second_candidates += other.second_candidates;
        self.crashes += other.crashes;
        self.volumes_deleted += other.volumes_deleted;
    }
}

#[derive(Clone, Debug)]
pub struct NodeW {
    pub name: String,
    pub up: bool,
    /// The operator cannot reach it, everybody else can.
    pub cut: bool,
}

#[derive(Clone, Debug)]
pub struct Data {
    pub executed: GtidSet,
    pub offset: i64,
    pub row: Option<(Epoch, ReplicaName)>,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub uid: String,
    pub node: Option<usize>,
    pub data: Option<Data>,
    pub unusable: bool,
    pub role: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Process {
    /// No data, or not started.
    None,
    Building {
        until: Millis,
        donor: ReplicaName,
    },
    Starting {
        until: Millis,
    },
    Running,
    Exited {
        at: Millis,
    },
}

#[derive(Clone, Debug)]
pub struct PodW {
    pub uid: String,
    pub ip: String,
    pub node: usize,
    pub process: Process,
    pub frozen: bool,
    pub terminating_at: Option<Millis>,
    pub read_only: bool,
    pub source: Option<(ReplicaName, String)>,
    pub received: GtidSet,
    pub known: Epoch,
    pub fenced: Option<Epoch>,
    pub peers: Option<Peers>,
    pub probe: Option<(ReplicaName, Watch)>,
    pub last_read: Millis,
    pub made: Millis,
    pub role: Option<String>,
}

/// What one observer remembers of its probes of one server.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    pub committed: Option<Millis>,
    pub committing_since: Option<Millis>,
    pub failing: Option<(Millis, Millis, u32, Stage, ProbeError)>,
}

impl Watch {
    pub fn saw(&mut self, now: Millis, outcome: Result<(), (Stage, ProbeError)>) {
        match outcome {
            Ok(()) => {
                self.failing = None;
                self.committed = Some(now);
                self.committing_since.get_or_insert(now);
            }
            Err((stage, error)) => {
                let (since, count) = self.failing.as_ref().map_or((now, 0), |(since, _, count, ..)| (*since, *count));
                self.failing = Some((since, now, count + 1, stage, error));
                self.committing_since = None;
            }
        }
    }

    pub fn probe(&self, now: Millis) -> Probe {
        let ago = |at: Millis| now - at;
        Probe {
            committed: self.committed.map(ago),
            selected: self.committed.map(ago),
            commit_took: self.committed.map(|_| 2),
            committing_since: self.committing_since.map(ago),
            failing: self.failing.as_ref().map(|(since, latest, count, stage, error)| Failing {
                since: ago(*since),
                latest: ago(*latest),
                count: *count,
                stage: *stage,
                error: error.clone(),
            }),
            in_flight: None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Rep {
    pub uid: String,
    pub server_id: u32,
    pub condemned: Option<Condemned>,
    pub replaces: Option<ReplicaName>,
    pub avoid: Vec<String>,
    pub pod: Option<PodW>,
    pub disk: Option<Disk>,
    pub made: Millis,
}

impl Rep {
    pub fn source_id(&self) -> SourceId {
        SourceId::from_bytes([u8::try_from(self.server_id % 251).expect("small"); 16])
    }
}

/// An order on its way.
#[derive(Clone, Debug)]
pub struct Letter {
    pub arrives: Millis,
    pub to: ReplicaName,
    pub pod: String,
    pub order: Order,
    /// The operator process that sent it; None: the answer gets lost.
    pub answer_to: Option<u64>,
}

pub struct World {
    pub random: Random,
    pub now: Millis,
    pub nodes: Vec<NodeW>,
    pub replicas: BTreeMap<ReplicaName, Rep>,
    pub status: Status,
    pub wanted: usize,
    pub version: u64,
    pub requests: Vec<Request>,
    pub post: Vec<Letter>,
    pub consumer: BTreeMap<ReplicaName, Watch>,
    pub written: i64,
    pub operator: Option<Operator>,
    pub operator_back: Millis,
    pub generation: u64,
    pub faults: bool,
    pub counts: Counts,
    next_uid: u64,
    /// Who took writes under which epoch.
    served: BTreeMap<Epoch, BTreeSet<ReplicaName>>,
    trace: Option<Vec<String>>,
}

impl World {
    pub fn new(seed: u64, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let nodes = random.between(3, 5);
        let node = |n| NodeW { name: format!("node-{n}"), up: true, cut: false };
        // The last one is nowhere: pods that cannot be placed wait there.
        let nowhere = NodeW { name: "nowhere".into(), up: false, cut: true };
        let wanted = usize::try_from(random.between(1, 3)).expect("small");
        let wanted = if random.one_in(3) { wanted } else { 3 };
        Self {
            random,
            now: 1_000_000,
            nodes: (0..nodes).map(node).chain([nowhere]).collect(),
            replicas: BTreeMap::new(),
            status: Status { next_server_id: 0, ..Status::default() },
            wanted,
            version: 1,
            requests: Vec::new(),
            post: Vec::new(),
            consumer: BTreeMap::new(),
            written: 0,
            operator: None,
            operator_back: 0,
            generation: 0,
            faults: true,
            counts: Counts::default(),
            next_uid: 0,
            served: BTreeMap::new(),
            trace: traced.then(Vec::new),
        }
    }

    /// Where pods are that cannot be placed.
    pub fn nowhere(&self) -> usize {
        self.nodes.len() - 1
    }

    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>8.2} {}", (self.now - 1_000_000) as f64 / 1_000.0, what()));
        }
    }

    pub fn trace(&self) -> String {
        self.trace.as_ref().map(|trace| trace.join("\n")).unwrap_or_default()
    }

    pub fn uid(&mut self, kind: &str) -> String {
        self.next_uid += 1;
        format!("{kind}-{}", self.next_uid)
    }

    pub fn live_through(&mut self) -> Result<(), String> {
        let faults_until = self.now + FAULTS_FOR;
        while self.now < faults_until {
            self.misfortune();
            self.turn()?;
        }
        self.heal();
        let until = self.now + WELL_WITHIN;
        let mut calm = 0;
        while calm < CALM {
            if self.now > until {
                return Err(format!("not well again: {}", self.unwell().unwrap_or_else(|| "steps without end".into())));
            }
            let steps = self.turn()?;
            calm = if steps == 0 && self.unwell().is_none() { calm + 1 } else { 0 };
        }
        Ok(())
    }

    /// One turn: the world moves, then the operator, if it lives.
    fn turn(&mut self) -> Result<usize, String> {
        self.now += TURN;
        self.deliver()?;
        self.servers_move();
        self.consume()?;
        self.observe();
        let mut steps = 0;
        if self.operator.is_none() && self.now >= self.operator_back {
            self.generation += 1;
            self.say(|| "operator starts".into());
            self.operator = Some(Operator::new(self.generation, self.now));
        }
        if let Some(mut operator) = self.operator.take() {
            operator.listen(self);
            let (decision, snapshot) = operator.decide(self);
            for step in &decision.steps {
                steps += 1;
                if self.faults && self.random.one_in(40) {
                    self.say(|| format!("operator dies before {step:?}"));
                    self.counts.crashes += 1;
                    self.operator_back = self.now + self.random.between(0, 3_000);
                    return self.check().map(|()| steps);
                }
                operator.act(self, &snapshot, step)?;
                self.check()?;
            }
            self.operator = Some(operator);
        }
        self.check()?;
        Ok(steps)
    }

    fn misfortune(&mut self) {
        let names: Vec<_> = self.replicas.keys().cloned().collect();
        if self.random.one_in(25)
            && let Some(name) = self.random.pick(&names).cloned()
        {
            // The primary is the most interesting victim.
            let name = if self.random.one_in(2) { self.status.primary.clone().unwrap_or(name) } else { name };
            self.harm(&name);
        }
        if self.random.one_in(120) {
            let at = usize::try_from(self.random.next() % self.nowhere() as u64).expect("small");
            let kind = self.random.between(0, 2);
            match kind {
                0 if self.nodes.iter().filter(|node| !node.up).count() == 1 => self.node_down(at),
                1 => self.nodes[at].cut = !self.nodes[at].cut,
                _ => self.node_back(at),
            }
            let node = self.nodes[at].clone();
            self.say(|| format!("{node:?}"));
        }
        if self.random.one_in(150) && self.operator.is_some() {
            self.say(|| "operator dies".into());
            self.counts.crashes += 1;
            self.operator = None;
            self.operator_back = self.now + self.random.between(0, 5_000);
        }
        if self.random.one_in(100) {
            let target = if self.random.one_in(2) { self.random.pick(&names).cloned() } else { None };
            let name = format!("request-{}", self.now);
            self.say(|| format!("a person asks for a switchover to {target:?}"));
            self.requests.push(Request { name, kind: Kind::Switchover, target, age: 0 });
        }
        if self.random.one_in(200) && self.wanted > 1 {
            self.wanted = usize::try_from(self.random.between(2, 3)).expect("small");
            let wanted = self.wanted;
            self.say(|| format!("{wanted} replicas are asked for"));
        }
    }

    fn harm(&mut self, name: &ReplicaName) {
        let kind = self.random.between(0, 9);
        let now = self.now;
        let Some(rep) = self.replicas.get_mut(name) else { return };
        let Some(pod) = &mut rep.pod else { return };
        let what = match kind {
            0..=4 if matches!(pod.process, Process::Running | Process::Starting { .. }) => {
                pod.process = Process::Exited { at: now };
                "its process is killed"
            }
            5 | 6 if pod.process == Process::Running => {
                pod.frozen = !pod.frozen;
                if pod.frozen { "its process is frozen" } else { "its process thaws" }
            }
            7 => {
                pod.terminating_at = Some(now);
                "its pod is asked to stop"
            }
            8 => {
                rep.pod = None;
                "its pod is deleted by force"
            }
            9 if pod.process == Process::Running => {
                // A reboot of the pod: the data stays, the manager forgets what only it knew.
                pod.process = Process::Starting { until: now + 1_500 };
                pod.read_only = true;
                pod.peers = None;
                pod.fenced = None;
                pod.known =
                    rep.disk.as_ref().and_then(|d| d.data.as_ref()?.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
                "its pod is restarted"
            }
            _ => return,
        };
        self.say(|| format!("{name}: {what}"));
    }

    fn node_down(&mut self, at: usize) {
        self.nodes[at].up = false;
    }

    fn node_back(&mut self, at: usize) {
        if self.nodes[at].up {
            return;
        }
        self.nodes[at].up = true;
        let now = self.now;
        for rep in self.replicas.values_mut() {
            let Some(pod) = rep.pod.as_mut().filter(|pod| pod.node == at) else { continue };
            pod.frozen = false;
            pod.read_only = true;
            pod.peers = None;
            pod.fenced = None;
            pod.probe = None;
            let data = rep.disk.as_ref().and_then(|disk| disk.data.as_ref());
            pod.known = data.and_then(|data| data.row.as_ref()).map_or(Epoch(0), |(epoch, _)| *epoch);
            let built = data.is_some();
            if let Process::Building { .. } = pod.process
                && let Some(disk) = &mut rep.disk
            {
                disk.unusable = true;
            }
            pod.process = if built { Process::Starting { until: now + 2_000 } } else { Process::None };
        }
    }

    fn heal(&mut self) {
        self.say(|| "no more faults".into());
        self.faults = false;
        for at in 0..self.nowhere() {
            self.nodes[at].cut = false;
            // One node may stay lost for ever, as long as there is room elsewhere and it does not hold the only copy.
            let elsewhere = self.replicas.values().any(|rep| {
                let disk = rep.disk.as_ref().filter(|disk| disk.data.is_some() && !disk.unusable);
                rep.condemned.is_none()
                    && disk.and_then(|disk| disk.node).is_some_and(|node| node != at && self.nodes[node].up)
            });
            if self.nowhere() <= self.wanted + 1 || !elsewhere || self.random.one_in(2) {
                self.node_back(at);
            }
        }
        for rep in self.replicas.values_mut() {
            if let Some(pod) = &mut rep.pod {
                pod.frozen = false;
            }
        }
    }

    /// Orders arrive at managers, answers at the operator that asked.
    fn deliver(&mut self) -> Result<(), String> {
        let now = self.now;
        let (arrived, waiting) =
            std::mem::take(&mut self.post).into_iter().partition(|letter: &Letter| letter.arrives <= now);
        self.post = waiting;
        for letter in arrived {
            let answer = self.obey(&letter)?;
            self.say(|| format!("{}: {:?} -> {answer:?}", letter.to, letter.order));
            let Some(answer) = answer else { continue };
            if let Some(operator) =
                self.operator.as_mut().filter(|operator| Some(operator.generation) == letter.answer_to)
            {
                operator.answered(&letter, answer);
            }
        }
        Ok(())
    }

    /// What a manager does with an order. None: nobody is there, or it hangs.
    fn obey(&mut self, letter: &Letter) -> Result<Option<OrderOutcome>, String> {
        let ever_served = !self.served.is_empty();
        let now = self.now;
        let relay_applied = !self.random.one_in(5);
        let Some(rep) = self.replicas.get_mut(&letter.to) else { return Ok(None) };
        let own = rep.source_id();
        let (Some(pod), Some(disk)) = (&mut rep.pod, &mut rep.disk) else { return Ok(None) };
        if pod.uid != letter.pod || !self.nodes[pod.node].up {
            return Ok(None);
        }
        let refuse = |why: &str| Ok(Some(OrderOutcome::Failed(why.into())));
        if letter.order.epoch() < pod.known {
            return refuse("stale epoch");
        }
        let done = |set| Ok(Some(OrderOutcome::Done(set)));
        let running = pod.process == Process::Running;
        match &letter.order {
            Order::Build(build) => {
                if pod.process != Process::None || disk.data.is_some() || disk.unusable {
                    return refuse("not empty");
                }
                pod.known = build.epoch;
                match &build.origin {
                    Origin::Initialise { intent } => {
                        if ever_served && rep.condemned.is_none() {
                            return Err(format!("I9: {} initialises and the shard has served", letter.to));
                        }
                        if intent.replica != letter.to {
                            return refuse("not mine");
                        }
                        disk.data = Some(Data { executed: GtidSet::new(), offset: 0, row: None });
                        pod.process = Process::Starting { until: now + 700 };
                    }
                    Origin::Clone { donor, .. } => {
                        pod.process = Process::Building { until: now + 1_500, donor: donor.clone() };
                    }
                }
                done(None)
            }
            Order::Follow(follow) => {
                pod.known = follow.epoch;
                if !running || pod.frozen {
                    return if pod.frozen { Ok(None) } else { refuse("not running") };
                }
                pod.read_only = true;
                pod.fenced = None;
                pod.source = Some((follow.source.clone(), follow.address.clone()));
                done(None)
            }
            Order::Promote(promote) => {
                if pod.fenced == Some(promote.epoch) {
                    return refuse("fenced under this epoch");
                }
                pod.known = promote.epoch;
                let data = match &mut disk.data {
                    Some(data) if running && !pod.frozen => data,
                    _ if pod.frozen => return Ok(None),
                    _ => return refuse("not running"),
                };
                if data.row.as_ref().is_none_or(|(epoch, _)| *epoch < promote.epoch) {
                    if relay_applied {
                        data.executed = data.executed.union(&pod.received);
                    }
                    let next = data.executed.of(own).count() + 1;
                    data.executed.insert(own, next, next);
                    data.row = Some((promote.epoch, letter.to.clone()));
                }
                pod.source = None;
                pod.fenced = None;
                pod.read_only = false;
                done(Some(data.executed.clone()))
            }
            Order::Fence(fence) => {
                pod.known = fence.epoch;
                pod.fenced = Some(fence.epoch);
                pod.read_only = true;
                if pod.frozen {
                    pod.process = Process::Exited { at: now };
                    pod.frozen = false;
                    return done(None);
                }
                done(disk.data.as_ref().filter(|_| running).map(|data| data.executed.clone()))
            }
            Order::Peers(peers) => {
                let serving = disk.data.as_ref().and_then(|data| data.row.clone());
                let head = peers.primary.as_ref().map(|(name, _)| name);
                if serving.is_some_and(|(epoch, _)| peers.epoch > epoch) && head != Some(&letter.to) {
                    pod.read_only = true;
                }
                pod.known = peers.epoch;
                pod.peers = Some(peers.clone());
                done(None)
            }
        }
    }

    fn servers_move(&mut self) {
        let now = self.now;
        let seen = self.replicas.clone();
        let alive = |name: &ReplicaName| {
            let rep = seen.get(name)?;
            let pod = rep
                .pod
                .as_ref()
                .filter(|pod| self.nodes[pod.node].up && !pod.frozen && pod.process == Process::Running)?;
            Some((pod.clone(), rep.disk.as_ref()?.data.clone()?))
        };
        for (name, rep) in &mut self.replicas {
            let (Some(pod), Some(disk)) = (&mut rep.pod, &mut rep.disk) else { continue };
            if !self.nodes[pod.node].up {
                continue;
            }
            if pod.terminating_at.is_some_and(|at| now > at + 4_000) {
                rep.pod = None;
                continue;
            }
            if pod.terminating_at.is_some_and(|at| now > at + 2_000) && pod.process == Process::Running {
                pod.process = Process::Exited { at: now };
            }
            match pod.process.clone() {
                Process::Building { until, donor } if now >= until => {
                    match alive(&donor) {
                        Some((_, data)) if !self.random.one_in(10) => {
                            disk.data = Some(data);
                            pod.process = Process::Starting { until: now + 700 };
                        }
                        _ => {
                            disk.unusable = self.random.one_in(3);
                            pod.process = Process::None;
                        }
                    };
                }
                Process::Starting { until } if now >= until => {
                    pod.process = Process::Running;
                    pod.read_only = true;
                    pod.source = None;
                    pod.received = GtidSet::new();
                }
                _ => {}
            }
            let Some(data) = disk.data.as_mut().filter(|_| pod.process == Process::Running && !pod.frozen) else {
                continue;
            };
            pod.last_read = now;
            if let Some((source, address)) = &pod.source
                && let Some((head, theirs)) = alive(source)
                && format!("{}:3306", head.ip) == *address
            {
                pod.received = pod.received.union(&theirs.executed.subtract(&data.executed));
                if !self.random.one_in(3) {
                    data.executed = data.executed.union(&pod.received);
                    data.offset = data.offset.max(theirs.offset);
                    if let Some((epoch, head)) = &theirs.row
                        && data.row.as_ref().is_none_or(|(ours, _)| ours < epoch)
                    {
                        data.row = Some((*epoch, head.clone()));
                    }
                }
                let _ = name;
            }
        }
    }

    /// The consumer writes through the route in the status, guarded by the epoch in the database.
    fn consume(&mut self) -> Result<(), String> {
        self.written += 1;
        let Some(primary) = self.status.primary.clone() else { return Ok(()) };
        let epoch = self.status.epoch;
        let outcome = self.try_commit(&primary, None);
        let outcome = match outcome {
            Ok(()) => {
                let offset = self.written;
                let rep = self.replicas.get_mut(&primary).expect("it committed");
                let own = rep.source_id();
                let data = rep.disk.as_mut().and_then(|disk| disk.data.as_mut()).expect("it committed");
                if data.row.as_ref() == Some(&(epoch, primary.clone())) {
                    let next = data.executed.of(own).count() + 1;
                    data.executed.insert(own, next, next);
                    data.offset = offset;
                    let under = self.served.entry(epoch).or_default();
                    under.insert(primary.clone());
                    if under.len() > 1 {
                        return Err(format!("I2: {under:?} took writes under epoch {epoch}"));
                    }
                    Ok(())
                } else {
                    // Fenced: no commit, and nothing to accuse anybody of.
                    return Ok(());
                }
            }
            Err(failure) => Err(failure),
        };
        let now = self.now;
        self.consumer.retain(|name, _| *name == primary);
        self.consumer.entry(primary).or_default().saw(now, outcome);
        Ok(())
    }

    /// How a probe up to a commit ends; `from` is the operator's view when it may be cut off.
    pub fn try_commit(&self, subject: &ReplicaName, from: Option<&str>) -> Result<(), (Stage, ProbeError)> {
        let unreachable = Err((Stage::Tcp, ProbeError::Timeout));
        let Some(rep) = self.replicas.get(subject) else { return unreachable };
        let Some(pod) = &rep.pod else { return unreachable };
        let node = &self.nodes[pod.node];
        if !node.up || (from == Some("operator") && node.cut) {
            return unreachable;
        }
        if pod.frozen {
            return Err((Stage::Greeting, ProbeError::Timeout));
        }
        match pod.process {
            Process::Running if pod.read_only => Err((Stage::Commit, ProbeError::ReadOnly)),
            Process::Running => Ok(()),
            _ => Err((Stage::Tcp, ProbeError::Refused { message: "refused".into() })),
        }
    }

    /// Managers probe the primary that they were told of.
    fn observe(&mut self) {
        let now = self.now;
        let heads: BTreeMap<_, _> = self
            .replicas
            .iter()
            .filter_map(|(name, rep)| {
                let pod = rep.pod.as_ref().filter(|pod| self.nodes[pod.node].up)?;
                let (head, _) = pod.peers.as_ref()?.primary.as_ref()?;
                Some((name.clone(), (head.clone(), self.try_commit(head, None))))
            })
            .collect();
        for (name, (head, outcome)) in heads {
            let Some(pod) = self.replicas.get_mut(&name).and_then(|rep| rep.pod.as_mut()) else { continue };
            if head == name {
                pod.probe = None;
                continue;
            }
            match &mut pod.probe {
                Some((subject, watch)) if *subject == head => watch.saw(now, outcome),
                probe => {
                    let mut watch = Watch::default();
                    watch.saw(now, outcome);
                    *probe = Some((head, watch));
                }
            }
        }
    }

    /// What must hold at every moment.
    fn check(&self) -> Result<(), String> {
        let mut writable = BTreeMap::<Epoch, Vec<&ReplicaName>>::new();
        for (name, rep) in &self.replicas {
            let Some(pod) = rep.pod.as_ref().filter(|pod| pod.process == Process::Running && !pod.read_only) else {
                continue;
            };
            let row = rep.disk.as_ref().and_then(|disk| disk.data.as_ref()?.row.as_ref());
            if let Some((epoch, head)) = row
                && head == name
            {
                writable.entry(*epoch).or_default().push(name);
            }
            let _ = pod;
        }
        if let Some((epoch, names)) = writable.iter().find(|(_, names)| names.len() > 1) {
            return Err(format!("I2: {names:?} are writable under epoch {epoch}"));
        }
        let served = !self.served.is_empty();
        let copies =
            self.replicas.values().filter(|rep| rep.disk.as_ref().is_some_and(|d| d.data.is_some() && !d.unusable));
        if served && copies.count() == 0 {
            return Err("I6: no copy is left".into());
        }
        Ok(())
    }

    /// What is not yet as asked for.
    fn unwell(&self) -> Option<String> {
        if self.status.transition.is_some() {
            return Some(format!("{:?} is under way", self.status.transition));
        }
        let Some(primary) = &self.status.primary else { return Some("no primary".into()) };
        if self.try_commit(primary, None).is_err() {
            return Some(format!("{primary} does not commit"));
        }
        let cast: Vec<_> = self.replicas.iter().filter(|(_, rep)| rep.condemned.is_none()).collect();
        if cast.len() != self.wanted || self.replicas.len() != self.wanted {
            return Some(format!(
                "{} replicas, {} not condemned, {} asked for",
                self.replicas.len(),
                cast.len(),
                self.wanted
            ));
        }
        for (name, rep) in cast.iter().filter(|(name, _)| *name != primary) {
            let follows = rep.pod.as_ref().is_some_and(|pod| {
                pod.process == Process::Running && pod.source.as_ref().is_some_and(|(source, _)| source == primary)
            });
            if !follows {
                return Some(format!("{name} does not follow: {rep:?}"));
            }
        }
        None
    }

    pub fn wrote(&mut self, step: &Step) {
        self.version += 1;
        self.say(|| format!("{step:?}"));
    }
}
