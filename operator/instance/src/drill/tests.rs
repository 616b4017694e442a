use std::path::Path;
use std::process::Command;

use tokio_util::task::TaskTracker;
use understudy_mysql::fake::Fake;
use understudy_mysql::instance::{EpochRow, Status};
use understudy_wire::{Epoch, ReplicaName};

use super::*;
use crate::child::Reaper;
use crate::config::tests::sample;

const LONG: Duration = Duration::from_secs(600);

/// Waits for the state of a process, however long that takes: a hang is what the test would fail with.
fn until_state(process: &Process, wanted: &[char]) {
    while !proc::state(process.pid()).is_some_and(|state| wanted.contains(&state.main)) {
        std::thread::yield_now();
    }
}

fn sleeper() -> Process {
    Reaper::new().spawn(Command::new("sleep").arg("600")).unwrap().0
}

#[test]
fn a_frozen_process_stands_still_until_it_is_let_go() {
    let process = sleeper();
    let (release, released) = channel();
    let (begun, mut told) = oneshot::channel();
    let frozen = process.clone();
    let thread = std::thread::spawn(move || freeze(&frozen, Instant::now() + LONG, &released, begun));
    until_state(&process, &['T']);
    while told.try_recv().is_err() {
        std::thread::yield_now();
    }
    drop(release);
    thread.join().unwrap();
    until_state(&process, &['S', 'R']);
    process.signal(Signal::KILL);
}

#[test]
fn a_frozen_process_runs_again_at_the_limit_though_nobody_lets_go() {
    let process = sleeper();
    let (_release, released) = channel();
    let (begun, _told) = oneshot::channel();
    freeze(&process, Instant::now(), &released, begun);
    until_state(&process, &['S', 'R']);
    process.signal(Signal::KILL);
}

#[test]
fn a_process_that_writes_no_log_cannot_be_wedged_and_runs_on() {
    let process = sleeper();
    let (_release, released) = channel();
    let (begun, mut told) = oneshot::channel();
    wedge(&process, Instant::now() + LONG, &released, begun);
    assert!(matches!(told.try_recv(), Ok(Err(HoldError::NoLogThreads))));
    until_state(&process, &['S', 'R']);
    process.signal(Signal::KILL);
}

fn order(epoch: u64, fault: Fault) -> DrillOrder {
    DrillOrder { epoch: Epoch(epoch), run: "weekly-1".to_owned(), fault, hold: 600_000 }
}

fn heal() -> HealOrder {
    HealOrder { epoch: Epoch(3), run: "weekly-1".to_owned() }
}

/// A replica that allows these faults; nothing runs there and nothing is known.
fn replica(dir: &Path, allowed: &[Fault], server: Arc<Fake>) -> (Drills, Arc<Shared>, Arc<Host>) {
    let mut config = sample(dir);
    config.drills = allowed.to_vec();
    let config = Arc::new(config);
    let shared = Arc::new(Shared::new(ReplicaName::new("metrics-0-k7x2")));
    let host = Arc::new(Host::new(config.clone(), shared.clone(), Reaper::default(), TaskTracker::new()));
    (Drills::new(shared.clone(), config, host.clone(), server), shared, host)
}

fn serves(shared: &Shared, epoch: u64) {
    shared.update(|facts| {
        let status = Status { uuid: String::new(), read_only: false, executed: Default::default(), lsn: None };
        facts.take_status(status, Instant::now());
        facts.take_epoch_row(Some(EpochRow { epoch: Epoch(epoch), primary: shared.me.clone() }));
        facts.life = crate::facts::Life::Running;
    });
}

#[tokio::test]
async fn a_fault_that_is_told_to_end_while_it_is_being_done_is_not_held() {
    fn end_the_run(drills: &Drills) {
        drills.end(&heal());
    }
    type Case = (&'static str, fn(&Drills));
    let cases: [Case; 2] = [("its run ends", end_the_run), ("the pod stops", Drills::let_go)];
    for (case, end) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (drills, shared, host) = replica(dir.path(), &[Fault::Freeze], Arc::new(Fake::new()));
        let process = sleeper();
        host.take_in(process.clone());
        serves(&shared, 3);
        let order = order(3, Fault::Freeze);
        let (struck, ()) = futures::future::join(drills.strike(&order), async { end(&drills) }).await;
        match struck {
            Ok(struck) => {
                assert_eq!(struck, Struck { fault: Fault::Freeze, before: false }, "{case}");
                let over = drills.ledger().latest.as_ref().and_then(Latest::ending);
                assert!(over.is_some(), "{case}: it is held");
                over.unwrap().cancelled().await;
            }
            // It was still being written down.
            Err(refused) => assert!(refused.to_string().contains("told to end before it struck"), "{case}: {refused}"),
        }
        until_state(&process, &['S', 'R']);
        process.signal(Signal::KILL);
    }
}

#[tokio::test]
async fn an_order_that_comes_after_its_run_was_told_to_end_strikes_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (drills, shared, host) = replica(dir.path(), &[Fault::Kill], Arc::new(Fake::new()));
    let process = sleeper();
    host.take_in(process.clone());
    serves(&shared, 3);
    drills.heal(&heal()).await.unwrap();
    let refused = drills.strike(&order(3, Fault::Kill)).await.unwrap_err();
    assert!(refused.to_string().contains("told to end before it struck"), "{refused}");
    process.signal(Signal::KILL);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_replaced_while_a_wedge_is_prepared_is_not_struck() {
    let dir = tempfile::tempdir().unwrap();
    let server = Arc::new(Fake::new());
    server.slow_down(ASK_WITHIN / 2);
    let (drills, shared, host) = replica(dir.path(), &[Fault::Wedge], server);
    let process = sleeper();
    host.take_in(process.clone());
    serves(&shared, 3);
    let order = order(3, Fault::Wedge);
    // By a clock that is paused: when the run is written down, and before the server has answered.
    let learn = async {
        tokio::time::sleep(ASK_WITHIN / 4).await;
        shared.update(|facts| facts.known = Epoch(4));
    };
    let (struck, ()) = futures::future::join(drills.strike(&order), learn).await;
    assert_eq!(struck, Err(Refusal::StaleEpoch { given: Epoch(3), known: Epoch(4) }));
    process.signal(Signal::KILL);
}

#[tokio::test]
async fn only_a_server_that_serves_under_the_epoch_of_the_order_is_struck_and_only_as_it_allows() {
    let dir = tempfile::tempdir().unwrap();
    let (drills, shared, _host) = replica(dir.path(), &[Fault::Kill], Arc::new(Fake::new()));

    let refused = drills.strike(&order(3, Fault::Freeze)).await.unwrap_err();
    assert!(matches!(refused, Refusal::NotAllowed { .. }), "{refused}");
    let refused = drills.strike(&order(3, Fault::Kill)).await.unwrap_err();
    assert!(refused.to_string().contains("does not take writes under epoch 3"), "{refused}");

    serves(&shared, 3);
    for (case, epoch, says) in [
        ("an epoch that has passed", 2, "epoch 3 is known"),
        ("an epoch that nobody serves under", 4, "does not take writes under epoch 4"),
        ("the right one, and no process", 3, "mysqld does not run"),
    ] {
        let refused = drills.strike(&order(epoch, Fault::Kill)).await.unwrap_err();
        assert!(refused.to_string().contains(says), "{case}: {refused}");
    }
    drills.heal(&HealOrder { epoch: Epoch(1), run: "another".to_owned() }).await.unwrap();
}

#[tokio::test]
async fn what_is_told_to_let_go_has_let_go_when_that_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (drills, shared, host) = replica(dir.path(), &[Fault::Freeze], Arc::new(Fake::new()));
    let process = sleeper();
    host.take_in(process.clone());
    serves(&shared, 3);
    drills.strike(&order(3, Fault::Freeze)).await.unwrap();
    until_state(&process, &['T']);
    drills.heal(&heal()).await.unwrap();
    assert!(!drills.ledger().latest.as_ref().is_some_and(Latest::is_held));
    until_state(&process, &['S', 'R']);
    process.signal(Signal::KILL);
}

#[tokio::test]
async fn a_manager_that_is_started_again_does_no_run_twice_and_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (drills, shared, host) = replica(dir.path(), &[Fault::Freeze], Arc::new(Fake::new()));
    let process = sleeper();
    host.take_in(process.clone());
    serves(&shared, 3);
    drills.strike(&order(3, Fault::Freeze)).await.unwrap();
    // The kernel ends everything with a manager; here somebody must.
    process.signal(Signal::KILL);

    let (again, shared, host) = replica(dir.path(), &[Fault::Freeze], Arc::new(Fake::new()));
    let process = sleeper();
    host.take_in(process.clone());
    serves(&shared, 3);
    let struck = again.strike(&order(3, Fault::Freeze)).await;
    assert_eq!(struck, Ok(Struck { fault: Fault::Freeze, before: true }));
    until_state(&process, &['S', 'R']);
    again.heal(&heal()).await.unwrap();
    process.signal(Signal::KILL);
}

#[tokio::test]
async fn a_run_that_cannot_be_written_down_strikes_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (drills, shared, host) = replica(dir.path(), &[Fault::Kill], Arc::new(Fake::new()));
    let process = sleeper();
    host.take_in(process.clone());
    serves(&shared, 3);
    std::fs::create_dir(dir.path().join("drill.json.new")).unwrap();
    let refused = drills.strike(&order(3, Fault::Kill)).await.unwrap_err();
    assert!(refused.to_string().starts_with("remember the run: "), "{refused}");
    until_state(&process, &['S', 'R']);
    process.signal(Signal::KILL);
}
