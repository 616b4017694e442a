//! Who still answers this pod, and the fence that falls when nobody does, or when one of them knows a later primary. [`Alone`] and
//! [`Hello`] are pure.
//!
//! The operator's stream is the first witness and costs nothing. Only while there is none are the API server and the peers
//! asked: an operator that restarts is not isolation. Time during which the manager itself stood still does not count. But after it the peers
//! are asked whatever streams are open, before anything else: the world may have gone on, and clients whose connections outlived the
//! pause would be served by a primary that is none any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use understudy_link::{Client, Endpoint, Identity, names};
use understudy_wire::{Epoch, ReplicaName};

use crate::config::Config;
use crate::facts::{Facts, Shared};
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
/// After a pause that was longer than this, another may be the primary. The shortest way to one, past a server that lives, takes longer.
const PAUSED: Duration = Duration::from_secs(1);
/// An epoch further ahead than this is no word of a manager that means it; promotions go beyond every epoch that is known.
const AHEAD: u64 = 1_000_000;

/// The answer to [`HELLO`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Who answers.
    pub replica: ReplicaName,
    /// UID of its shard; None from a manager that does not tell. The certificate holds only the shard's name, which a shard of another
    /// namespace may have too, and addresses change hands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_uid: Option<String>,
    /// The latest primary that it knows; None from a manager that knows none, or does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub office: Option<Office>,
}

/// Who is the primary under an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Office {
    /// The epoch.
    pub epoch: Epoch,
    /// Who.
    pub primary: ReplicaName,
}

impl Hello {
    /// What this manager answers.
    pub fn of(me: &ReplicaName, shard_uid: &str, facts: &Facts) -> Self {
        let own = facts.serving(me).map(|epoch| Office { epoch, primary: me.clone() });
        let told = facts.peers.as_ref().and_then(|peers| {
            let (primary, _) = peers.primary.as_ref()?;
            Some(Office { epoch: peers.epoch, primary: primary.clone() })
        });
        // One that serves knows best under which epoch; what it was told is only later when it was told of another since.
        let office = own.into_iter().chain(told).rev().max_by_key(|office| office.epoch);
        Self { replica: me.clone(), shard_uid: Some(shard_uid.to_owned()), office }
    }

    /// The epoch under which another than `me` is the primary of the shard of this UID, when that is later than the one under which `me` serves.
    pub fn supersedes(&self, me: &ReplicaName, shard_uid: &str, serving: Epoch) -> Option<Epoch> {
        if self.shard_uid.as_deref() != Some(shard_uid) {
            return None;
        }
        let office = self.office.as_ref().filter(|office| office.primary != *me)?;
        let is_later = office.epoch > serving && office.epoch.0 <= serving.0.saturating_add(AHEAD);
        is_later.then_some(office.epoch)
    }
}

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
        let stood_still = last.elapsed() > PAUSED;
        let serving = shared.serving();
        let operator = streams.any();
        let answers = match serving {
            Some(serving) if !operator || stood_still => Some(ask(&shared, &config, &identity, serving).await),
            _ => None,
        };
        let took = last.elapsed();
        last = Instant::now();
        let Some(serving) = serving else {
            alone = Alone::default();
            continue;
        };
        if let Some(later) = answers.and_then(|answers| answers.later) {
            tracing::error!(%serving, %later, "another is the primary under a later epoch: the server stops taking writes");
            if let Err(refusal) = desk.submit(Work::Superseded(later)).await {
                tracing::warn!(%refusal, "fence of a later epoch not carried out");
            }
            alone = Alone::default();
            continue;
        }
        alone.turn(took, operator, answers.map(|answers| answers.anybody));
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

/// What came of a round of questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answers {
    /// Whether the API server or any peer answered.
    anybody: bool,
    /// The epoch under which another is the primary, if any peer knows that.
    later: Option<Epoch>,
}

/// Asks the API server and every peer at once, until one of them knows a later primary or all have answered or let the deadline pass.
async fn ask(shared: &Shared, config: &Config, identity: &Identity, serving: Epoch) -> Answers {
    let peers = shared.read(|facts| facts.peers.as_ref().map(|peers| peers.peers.clone()).unwrap_or_default());
    let name = names::shard(&config.shard);
    let mut questions = FuturesUnordered::new();
    if let Some(api) = config.api_server {
        let question = async move { Answers { anybody: connects(api).await, later: None } };
        questions.push(futures::future::Either::Left(question));
    }
    for address in peers.iter().filter_map(|(_, address)| address.parse().ok()) {
        let client = Client::new(Endpoint { address, name: name.clone() }, identity.clone());
        let question = async move {
            let Ok(body) = client.get(HELLO, ASK_WITHIN).await else { return Answers::default() };
            let hello = serde_json::from_slice::<Hello>(&body).ok();
            Answers {
                anybody: true,
                later: hello.and_then(|hello| hello.supersedes(&shared.me, &config.shard_uid, serving)),
            }
        };
        questions.push(futures::future::Either::Right(question));
    }
    let mut all = Answers::default();
    while let Some(answer) = questions.next().await {
        all = Answers { anybody: all.anybody || answer.anybody, later: answer.later };
        if all.later.is_some() {
            break;
        }
    }
    all
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

    const UID: &str = "uid-of-the-shard";

    fn hello(office: Option<(u64, &str)>) -> Hello {
        let office = office.map(|(epoch, primary)| Office { epoch: Epoch(epoch), primary: ReplicaName::new(primary) });
        Hello { replica: ReplicaName::new("b"), shard_uid: Some(UID.to_owned()), office }
    }

    #[test]
    fn only_another_primary_under_a_later_epoch_supersedes() {
        for (case, office, expected) in [
            ("it knows nobody", None, None),
            ("it knows this one", Some((4, "a")), None),
            ("this one is being confirmed", Some((5, "a")), None),
            ("it knows an earlier one", Some((3, "b")), None),
            ("it serves itself", Some((5, "b")), Some(Epoch(5))),
            ("it follows another", Some((5, "c")), Some(Epoch(5))),
            ("no epoch that anybody came to", Some((4 + AHEAD + 1, "c")), None),
        ] {
            assert_eq!(hello(office).supersedes(&ReplicaName::new("a"), UID, Epoch(4)), expected, "{case}");
        }
    }

    #[test]
    fn the_word_of_another_shard_of_the_same_name_does_not_count() {
        for (case, shard_uid) in [("another shard", Some("uid-of-another".to_owned())), ("it does not tell", None)] {
            let said = Hello { shard_uid, ..hello(Some((5, "c"))) };
            assert_eq!(said.supersedes(&ReplicaName::new("a"), UID, Epoch(4)), None, "{case}");
        }
    }

    #[test]
    fn a_manager_tells_of_the_latest_primary_that_it_knows() {
        use understudy_wire::order::Peers;
        let me = ReplicaName::new("b");
        let shared = Shared::new(me.clone());
        let told = |epoch: u64, primary: &str| {
            let primary = Some((ReplicaName::new(primary), "10.0.0.1:3306".to_owned()));
            shared.update(|facts| facts.peers = Some(Peers { epoch: Epoch(epoch), primary, peers: vec![] }));
            shared.read(|facts| Hello::of(&me, UID, facts)).office
        };
        assert_eq!(shared.read(|facts| Hello::of(&me, UID, facts)), hello(None));
        assert_eq!(told(4, "a"), hello(Some((4, "a"))).office);
        assert_eq!(told(5, "c"), hello(Some((5, "c"))).office);
    }

    #[test]
    fn the_hello_of_an_earlier_manager_is_an_answer_and_no_more() {
        let earlier: Hello = serde_json::from_str(r#"{ "replica": "b" }"#).unwrap();
        assert_eq!(earlier, Hello { shard_uid: None, ..hello(None) });
    }

    #[test]
    fn a_pause_of_the_manager_itself_is_not_isolation() {
        let mut alone = Alone::default();
        alone.turn(ms(60_000), false, Some(false));
        assert!(!alone.is_isolated(), "one round of questions after a pause is not enough");
    }
}
