//! What is known now, shared by everything, and the report made of it. Nothing here waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use understudy_link::gap::LoopGap;
use understudy_mysql::Prober;
use understudy_mysql::instance::{EpochRow, Status};
use understudy_wire::evidence::{
    Aged, BuildProgress, Fence, LockHolder, Phase, Pressure, Replication, Server, StoredOffset, millis,
};
use understudy_wire::order::Peers;
use understudy_wire::{Epoch, Evidence, GtidSet, Observer, ReplicaName, Report};

use crate::child::Exit;
use crate::datadir::Note;
use crate::proc::ProcessState;
use crate::stopped::Stopped;
use crate::volume::Watch;

/// How often the manager's own loop turns and a report goes out.
pub const EVERY: Duration = Duration::from_millis(250);
/// A reading of the read-only state that is older than this says nothing.
const STATUS_FRESH: Duration = Duration::from_millis(1500);

/// Where the server is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// The volume has not answered yet.
    Looking,
    /// The volume holds nothing.
    Empty,
    /// The volume holds something that is not ours to use.
    Unusable(String),
    /// The volume is being filled.
    Building,
    /// mysqld runs and has not answered yet.
    Starting,
    /// mysqld has answered.
    Running,
    /// mysqld has ended.
    Exited(Exit),
}

/// Why writes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A higher epoch is known.
    Epoch(Epoch),
    /// Nobody answers this pod.
    Isolated,
}

/// Everything that is known now.
#[derive(Debug)]
pub struct Facts {
    /// Where the server is in its life.
    pub life: Life,
    /// The pod was asked to stop.
    pub stopping: bool,
    /// Highest epoch heard of or read.
    pub known: Epoch,
    /// The epoch under which this replica was ordered to stop serving.
    pub fenced_under: Option<Epoch>,
    /// The fence that holds, and since when.
    pub fence: Option<(Why, Instant)>,
    /// The server's last good answers, with the time of the reading.
    pub status: Option<(Instant, Status)>,
    /// The last good reading of the epoch row.
    pub epoch_row: Option<EpochRow>,
    /// The last good reading of the stored offsets.
    pub offsets: Option<(Instant, Vec<StoredOffset>)>,
    /// The last good reading of replication.
    pub replication: Option<(Instant, Option<Replication>)>,
    /// The source and what had been received of it when the present connection was seen first.
    connection: Option<(Option<String>, GtidSet)>,
    /// The log sequence number and when it last moved.
    pub lsn: Option<(Instant, u64)>,
    /// What the kernel says of mysqld.
    pub process: Option<ProcessState>,
    /// The readings that have found mysqld stopped without a break.
    pub stopped: Option<Stopped>,
    /// Who waits for processor, memory and disk.
    pub pressure: Option<Pressure>,
    /// Who holds the lock that commits wait for, and when that was read.
    pub lock_holder: Option<(Instant, LockHolder)>,
    /// Progress of the build, or why the last one failed.
    pub build: Option<BuildProgress>,
    /// The last error that mysqld wrote to its log since it was started.
    pub last_error: Option<String>,
    /// Who else is in the shard.
    pub peers: Option<Peers>,
}

impl Facts {
    fn new() -> Self {
        Self {
            life: Life::Looking,
            stopping: false,
            known: Epoch::default(),
            fenced_under: None,
            fence: None,
            status: None,
            epoch_row: None,
            offsets: None,
            replication: None,
            connection: None,
            lsn: None,
            process: None,
            stopped: None,
            pressure: None,
            lock_holder: None,
            build: None,
            last_error: None,
            peers: None,
        }
    }

    /// The epoch under which the server takes writes, as last read.
    pub fn serving(&self, me: &ReplicaName) -> Option<Epoch> {
        let is_writable = self.status.as_ref().is_some_and(|(_, status)| !status.read_only);
        let row = self.epoch_row.as_ref().filter(|row| row.primary == *me)?;
        (self.life == Life::Running && is_writable).then_some(row.epoch)
    }

    /// What must survive a restart.
    pub fn note(&self) -> Note {
        Note { known: self.known, fenced_under: self.fenced_under }
    }

    /// Takes a reading of the server.
    pub fn take_status(&mut self, status: Status, now: Instant) {
        if let Some(lsn) = status.lsn
            && self.lsn.is_none_or(|(_, last)| last != lsn)
        {
            self.lsn = Some((now, lsn));
        }
        self.status = Some((now, status));
    }

    /// Takes a reading of mysqld's state alone, which is made more often than that of its threads.
    pub fn take_process_state(&mut self, state: Option<char>, now: Instant) {
        self.stopped = Stopped::and(self.stopped, state, now);
        match (&mut self.process, state) {
            (Some(process), Some(state)) => process.main = state,
            (process, None) => *process = None,
            (None, Some(_)) => {}
        }
    }

    /// Takes a reading of mysqld and its threads. Its state counts like any other: told as stopped without since when, it would look like
    /// the word of a manager that cannot tell, and that is waited for less.
    pub fn take_process(&mut self, process: Option<ProcessState>, now: Instant) {
        let state = process.as_ref().map(|process| process.main);
        self.process = process;
        self.take_process_state(state, now);
    }

    /// Takes a reading of replication. A receiver that has just connected may be hours behind and have applied all that it ever
    /// received, so how far behind it is counts as unknown until something has arrived over this connection.
    pub fn take_replication(&mut self, mut replication: Option<Replication>, now: Instant) {
        match replication.as_mut().filter(|read| read.receiving) {
            Some(read) => {
                let known = self.connection.take().filter(|(source, _)| *source == read.source);
                let begun = known.unwrap_or_else(|| (read.source.clone(), read.received.clone()));
                if begun.1 == read.received {
                    read.delay = None;
                }
                self.connection = Some(begun);
            }
            None => self.connection = None,
        }
        self.replication = Some((now, replication));
    }

    /// Takes a reading of the epoch row.
    pub fn take_epoch_row(&mut self, row: Option<EpochRow>) {
        if let Some(row) = &row {
            self.known = self.known.max(row.epoch);
        }
        self.epoch_row = row;
    }
}

/// What makes a report go out at once when it changes.
#[derive(PartialEq)]
struct Headline {
    life: Life,
    stopping: bool,
    known: Epoch,
    fence: Option<Why>,
    serving: Option<Epoch>,
    read_only: Option<bool>,
    process: Option<char>,
    lock_holder: bool,
    receiving: Option<bool>,
    build: Option<(String, Option<String>)>,
}

impl Headline {
    fn of(facts: &Facts, me: &ReplicaName) -> Self {
        Self {
            life: facts.life.clone(),
            stopping: facts.stopping,
            known: facts.known,
            fence: facts.fence.map(|(why, _)| why),
            serving: facts.serving(me),
            read_only: facts.status.as_ref().map(|(_, status)| status.read_only),
            process: facts.process.as_ref().map(|p| if matches!(p.main, 'R' | 'S') { 'S' } else { p.main }),
            lock_holder: facts.lock_holder.is_some(),
            receiving: facts.replication.as_ref().and_then(|(_, r)| r.as_ref()).map(|r| r.receiving),
            build: facts.build.as_ref().map(|b| (b.stage.clone(), b.error.clone())),
        }
    }
}

/// The facts, shared.
#[derive(Debug)]
pub struct Shared {
    /// This replica.
    pub me: ReplicaName,
    facts: Mutex<Facts>,
    news: watch::Sender<u64>,
    gap: Mutex<LoopGap>,
    seq: AtomicU64,
}

impl Shared {
    /// Knows nothing yet.
    pub fn new(me: ReplicaName) -> Self {
        Self {
            me,
            facts: Mutex::new(Facts::new()),
            news: watch::channel(0).0,
            gap: Mutex::new(LoopGap::new(Instant::now())),
            seq: AtomicU64::new(0),
        }
    }

    /// Reads the facts.
    pub fn read<T>(&self, look: impl FnOnce(&Facts) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the facts; sends a report at once when the change matters.
    pub fn update<T>(&self, change: impl FnOnce(&mut Facts) -> T) -> T {
        let mut facts = self.lock();
        let before = Headline::of(&facts, &self.me);
        let outcome = change(&mut facts);
        let changed = Headline::of(&facts, &self.me) != before;
        drop(facts);
        if changed {
            self.tell();
        }
        outcome
    }

    /// Sends a report at once.
    pub fn tell(&self) {
        self.news.send_modify(|n| *n += 1);
    }

    /// Changes when a report shall go out at once.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The epoch under which the server takes writes.
    pub fn serving(&self) -> Option<Epoch> {
        self.read(|facts| facts.serving(&self.me))
    }

    /// The manager's own loop has turned.
    pub fn tick(&self, now: Instant) {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner).tick(now);
    }

    /// The longest pause of the manager's own loop lately.
    pub fn own_gap(&self, now: Instant) -> Duration {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner).worst(now)
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that a report is made of.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The facts.
    pub shared: std::sync::Arc<Shared>,
    /// Probes of the own server through the port of clients.
    pub own: Prober,
    /// Probes of the own server through the admin port.
    pub admin: Prober,
    /// Probes of the shard's primary, where that is another replica.
    pub primary: Prober,
    /// The volume.
    pub volume: Watch,
}

impl Sources {
    /// The complete present state with ages as of now.
    pub fn report(&self) -> Report {
        let now = Instant::now();
        let me = &self.shared.me;
        let server = self.shared.read(|facts| self.server(facts, now));
        let own = Evidence { subject: me.clone(), probe: self.own.probe(now), server: Some(server) };
        let primary = self.primary.evidence(now).filter(|evidence| evidence.subject != *me);
        Report {
            observer: Observer::Manager { replica: me.clone() },
            seq: self.shared.seq.fetch_add(1, Ordering::Relaxed),
            own_gap: millis(self.shared.own_gap(now)),
            interval: millis(EVERY),
            evidence: std::iter::once(own).chain(primary).collect(),
            log: Vec::new(),
        }
    }

    fn server(&self, facts: &Facts, now: Instant) -> Server {
        let age = |at: Instant| millis(now.saturating_duration_since(at));
        let aged = |at: Instant| age(at);
        let fresh = facts.status.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) <= STATUS_FRESH);
        Server {
            phase: phase(facts, now),
            uuid: facts.status.as_ref().map(|(_, status)| status.uuid.clone()),
            process_state: facts.process.as_ref().map(|p| p.main),
            stopped: facts.stopped.map(|stopped| millis(stopped.lasted())),
            threads_in_d: facts.process.as_ref().map_or(0, |p| p.threads_in_d),
            sleepers: facts.process.as_ref().map_or_else(Vec::new, |p| p.sleepers.clone()),
            pressure: facts.pressure,
            lock_holder: facts.lock_holder.as_ref().map(|(at, holder)| Aged { age: aged(*at), value: holder.clone() }),
            epoch: facts.known,
            serving: facts.serving(&self.shared.me),
            read_only: fresh.map(|(_, status)| status.read_only),
            admin: self.admin.probe(now),
            fenced: facts.fence.map(|(why, at)| match why {
                Why::Epoch(epoch) => Fence::Epoch { epoch, age: age(at) },
                Why::Isolated => Fence::Isolated { age: age(at) },
            }),
            executed: facts.status.as_ref().map(|(at, status)| Aged { age: aged(*at), value: status.executed.clone() }),
            offsets: facts.offsets.as_ref().map(|(at, offsets)| Aged { age: aged(*at), value: offsets.clone() }),
            replication: facts
                .replication
                .as_ref()
                .and_then(|(at, replication)| replication.as_ref().map(|r| Aged { age: aged(*at), value: r.clone() })),
            lsn: facts.lsn.map(|(at, lsn)| Aged { age: aged(at), value: lsn }),
            fsync: Some(self.volume.fsync(now)),
            volume: self.volume.space(),
            build: facts.build.clone(),
            last_error: facts.last_error.clone(),
        }
    }
}

fn phase(facts: &Facts, now: Instant) -> Phase {
    match &facts.life {
        // An end that was not asked for is told even while the pod stops.
        Life::Exited(exit) if !facts.stopping => {
            Phase::Exited { code: exit.code, signal: exit.signal, age: millis(now.saturating_duration_since(exit.at)) }
        }
        _ if facts.stopping => Phase::Stopping,
        Life::Empty => Phase::Empty,
        Life::Unusable(reason) => Phase::Unusable { reason: reason.clone() },
        Life::Building => Phase::Building,
        Life::Running => Phase::Running,
        Life::Looking | Life::Starting | Life::Exited(_) => Phase::Starting,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn status(read_only: bool, lsn: u64) -> Status {
        Status { uuid: "u".to_owned(), read_only, executed: "".parse().unwrap(), lsn: Some(lsn) }
    }

    fn row(epoch: u64, primary: &str) -> EpochRow {
        EpochRow { epoch: Epoch(epoch), primary: ReplicaName::new(primary) }
    }

    #[test]
    fn a_server_serves_when_it_is_writable_and_its_row_names_it() {
        for (case, life, read_only, primary, expected) in [
            ("writable and named", Life::Running, false, "me", Some(Epoch(4))),
            ("read-only", Life::Running, true, "me", None),
            ("another is named", Life::Running, false, "other", None),
            ("ended", Life::Exited(Exit { code: None, signal: Some(9), at: Instant::now() }), false, "me", None),
        ] {
            let shared = Shared::new(ReplicaName::new("me"));
            shared.update(|facts| {
                facts.life = life;
                facts.take_status(status(read_only, 1), Instant::now());
                facts.take_epoch_row(Some(row(4, primary)));
            });
            assert_eq!(shared.serving(), expected, "{case}");
            assert_eq!(shared.read(|facts| facts.known), Epoch(4), "{case}");
        }
    }

    #[test]
    fn what_matters_is_told_at_once_and_the_rest_is_not() {
        let shared = Shared::new(ReplicaName::new("me"));
        let mut news = shared.news();
        let now = Instant::now();
        let mut told = |change: &dyn Fn(&mut Facts)| {
            news.mark_unchanged();
            shared.update(change);
            news.has_changed().unwrap()
        };
        assert!(told(&|facts| facts.life = Life::Running));
        assert!(told(&|facts| facts.take_status(status(true, 1), now)));
        assert!(!told(&|facts| facts.take_status(status(true, 2), now)));
        assert!(told(&|facts| facts.known = Epoch(2)));
        assert!(told(&|facts| facts.fence = Some((Why::Isolated, now))));
        let state = |main| Some(ProcessState { main, threads_in_d: 0, sleepers: Vec::new() });
        assert!(told(&|facts| facts.take_process(state('S'), now)));
        assert!(!told(&|facts| facts.take_process(state('R'), now)));
        assert!(told(&|facts| facts.take_process(state('T'), now)));
        assert!(told(&|facts| facts.take_process_state(Some('S'), now)));
        assert!(told(&|facts| facts.take_process_state(Some('T'), now)));
        assert!(told(&|facts| facts.lock_holder = Some((now, LockHolder::default()))));
        assert!(!told(&|facts| facts.pressure = Some(Pressure::default())));
    }

    #[test]
    fn a_server_is_never_told_to_be_stopped_without_since_when() {
        type Reading = fn(&mut Facts, char, Instant);
        let threads: Reading = |facts, main, now| {
            facts.take_process(Some(ProcessState { main, threads_in_d: 0, sleepers: Vec::new() }), now);
        };
        let state: Reading = |facts, main, now| facts.take_process_state(Some(main), now);
        let gone: Reading = |facts, _, now| facts.take_process_state(None, now);
        let start = Instant::now();
        let cases: [(&str, &[(Reading, char)]); 4] = [
            ("its threads are read first", &[(state, 'S'), (threads, 'S'), (threads, 'T')]),
            ("it alone is read first", &[(threads, 'S'), (state, 'T'), (threads, 'T'), (state, 'T')]),
            ("it goes on", &[(threads, 'T'), (state, 'S'), (threads, 'T'), (threads, 'S')]),
            ("it is ended while it is stopped", &[(threads, 'T'), (state, 'T'), (gone, ' ')]),
        ];
        for (case, readings) in cases {
            let mut facts = Facts::new();
            for ((read, letter), after) in readings.iter().zip(0_u32..) {
                read(&mut facts, *letter, start + Duration::from_millis(100) * after);
                let is_stopped = facts.process.as_ref().is_some_and(|process| process.main == 'T');
                assert_eq!(is_stopped, facts.stopped.is_some(), "{case}: reading {after}");
            }
        }
    }

    #[test]
    fn how_far_behind_a_receiver_is_counts_as_unknown_until_something_arrived_over_its_connection() {
        const UUID: &str = "01010101-0101-0101-0101-010101010101";
        let read = |source: &str, receiving: bool, received: &str, delay: Option<u64>| Replication {
            source: Some(source.to_owned()),
            receiving,
            applying: true,
            received: received.parse().unwrap(),
            delay,
            receive_error: None,
            apply_error: None,
        };
        let (few, more) = (format!("{UUID}:1-9"), format!("{UUID}:1-10"));
        let shared = Shared::new(ReplicaName::new("me"));
        for (case, reading, expected) in [
            ("just connected", read("a", true, "", Some(0)), None),
            ("still nothing", read("a", true, "", Some(0)), None),
            ("something arrived", read("a", true, &few, Some(0)), Some(0)),
            ("and waits to be applied", read("a", true, &more, Some(7_000)), Some(7_000)),
            ("and was applied", read("a", true, &more, Some(0)), Some(0)),
            ("the connection broke", read("a", false, &more, None), None),
            ("it is there again, an hour later perhaps", read("a", true, &more, Some(0)), None),
            ("something arrived again", read("a", true, &format!("{UUID}:1-11"), Some(0)), Some(0)),
            ("another source", read("b", true, "", Some(0)), None),
        ] {
            shared.update(|facts| facts.take_replication(Some(reading), Instant::now()));
            let delay = shared.read(|facts| facts.replication.clone().and_then(|(_, read)| read?.delay));
            assert_eq!(delay, expected, "{case}");
        }
    }

    #[test]
    fn the_log_position_keeps_the_time_of_its_last_move() {
        let shared = Shared::new(ReplicaName::new("me"));
        let start = Instant::now();
        for (after, lsn) in [(0, 5), (100, 6), (200, 6)] {
            shared.update(|facts| facts.take_status(status(false, lsn), start + Duration::from_millis(after)));
        }
        assert_eq!(shared.read(|facts| facts.lsn), Some((start + Duration::from_millis(100), 6)));
    }
}
