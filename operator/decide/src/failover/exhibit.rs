//! The facts that were known of a primary at a decision, one by one and with their numbers, for the record. Pure.
//!
//! A verdict rests on few of them; who asks afterwards why a server hung wants them all: what the kernel said of its process and threads,
//! the volume, the log, the lock, what every observer met and where. Nothing is concluded here.

use std::fmt::Write;

use understudy_wire::evidence::{Failing, Fsync, Millis, Pressure, PressureOf, Probe, Server, Stage, Stall};
use understudy_wire::{Observer, ReplicaName};

use super::assess::{Named, Said, Seconds};
use super::snapshot::{Received, Snapshot};
use super::testimony::name_of;

/// Facts that one record holds.
const MOST: usize = 40;
/// The longest text of a fact, characters.
const LONGEST: usize = 300;

/// One fact as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhibit {
    /// Whose: its kind and name.
    pub observer: String,
    /// What kind of fact.
    pub of: Of,
    /// The fact, for a person.
    pub fact: String,
    /// How long it had lasted when it was told; None for what does not last.
    pub lasted: Option<Millis>,
    /// The stage at which a probe failed, or was.
    pub stage: Option<Stage>,
    /// Time since it was told.
    pub age: Millis,
}

/// What kind of fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Of {
    /// mysqld's process.
    Process,
    /// Its threads in uninterruptible sleep.
    Threads,
    /// The manager's own write to the volume.
    Fsync,
    /// InnoDB's log.
    Log,
    /// Who waited for processor, memory and disk.
    Pressure,
    /// Who held the lock that commits waited for.
    Lock,
    /// What the admin port answered.
    AdminPort,
    /// What an observer met on the way that clients take.
    Probe,
}

/// All that was told of `subject`, its own manager's facts first.
pub fn exhibits(s: &Snapshot, subject: &ReplicaName) -> Vec<Exhibit> {
    let mut all = Vec::new();
    if let Some((server, age)) = s.own_report(subject) {
        let manager = format!("manager {subject}");
        let facts = of_server(server);
        all.extend(facts.into_iter().map(|fact| fact.told(&manager, age)));
    }
    for received in &s.reports {
        let about = received.report.evidence.iter().filter(|evidence| evidence.subject == *subject);
        for probe in about.filter_map(|evidence| evidence.probe.as_ref()) {
            all.push(of_probe(Of::Probe, probe).told(&who(received, subject), received.age));
        }
    }
    all.truncate(MOST);
    all
}

/// The manager beside the server by that name, and not as one more peer.
fn who(received: &Received, subject: &ReplicaName) -> String {
    match &received.report.observer {
        Observer::Manager { replica } if replica == subject => format!("manager {subject}"),
        other => name_of(other),
    }
}

struct Bare {
    of: Of,
    fact: String,
    lasted: Option<Millis>,
    stage: Option<Stage>,
}

impl Bare {
    fn new(of: Of, fact: String, lasted: Option<Millis>) -> Self {
        Self { of, fact, lasted, stage: None }
    }

    fn told(self, observer: &str, age: Millis) -> Exhibit {
        let Self { of, fact, lasted, stage } = self;
        let fact = fact.chars().take(LONGEST).collect();
        Exhibit { observer: observer.to_owned(), of, fact, lasted, stage, age }
    }
}

fn of_server(server: &Server) -> Vec<Bare> {
    let mut facts = Vec::new();
    if let Some(state) = server.process_state {
        facts.push(process(state, server.stopped));
    }
    if server.threads_in_d > 0 {
        facts.push(threads(server));
    }
    if let Some(fsync) = &server.fsync {
        facts.push(volume(fsync));
    }
    if let Some(lsn) = &server.lsn {
        let fact = format!("the log on disk stood at {} and had not moved for {}", lsn.value, Seconds(lsn.age));
        facts.push(Bare::new(Of::Log, fact, Some(lsn.age)));
    }
    if let Some(admin) = &server.admin {
        facts.push(of_probe(Of::AdminPort, admin));
    }
    if let Some(holder) = server.lock_holder.as_ref().map(|read| &read.value) {
        let user: &str = if holder.user.is_empty() { "the server itself" } else { &holder.user };
        let connection = holder.connection.map_or(String::new(), |number| format!(" (connection {number})"));
        let statement = match holder.statement.as_str() {
            "" => String::new(),
            statement => format!(", its last statement: {statement}"),
        };
        let held = Seconds(holder.held);
        let fact = format!("{user}{connection} held a lock on {} for {held}{statement}", holder.locked);
        facts.push(Bare::new(Of::Lock, fact, Some(holder.held)));
    }
    facts.extend(server.pressure.as_ref().and_then(pressure));
    facts
}

fn process(state: char, stopped: Option<Millis>) -> Bare {
    let words = match state {
        'R' => "runs",
        'S' => "sleeps, as it does between requests",
        'D' => "waits in the kernel",
        'T' => "is stopped by a signal",
        't' => "is stopped by a debugger",
        'Z' | 'X' => "has ended",
        'I' => "is idle",
        _ => "is in a state that is not known here",
    };
    let since = stopped.map_or(String::new(), |lasted| format!(", for {} at least", Seconds(lasted)));
    Bare::new(Of::Process, format!("state {state}: mysqld's main thread {words}{since}"), stopped)
}

fn threads(server: &Server) -> Bare {
    let threads = if server.threads_in_d == 1 { "thread" } else { "threads" };
    let mut fact = format!("{} {threads} of mysqld in uninterruptible sleep (D)", server.threads_in_d);
    for (number, sleeper) in server.sleepers.iter().enumerate() {
        let place: &str = if sleeper.waits_in.is_empty() { "an unknown place" } else { &sleeper.waits_in };
        let before = if number == 0 { ": " } else { ", " };
        // A String takes whatever is written to it.
        write!(fact, "{before}{} ({}) in {place}", sleeper.name, sleeper.id).ok();
    }
    Bare::new(Of::Threads, fact, None)
}

fn volume(fsync: &Fsync) -> Bare {
    let before = match (fsync.took, fsync.succeeded) {
        (Some(took), Some(ago)) => format!("the last one that did took {took} ms, {} before", Seconds(ago)),
        _ => "none has come back yet".to_owned(),
    };
    let fact = match (&fsync.error, fsync.in_flight) {
        (Some(error), _) => format!("a write and fsync on the volume failed with {error}; {before}"),
        (None, Some(lasted)) => {
            format!("a write and fsync on the volume had not come back for {}; {before}", Seconds(lasted))
        }
        (None, None) => format!("no write to the volume was under way; {before}"),
    };
    Bare::new(Of::Fsync, fact, fsync.in_flight)
}

fn of_probe(of: Of, probe: &Probe) -> Bare {
    let commit = probe.committed.map(|ago| format!("the last commit {} before", Seconds(ago)));
    let select = || probe.selected.map(|ago| format!("the last answer {} before", Seconds(ago)));
    let last = commit.or_else(select).unwrap_or_else(|| "no answer so far".to_owned());
    let under_way = probe.in_flight.map(|attempt| (attempt.stage, attempt.age));
    let waits = under_way
        .map_or(String::new(), |(stage, age)| format!("; an attempt was at {} for {}", Named(stage), Seconds(age)));
    let Some(Failing { since, count, stage, error, .. }) = &probe.failing else {
        let fact = format!("answered: {last}{waits}");
        let stage = under_way.map(|(stage, _)| stage);
        return Bare { of, fact, lasted: under_way.map(|(_, age)| age), stage };
    };
    let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
    let fact = format!("{} at {}, {times} in {}; {last}{waits}", Said(error), Named(*stage), Seconds(*since));
    Bare { of, fact, lasted: Some(*since), stage: Some(*stage) }
}

fn pressure(pressure: &Pressure) -> Option<Bare> {
    let whose = match pressure.of {
        PressureOf::Container => "the container",
        PressureOf::Node => "the node",
        PressureOf::Unknown => return None,
    };
    let shares = [("processor", pressure.cpu), ("memory", pressure.memory), ("disk", pressure.io)];
    let words = |(what, stall): (&str, Option<Stall>)| {
        let Stall { some, full } = stall?;
        Some(format!("{what} some {some:.0} %, all {full:.0} %"))
    };
    let told: Vec<_> = shares.into_iter().filter_map(words).collect();
    let fact = format!("tasks of {whose} that waited, of the last ten seconds: {}", told.join("; "));
    (!told.is_empty()).then(|| Bare::new(Of::Pressure, fact, None))
}

#[cfg(test)]
mod tests {
    use understudy_wire::Epoch;
    use understudy_wire::evidence::{Aged, InFlight, LockHolder, Phase, ProbeError, Sleeper};

    use super::*;

    /// What a manager tells of a server whose volume hangs.
    fn hung() -> Server {
        let sleeper = |id, name: &str, waits_in: &str| Sleeper { id, name: name.into(), waits_in: waits_in.into() };
        let io = Some(Stall { some: 98.2, full: 97.0 });
        Server {
            phase: Phase::Running,
            uuid: None,
            process_state: Some('S'),
            stopped: None,
            threads_in_d: 2,
            sleepers: vec![sleeper(41, "ib_log_flush", "jbd2_log_wait_commit"), sleeper(42, "connection", "")],
            pressure: Some(Pressure { of: PressureOf::Node, io, ..Pressure::default() }),
            lock_holder: None,
            epoch: Epoch(4),
            serving: Some(Epoch(4)),
            read_only: Some(false),
            admin: Some(Probe { selected: Some(200), ..Probe::default() }),
            fenced: None,
            executed: None,
            offsets: None,
            replication: None,
            lsn: Some(Aged { age: 6_100, value: 9_000 }),
            fsync: Some(Fsync { succeeded: Some(6_400), took: Some(3), in_flight: Some(6_200), error: None }),
            volume: None,
            build: None,
            last_error: None,
        }
    }

    fn told(server: &Server) -> Vec<(Of, String, Option<Millis>)> {
        of_server(server).into_iter().map(|bare| (bare.of, bare.fact, bare.lasted)).collect()
    }

    #[test]
    fn of_a_volume_that_hangs_every_fact_has_its_number() {
        let facts = told(&hung());
        let expected = [
            (Of::Process, "state S: mysqld's main thread sleeps, as it does between requests", None),
            (
                Of::Threads,
                "2 threads of mysqld in uninterruptible sleep (D): ib_log_flush (41) in jbd2_log_wait_commit, connection (42) in an \
                 unknown place",
                None,
            ),
            (
                Of::Fsync,
                "a write and fsync on the volume had not come back for 6.2 s; the last one that did took 3 ms, 6.4 s before",
                Some(6_200),
            ),
            (Of::Log, "the log on disk stood at 9000 and had not moved for 6.1 s", Some(6_100)),
            (Of::AdminPort, "answered: the last answer 0.2 s before", None),
            (Of::Pressure, "tasks of the node that waited, of the last ten seconds: disk some 98 %, all 97 %", None),
        ];
        assert_eq!(facts, expected.map(|(of, fact, lasted)| (of, fact.to_owned(), lasted)));
    }

    #[test]
    fn what_stops_a_server_and_what_holds_a_lock_is_told_with_how_long() {
        let holder = LockHolder {
            connection: Some(7),
            user: "reports@10.0.0.9".into(),
            held: 42_000,
            locked: "TABLE store.series".into(),
            statement: "ALTER TABLE series".into(),
        };
        let server = Server {
            phase: Phase::Running,
            process_state: Some('T'),
            stopped: Some(2_500),
            threads_in_d: 0,
            fsync: None,
            lsn: None,
            admin: None,
            pressure: None,
            lock_holder: Some(Aged { age: 100, value: holder }),
            ..hung()
        };
        let facts = told(&server);
        assert_eq!(facts.iter().map(|(of, ..)| *of).collect::<Vec<_>>(), [Of::Process, Of::Lock]);
        assert_eq!(facts[0].1, "state T: mysqld's main thread is stopped by a signal, for 2.5 s at least");
        assert_eq!(facts[0].2, Some(2_500));
        assert_eq!(
            facts[1].1,
            "reports@10.0.0.9 (connection 7) held a lock on TABLE store.series for 42.0 s, its last statement: ALTER TABLE series"
        );
    }

    #[test]
    fn a_probe_says_where_it_fails_for_how_long_and_what_it_had_before() {
        let failing = Failing {
            since: 2_400,
            latest: 100,
            count: 3,
            stage: Stage::Commit,
            error: ProbeError::Timeout,
            unanswered: Some(3_400),
            answered: None,
        };
        let probe = Probe {
            committed: Some(3_500),
            failing: Some(failing),
            in_flight: Some(InFlight { stage: Stage::Commit, age: 700 }),
            ..Probe::default()
        };
        let bare = of_probe(Of::Probe, &probe);
        let words =
            "no answer at commit, 3 times in 2.4 s; the last commit 3.5 s before; an attempt was at commit for 0.7 s";
        assert_eq!((bare.fact.as_str(), bare.lasted, bare.stage), (words, Some(2_400), Some(Stage::Commit)));
        let hangs = Probe { committed: Some(900), in_flight: probe.in_flight, ..Probe::default() };
        let bare = of_probe(Of::Probe, &hangs);
        assert_eq!((bare.lasted, bare.stage), (Some(700), Some(Stage::Commit)));
    }
}
