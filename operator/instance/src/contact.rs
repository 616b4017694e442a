//! Who still answers this pod, and the fence that falls when nobody does. [`Alone`] is pure.
//!
//! The operator's stream is the first witness and costs nothing. Only while there is none are the API server and the peers
//! asked: an operator that restarts is not isolation. Time during which the manager itself stood still does not count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use understudy_link::{Client, Endpoint, Identity, names};

use crate::config::Config;
use crate::facts::Shared;
use crate::orders::{Desk, Work};

/// Alone for this long is isolated.
pub const ISOLATED_AFTER: Duration = Duration::from_secs(3);
/// How long the operator's stream may stand unacknowledged before it is dropped; it was silent for that long when it goes.
pub const UNACKNOWLEDGED: Duration = Duration::from_millis(1500);
/// What a peer is asked.
pub const HELLO: &str = "/v1/hello";
const TURN: Duration = Duration::from_millis(250);
/// A longer turn than this was a pause of the manager itself.
const LONGEST_TURN: Duration = Duration::from_millis(500);
const ASK_WITHIN: Duration = Duration::from_millis(800);

/// How long nobody has answered, by the manager's own running time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    alone: Duration,
    asked: u32,
}

impl Alone {
    /// A turn of the loop: how long it took, whether the operator is there, and whether somebody else answered (None: nobody was asked).
    pub fn turn(&mut self, took: Duration, operator: bool, answered: Option<bool>) {
        if operator || answered == Some(true) {
            *self = Self::default();
            return;
        }
        if self.alone.is_zero() {
            self.alone = UNACKNOWLEDGED;
        }
        // A round of questions takes a turn of its own, as long as its deadline.
        let longest = if answered.is_some() { LONGEST_TURN + ASK_WITHIN } else { LONGEST_TURN };
        self.alone += took.min(longest);
        self.asked += u32::from(answered.is_some());
    }

    /// Whether that is long enough, and somebody was asked in vain at least twice.
    pub fn is_isolated(&self) -> bool {
        self.alone >= ISOLATED_AFTER && self.asked >= 2
    }
}

/// Counts the operator's open streams.
#[derive(Clone, Debug, Default)]
pub struct OperatorStreams(Arc<AtomicUsize>);

impl OperatorStreams {
    /// A stream is open for as long as this lives.
    pub fn open(&self) -> OpenStream {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.0.clone())
    }

    /// Whether one is open.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// One open stream of the operator.
#[derive(Debug)]
pub struct OpenStream(Arc<AtomicUsize>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Watches until stopped, and fences a server that serves while nobody answers.
pub async fn watch(
    shared: Arc<Shared>,
    config: Arc<Config>,
    identity: Identity,
    streams: OperatorStreams,
    desk: Desk,
    stop: CancellationToken,
) {
    let mut turn = tokio::time::interval(TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut alone, mut last) = (Alone::default(), Instant::now());
    while stop.run_until_cancelled(turn.tick()).await.is_some() {
        let serves = shared.serving().is_some();
        let operator = streams.any();
        let answered = if serves && !operator { Some(anybody(&shared, &config, &identity).await) } else { None };
        let took = last.elapsed();
        last = Instant::now();
        if !serves {
            alone = Alone::default();
            continue;
        }
        alone.turn(took, operator, answered);
        if alone.is_isolated() {
            tracing::error!(
                "neither the operator nor the API server nor a peer answers: the server stops taking writes"
            );
            if let Err(refusal) = desk.submit(Work::Isolate).await {
                tracing::warn!(%refusal, "isolation fence not carried out");
            }
            alone = Alone::default();
        }
    }
}

/// Whether the API server or any peer answers.
async fn anybody(shared: &Shared, config: &Config, identity: &Identity) -> bool {
    let peers = shared.read(|facts| facts.peers.as_ref().map(|peers| peers.peers.clone()).unwrap_or_default());
    let name = names::shard(&config.shard);
    let mut questions = FuturesUnordered::new();
    if let Some(api) = config.api_server {
        questions.push(futures::future::Either::Left(connects(api)));
    }
    for address in peers.iter().filter_map(|(_, address)| address.parse().ok()) {
        let client = Client::new(Endpoint { address, name: name.clone() }, identity.clone());
        questions.push(futures::future::Either::Right(async move { client.get(HELLO, ASK_WITHIN).await.is_ok() }));
    }
    while let Some(answered) = questions.next().await {
        if answered {
            return true;
        }
    }
    false
}

async fn connects(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(ASK_WITHIN, TcpStream::connect(address)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn alone_long_enough_and_asked_in_vain_is_isolated() {
        let mut alone = Alone::default();
        let mut turns = 0;
        while !alone.is_isolated() {
            alone.turn(ms(800), false, Some(false));
            turns += 1;
            assert!(turns < 10);
        }
        assert_eq!(turns, 2, "{:?} already passed before the stream was given up", UNACKNOWLEDGED);
    }

    #[test]
    fn any_answer_ends_being_alone() {
        for (case, operator, answered) in
            [("the operator", true, None), ("a peer or the API server", false, Some(true))]
        {
            let mut alone = Alone::default();
            alone.turn(ms(800), false, Some(false));
            alone.turn(ms(300), operator, answered);
            alone.turn(ms(800), false, Some(false));
            assert!(!alone.is_isolated(), "{case}");
        }
    }

    #[test]
    fn a_pause_of_the_manager_itself_is_not_isolation() {
        let mut alone = Alone::default();
        alone.turn(ms(60_000), false, Some(false));
        assert!(!alone.is_isolated(), "one round of questions after a pause is not enough");
    }
}
