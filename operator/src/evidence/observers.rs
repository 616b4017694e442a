//! One evidence stream per observer of a shard, and the last word of each. I/O.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use understudy_link::Identity;
use understudy_link::client::Endpoint;
use understudy_link::evidence::{Event, Reader};
use understudy_wire::Report;
use understudy_wire::evidence::{Evidence, Phase};

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

struct Stream {
    endpoint: Endpoint,
    slot: Arc<Mutex<Slot>>,
    task: Option<AbortOnDropHandle<()>>,
}

/// The observers of one shard, by the name of their pod.
pub struct Observers {
    identity: Identity,
    news: Arc<Notify>,
    streams: HashMap<String, Stream>,
}

impl Observers {
    /// Nobody yet. `news` is told whenever somebody says something that may matter now.
    pub fn new(identity: Identity, news: Arc<Notify>) -> Self {
        Self { identity, news, streams: HashMap::new() }
    }

    /// Dials exactly these. The last word of one whose pod is gone is kept for as long as `remember` says so.
    pub fn dial(&mut self, wanted: &HashMap<String, Endpoint>, remember: impl Fn(&str) -> bool) {
        self.streams.retain(|name, stream| {
            let keep = wanted.contains_key(name) || remember(name);
            if !wanted.contains_key(name) {
                stream.task = None;
                lock(&stream.slot).connected = false;
            }
            keep
        });
        for (name, endpoint) in wanted {
            let same = self.streams.get(name).is_some_and(|s| s.endpoint == *endpoint && s.task.is_some());
            if !same {
                self.open(name, endpoint);
            }
        }
    }

    fn open(&mut self, name: &str, endpoint: &Endpoint) {
        let stream = self.streams.entry(name.to_owned()).or_insert_with(|| Stream {
            endpoint: endpoint.clone(),
            slot: Arc::default(),
            task: None,
        });
        stream.endpoint = endpoint.clone();
        lock(&stream.slot).connected = false;
        let listening =
            listen(Reader::new(endpoint.clone(), self.identity.clone()), stream.slot.clone(), self.news.clone());
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

async fn listen(mut reader: Reader, slot: Arc<Mutex<Slot>>, news: Arc<Notify>) {
    loop {
        match reader.next().await {
            Event::Report { at, report } => {
                let mut slot = lock(&slot);
                if !slot.connected {
                    slot.connected = true;
                    slot.session += 1;
                }
                let matters = slot.heard.as_ref().is_none_or(|heard| differs(&heard.report, &report));
                slot.heard = Some(Heard { report: report.into(), at });
                drop(slot);
                if matters {
                    news.notify_one();
                }
            }
            Event::Lost(lost) => {
                let was_connected = std::mem::replace(&mut lock(&slot).connected, false);
                if was_connected {
                    tracing::info!(from = %reader.endpoint(), error = %lost, "evidence stream lost");
                    news.notify_one();
                } else {
                    tracing::debug!(from = %reader.endpoint(), error = %lost, "no evidence stream");
                }
            }
        }
    }
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
