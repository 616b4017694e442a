//! Orders against a server in memory: what is admitted, what is done, and how long anything may take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;
use understudy_mysql::fake::Fake;
use understudy_mysql::instance::{EpochRow, Source};
use understudy_mysql::probe::Account;
use understudy_wire::stacks::Stacks;
use understudy_wire::{GtidSet, ReplicaName};

use super::*;
use crate::config::tests::sample;

const SOON: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Corpse {
    killed: AtomicBool,
    /// The kernel keeps whoever reads what its threads do waiting.
    hidden: AtomicBool,
}

impl Body for Corpse {
    fn stacks(&self, _within: Duration) -> Stacks {
        while self.hidden.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Stacks::default()
    }

    fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
    }
}

struct Scene {
    shared: Arc<Shared>,
    server: Arc<Fake>,
    body: Arc<Corpse>,
    desk: Desk,
    _worker: AbortOnDropHandle<()>,
    _dir: TempDir,
}

/// A replica whose server runs, read-only.
fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let config = Arc::new(sample(dir.path()));
    let shared = Arc::new(Shared::new(config.replica.clone()));
    shared.update(|facts| facts.life = Life::Running);
    let (server, body) = (Arc::new(Fake::new()), Arc::new(Corpse::default()));
    let (desk, worker) = open(shared.clone(), config, Watch::default(), server.clone(), body.clone());
    let worker = AbortOnDropHandle::new(tokio::spawn(worker.run(CancellationToken::new())));
    Scene { shared, server, body, desk, _worker: worker, _dir: dir }
}

impl Scene {
    async fn promote(&self, epoch: u64, within: u64) -> Result<Done, Refusal> {
        self.promote_after(epoch, within, None).await
    }

    async fn promote_after(&self, epoch: u64, within: u64, after: Option<GtidSet>) -> Result<Done, Refusal> {
        self.desk.submit(Work::Promote(Promote { epoch: Epoch(epoch), apply_relay_log_within: within, after })).await
    }

    async fn fence(&self, epoch: u64) -> Result<Done, Refusal> {
        self.fence_as(epoch, false).await
    }

    async fn fence_as(&self, epoch: u64, planned: bool) -> Result<Done, Refusal> {
        self.desk.submit(Work::Fence(FenceOrder { epoch: Epoch(epoch), planned })).await
    }

    async fn follow(&self, source: &str, epoch: u64) -> Result<Done, Refusal> {
        let order =
            Follow { epoch: Epoch(epoch), source: ReplicaName::new(source), address: "10.0.0.9:3306".to_owned() };
        self.desk.submit(Work::Follow(order)).await
    }

    /// A standby that has received what it has not applied.
    async fn behind(&self) -> GtidSet {
        let account = Account { user: "understudy_repl".to_owned(), password: "secret".to_owned() };
        let source = Source { address: ([10, 0, 0, 9], 3306).into(), account, ca_file: "ca.crt".to_owned() };
        self.server.follow(&source, SOON).await.unwrap();
        let received: GtidSet = "00000000-0000-0000-0000-0000000000ff:1-9".parse().unwrap();
        self.server.receive(&received);
        received
    }

    async fn is_read_only(&self) -> bool {
        self.server.status(SOON).await.unwrap().read_only
    }
}

fn promoted(done: Result<Done, Refusal>) -> Promoted {
    match done {
        Ok(Done::Promoted(promoted)) => promoted,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_promotion_applies_what_was_received_and_then_serves() {
    let scene = scene();
    let received = scene.behind().await;
    let (done, ()) = tokio::join!(scene.promote(2, 5000), async { scene.server.apply() });
    assert!(promoted(done).executed.contains(&received));
    assert!(!scene.is_read_only().await);
    assert!(scene.server.replication(SOON).await.unwrap().is_some(), "nothing is tidied beside the first commits");
    long_after().await;
    assert_eq!(scene.server.replication(SOON).await, Ok(None));
    let row = EpochRow { epoch: Epoch(2), primary: scene.shared.me.clone() };
    assert_eq!(scene.server.epoch(SOON).await, Ok(Some(row)));
    assert_eq!(scene.shared.serving(), Some(Epoch(2)));
}

/// Until what a promotion leaves is done, if nothing else comes.
async fn long_after() {
    tokio::time::pause();
    tokio::time::sleep(2 * promote::TIDY_AFTER).await;
    tokio::time::resume();
}

#[tokio::test]
async fn who_follows_soon_after_its_promotion_keeps_its_source() {
    let scene = scene();
    promoted(scene.promote(2, 0).await);
    scene.fence(3).await.unwrap();
    assert_eq!(scene.follow("metrics-0-zzzz", 3).await, Ok(Done::Followed));
    long_after().await;
    assert!(scene.server.replication(SOON).await.unwrap().is_some());
}

#[tokio::test]
async fn a_promotion_waits_for_the_relay_log_no_longer_than_its_bound() {
    let scene = scene();
    let received = scene.behind().await;
    let done = promoted(scene.promote(2, 30).await);
    assert!(!done.executed.contains(&received));
    assert_eq!(scene.shared.serving(), Some(Epoch(2)));
}

#[tokio::test]
async fn a_planned_promotion_goes_on_receiving_until_it_has_everything() {
    let scene = scene();
    let received = scene.behind().await;
    let rest: GtidSet = "00000000-0000-0000-0000-0000000000ff:1-12".parse().unwrap();
    scene.server.apply();
    let arrives = async {
        assert!(scene.server.replication(SOON).await.unwrap().is_some_and(|r| r.receiving));
        scene.server.receive(&rest);
        scene.server.apply();
    };
    let (done, ()) = tokio::join!(scene.promote_after(2, 5000, Some(rest.clone())), arrives);
    let executed = promoted(done).executed;
    assert!(executed.contains(&rest) && executed.contains(&received), "{executed}");
}

#[tokio::test]
async fn a_planned_promotion_without_the_rest_is_refused_and_discards_nothing() {
    let scene = scene();
    let received = scene.behind().await;
    let rest: GtidSet = "00000000-0000-0000-0000-0000000000ff:1-12".parse().unwrap();
    let refused = scene.promote_after(2, 30, Some(rest)).await;
    assert!(matches!(&refused, Err(Refusal::Failed { step, .. }) if step == "get the rest"), "{refused:?}");
    assert!(scene.is_read_only().await);
    let replication = scene.server.replication(SOON).await.unwrap().unwrap();
    assert!(replication.receiving && replication.applying && replication.received == received, "{replication:?}");
    assert_eq!(scene.server.epoch(SOON).await, Ok(None));
}

/// What a standby has of its source.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    /// There is no source.
    None,
    Up,
    Down,
}

#[tokio::test]
async fn a_promotion_asks_nothing_that_does_not_decide_anything() {
    let end = ["take writes", "write epoch", "status"];
    let applier = ["stop applying", "replication"];
    let planned = ["epoch", "wait for execution", "replication"];
    for (case, link, is_planned, expected) in [
        ("no source", Link::None, false, vec!["epoch", "replication"]),
        (
            "sudden",
            Link::Up,
            false,
            [&["epoch", "replication", "stop receiving", "replication", "wait for execution"][..], &applier].concat(),
        ),
        // The end of an attempt to connect would be waited for.
        (
            "sudden, and the source is gone",
            Link::Down,
            false,
            [&["epoch", "replication", "wait for execution"][..], &applier].concat(),
        ),
        // The source was told to stop, and all of it is executed: there is nothing to look for.
        ("planned", Link::Up, true, [&planned[..], &["stop receiving"], &applier].concat()),
        ("planned, and the source is gone", Link::Down, true, [&planned[..], &applier].concat()),
    ] {
        let scene = scene();
        let mut after = None;
        if link != Link::None {
            let received = scene.behind().await;
            scene.server.apply();
            after = is_planned.then_some(received);
        }
        if link == Link::Down {
            scene.server.lose_source();
        }
        scene.server.asked();
        promoted(scene.promote_after(2, 5000, after).await);
        assert_eq!(scene.server.asked(), [&expected[..], &end].concat(), "{case}");
        assert_eq!(scene.shared.serving(), Some(Epoch(2)), "{case}");
    }
}

#[tokio::test]
async fn what_a_source_sends_that_comes_back_after_a_promotion_is_not_applied_and_is_thrown_away() {
    let scene = scene();
    let received = scene.behind().await;
    scene.server.apply();
    scene.server.lose_source();
    let executed = promoted(scene.promote(2, 5000).await).executed;
    assert!(executed.contains(&received));

    let later: GtidSet = "00000000-0000-0000-0000-0000000000ff:1-12".parse().unwrap();
    scene.server.receive(&later);
    scene.server.apply();
    assert_eq!(scene.server.status(SOON).await.unwrap().executed, executed);
    long_after().await;
    scene.server.apply();
    assert_eq!(scene.server.replication(SOON).await, Ok(None));
    assert_eq!(scene.server.status(SOON).await.unwrap().executed, executed);
}

#[tokio::test]
async fn a_planned_fence_leaves_clients_until_the_server_follows() {
    let scene = scene();
    promoted(scene.promote(2, 0).await);
    scene.server.connect_clients(3);
    let fenced = scene.fence_as(3, true).await.unwrap();
    assert!(matches!(fenced, Done::Fenced(Fenced { executed: Some(_), killed: false })), "{fenced:?}");
    assert!(scene.is_read_only().await);
    assert_eq!(scene.server.clients(), 3, "they can only read");
    assert_eq!(scene.follow("metrics-0-zzzz", 3).await, Ok(Done::Followed));
    assert_eq!(scene.server.clients(), 0);
    scene.server.connect_clients(2);
    assert_eq!(scene.follow("metrics-0-zzzz", 3).await, Ok(Done::Followed));
    assert_eq!(scene.server.clients(), 2, "readers of a standby stay");
}

#[tokio::test]
async fn the_same_promotion_again_changes_nothing_and_a_later_one_confirms() {
    let scene = scene();
    let first = promoted(scene.promote(2, 0).await);
    assert_eq!(promoted(scene.promote(2, 0).await), first);
    assert_eq!(promoted(scene.promote(3, 0).await).epoch, Epoch(3));
    assert_eq!(scene.shared.serving(), Some(Epoch(3)));
    let known = Refusal::StaleEpoch { given: Epoch(2), known: Epoch(3) };
    assert_eq!(scene.promote(2, 0).await, Err(known));
}

#[tokio::test]
async fn who_was_fenced_serves_again_only_under_a_later_epoch() {
    let scene = scene();
    promoted(scene.promote(2, 0).await);
    scene.server.connect_clients(3);
    let fenced = scene.fence(3).await.unwrap();
    assert!(matches!(fenced, Done::Fenced(Fenced { executed: Some(_), killed: false })), "{fenced:?}");
    assert!(scene.is_read_only().await);
    assert_eq!(scene.shared.serving(), None);
    assert_eq!(scene.shared.read(|facts| facts.fence.map(|(why, _)| why)), Some(Why::Epoch(Epoch(3))));
    assert!(matches!(scene.promote(3, 0).await, Err(Refusal::WrongPhase { .. })));
    promoted(scene.promote(4, 0).await);
    assert_eq!(scene.shared.read(|facts| facts.fence), None);
}

#[tokio::test]
async fn a_server_that_does_not_obey_is_killed_within_a_second_or_two() {
    let scene = scene();
    promoted(scene.promote(2, 0).await);
    scene.server.hang(true);
    let begun = Instant::now();
    assert_eq!(scene.fence(3).await, Ok(Done::Fenced(Fenced { executed: None, killed: true })));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(scene.body.killed.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_server_that_hides_what_it_does_is_killed_all_the_same() {
    let scene = scene();
    promoted(scene.promote(2, 0).await);
    scene.server.hang(true);
    scene.body.hidden.store(true, Ordering::Relaxed);
    let fenced = tokio::time::timeout(SOON, scene.fence(3)).await;
    scene.body.hidden.store(false, Ordering::Relaxed);
    assert_eq!(fenced, Ok(Ok(Done::Fenced(Fenced { executed: None, killed: true }))));
    assert!(scene.body.killed.load(Ordering::Relaxed));
}

#[tokio::test]
async fn an_order_under_a_higher_epoch_ends_the_one_that_is_being_carried_out() {
    let scene = scene();
    scene.behind().await;
    let begun = Instant::now();
    let higher = async {
        // The promotion is under way once nothing is received any more.
        while scene.server.replication(SOON).await.unwrap().is_some_and(|r| r.receiving) {
            tokio::task::yield_now().await;
        }
        scene.fence(3).await
    };
    let (lower, higher) = tokio::join!(scene.promote(2, 60_000), higher);
    assert_eq!(lower, Err(Refusal::StaleEpoch { given: Epoch(2), known: Epoch(3) }));
    assert!(matches!(higher, Ok(Done::Fenced(Fenced { executed: Some(_), killed: false }))), "{higher:?}");
    assert!(begun.elapsed() < SOON);
    assert!(scene.is_read_only().await);
}

#[tokio::test]
async fn a_primary_that_is_told_to_follow_refuses_writes_first() {
    let scene = scene();
    promoted(scene.promote(2, 0).await);
    assert_eq!(scene.follow("metrics-0-zzzz", 3).await, Ok(Done::Followed));
    assert!(scene.is_read_only().await);
    assert_eq!(scene.shared.serving(), None);
    let me = scene.shared.me.clone();
    assert!(matches!(scene.follow(me.as_str(), 3).await, Err(Refusal::NotMine { .. })));
}

#[tokio::test]
async fn a_fence_by_isolation_is_lifted_by_the_same_epoch() {
    let scene = scene();
    promoted(scene.promote(2, 0).await);
    scene.desk.submit(Work::Isolate).await.unwrap();
    assert!(scene.is_read_only().await);
    promoted(scene.promote(2, 0).await);
    assert_eq!((scene.shared.serving(), scene.shared.read(|facts| facts.fence)), (Some(Epoch(2)), None));
}

#[tokio::test]
async fn orders_that_do_not_fit_the_phase_are_refused_at_once() {
    for (case, life, fence_too) in [
        ("empty", Life::Empty, true),
        ("building", Life::Building, true),
        ("unusable", Life::Unusable("?".to_owned()), true),
        ("starting", Life::Starting, false),
    ] {
        let scene = scene();
        scene.shared.update(|facts| facts.life = life);
        assert!(matches!(scene.promote(1, 0).await, Err(Refusal::WrongPhase { .. })), "{case}");
        assert!(matches!(scene.follow("x", 1).await, Err(Refusal::WrongPhase { .. })), "{case}");
        assert_eq!(scene.fence(1).await.is_err(), fence_too, "{case}");
        assert_eq!(scene.shared.read(|facts| facts.known), Epoch(u64::from(!fence_too)), "{case}");
    }
}

#[tokio::test]
async fn one_order_too_many_is_refused_and_does_not_wait() {
    let scene = scene();
    scene.behind().await;
    let orders = (0..12).map(|_| scene.promote(1, 2000));
    let outcomes = futures::future::join_all(orders).await;
    let refused = outcomes.iter().filter(|o| matches!(o, Err(Refusal::Failed { step, .. }) if step == "queue")).count();
    assert!(refused >= 2, "{refused}");
    assert!(outcomes.iter().any(Result::is_ok));
}
