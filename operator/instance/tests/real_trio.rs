//! Three managers as plain processes, each with a real mysqld, driven through the instance API: the life of a shard without Kubernetes.
#![allow(clippy::unwrap_used, reason = "a test file: clippy only sees functions marked as tests")]

#[path = "../../mysql/tests/mysqld/mod.rs"]
mod mysqld;
mod stage;

use std::time::Duration;

use mysql_async::prelude::Queryable;
use stage::{Actor, Stage};
use understudy_wire::evidence::{Fence, Phase, ProbeError};
use understudy_wire::order::{Fault, Fenced, Refusal, Struck};
use understudy_wire::stacks::Stacks;
use understudy_wire::{Epoch, evidence};

const LONG: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(20);

/// A shard of three: `a` initialised and promoted under epoch 1, `b` and `c` cloned from it and following it.
async fn shard(stage: &Stage) -> [Actor; 3] {
    let [a, b, c] = [stage.enter("a", 1).await, stage.enter("b", 2).await, stage.enter("c", 3).await];
    a.initialise(1).await.unwrap();
    a.until("a runs", LONG, |server| server.phase == Phase::Running).await;
    a.promote(1).await.unwrap();
    for standby in [&b, &c] {
        standby.clone_from(&a, 1).await.unwrap();
    }
    for standby in [&b, &c] {
        standby.until("a standby runs", LONG, |server| server.phase == Phase::Running).await;
        standby.follow(&a, 1).await.unwrap();
        standby
            .until("a standby follows", SOON, |server| {
                server.replication.as_ref().is_some_and(|r| r.value.receiving && r.value.applying)
            })
            .await;
    }
    stage.introduce([&a, &b, &c], &a, 1).await;
    [a, b, c]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_lives_through_the_death_of_its_primary() {
    let stage = Stage::set();
    let [a, b, c] = shard(&stage).await;

    // What is written on the primary arrives on the standbys, and everybody sees the primary commit.
    a.write("CREATE DATABASE store").await;
    a.write("CREATE TABLE store.t (id INT PRIMARY KEY)").await;
    a.write("INSERT INTO store.t VALUES (1), (2), (3)").await;
    let written = a.server().await.executed.unwrap().value;
    for standby in [&b, &c] {
        standby
            .until("writes arrive", SOON, |server| server.executed.as_ref().is_some_and(|e| e.value.contains(&written)))
            .await;
        let server = standby.server().await;
        assert_eq!((server.read_only, server.serving), (Some(true), None));
    }
    for observer in [&a, &b, &c] {
        observer
            .until_sees("the primary commits", &a, SOON, |probe| probe.committed.is_some_and(|age| age < 1000))
            .await;
    }
    assert_eq!(a.server().await.serving, Some(Epoch(1)));

    // A restart of an order changes nothing.
    assert_eq!(a.promote(1).await.unwrap().epoch, Epoch(1));
    b.follow(&a, 1).await.unwrap();
    a.initialise(1).await.unwrap();

    // The primary's mysqld dies: its manager says so at once and does not start it again; the others see it refused.
    a.signal_mysqld("KILL").await;
    a.until("the end is told", SOON, |server| matches!(server.phase, Phase::Exited { signal: Some(9), .. })).await;
    for standby in [&b, &c] {
        standby
            .until_sees("refused", &a, SOON, |probe| {
                probe.failing.as_ref().is_some_and(|f| matches!(f.error, ProbeError::Refused { .. }))
            })
            .await;
    }

    // b is promoted, c follows it, and what was written is there.
    assert_eq!(a.fence(2, false).await.unwrap(), Fenced { executed: None, killed: false });
    let promoted = b.promote(2).await.unwrap();
    assert!(promoted.executed.contains(&written));
    assert_eq!(b.server().await.serving, Some(Epoch(2)));
    c.follow(&b, 2).await.unwrap();
    stage.introduce([&a, &b, &c], &b, 2).await;
    b.write("INSERT INTO store.t VALUES (4)").await;
    let written = b.server().await.executed.unwrap().value;
    c.until("the new primary's write arrives", SOON, |server| {
        server.executed.as_ref().is_some_and(|e| e.value.contains(&written))
    })
    .await;
    assert_eq!(c.count("SELECT COUNT(*) FROM store.t").await, 4);

    // An order that reached another than it is for changes nothing there.
    let misled = c.promote_another(&a, 3).await.unwrap_err();
    assert!(matches!(misled, Refusal::NotMine { .. }), "{misled}");
    assert_eq!(c.server().await.read_only, Some(true));
    assert_eq!(c.server().await.epoch, Epoch(2));

    // Orders of an epoch that has passed are refused by everybody.
    for actor in [&b, &c] {
        let refused = actor.promote(1).await.unwrap_err();
        assert_eq!(refused, Refusal::StaleEpoch { given: Epoch(1), known: Epoch(2) });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_lives_through_a_switchover_and_a_frozen_primary() {
    let stage = Stage::set();
    let [a, b, c] = shard(&stage).await;

    // Planned: the old primary refuses writes and says how far it is; the new one has all of it; the old one follows.
    let fenced = a.fence(2, true).await.unwrap();
    assert!(!fenced.killed);
    let last = fenced.executed.unwrap();
    a.until("the fence is told", SOON, |server| {
        matches!(server.fenced, Some(Fence::Epoch { epoch: Epoch(2), .. })) && server.serving.is_none()
    })
    .await;
    let refused = a.promote(2).await.unwrap_err();
    assert!(matches!(refused, Refusal::WrongPhase { .. }), "{refused}");
    assert!(b.promote_after(2, Some(last.clone())).await.unwrap().executed.contains(&last));
    for standby in [&a, &c] {
        standby.follow(&b, 2).await.unwrap();
        standby
            .until("the old primary follows", SOON, |server| {
                server.fenced.is_none() && server.replication.as_ref().is_some_and(|r| r.value.receiving)
            })
            .await;
    }
    stage.introduce([&a, &b, &c], &b, 2).await;
    c.until_sees("the new primary commits", &b, SOON, |probe| probe.committed.is_some_and(|age| age < 1000)).await;

    // Frozen: its manager and the standbys say at which stage it is silent; the manager itself goes on answering.
    b.signal_mysqld("STOP").await;
    let silent = |probe: &evidence::Probe| {
        probe.failing.as_ref().is_some_and(|f| f.error == ProbeError::Timeout && f.stage == evidence::Stage::Greeting)
    };
    for observer in [&a, &b, &c] {
        observer.until_sees("no greeting", &b, SOON, silent).await;
    }
    let server = b
        .until("the stop is seen", SOON, |server| server.process_state == Some('T') && server.read_only.is_none())
        .await;
    assert_eq!(server.phase, Phase::Running);
    assert!(server.executed.is_some(), "the last reading stays");
    let stacks: Stacks = b.client.ask(&b.name, "/v1/stacks", SOON).await.unwrap();
    assert!(stacks.complete && stacks.threads.iter().all(|t| t.state == 'T'), "{stacks:?}");

    // With a stream of the operator its manager leaves it to the operator to tell it of another primary.
    let mut stream = b.watch();
    stream.until("the operator listens", SOON, |_| true).await;

    // c takes over without waiting for b; fencing b ends in a kill within its bound.
    c.promote(3).await.unwrap();
    a.follow(&c, 3).await.unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(b.fence(3, false).await.unwrap(), Fenced { executed: None, killed: true });
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    b.until("the kill is told", SOON, |server| matches!(server.phase, Phase::Exited { signal: Some(9), .. })).await;
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_thaws_after_another_took_over_asks_its_peers_and_serves_nobody_any_more() {
    const WRITE: &str =
        "INSERT INTO understudy.heartbeat VALUES ('client', 1, 1) ON DUPLICATE KEY UPDATE seq = seq + 1";
    let stage = Stage::set();
    let [a, b, c] = shard(&stage).await;

    // A client of its own and the operator's stream are connected, and stay so through the pause.
    let mut client = a.connect(understudy_mysql::schema::PROBE).await.unwrap();
    client.query_drop(WRITE).await.unwrap();
    let mut stream = a.watch();
    stream.until("a serves", SOON, |server| server.serving == Some(Epoch(1))).await;
    a.signal_all("STOP").await;
    // No primary is replaced for a shorter silence.
    let silent = |probe: &evidence::Probe| {
        let is_silence = |f: &evidence::Failing| f.error == ProbeError::Timeout && f.stage == evidence::Stage::Greeting;
        probe.failing.as_ref().is_some_and(|f| is_silence(f) && f.since >= 2_000)
    };
    for standby in [&b, &c] {
        standby.until_sees("no greeting for two seconds", &a, SOON, silent).await;
    }
    b.promote(2).await.unwrap();
    c.follow(&b, 2).await.unwrap();

    // Nobody gives it an order.
    a.signal_all("CONT").await;
    a.until("the fence is told", SOON, |server| {
        matches!(server.fenced, Some(Fence::Epoch { epoch: Epoch(2), .. })) && server.serving.is_none()
    })
    .await;
    assert!(client.query_drop(WRITE).await.is_err(), "a connection from before the pause is cut");
    assert!(!a.can_write().await);
    assert!(b.can_write().await);
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_starts_again_brings_its_data_up_read_only_and_waits_for_orders() {
    let stage = Stage::set();
    let a = stage.enter("a", 1).await;

    // An empty volume waits; nobody without the right intent fills it, and nothing but a build is taken.
    assert_eq!(a.server().await.phase, Phase::Empty);
    assert!(matches!(a.promote(1).await, Err(Refusal::WrongPhase { .. })));
    assert!(matches!(a.initialise_as("another-uid", 1).await, Err(Refusal::NotMine { .. })));
    assert_eq!(a.server().await.phase, Phase::Empty);
    a.initialise(1).await.unwrap();
    a.until("a runs", LONG, |server| server.phase == Phase::Running).await;
    a.promote(5).await.unwrap();

    // SIGTERM: writes are refused, mysqld ends properly, the manager ends with success.
    let (a, ended) = a.ask_to_stop(LONG).await;
    assert!(ended.success(), "{ended:?}");
    let a = stage.enter_again(a).await;
    a.until("a runs again", LONG, |server| server.phase == Phase::Running).await;
    let server =
        a.until("its epoch is read", SOON, |server| server.epoch == Epoch(5) && server.read_only.is_some()).await;
    assert_eq!((server.read_only, server.serving), (Some(true), None));
    assert!(server.replication.is_none());
    assert!(matches!(a.promote(4).await, Err(Refusal::StaleEpoch { given: Epoch(4), known: Epoch(5) })));
    a.promote(6).await.unwrap();
    assert_eq!(a.server().await.serving, Some(Epoch(6)));

    // SIGKILL of the manager in the middle: the data is as it was.
    let a = stage.enter_again(a.kill().await).await;
    a.until("a runs after the kill", LONG, |server| server.phase == Phase::Running && server.epoch == Epoch(6)).await;

    // A volume of another shard is not touched.
    let a = a.kill().await;
    let a = stage.enter_again_as(a, "another-uid").await;
    let server = a.until("the volume is looked at", SOON, |server| server.phase != Phase::Starting).await;
    assert!(matches!(server.phase, Phase::Unusable { .. }), "{:?}", server.phase);
    assert!(matches!(a.initialise_as("another-uid", 7).await, Err(Refusal::WrongPhase { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_nobody_answers_stops_taking_writes_until_it_is_told_to() {
    let stage = Stage::set();
    let a = stage.enter("a", 1).await;
    a.initialise(1).await.unwrap();
    a.until("a runs", LONG, |server| server.phase == Phase::Running).await;
    a.promote(1).await.unwrap();
    let mut seen = a.watch();
    seen.until("a serves", SOON, |server| server.serving == Some(Epoch(1))).await;

    // The operator's stream alone is enough.
    stage.silence_api_server();
    seen.until("a serves with its API server gone", SOON, |server| {
        server.serving == Some(Epoch(1)) && server.fenced.is_none()
    })
    .await;

    // Nobody: the stream is closed, the API server is gone, there are no peers.
    drop(seen);
    tokio::time::timeout(SOON, async {
        while a.can_write().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    let server = a.until("the fence is told", SOON, |server| server.fenced.is_some()).await;
    assert!(matches!(server.fenced, Some(Fence::Isolated { .. })), "{:?}", server.fenced);
    a.promote(1).await.unwrap();
    let server = a.server().await;
    assert_eq!((server.serving, server.fenced), (Some(Epoch(1)), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_goes_over_to_another_authority_without_being_restarted() {
    let stage = Stage::set();
    let a = stage.enter("a", 1).await;
    a.initialise(1).await.unwrap();
    a.until("a runs", LONG, |server| server.phase == Phase::Running).await;
    a.promote(1).await.unwrap();

    stage.change_authority(&a);
    // Clients trust the new authority alone, so mysqld has a certificate of it once they get in.
    tokio::time::timeout(SOON, async {
        while a.connect(understudy_mysql::schema::READER).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    let changed = std::time::Instant::now();
    a.until_sees("commits over connections that are made now", &a, SOON, |probe| {
        probe.committed.is_some_and(|age| u128::from(age) < changed.elapsed().as_millis())
    })
    .await;
    a.promote(2).await.unwrap();
    assert_eq!(a.server().await.serving, Some(Epoch(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_from_nobody_fails_and_leaves_the_volume_as_it_was() {
    let stage = Stage::set();
    let a = stage.enter("a", 1).await;
    a.clone_from_address("nobody", mysqld::free_port(), 1).await.unwrap();
    a.until("the clone is under way", SOON, |server| server.phase == Phase::Building).await;
    let server = a.until("the clone fails", LONG, |server| server.phase == Phase::Empty).await;
    assert!(server.build.unwrap().error.is_some());
    a.initialise(1).await.unwrap();
    a.until("a runs", LONG, |server| server.phase == Phase::Running).await;
    let mut client = a.connect(understudy_mysql::schema::READER).await.unwrap();
    let found: Option<u64> = client.query_first("SELECT COUNT(*) FROM understudy.epoch").await.unwrap();
    assert_eq!(found, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wedged_server_answers_and_commits_nothing_until_it_is_let_go() {
    /// Much longer than the test may take.
    const FOR_EVER: Duration = Duration::from_secs(600);
    let stage = Stage::set();
    let a = stage.enter("a", 1).await;
    a.initialise(1).await.unwrap();
    a.until("a runs", LONG, |server| server.phase == Phase::Running).await;
    a.promote(1).await.unwrap();
    a.until("a serves", SOON, |server| server.serving == Some(Epoch(1))).await;
    a.write("CREATE DATABASE store").await;
    a.write("CREATE TABLE store.t (id INT PRIMARY KEY)").await;

    // What is not allowed, or is for another epoch, does nothing.
    let refused = a.drill("run-0", 1, Fault::Freeze, FOR_EVER).await.unwrap_err();
    assert!(matches!(refused, Refusal::NotAllowed { .. }), "{refused}");
    let refused = a.drill("run-0", 2, Fault::Wedge, FOR_EVER).await.unwrap_err();
    assert!(matches!(refused, Refusal::WrongPhase { .. }), "{refused}");

    // At the limit it ends by itself: a commit is there, and not sooner.
    let (begun, hold) = (std::time::Instant::now(), Duration::from_secs(4));
    let struck = a.drill("run-1", 1, Fault::Wedge, hold).await.unwrap();
    assert_eq!(struck, Struck { fault: Fault::Wedge, before: false });
    let mut write = Box::pin(a.write("INSERT INTO store.t VALUES (1)"));
    tokio::select! {
        () = &mut write => panic!("a commit came to its end while the log is not written"),
        found = a.count("SELECT COUNT(*) FROM store.t") => assert_eq!(found, 0),
    }
    tokio::time::timeout(LONG, write).await.unwrap();
    assert!(begun.elapsed() >= hold, "{:?}", begun.elapsed());
    assert_eq!(a.drill("run-1", 1, Fault::Wedge, hold).await.unwrap(), Struck { fault: Fault::Wedge, before: true });
    a.write("INSERT INTO store.t VALUES (2)").await;

    // Long before the limit, when it is told to let go.
    a.drill("run-2", 1, Fault::Wedge, FOR_EVER).await.unwrap();
    let mut write = Box::pin(a.write("INSERT INTO store.t VALUES (3)"));
    tokio::select! {
        () = &mut write => panic!("a commit came to its end while the log is not written"),
        found = a.count("SELECT COUNT(*) FROM store.t") => assert_eq!(found, 2),
    }
    let refused = a.drill("run-3", 1, Fault::Kill, FOR_EVER).await.unwrap_err();
    assert!(refused.to_string().contains("another run is still held"), "{refused}");
    a.heal("run-1", 1).await.unwrap();
    a.heal("run-2", 1).await.unwrap();
    tokio::time::timeout(LONG, write).await.unwrap();

    // A server that is killed while it is wedged ends at once: nothing that was stopped stands in the way.
    a.drill("run-4", 1, Fault::Wedge, FOR_EVER).await.unwrap();
    a.signal_mysqld("KILL").await;
    a.until("the end is told", SOON, |server| matches!(server.phase, Phase::Exited { signal: Some(9), .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wedge_does_not_outlive_the_manager_that_holds_it() {
    let stage = Stage::set();
    let a = stage.enter("a", 1).await;
    a.initialise(1).await.unwrap();
    a.until("a runs", LONG, |server| server.phase == Phase::Running).await;
    a.promote(1).await.unwrap();
    a.until("a serves", SOON, |server| server.serving == Some(Epoch(1))).await;
    a.write("CREATE DATABASE store").await;
    a.write("CREATE TABLE store.t (id INT PRIMARY KEY)").await;
    a.drill("run-1", 1, Fault::Wedge, Duration::from_secs(600)).await.unwrap();
    let mut write = Box::pin(a.write("INSERT INTO store.t VALUES (1)"));
    tokio::select! {
        () = &mut write => panic!("a commit came to its end while the log is not written"),
        found = a.count("SELECT COUNT(*) FROM store.t") => assert_eq!(found, 0),
    }
    a.kill_manager();
    tokio::time::timeout(LONG, write).await.unwrap();
}
