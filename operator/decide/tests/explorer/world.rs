//! The world outside the operator, and how time goes on in it.

use std::collections::{BTreeMap, BTreeSet};

use understudy_decide::decision::Subject;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Decision, Step};
use understudy_wire::evidence::Millis;
use understudy_wire::{Epoch, ReplicaName};

use super::cluster::{Letter, NodeW, Rep};
use super::consumers::ConsumerW;
use super::evidence::Lie;
use super::offices::Offices;
use super::operator::{Asleep, Operator};
use super::random::Random;
use super::records::RecordW;
use super::script::{COOLDOWNS, SHARDS, Script};

/// When a run begins, in milliseconds.
pub const BEGUN: Millis = 1_000_000;
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
    /// Claims for another primary that nobody asked for, by their causes.
    pub causes: BTreeMap<String, u64>,
    pub confirms: u64,
    pub second_candidates: u64,
    pub crashes: u64,
    /// Operators that were paused between a decision and its steps.
    pub sleepers: u64,
    pub volumes_deleted: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.failovers += other.failovers;
        self.switchovers += other.switchovers;
        for (cause, times) in &other.causes {
            *self.causes.entry(cause.clone()).or_default() += times;
        }
        self.confirms += other.confirms;
        self.second_candidates += other.second_candidates;
        self.crashes += other.crashes;
        self.sleepers += other.sleepers;
        self.volumes_deleted += other.volumes_deleted;
    }
}

pub struct World {
    /// What happens in any case: delays, losses, where the operator dies.
    pub random: Random,
    /// What misfortunes are drawn from; None: they are in the script.
    pub fate: Option<Random>,
    /// What has befallen the world, or is to.
    pub script: Script,
    /// How much of it has.
    pub befallen: usize,
    pub now: Millis,
    pub nodes: Vec<NodeW>,
    pub replicas: BTreeMap<ReplicaName, Rep>,
    pub status: Status,
    pub wanted: usize,
    pub mode: Mode,
    /// What the other shards look like.
    pub others: Fleet,
    /// Places and nodes between which nothing gets through.
    pub severed: Vec<(String, String)>,
    /// An observer that lies, and what it says.
    pub liar: Option<(String, Lie)>,
    /// How long an fsync takes on every volume, at least.
    pub slow: Millis,
    /// How long the load makes commits take, at least.
    pub load: Millis,
    /// Until when a server, a machine or an observer stands still that goes on by itself.
    pub still_until: Millis,
    pub version: u64,
    pub requests: Vec<Request>,
    pub post: Vec<Letter>,
    pub consumers: Vec<ConsumerW>,
    pub written: i64,
    /// The lowest offset that Kafka still holds.
    pub earliest: i64,
    pub records: BTreeMap<String, RecordW>,
    /// Changes of primary that were published: the record that the status named, and the epoch.
    pub changes: Vec<(Option<String>, Epoch)>,
    pub operator: Option<Operator>,
    pub asleep: Option<Asleep>,
    pub operator_back: Millis,
    pub generation: u64,
    pub faults: bool,
    pub counts: Counts,
    next_uid: u64,
    /// Deletions that were asked for, and whether something in the cluster stands against them for ever.
    refused: BTreeMap<Subject, bool>,
    /// Who took writes under which epoch.
    pub served: BTreeMap<Epoch, BTreeSet<ReplicaName>>,
    /// Who was in office, what it was changed for, and when.
    pub offices: Offices,
    trace: Option<Vec<String>>,
}

impl World {
    /// A world of which everything is drawn; `benign`: nothing befalls it for which its primary may be changed, but drains.
    pub fn new(seed: u64, benign: bool, traced: bool) -> Self {
        let mut fate = Random::new(!seed);
        let nodes = fate.between(3, 5);
        let replicas = usize::try_from(fate.between(1, 3)).expect("small");
        let replicas = if fate.one_in(3) { replicas } else { 3 };
        let consumers = usize::try_from(fate.between(0, 3)).expect("small").max(1);
        let shards = *fate.pick(SHARDS).expect("some");
        let cooldown = *fate.pick(COOLDOWNS).expect("some");
        let script = Script { seed, nodes, replicas, consumers, shards, cooldown, benign, misfortunes: Vec::new() };
        let mut world = Self::scripted(script, traced);
        world.fate = Some(fate);
        world
    }

    /// A world whose misfortunes are known.
    pub fn scripted(script: Script, traced: bool) -> Self {
        let node = |n| NodeW { name: format!("node-{n}"), up: true, stalls: None, cut: false, spoke: BEGUN };
        // The last one is nowhere: pods that cannot be placed wait there.
        let nowhere = NodeW { name: "nowhere".into(), up: false, stalls: None, cut: true, spoke: 0 };
        let consumers = ConsumerW::all(script.consumers, usize::try_from(script.nodes).expect("few"));
        Self {
            random: Random::new(script.seed),
            fate: None,
            befallen: 0,
            now: BEGUN,
            nodes: (0..script.nodes).map(node).chain([nowhere]).collect(),
            replicas: BTreeMap::new(),
            status: Status { next_server_id: 0, ..Status::default() },
            wanted: script.replicas,
            mode: Mode::Automatic,
            others: Fleet::default(),
            severed: Vec::new(),
            liar: None,
            slow: 0,
            load: 0,
            still_until: 0,
            script,
            version: 1,
            requests: Vec::new(),
            post: Vec::new(),
            consumers,
            written: 0,
            earliest: 0,
            records: BTreeMap::new(),
            changes: Vec::new(),
            operator: None,
            asleep: None,
            operator_back: 0,
            generation: 0,
            faults: true,
            counts: Counts::default(),
            next_uid: 0,
            refused: BTreeMap::new(),
            served: BTreeMap::new(),
            offices: Offices::default(),
            trace: traced.then(Vec::new),
        }
    }

    /// Where pods are that cannot be placed.
    pub fn nowhere(&self) -> usize {
        self.nodes.len() - 1
    }

    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>8.2} {}", (self.now - BEGUN) as f64 / 1_000.0, what()));
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
        let now = self.now;
        self.wake();
        self.nodes.iter_mut().filter(|node| node.runs()).for_each(|node| node.spoke = now);
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
            if self.carry_out(&mut operator, &decision, &snapshot, &mut steps)? {
                self.operator = Some(operator);
            }
        }
        if let Some(mut asleep) = self.asleep.take_if(|asleep| asleep.until <= self.now) {
            self.say(|| "the operator that was paused goes on".into());
            let mut stale = 0;
            self.carry_out(&mut asleep.operator, &asleep.decision, &asleep.snapshot, &mut stale)?;
            // It then sees that it leads no more.
            steps += stale;
        }
        self.check()?;
        Ok(steps)
    }

    /// Takes the steps of a decision and writes down what the records should say. Whether the operator has survived it.
    fn carry_out(
        &mut self,
        operator: &mut Operator,
        decision: &Decision,
        snapshot: &Snapshot,
        steps: &mut usize,
    ) -> Result<bool, String> {
        for step in &decision.steps {
            if self.faults && self.random.one_in(40) {
                self.say(|| format!("operator dies before {step:?}"));
                self.counts.crashes += 1;
                self.operator_back = self.now + self.random.between(0, 3_000);
                return self.check().map(|()| false);
            }
            self.may_promote(step, snapshot)?;
            let before = self.status.epoch;
            operator.act(self, snapshot, step)?;
            if let Step::Claim(claim) = step
                && self.status.epoch != before
            {
                self.claimed(claim, decision, snapshot)?;
            }
            *steps += usize::from(self.refused.get(&step.subject()) != Some(&true));
            self.check()?;
        }
        if !operator.void {
            decision.records.iter().for_each(|update| self.record(update));
        }
        Ok(true)
    }

    /// Whether nobody is allowed to do this, as by a webhook.
    pub fn refuses(&mut self, step: &Step) -> bool {
        let refused = self.faults && self.random.one_in(6);
        match step {
            Step::DeletePod { restart: false, .. } | Step::DeleteVolume { .. } | Step::DeleteReplica { .. } => {
                *self.refused.entry(step.subject()).or_insert(refused)
            }
            _ => false,
        }
    }

    /// Whether what is left of a condemned replica cannot be taken away.
    pub fn stays(&self, name: &ReplicaName) -> bool {
        self.refused.iter().any(|(subject, refused)| *refused && subject.about.as_deref() == Some(name.as_str()))
    }

    pub fn wrote(&mut self, step: &Step) {
        self.say(|| format!("{step:?}"));
    }
}
