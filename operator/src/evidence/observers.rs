//! One evidence stream per observer of a shard, and the last word of each. I/O.
//!
//! Whoever has a certificate of the shard or of one of its consumers may be behind an address, a team's own view among them. So a
//! report counts only when it names the observer that was dialled: nobody speaks for another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use understudy_link::Identity;
use understudy_link::client::Endpoint;
use understudy_link::evidence::{Event, LostError, Reader};
use understudy_wire::evidence::{Evidence, Phase};
use understudy_wire::{Epoch, Observer, Report};

/// A report may speak of an epoch that is higher than that of the status by this much: a status that was lost begins at zero again. A
/// promotion goes beyond every epoch that is known, so what is further away would use them up.
const AHEAD: u64 = 1_000_000;

/// The last word of one observer.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What it said.
    pub report: Arc<Report>,
    /// When.
    pub at: Instant,
}

#[derive(Default)]
struct Slot {
    heard: Option<Heard>,
    connected: bool,
    /// Grows with each connection: what was told on an earlier one may have been forgotten.
    session: u64,
}

/// One to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Who it is; what says that it comes from anybody else is dropped.
    pub observer: Observer,
}

/// Whom to hear about a shard.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Whom to dial, by the name of their pod.
    pub speakers: HashMap<String, Speaker>,
    /// The epoch of the shard's status.
    pub epoch: Epoch,
}

struct Stream {
    speaker: Speaker,
    slot: Arc<Mutex<Slot>>,
    task: Option<AbortOnDropHandle<()>>,
}

/// The observers of one shard, by the name of their pod.
pub struct Observers {
    identity: Identity,
    news: Arc<Notify>,
    /// The epoch of the shard's status, for those who listen.
    epoch: Arc<AtomicU64>,
    streams: HashMap<String, Stream>,
}

impl Observers {
    /// Nobody yet. `news` is told whenever somebody says something that may matter now.
    pub fn new(identity: Identity, news: Arc<Notify>) -> Self {
        Self { identity, news, epoch: Arc::default(), streams: HashMap::new() }
    }

    /// Dials exactly these. The last word of one whose pod is gone is kept for as long as `remember` says so.
    pub fn dial(&mut self, wanted: &Wanted, remember: impl Fn(&str) -> bool) {
        let Wanted { speakers, epoch } = wanted;
        self.epoch.store(epoch.0, Ordering::Relaxed);
        self.streams.retain(|name, stream| {
            let keep = speakers.contains_key(name) || remember(name);
            if !speakers.contains_key(name) {
                stream.task = None;
                lock(&stream.slot).connected = false;
            }
            keep
        });
        for (name, speaker) in speakers {
            let same = self.streams.get(name).is_some_and(|s| s.speaker == *speaker && s.task.is_some());
            if !same {
                self.open(name, speaker);
            }
        }
    }

    fn open(&mut self, name: &str, speaker: &Speaker) {
        let stream = self.streams.entry(name.to_owned()).or_insert_with(|| Stream {
            speaker: speaker.clone(),
            slot: Arc::default(),
            task: None,
        });
        stream.speaker = speaker.clone();
        lock(&stream.slot).connected = false;
        let ear = Ear {
            speaker: speaker.clone(),
            epoch: self.epoch.clone(),
            slot: stream.slot.clone(),
            news: self.news.clone(),
            refused: false,
        };
        let listening = listen(Reader::new(speaker.endpoint.clone(), self.identity.clone()), ear);
        stream.task = Some(AbortOnDropHandle::new(tokio::spawn(listening)));
    }

    /// The last word of everybody.
    pub fn heard(&self) -> Vec<(String, Heard)> {
        let said = self.streams.iter().map(|(name, stream)| (name.clone(), lock(&stream.slot).heard.clone()));
        let mut said: Vec<_> = said.filter_map(|(name, heard)| Some((name, heard?))).collect();
        said.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        said
    }

    /// The number of the open connection to an observer.
    pub fn session(&self, name: &str) -> Option<u64> {
        let slot = lock(&self.streams.get(name)?.slot);
        slot.connected.then_some(slot.session)
    }
}

async fn listen(mut reader: Reader, mut ear: Ear) {
    loop {
        match reader.next().await {
            Event::Report { at, report } => ear.hear(report, at),
            Event::Lost(lost) => ear.lose(&lost),
        }
    }
}

/// What becomes of what one observer says.
struct Ear {
    speaker: Speaker,
    epoch: Arc<AtomicU64>,
    slot: Arc<Mutex<Slot>>,
    news: Arc<Notify>,
    /// Whether a report was refused on the present connection, which is said once.
    refused: bool,
}

impl Ear {
    fn hear(&mut self, report: Box<Report>, at: Instant) {
        let known = Epoch(self.epoch.load(Ordering::Relaxed));
        if let Err(why) = admit(&self.speaker.observer, known, &report) {
            if !std::mem::replace(&mut self.refused, true) {
                tracing::warn!(from = %self.speaker.endpoint, error = %why, "evidence refused");
            }
            // Orders are for the one that was dialled, and who is there is not known.
            if self.disconnect() {
                self.news.notify_one();
            }
            return;
        }
        let mut slot = lock(&self.slot);
        if !slot.connected {
            slot.connected = true;
            slot.session += 1;
        }
        let matters = slot.heard.as_ref().is_none_or(|heard| differs(&heard.report, &report));
        slot.heard = Some(Heard { report: report.into(), at });
        drop(slot);
        if matters {
            self.news.notify_one();
        }
    }

    fn lose(&mut self, lost: &LostError) {
        self.refused = false;
        let from = &self.speaker.endpoint;
        if self.disconnect() {
            tracing::info!(%from, error = %lost, "evidence stream lost");
            self.news.notify_one();
        } else {
            tracing::debug!(%from, error = %lost, "no evidence stream");
        }
    }

    /// Whether it was connected.
    fn disconnect(&self) -> bool {
        std::mem::replace(&mut lock(&self.slot).connected, false)
    }
}

/// Why a report does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Inadmissible {
    #[error("{dialled} was dialled, and {said} is who it says it is")]
    Another { dialled: Observer, said: Observer },
    #[error("{said} is no epoch of a shard of which the status knows epoch {known}")]
    Epoch { said: Epoch, known: Epoch },
}

fn admit(dialled: &Observer, known: Epoch, report: &Report) -> Result<(), Inadmissible> {
    if report.observer != *dialled {
        return Err(Inadmissible::Another { dialled: dialled.clone(), said: report.observer.clone() });
    }
    let said = report.highest_epoch();
    if said.0 > known.0.saturating_add(AHEAD) {
        return Err(Inadmissible::Epoch { said, known });
    }
    Ok(())
}

/// Whether a report says something that is worth a look at once.
fn differs(before: &Report, now: &Report) -> bool {
    before.evidence.len() != now.evidence.len()
        || before.evidence.iter().zip(&now.evidence).any(|(a, b)| gist(a) != gist(b))
}

type Gist<'a> = (&'a str, bool, Option<(std::mem::Discriminant<Phase>, Option<bool>, Option<u64>, bool, bool, usize)>);

fn gist(evidence: &Evidence) -> Gist<'_> {
    let fails = evidence.probe.as_ref().is_some_and(|probe| probe.failing.is_some());
    let server = evidence.server.as_ref().map(|server| {
        let replication = server.replication.as_ref().map(|read| &read.value);
        (
            std::mem::discriminant(&server.phase),
            server.read_only,
            server.serving.map(|epoch| epoch.0),
            server.fenced.is_some(),
            replication.is_some_and(|replication| replication.receiving && replication.applying),
            replication.and_then(|replication| replication.source.as_ref()).map_or(0, String::len),
        )
    });
    (evidence.subject.as_str(), fails, server)
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use understudy_wire::ReplicaName;

    use super::*;

    fn manager(replica: &str) -> Observer {
        Observer::Manager { replica: ReplicaName::new(replica) }
    }

    fn consumer(pod: &str) -> Observer {
        Observer::Consumer { pod: pod.to_owned() }
    }

    fn says(observer: Observer) -> Report {
        Report { observer, seq: 1, own_gap: 0, interval: 250, evidence: vec![], log: vec![] }
    }

    fn ear(observer: Observer) -> Ear {
        let endpoint = Endpoint { address: ([127, 0, 0, 1], 8440).into(), name: "m.shard".to_owned() };
        Ear {
            speaker: Speaker { endpoint, observer },
            epoch: Arc::new(AtomicU64::new(7)),
            slot: Arc::default(),
            news: Arc::default(),
            refused: false,
        }
    }

    fn heard(ear: &Ear) -> Option<Observer> {
        lock(&ear.slot).heard.as_ref().map(|heard| heard.report.observer.clone())
    }

    #[test]
    fn nobody_speaks_for_another() {
        let operator = Observer::Operator { pod: "m-a".to_owned() };
        let peer = Observer::Peer { replica: ReplicaName::new("m-a") };
        for (case, dialled, said, counts) in [
            ("a manager", manager("m-a"), manager("m-a"), true),
            ("a consumer's pod", consumer("store-0"), consumer("store-0"), true),
            ("another replica's manager", manager("m-a"), manager("m-b"), false),
            ("a manager that plays the peer", manager("m-a"), peer, false),
            ("a manager that plays the operator", manager("m-a"), operator, false),
            ("a consumer's pod that plays a manager", consumer("m-a"), manager("m-a"), false),
            ("somebody of whose kind only a later version knows", manager("m-a"), Observer::Unknown, false),
            ("a consumer's pod that plays another", consumer("store-0"), consumer("store-1"), false),
        ] {
            let mut ear = ear(dialled);
            ear.hear(says(said.clone()).into(), Instant::now());
            assert_eq!(heard(&ear), counts.then_some(said), "{case}");
            assert_eq!(lock(&ear.slot).connected, counts, "{case}");
        }
    }

    #[test]
    fn an_epoch_far_beyond_that_of_the_status_counts_for_nothing() {
        for (case, mut server, counts) in [
            ("that of the status", json!({ "epoch": 7 }), true),
            ("that of a status that was lost", json!({ "epoch": 1_000_007 }), true),
            ("beyond it", json!({ "epoch": 1_000_008 }), false),
            ("beyond it, to serve under", json!({ "epoch": 7, "serving": 1_000_008 }), false),
            (
                "beyond it, for a fence",
                json!({ "epoch": 7, "fenced": { "why": "epoch", "epoch": 1_000_008, "age": 0 } }),
                false,
            ),
        ] {
            server["phase"] = json!({ "is": "running" });
            let evidence = serde_json::from_value(json!([{ "subject": "m-a", "server": server }])).unwrap();
            let mut ear = ear(manager("m-a"));
            ear.hear(Report { evidence, ..says(manager("m-a")) }.into(), Instant::now());
            assert_eq!(heard(&ear).is_some(), counts, "{case}");
        }
    }

    #[test]
    fn what_was_heard_before_somebody_else_spoke_stays_and_the_connection_does_not_count() {
        let endpoint = ear(manager("m-a")).speaker.endpoint;
        let mut ear = ear(manager("m-a"));
        let mut state = |said: Observer| {
            ear.hear(says(said).into(), Instant::now());
            let slot = lock(&ear.slot);
            (slot.heard.as_ref().map(|heard| heard.report.observer.clone()), slot.connected, slot.session, ear.refused)
        };
        assert_eq!(state(manager("m-a")), (Some(manager("m-a")), true, 1, false));
        assert_eq!(state(manager("m-b")), (Some(manager("m-a")), false, 1, true));
        assert_eq!(state(manager("m-a")), (Some(manager("m-a")), true, 2, true), "it is said once for a connection");
        ear.lose(&LostError::Idle(endpoint));
        assert!(!ear.refused, "the next connection is another");
    }
}
