//! Scenes: snapshots of a shard that is well, to be spoiled by a test in one line.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use understudy_decide::decision::NewReplica;
use understudy_decide::failover::snapshot::*;
use understudy_decide::{Decision, Fact, Order, OrderKind, Reason, Step, plan};
use understudy_wire::evidence::*;
use understudy_wire::gtid::SourceId;
use understudy_wire::{Epoch, Evidence, GtidSet, Observer, ReplicaName, Report, ShardName};

pub const EPOCH: Epoch = Epoch(4);

/// The replica with this letter.
pub fn name(letter: &str) -> ReplicaName {
    ReplicaName::new(format!("m-{letter}"))
}

/// The `server_uuid` of a replica.
pub fn uuid(letter: &str) -> SourceId {
    SourceId::from_bytes([letter.as_bytes()[0]; 16])
}

/// Transactions `1..=last` of one source.
pub fn gtids(letter: &str, last: u64) -> GtidSet {
    let mut set = GtidSet::new();
    set.insert(uuid(letter), 1, last);
    set
}

pub fn consumer() -> Observer {
    Observer::Consumer { pod: "store-m-0".into() }
}

/// On the node of `b`.
pub fn other_consumer() -> Observer {
    Observer::Consumer { pod: "store-m-1".into() }
}

pub fn operator() -> Observer {
    Observer::Operator { pod: "understudy-0".into() }
}

pub fn manager(letter: &str) -> Observer {
    Observer::Manager { replica: name(letter) }
}

/// A probe that succeeded a moment ago.
pub fn commits() -> Probe {
    Probe {
        committed: Some(100),
        selected: Some(100),
        commit_took: Some(3),
        committing_since: Some(60_000),
        ..Probe::default()
    }
}

/// A probe that has failed for `since`, after success before that.
pub fn fails(stage: Stage, error: ProbeError, since: Millis) -> Probe {
    Probe {
        committed: Some(since + 200),
        selected: Some(since + 200),
        failing: Some(Failing {
            since,
            latest: since.min(100),
            count: 2,
            stage,
            error,
            unanswered: None,
            answered: None,
        }),
        ..Probe::default()
    }
}

/// The same, of attempts that nobody has answered since `begun`.
pub fn waits(stage: Stage, error: ProbeError, since: Millis, begun: Millis) -> Probe {
    let mut probe = fails(stage, error, since);
    probe.failing.as_mut().expect("it fails").unanswered = Some(begun);
    let before = since.max(begun) + 200;
    Probe { committed: Some(before), selected: Some(before), ..probe }
}

pub fn lock_wait() -> ProbeError {
    ProbeError::Server { code: 1205, message: "lock wait".into() }
}

/// No connection is left for anybody but the admin port.
pub fn no_connection_left() -> ProbeError {
    ProbeError::TooManyConnections { whose: Limit::Server }
}

pub fn refused(since: Millis) -> Probe {
    fails(Stage::Tcp, ProbeError::Refused { message: "connection refused".into() }, since)
}

pub fn unreachable(since: Millis) -> Probe {
    fails(Stage::Tcp, ProbeError::Timeout, since)
}

pub fn server(letter: &str, phase: Phase) -> Server {
    Server {
        phase,
        uuid: Some(uuid(letter).to_string()),
        process_state: Some('S'),
        stopped: None,
        threads_in_d: 0,
        sleepers: Vec::new(),
        pressure: None,
        lock_holder: None,
        epoch: EPOCH,
        serving: None,
        read_only: Some(true),
        fenced: None,
        executed: Some(Aged { age: 50, value: gtids("a", 1000) }),
        offsets: Some(Aged { age: 50, value: vec![offset(500)] }),
        replication: Some(Aged {
            age: 50,
            value: Replication {
                source: Some("10.0.0.1:3306".into()),
                receiving: true,
                applying: true,
                received: gtids("a", 1000),
                delay: Some(0),
                receive_error: None,
                apply_error: None,
            },
        }),
        lsn: Some(Aged { age: 100, value: 1 }),
        admin: None,
        fsync: Some(Fsync { succeeded: Some(100), took: Some(2), in_flight: None, error: None }),
        volume: Some(Volume { total: 100, free: 50 }),
        build: None,
        last_error: None,
    }
}

pub fn offset(next_offset: i64) -> StoredOffset {
    StoredOffset { consumer: "store".into(), topic: "samples".into(), partition: 0, next_offset }
}

pub fn replica(number: u32, uid: &str) -> Replica {
    Replica {
        uid: format!("uid-{uid}"),
        server_id: number,
        pod: Fact::Present(Pod {
            uid: format!("pod-{uid}"),
            node: Some(format!("node-{number}")),
            ip: Some(format!("10.0.0.{number}")),
            role: Some("standby".into()),
            age: 600_000,
            ..Pod::default()
        }),
        volume: Fact::Present(VolumeClaim {
            uid: format!("pvc-{uid}"),
            terminating: false,
            role: Some("standby".into()),
            bound: true,
            age: 600_000,
        }),
        server_uuid: None,
        link: Link { connected: true, peers: None },
        age: 600_000,
        ..Replica::default()
    }
}

/// A snapshot and ways to spoil it.
#[derive(Clone)]
pub struct Scene(pub Snapshot);

impl Scene {
    /// Three replicas on three nodes, `a` in office under epoch 4 for an hour, all well, a consumer and the operator elsewhere.
    pub fn well() -> Self {
        let mut scene = Self(Snapshot {
            now: Timestamp::from_second(1_800_000_000).expect("a timestamp"),
            shard: ShardName::new("m"),
            uid: "shard-uid".into(),
            policy: Policy {
                replicas: 3,
                paused: false,
                mode: Mode::Automatic,
                thresholds: Thresholds::default(),
                quarantine_seconds: 86_400,
            },
            status: Status {
                primary: Some(name("a")),
                primary_address: Some("10.0.0.1:3306".into()),
                epoch: EPOCH,
                transition: None,
                bootstrap: Some(Bootstrap { replica: name("a"), completed: true }),
                next_server_id: 4,
                last_change: None,
                in_a_row: 0,
                changed_at: None,
                paused: false,
            },
            replicas: BTreeMap::new(),
            reports: Vec::new(),
            requests: Vec::new(),
            records: Vec::new(),
            consumers: ["store".to_owned()].into(),
            log: [(("samples".to_owned(), 0), 0)].into(),
            feeds: BTreeMap::new(),
            nodes: BTreeMap::new(),
            fleet: Fleet { shards: 8, managers: 24, replicas: 24, ..Fleet::default() },
            memory: Memory { awake: 3_600_000, office_known: 3_600_000, ..Memory::default() },
        });
        for (number, letter) in (1..).zip(["a", "b", "c"]) {
            scene.0.replicas.insert(name(letter), replica(number, letter));
            scene.says(&manager(letter), letter, None, Some(server(letter, Phase::Running)));
            scene.0.nodes.insert(
                format!("node-{number}"),
                Node { zone: Some(format!("zone-{number}")), schedulable: true, ..Node::default() },
            );
        }
        let spare = Node { zone: Some("zone-3".into()), schedulable: true, ..Node::default() };
        scene.0.nodes.insert("node-4".into(), spare);
        scene.server("a", |server| {
            server.serving = Some(EPOCH);
            server.read_only = Some(false);
            server.replication = None;
        });
        for observer in [manager("b"), manager("c"), consumer(), operator()] {
            scene.says(&observer, "a", Some(commits()), None);
        }
        scene.label("a", "primary");
        scene.acknowledge_peers();
        scene
    }

    /// As if every manager had been told who the others are.
    pub fn acknowledge_peers(&mut self) {
        for _ in 0..2 {
            for step in plan(&self.0).steps {
                if let Step::Order { replica, order: Order::Peers(peers) } = step {
                    self.replica(replica.as_str().trim_start_matches("m-"), |r| r.link.peers = Some(peers.clone()));
                }
            }
        }
    }

    pub fn label(&mut self, letter: &str, role: &str) {
        self.replica(letter, |replica| {
            if let Fact::Present(pod) = &mut replica.pod {
                pod.role = Some(role.into());
            }
            if let Fact::Present(volume) = &mut replica.volume {
                volume.role = Some(role.into());
            }
        });
    }

    /// Changes the facts about one replica.
    pub fn replica(&mut self, letter: &str, change: impl FnOnce(&mut Replica)) {
        change(self.0.replicas.get_mut(&name(letter)).expect("a replica of the scene"));
    }

    /// Changes what one manager says of its server.
    pub fn server(&mut self, letter: &str, change: impl FnOnce(&mut Server)) {
        let report = self.report(&manager(letter));
        let own = report.report.evidence.iter_mut().find(|e| e.subject == name(letter)).expect("its own evidence");
        change(own.server.as_mut().expect("its server"));
    }

    /// A manager has not been heard for long.
    pub fn silence(&mut self, letter: &str) {
        self.report(&manager(letter)).age = 5_000;
    }

    /// The report of one observer, made if there is none.
    pub fn report(&mut self, observer: &Observer) -> &mut Received {
        let at =
            self.0.reports.iter().position(|received| received.report.observer == *observer).unwrap_or_else(|| {
                let node = match observer {
                    Observer::Manager { replica } | Observer::Peer { replica } => {
                        self.0.node_of(replica).map(ToOwned::to_owned)
                    }
                    Observer::Consumer { .. } if *observer == other_consumer() => {
                        self.0.node_of(&name("b")).map(ToOwned::to_owned)
                    }
                    Observer::Consumer { .. } => Some("node-4".into()),
                    Observer::Operator { .. } => Some("node-5".into()),
                    Observer::Unknown => None,
                };
                let report = Report {
                    observer: observer.clone(),
                    seq: 1,
                    own_gap: 260,
                    interval: 250,
                    evidence: vec![],
                    log: vec![],
                };
                self.0.reports.push(Received { report, age: 50, node });
                self.0.reports.len() - 1
            });
        &mut self.0.reports[at]
    }

    /// Replaces what an observer says of a replica.
    pub fn says(&mut self, observer: &Observer, about: &str, probe: Option<Probe>, server: Option<Server>) {
        let report = &mut self.report(observer).report;
        report.evidence.retain(|evidence| evidence.subject != name(about));
        report.evidence.push(Evidence { subject: name(about), probe, server });
    }

    /// Everybody but the manager of `a` says this of `a`.
    pub fn all_say(&mut self, probe: &Probe) {
        for observer in [manager("b"), manager("c"), consumer(), operator()] {
            self.says(&observer, "a", Some(probe.clone()), None);
        }
    }

    /// No consumer has reached `a` for this long, and everybody else sees it commit.
    pub fn consumers_cut_off(&mut self, since: Millis) {
        for observer in [consumer(), other_consumer()] {
            self.says(&observer, "a", Some(fails(Stage::Tcp, ProbeError::Timeout, since)), None);
        }
        self.0.memory.past.cut_off_for = since;
    }

    /// A manager fell silent this long ago.
    pub fn silent(&mut self, letter: &str, since: Millis) {
        self.report(&manager(letter)).age = since;
        self.replica(letter, |replica| replica.link.connected = false);
    }

    /// mysqld of `a` was killed this long ago, and everybody noticed.
    pub fn kill_primary(&mut self, ago: Millis) {
        self.server("a", |server| server.phase = Phase::Exited { code: None, signal: Some(9), age: ago });
        self.all_say(&refused(ago.saturating_sub(30)));
    }

    /// Both standbys received nothing for a while.
    pub fn far_behind(&mut self) {
        for letter in ["b", "c"] {
            self.server(letter, |server| {
                server.executed = Some(Aged { age: 50, value: gtids("a", 400) });
                server.replication.as_mut().expect("replicates").value.received = gtids("a", 400);
            });
        }
    }

    /// The node of `a` went away this long ago.
    pub fn lose_node(&mut self, ago: Millis) {
        self.silent("a", ago);
        self.all_say(&unreachable(ago.saturating_sub(200)));
    }

    /// What a claim for `to` leaves in the status.
    pub fn claimed(&mut self, kind: Kind, to: &str) {
        self.0.status.epoch = EPOCH.next();
        self.0.status.transition = Some(Transition {
            kind,
            epoch: EPOCH.next(),
            from: Some(name("a")),
            to: name(to),
            record: Some("m-5".into()),
            request: None,
            cause: Some("ProcessExited".into()),
        });
        self.0.memory.transition_known = 300;
    }

    pub fn reprobed(&mut self, outcome: ReprobeOutcome) {
        self.0.memory.reprobe = Some(Reprobe { epoch: self.0.status.epoch, outcome });
    }

    pub fn ordered(&mut self, letter: &str, kind: OrderKind, tries: u32, sent: Millis, outcome: OrderOutcome) {
        let fact = OrderFact { epoch: self.0.status.epoch, sent, tries, outcome };
        self.0.memory.orders.insert((name(letter), kind), fact);
    }

    pub fn plan(&self) -> Decision {
        plan(&self.0)
    }

    /// The steps but labels and orders that only keep everybody informed.
    pub fn steps(&self) -> Vec<Step> {
        let minor = |step: &Step| matches!(step, Step::Label { .. } | Step::Order { order: Order::Peers(_), .. });
        self.plan().steps.into_iter().filter(|step| !minor(step)).collect()
    }

    /// The claim of the plan, as kind and target.
    /// The replicas that are made now.
    pub fn grown(&self) -> Vec<NewReplica> {
        let grow = self.steps().into_iter().find_map(|step| match step {
            Step::Grow { replicas, .. } => Some(replicas),
            _ => None,
        });
        grow.unwrap_or_default()
    }

    pub fn claim(&self) -> Option<(Kind, String)> {
        self.steps().into_iter().find_map(|step| match step {
            Step::Claim(claim) => Some((claim.kind, claim.to.to_string())),
            _ => None,
        })
    }

    /// The order of this kind that the plan gives to a replica.
    pub fn order_to(&self, letter: &str, kind: OrderKind) -> Option<Order> {
        self.steps().into_iter().find_map(|step| match step {
            Step::Order { replica, order } if replica == name(letter) && order.kind() == kind => Some(order),
            _ => None,
        })
    }

    /// Whether the plan has a note with this reason.
    pub fn gives(&self, reason: Reason) -> bool {
        self.plan().notes.iter().any(|note| note.reason == reason)
    }

    /// The reasons of the notes.
    pub fn reasons(&self) -> Vec<String> {
        self.plan().notes.into_iter().map(|note| note.reason.to_string()).collect()
    }
}
