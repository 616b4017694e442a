//! Where each shard's primary is, followed by a watch. I/O.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::api::DynamicObject;
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cluster::resource;
use crate::ledger::Record;
use crate::ledger::writer::{Ledger, LedgerError};

/// Before an API server that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// Asks as often as that, however long it lasts: a route that is learnt late is a gap that nobody but this program had.
#[derive(Debug)]
struct Steadily;

impl Iterator for Steadily {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(AGAIN)
    }
}

impl Backoff for Steadily {
    fn reset(&mut self) {}
}

/// Where a shard is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The replica.
    pub primary: String,
    /// Its address.
    pub address: SocketAddr,
    /// The epoch under which it is.
    pub epoch: u64,
}

/// As much of a Shard's status as makes a route.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    primary: String,
    primary_address: SocketAddr,
    epoch: u64,
}

/// The shards of a namespace.
#[derive(Clone)]
pub struct Shards(Api<DynamicObject>);

impl Shards {
    /// Nothing is asked yet.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self(Api::namespaced_with(client, namespace, &resource("Shard", "shards")))
    }

    /// Keeps the routes current until cancelled. The last one known stays while the API server is away.
    pub async fn follow(
        self,
        routes: HashMap<String, watch::Sender<Option<Route>>>,
        ledger: Ledger,
        cancel: CancellationToken,
    ) -> Result<(), LedgerError> {
        let events = watcher(self.0, watcher::Config::default()).backoff(Steadily).touched_objects();
        apply(events, routes, ledger, cancel).await
    }
}

async fn apply(
    events: impl Stream<Item = Result<DynamicObject, watcher::Error>>,
    routes: HashMap<String, watch::Sender<Option<Route>>>,
    ledger: Ledger,
    cancel: CancellationToken,
) -> Result<(), LedgerError> {
    let mut events = std::pin::pin!(events);
    loop {
        let event = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            event = events.next() => event,
        };
        let object = match event {
            Some(Ok(object)) => object,
            // The watcher tries again by itself.
            Some(Err(_)) => continue,
            None => return Ok(()),
        };
        let name = object.name_any();
        let (Some(sender), Some(route)) = (routes.get(&name), route_of(&object)) else { continue };
        let is_new = sender.send_if_modified(|current| {
            let is_new = current.as_ref().is_none_or(|known| known != &route && known.epoch <= route.epoch);
            if is_new {
                *current = Some(route.clone());
            }
            is_new
        });
        if is_new {
            let (primary, address) = (route.primary, route.address.to_string());
            let at = ledger.clock.now();
            ledger.record(Record::Route { shard: name, primary, address, epoch: route.epoch, at })?;
        }
    }
}

/// The route that a Shard's status shows, if it has one.
pub fn route_of(object: &DynamicObject) -> Option<Route> {
    let status: Status = Status::deserialize(object.data.get("status")?).ok()?;
    Some(Route { primary: status.primary, address: status.primary_address, epoch: status.epoch })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ledger::writer::Clock;

    fn shard(epoch: u64, address: &str) -> DynamicObject {
        let status = json!({ "primary": format!("s-0-{epoch}"), "primaryAddress": address, "epoch": epoch, "more": 1 });
        serde_json::from_value(json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard", "metadata": { "name": "s-0" }, "status": status,
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn a_route_changes_with_its_status_and_never_back_to_a_lower_epoch() {
        let directory = tempfile::tempdir().unwrap();
        let (ledger, _closing) = Ledger::create(&directory.path().join("ledger"), Clock::start()).unwrap();
        let (sender, mut route) = watch::channel(None);
        let cases = [
            ("the first", shard(3, "10.0.0.1:3306"), Some((3, "10.0.0.1:3306"))),
            ("the same again", shard(3, "10.0.0.1:3306"), None),
            ("the same pod at another address", shard(3, "10.0.0.9:3306"), Some((3, "10.0.0.9:3306"))),
            ("no address", shard(4, ""), None),
            ("a promotion", shard(4, "10.0.0.2:3306"), Some((4, "10.0.0.2:3306"))),
            ("a cache that lags", shard(3, "10.0.0.1:3306"), None),
        ];
        let routes: HashMap<_, _> = [("s-0".to_owned(), sender)].into();
        for (name, object, expected) in cases {
            let events = futures::stream::iter([Ok(object)]);
            apply(events, routes.clone(), ledger.clone(), CancellationToken::new()).await.unwrap();
            let is_changed = route.has_changed().unwrap();
            let seen = is_changed.then(|| route.borrow_and_update().clone().unwrap());
            let expected = expected.map(|(epoch, address)| Route {
                primary: format!("s-0-{epoch}"),
                address: address.parse().unwrap(),
                epoch,
            });
            assert_eq!(seen, expected, "{name}");
        }
    }
}
