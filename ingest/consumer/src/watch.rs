//! Follows the Shard's route and the Datastore's placements by watch. I/O.
//!
//! What was known last is kept while the API server is away: without it there is no failover, but storing goes on. An object that cannot
//! be understood changes nothing either. Only an object that is known to be gone, or that names no primary, takes the route away.

use std::net::SocketAddr;

use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use understudy_watch::{follow, resource};
use understudy_wire::{Epoch, ReplicaName};

use crate::placement::{Entry, Placement, placement_of};
use crate::route::Route;

/// Keeps `routes` at what the Shard's status says, until stopped.
pub async fn follow_shard(
    client: Client,
    namespace: String,
    shard: String,
    routes: watch::Sender<Option<Route>>,
    stop: CancellationToken,
) {
    let shards = Api::namespaced_with(client, &namespace, &resource("Shard", "shards"));
    let told = |object: Option<DynamicObject>| {
        let route = match object.map(|shard| route_of(&shard)).transpose() {
            Ok(route) => route.flatten(),
            Err(e) => return tracing::error!(error = %e, "the Shard's status is not understood; the last route stays"),
        };
        routes.send_if_modified(|present| {
            let news = *present != route;
            if news {
                *present = route;
            }
            news
        });
    };
    follow_one(shards, &shard, told, &stop).await;
}

/// Keeps `placements` at what the Datastore's status gives this shard, until stopped.
pub async fn follow_datastore(
    client: Client,
    namespace: String,
    datastore: String,
    shard: String,
    placements: watch::Sender<Option<Placement>>,
    stop: CancellationToken,
) {
    let datastores = Api::namespaced_with(client, &namespace, &resource("Datastore", "datastores"));
    let told = |object: Option<DynamicObject>| {
        // Without the object nothing says that another shard is fed: what was placed stays placed.
        let Some(object) = object else { return };
        let entries = match entries_of(&object) {
            Ok(entries) => entries,
            Err(e) => return tracing::error!(error = %e, "the placements are not understood; the last ones stay"),
        };
        let placement = (!entries.is_empty()).then(|| placement_of(&shard, &entries));
        placements.send_if_modified(|present| {
            let news = placement.is_some() && *present != placement;
            if news {
                *present = placement;
            }
            news
        });
    };
    follow_one(datastores, &datastore, told, &stop).await;
}

/// Tells of one object, until stopped. None is told only of an object that is known to be gone.
async fn follow_one(
    api: Api<DynamicObject>,
    name: &str,
    mut told: impl FnMut(Option<DynamicObject>),
    stop: &CancellationToken,
) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut seen = false;
    follow(api, config, Some(name), stop, |event| match event {
        Event::Init => seen = false,
        Event::InitApply(object) | Event::Apply(object) => {
            seen = true;
            told(Some(object));
        }
        Event::InitDone if seen => {}
        Event::InitDone | Event::Delete(_) => told(None),
    })
    .await;
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShardFacts {
    primary: Option<String>,
    primary_address: Option<SocketAddr>,
    #[serde(default)]
    epoch: u64,
    transition: Option<TransitionFacts>,
}

#[derive(Deserialize)]
struct TransitionFacts {
    kind: String,
}

/// A change that begins with a primary that serves, and tells it to stop.
const PLANNED: &str = "Switchover";

#[derive(Default, Deserialize)]
struct DatastoreFacts {
    #[serde(default)]
    placements: Vec<EntryFacts>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryFacts {
    partition: i32,
    shard: String,
    from_offset: i64,
    #[serde(default)]
    pending: bool,
}

fn status<T: Default + for<'a> Deserialize<'a>>(object: &DynamicObject) -> Result<T, serde_json::Error> {
    object.data.get("status").map_or_else(|| Ok(T::default()), T::deserialize)
}

/// None while there is no primary.
///
/// An epoch that is claimed ends what came before, as nobody knows what became of the primary. Only a planned change leaves it in office
/// until it has been told to stop, so that the gap begins there and not at the claim.
fn route_of(shard: &DynamicObject) -> Result<Option<Route>, serde_json::Error> {
    let facts: ShardFacts = status(shard)?;
    let primary = facts.primary.filter(|name| !name.is_empty());
    let epoch = match facts.transition {
        Some(transition) if transition.kind == PLANNED => facts.epoch.saturating_sub(1),
        _ => facts.epoch,
    };
    let route = primary.zip(facts.primary_address).map(|(primary, address)| Route {
        primary: ReplicaName::new(primary),
        address,
        epoch: Epoch(epoch),
    });
    Ok(route)
}

fn entries_of(datastore: &DynamicObject) -> Result<Vec<Entry>, serde_json::Error> {
    let facts: DatastoreFacts = status(datastore)?;
    let entry =
        |e: EntryFacts| Entry { partition: e.partition, shard: e.shard, from: e.from_offset, pending: e.pending };
    Ok(facts.placements.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(status: serde_json::Value) -> DynamicObject {
        DynamicObject::new("metrics-0", &resource("Shard", "shards")).data(json!({ "status": status }))
    }

    #[test]
    fn a_route_needs_a_primary_and_its_address() {
        let whole =
            json!({"primary": "metrics-0-k7x2", "primaryAddress": "10.1.2.3:3306", "epoch": 4, "new": {"a": 1}});
        let changing = |kind: &str| {
            let mut status = whole.clone();
            status["transition"] = json!({"kind": kind, "epoch": 4, "to": "metrics-0-9xtp"});
            status
        };
        let route = |epoch| Route {
            primary: ReplicaName::new("metrics-0-k7x2"),
            address: "10.1.2.3:3306".parse().unwrap(),
            epoch: Epoch(epoch),
        };
        for (case, status, expected) in [
            ("a planned change is claimed", changing("Switchover"), Some(route(3))),
            ("a failover is claimed", changing("Failover"), Some(route(4))),
            ("a confirmation is claimed", changing("Confirm"), Some(route(4))),
            ("whole, with more than is known here", whole, Some(route(4))),
            ("no primary yet", json!({"epoch": 1}), None),
            ("no address yet", json!({"primary": "a", "epoch": 1}), None),
            ("an empty name", json!({"primary": "", "primaryAddress": "10.1.2.3:3306"}), None),
        ] {
            assert_eq!(route_of(&object(status)).unwrap(), expected, "{case}");
        }
        assert!(route_of(&object(json!({"primary": "a", "primaryAddress": "nowhere"}))).is_err());
        assert_eq!(route_of(&DynamicObject::new("a", &resource("Shard", "shards"))).unwrap(), None, "no status");
    }

    #[test]
    fn placements_are_those_of_the_status() {
        let list = json!({"placements": [
            {"partition": 3, "fromOffset": 5, "shard": "a"}, {"partition": 3, "fromOffset": 9, "shard": "b", "pending": true},
        ]});
        let entry = |from, shard: &str, pending| Entry { partition: 3, shard: shard.into(), from, pending };
        assert_eq!(entries_of(&object(list)).unwrap(), [entry(5, "a", false), entry(9, "b", true)]);
        assert!(entries_of(&object(json!({"placements": [{"partition": "x"}]}))).is_err());
    }
}
