//! What is connected, what is given away, and what is closed, without a server.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio_util::task::AbortOnDropHandle;
use understudy_wire::{Epoch, ReplicaName};

use super::*;
use crate::route::Change;

/// What somebody on the other side sees.
#[derive(Default)]
struct Other {
    opened: Mutex<Vec<String>>,
    open: AtomicUsize,
    looks: AtomicUsize,
    /// Nobody is there.
    is_away: AtomicBool,
    /// The connection can be made and never is.
    hangs: AtomicBool,
    /// Connections that were made are of no more use.
    is_broken: AtomicBool,
}

struct Line {
    to: String,
    other: Arc<Other>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.other.open.fetch_sub(1, Ordering::Relaxed);
    }
}

struct TestDial(Arc<Other>);

#[async_trait]
impl Dial for TestDial {
    type Line = Line;

    async fn open(&self, route: &Route) -> Result<Line, String> {
        self.0.opened.lock().unwrap().push(route.primary.to_string());
        if self.0.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.0.is_away.load(Ordering::Relaxed) {
            return Err("refused".to_owned());
        }
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Ok(Line { to: route.primary.to_string(), other: self.0.clone() })
    }

    async fn look(&self, _: &mut Line) -> Result<(), String> {
        self.0.looks.fetch_add(1, Ordering::Relaxed);
        match self.0.is_broken.load(Ordering::Relaxed) {
            true => Err("broken".to_owned()),
            false => Ok(()),
        }
    }
}

struct Scene {
    other: Arc<Other>,
    transitions: watch::Sender<Option<Transition>>,
    routes: watch::Sender<Option<Route>>,
    ahead: Ahead<Line>,
    _keeper: AbortOnDropHandle<()>,
}

/// A primary `a` under epoch 1.
fn scene() -> Scene {
    let other = Arc::new(Other::default());
    let (transitions, seen) = watch::channel(None);
    let (routes, followed) = watch::channel(Some(route("a", 1)));
    let (ahead, keeper) = ahead(TestDial(other.clone()), seen, followed);
    let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
    Scene { other, transitions, routes, ahead, _keeper: keeper }
}

fn route(primary: &str, epoch: u64) -> Route {
    let address = SocketAddr::from(([10, 0, 0, 1], 3306));
    Route { primary: ReplicaName::new(primary), address, epoch: Epoch(epoch) }
}

impl Scene {
    fn claim(&self, primary: &str, epoch: u64) {
        let to = Some(route(primary, epoch));
        self.transitions.send_replace(Some(Transition { to, change: Change::Sudden }));
    }

    fn publish(&self, primary: &str, epoch: u64) {
        self.routes.send_replace(Some(route(primary, epoch)));
        self.transitions.send_replace(None);
    }

    fn open(&self) -> usize {
        self.other.open.load(Ordering::Relaxed)
    }

    fn attempts(&self) -> Vec<String> {
        self.other.opened.lock().unwrap().clone()
    }

    async fn taken(&self, primary: &str, epoch: u64) -> Option<String> {
        self.ahead.take(&route(primary, epoch)).await.map(|line| line.to.clone())
    }
}

/// The clock stands, so this lasts until nobody has anything to do before that time.
async fn after(time: Duration) {
    sleep(time).await;
}

const MOMENT: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn the_connection_is_there_when_the_target_takes_office_and_is_given_once() {
    let scene = scene();
    after(MOMENT).await;
    assert_eq!(scene.attempts(), [""; 0], "there is nothing to connect to");
    scene.claim("b", 2);
    after(MOMENT).await;
    assert_eq!((scene.attempts(), scene.open()), (vec!["b".to_owned()], 1));
    scene.publish("b", 2);
    after(MOMENT).await;
    assert_eq!(scene.open(), 1, "it is kept for whoever follows the route");
    assert_eq!(scene.taken("b", 2).await.as_deref(), Some("b"));
    assert_eq!(scene.taken("b", 2).await, None, "the next one is made when it is needed");
    after(10 * LOOK).await;
    assert_eq!((scene.attempts().len(), scene.open()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn it_is_given_to_the_route_that_it_was_made_for_and_to_no_other() {
    let scene = scene();
    scene.claim("b", 2);
    after(MOMENT).await;
    assert_eq!(scene.taken("a", 2).await, None, "the old primary under the claimed epoch");
    assert_eq!(scene.taken("b", 3).await, None, "another epoch");
    assert_eq!(scene.open(), 1, "and it is still there");
    scene.publish("b", 2);
    assert_eq!(scene.taken("b", 2).await.as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn what_leads_to_a_replica_that_does_not_become_primary_is_closed() {
    let scene = scene();
    scene.claim("b", 2);
    after(MOMENT).await;
    assert_eq!(scene.open(), 1);
    scene.claim("c", 3);
    after(MOMENT).await;
    assert_eq!((scene.attempts(), scene.open()), (vec!["b".to_owned(), "c".to_owned()], 1), "the next candidate");
    scene.publish("a", 4);
    after(MOMENT).await;
    assert_eq!(scene.open(), 0, "the old primary was confirmed");

    scene.claim("b", 5);
    scene.publish("b", 5);
    after(MOMENT).await;
    scene.routes.send_replace(Some(route("d", 6)));
    assert_eq!(scene.taken("d", 6).await, None, "a change that was never seen under way");
    after(MOMENT).await;
    assert_eq!(scene.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_not_there_is_tried_again_and_waited_for_by_nobody() {
    let scene = scene();
    scene.other.is_away.store(true, Ordering::Relaxed);
    scene.claim("b", 2);
    after(3 * AGAIN + MOMENT).await;
    assert_eq!(scene.attempts().len(), 4);
    let asked = tokio::time::Instant::now();
    assert_eq!(scene.taken("b", 2).await, None);
    assert_eq!(asked.elapsed(), Duration::ZERO);
    after(10 * AGAIN).await;
    assert_eq!(scene.attempts().len(), 4, "whoever asked makes one now");

    scene.other.is_away.store(false, Ordering::Relaxed);
    scene.claim("c", 3);
    after(MOMENT).await;
    assert_eq!(scene.taken("c", 3).await.as_deref(), Some("c"));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_being_made_is_waited_for_a_moment_only() {
    let scene = scene();
    scene.other.hangs.store(true, Ordering::Relaxed);
    scene.claim("b", 2);
    after(MOMENT).await;
    let asked = tokio::time::Instant::now();
    assert_eq!(scene.taken("b", 2).await, None);
    assert!(asked.elapsed() <= PATIENCE + MOMENT, "{:?}", asked.elapsed());
    scene.other.hangs.store(false, Ordering::Relaxed);
    scene.claim("c", 3);
    after(MOMENT).await;
    assert_eq!(scene.taken("c", 3).await.as_deref(), Some("c"), "what hangs holds up nothing");
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_long_is_kept_alive_and_one_that_broke_is_not_given() {
    let scene = scene();
    scene.claim("b", 2);
    after(5 * LOOK + MOMENT).await;
    assert_eq!((scene.other.looks.load(Ordering::Relaxed), scene.attempts().len()), (5, 1));
    scene.other.is_broken.store(true, Ordering::Relaxed);
    assert_eq!(scene.taken("b", 2).await, None);
    assert_eq!(scene.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_tells_of_changes_any_more_whoever_asks_is_answered_at_once() {
    let (ahead, keeper) = ahead(TestDial(Arc::default()), watch::channel(None).1, watch::channel(None).1);
    let _keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
    let asked = tokio::time::Instant::now();
    assert!(ahead.take(&route("b", 2)).await.is_none());
    assert_eq!(asked.elapsed(), Duration::ZERO);
}
