//! What the driver tells its view and takes from its log, without a server.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use understudy_kafka::fake::MemoryLog;
use understudy_kafka::reader::channel::channel;
use understudy_kafka::{Position, ReaderError};
use understudy_sql::{Db, Login};
use understudy_wire::Epoch;
use understudy_wire::evidence::Failing;

use super::*;
use crate::batch::QUIET;
use crate::guard::{OwnerRow, Presence, Survey, Term};
use crate::lanes::Note;
use crate::log::End;
use crate::placement::Spans;
use crate::route::Change;
use crate::session::{Progress, Stored};
use crate::view::{Decoded, Placed, Record, Tx, ViewError};

/// Counts how often it is told that something is committed.
struct Told(Arc<AtomicUsize>);

#[async_trait]
impl View for Told {
    type Item = ();

    fn decode(&mut self, record: &Record) -> Decoded<()> {
        if record.value.is_empty() { Decoded::reject("empty", "") } else { Decoded::item((), 1) }
    }

    async fn prepare(&mut self, _: &mut Db<'_>, _: &[Placed<()>]) -> Result<(), ViewError> {
        Ok(())
    }

    async fn apply(&mut self, _: &mut Tx<'_>, _: &[Placed<()>]) -> Result<(), ViewError> {
        Ok(())
    }

    fn committed(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct NoLog;

#[async_trait]
impl Log for NoLog {
    async fn assign(&self, _: Vec<Position>) -> Result<u64, ReaderError> {
        Ok(1)
    }
}

fn runner(view: Told) -> Runner<Told, NoLog> {
    let config = Config {
        names: Names { consumer: "test".to_owned(), topic: "lines".to_owned(), schema: "view_test".to_owned() },
        shard: "metrics-0".to_owned(),
        owner: OwnerId::new("pod", "1"),
        limits: Limits::default(),
        deadlines: Deadlines::default(),
        times: Times::default(),
        holes: Holes::Refused,
        start: Start::Placement,
        paused: false,
        paused_partitions: Vec::new(),
    };
    let deps = Deps {
        login: Arc::new(|| Err("there is no server".to_owned())),
        routes: watch::channel(None).1,
        transitions: watch::channel(None).1,
        placement: watch::channel(None).1,
        log: NoLog,
        events: channel(1, 1).1,
        ends: watch::channel(Ends::default()).1,
        dead: DeadLetter::new(Arc::new(MemoryLog::new(1))),
        facts: Arc::new(Facts::new("pod", std::time::Instant::now())),
        board: watch::channel(Snapshot::idle("metrics-0")).0,
        metrics: Metrics::default(),
    };
    let dial = Dialler {
        login: deps.login.clone(),
        owner: config.owner.clone(),
        deadlines: config.deadlines,
        hanging: Mutex::default(),
    };
    let (ahead, _) = ahead(dial, deps.transitions.clone(), deps.routes.clone());
    Runner::new(config, view, deps, ahead)
}

fn record(value: &'static str) -> Record {
    Record {
        generation: 1,
        topic: "lines".into(),
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: Bytes::new(),
        value: Bytes::from_static(value.as_bytes()),
        headers: Vec::new(),
    }
}

#[test]
fn a_view_hears_of_a_commit_only_if_it_was_asked_to_write() {
    for (case, values, times) in [
        ("items", &["a", "b"][..], 1),
        ("an item and a dead letter", &["a", ""], 1),
        ("dead letters alone", &["", ""], 0),
    ] {
        let told = Arc::new(AtomicUsize::new(0));
        let mut runner = runner(Told(told.clone()));
        for value in values {
            let record = record(value);
            let decoded = runner.view.decode(&record);
            runner.batch.push(record, decoded, Instant::now());
        }
        runner.batch_stored(Instant::now(), &BTreeMap::new(), false);
        assert_eq!(told.load(Ordering::Relaxed), times, "{case}");
        assert!(runner.batch.is_empty(), "{case}");
    }
}

/// Takes a record out of the log, as far as a runner without a server can.
fn take(runner: &mut Runner<Told, NoLog>, value: &'static str, now: Instant) {
    let record = record(value);
    let decoded = runner.view.decode(&record);
    runner.batch.push(record, decoded, now);
}

#[test]
fn what_is_stored_first_on_a_primary_and_last_before_it_hands_over_does_not_wait_for_more() {
    let route = Route { primary: ReplicaName::new("a"), address: ([10, 0, 0, 1], 3306).into(), epoch: Epoch(1) };
    let transition = |change| Some(Transition { to: None, change });
    for (case, is_first, transition, in_haste) in [
        ("first on this primary", true, None, true),
        ("one of many", false, None, false),
        ("before it hands over", false, transition(Change::Planned), true),
        ("nobody is written to any more", false, transition(Change::Sudden), false),
    ] {
        let mut runner = runner(Told(Arc::default()));
        runner.deps.transitions = watch::channel(transition).1;
        runner.follow(Some(route.clone()));
        assert_eq!(runner.due(), None, "{case}: nothing was taken");
        if !is_first {
            runner.takeover = None;
        }
        let now = Instant::now();
        take(&mut runner, "a", now);
        let delay = if in_haste { QUIET } else { runner.config.limits.delay };
        assert_eq!(runner.due(), Some(now + delay), "{case}");
    }
}

/// How many takeovers are told of that came to this stage.
fn counted(runner: &Runner<Told, NoLog>, stage: &str) -> u64 {
    let text = runner.deps.metrics.text().unwrap();
    let name = format!("understudy_consumer_takeover_seconds_count{{stage=\"{stage}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_takeover_is_timed_once_it_came_to_a_commit() {
    let mut runner = runner(Told(Arc::default()));
    let route = Route { primary: ReplicaName::new("a"), address: ([10, 0, 0, 1], 3306).into(), epoch: Epoch(1) };
    runner.follow(Some(route));
    for milestone in [Milestone::Connected, Milestone::Owner, Milestone::Positioned] {
        runner.reach(milestone, Instant::now());
    }
    assert_eq!(counted(&runner, "connected"), 0, "it may be no primary at all");
    runner.note_commit(Instant::now(), &BTreeMap::new(), false);
    runner.note_commit(Instant::now(), &BTreeMap::new(), false);
    for stage in ["connected", "owner", "positioned", "committed"] {
        assert_eq!(counted(&runner, stage), 1, "{stage}");
    }
    assert_eq!(counted(&runner, "stored"), 0);
    runner.reach(Milestone::Stored, Instant::now());
    assert_eq!((counted(&runner, "stored"), counted(&runner, "committed")), (1, 1));
}

#[test]
fn a_pod_that_becomes_active_after_another_one_stored_there_is_not_timed_as_a_takeover() {
    for (case, owner, epoch, timed) in [
        ("it waited beside another one", "pod2/1", 1, 0),
        ("its own rows", "pod/1", 1, 1),
        ("rows that come from the primary before", "pod2/1", 0, 1),
    ] {
        let mut runner = runner(Told(Arc::default()));
        let route = Route { primary: ReplicaName::new("a"), address: ([10, 0, 0, 1], 3306).into(), epoch: Epoch(1) };
        runner.follow(Some(route));
        runner.reach(Milestone::Connected, Instant::now());
        for beat in [1, 2] {
            let row = OwnerRow { owner: owner.to_owned(), term: Term(1), beat };
            runner.see_owner(&Survey { epoch: Some(Epoch(epoch)), owner: Some(row), presence: Presence::Connected });
        }
        runner.reach(Milestone::Owner, Instant::now());
        runner.note_commit(Instant::now(), &BTreeMap::new(), false);
        assert_eq!((counted(&runner, "connected"), counted(&runner, "owner")), (timed, timed), "{case}");
        assert!(runner.takeover.is_some(), "{case}: its first batch makes haste all the same");
    }
}

#[test]
fn a_partition_of_which_this_process_took_nothing_is_as_late_as_its_row_says() {
    let [hour_ago, minute_ago] = [3_600_000, 60_000].map(|age| now_ms() - age);
    for (case, stored, reached, end, taken, expected) in [
        ("nothing was taken", Some(5), Some(hour_ago), Some(9), None, Some(3600.0)),
        ("all is stored", Some(9), Some(hour_ago), Some(9), None, Some(0.0)),
        ("the row does not say up to when it is complete", Some(5), None, Some(9), None, None),
        ("there is no row", None, None, Some(9), None, None),
        ("nothing was heard of the log", Some(5), Some(hour_ago), None, None, None),
        ("the batch in hand knows better", Some(5), Some(hour_ago), Some(9), Some("a"), Some(60.0)),
        ("it does if all of it is put aside", Some(5), Some(hour_ago), Some(9), Some(""), Some(60.0)),
    ] {
        let mut runner = runner(Told(Arc::default()));
        let offsets = stored.map(|offset| (0, offset)).into_iter().collect();
        runner.lanes.load(&[(0, Spans::from(0))].into(), &[], &offsets);
        runner.reached_ms.extend(reached.map(|at| (0, at)));
        let end = end.map(|end| (0, End { earliest: 0, end, asked: Instant::now(), asked_ms: 0 }));
        if let Some((_, end)) = &end {
            runner.lanes.heard(0, end.earliest, end.end);
        }
        let ends = Ends { origin: None, partitions: end.into_iter().collect(), trouble: None };
        runner.deps.ends = watch::channel(ends).1;
        if let Some(value) = taken {
            let record = Record { timestamp_ms: Some(minute_ago), ..record(value) };
            let decoded = runner.view.decode(&record);
            runner.batch.push(record, decoded, Instant::now());
        }
        runner.publish();
        let told = runner.deps.board.borrow().partitions[0].lag_seconds;
        assert_eq!(told.map(f64::round), expected, "{case}");
    }
}

#[test]
fn what_a_commit_reached_is_known_of_a_partition_with_records_and_of_an_idle_one() {
    let mut runner = runner(Told(Arc::default()));
    runner.lanes.load(&[(0, Spans::from(0)), (1, Spans::from(0))].into(), &[], &[(0, 5), (1, 5)].into());
    let record = Record { timestamp_ms: Some(1_000), offset: 5, ..record("a") };
    let decoded = runner.view.decode(&record);
    runner.batch.push(record, decoded, Instant::now());
    let row = |next_offset, complete_until_ms| Progress {
        expected: Some(5),
        stored: Stored { next_offset, complete_until_ms, dead_letters: 0, note: Note::default() },
    };
    runner.batch_stored(Instant::now(), &[(0, row(6, 9_000)), (1, row(5, 8_000))].into(), true);
    assert_eq!(runner.reached_ms, [(0, 1_000), (1, 8_000)].into(), "a record's own time, or when all was stored");
}

#[test]
fn a_view_that_rejects_what_is_not_in_the_batch_is_held_and_not_asked_again_at_once() {
    let mut runner = runner(Told(Arc::default()));
    for value in ["a", "b"] {
        let record = record(value);
        let decoded = runner.view.decode(&record);
        runner.batch.push(record, decoded, Instant::now());
    }
    let reject = |index| ViewError::Reject { index, reason: "bad", detail: String::new() };
    assert_eq!(runner.view_failed(reject(1)), Ok(Worked::Canary), "the rest is applied at once");
    let held = runner.view_failed(reject(1));
    assert!(matches!(&held, Ok(Worked::Held(why)) if why.contains("item 1, from 0, of a batch of 1")), "{held:?}");
    assert_eq!((runner.batch.items().len(), runner.batch.letters_of(0)), (1, 1), "nothing else was put aside");
}

const SOON: Duration = Duration::from_secs(30);

/// A port at which the kernel accepts and nobody greets, and the route to it.
async fn silent(primary: &str) -> (TcpListener, Route) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, Route { primary: ReplicaName::new(primary), address, epoch: Epoch(1) })
}

/// A runner with a login, which gives up soon, and where it is told of routes.
fn impatient(route: &Route) -> (Runner<Told, NoLog>, watch::Sender<Option<Route>>) {
    let mut runner = runner(Told(Arc::default()));
    let soon = Duration::from_millis(20);
    runner.config.deadlines = Deadlines { connect: soon, step: soon, prepare: soon };
    runner.deps.login = Arc::new(|| Ok(Login { user: "u".to_owned(), password: "p".to_owned(), tls: None }));
    let (routes, followed) = watch::channel(Some(route.clone()));
    runner.deps.routes = followed;
    (runner, routes)
}

/// Waits until so many failures are told.
async fn is_told(facts: &Facts, count: u32) -> Failing {
    let mut changed = facts.changed();
    let told = async {
        loop {
            let report = facts.report(std::time::Instant::now());
            let failing = report.evidence.into_iter().find_map(|evidence| evidence.probe?.failing);
            if let Some(failing) = failing.filter(|failing| failing.count >= count) {
                return failing;
            }
            changed.changed().await.unwrap();
        }
    };
    timeout(SOON, told).await.expect("failures in time")
}

#[tokio::test]
async fn a_server_that_takes_connections_and_greets_nobody_gets_few_and_is_told_of_all_the_time() {
    let (server, route) = silent("a").await;
    let (runner, _routes) = impatient(&route);
    let facts = runner.deps.facts.clone();
    let _running = AbortOnDropHandle::new(tokio::spawn(drive(runner, CancellationToken::new())));
    let failing = is_told(&facts, 20).await;
    assert_eq!((failing.stage, failing.error), (Stage::Greeting, ProbeError::Timeout));
    let mut taken = Vec::new();
    while let Ok(Ok((connection, _))) = timeout(Duration::from_millis(50), server.accept()).await {
        taken.push(connection);
    }
    // Each attempt looks a second time which stage is silent.
    assert!(taken.len() <= 8, "{}", taken.len());
}

#[tokio::test]
async fn whoever_waits_for_what_hangs_at_one_primary_leaves_for_the_next_at_once() {
    let ((present, here), (next, there)) = (silent("a").await, silent("b").await);
    let (mut runner, routes) = impatient(&here);
    runner.hanging.about(Some(&here));
    // Enough of them for the longest patience.
    for _ in 0..12 {
        runner.hanging.keep(Stage::Commit, Box::pin(std::future::pending::<()>()));
    }
    let facts = runner.deps.facts.clone();
    let _running = AbortOnDropHandle::new(tokio::spawn(drive(runner, CancellationToken::new())));
    is_told(&facts, 3).await;
    assert!(timeout(Duration::from_millis(50), present.accept()).await.is_err(), "none is opened meanwhile");
    routes.send_replace(Some(there));
    timeout(SOON, next.accept()).await.expect("it is gone").unwrap();
}
