//! Follows the Shard's route and the Datastore's placements by watch. I/O.
//!
//! What was known last is kept while the API server is away: without it there is no failover, but storing goes on. An object that cannot
//! be understood changes nothing either. Only an object that is known to be gone, or that names no primary, takes the route away.

use std::net::{IpAddr, SocketAddr};

use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use understudy_watch::{follow, resource};
use understudy_wire::{Epoch, ReplicaName};

use crate::placement::{Entry, Placement, placement_of};
use crate::route::{Change, Route, Transition};

/// Keeps `routes` and `transitions` at what the Shard's status says, until stopped. The route is told first: who hears that a change is over
/// finds what came of it.
pub async fn follow_shard(
    client: Client,
    namespace: String,
    shard: String,
    routes: watch::Sender<Option<Route>>,
    transitions: watch::Sender<Option<Transition>>,
    stop: CancellationToken,
) {
    let shards = Api::namespaced_with(client, &namespace, &resource("Shard", "shards"));
    let told = |object: Option<DynamicObject>| {
        let (route, transition) = match object.map(|shard| way_of(&shard)).transpose() {
            Ok(way) => way.unwrap_or_default(),
            Err(e) => return tracing::error!(error = %e, "the Shard's status is not understood; the last route stays"),
        };
        tell(&routes, route);
        tell(&transitions, transition);
    };
    follow_one(shards, &shard, told, &stop).await;
}

/// Tells what is news.
fn tell<T: PartialEq>(to: &watch::Sender<T>, value: T) {
    to.send_if_modified(|present| {
        let news = *present != value;
        if news {
            *present = value;
        }
        news
    });
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
    #[serde(default)]
    replicas: Vec<ReplicaFacts>,
}

#[derive(Deserialize)]
struct TransitionFacts {
    kind: String,
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    to: String,
}

#[derive(Deserialize)]
struct ReplicaFacts {
    name: String,
    /// The pod's IP address.
    address: Option<String>,
}

/// A change that begins with a primary that serves, and tells it to stop.
const PLANNED: &str = "Switchover";
/// The first primary is made: there is nothing to hand over.
const FIRST: &str = "Bootstrap";
/// Where each replica's MySQL listens.
const MYSQL_PORT: u16 = 3306;

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

fn way_of(shard: &DynamicObject) -> Result<(Option<Route>, Option<Transition>), serde_json::Error> {
    let facts: ShardFacts = status(shard)?;
    Ok((route_of(&facts), transition_of(&facts)))
}

/// None while the primary stays: when it is to be confirmed, the route leads there already.
fn transition_of(facts: &ShardFacts) -> Option<Transition> {
    let transition = facts.transition.as_ref()?;
    if transition.kind == FIRST || transition.to.is_empty() || facts.primary.as_ref() == Some(&transition.to) {
        return None;
    }
    let target = facts.replicas.iter().find(|replica| replica.name == transition.to);
    // What is not understood of an address costs the connection that is made ahead, and nothing else.
    let address = target.and_then(|target| target.address.as_deref()?.parse::<IpAddr>().ok());
    let to = address.map(|address| Route {
        primary: ReplicaName::new(&transition.to),
        address: SocketAddr::new(address, MYSQL_PORT),
        epoch: Epoch(transition.epoch),
    });
    let change = if transition.kind == PLANNED { Change::Planned } else { Change::Sudden };
    Some(Transition { to, change })
}

/// None while there is no primary.
///
/// An epoch that is claimed ends what came before, as nobody knows what became of the primary. Only a planned change leaves it in office
/// until it has been told to stop, so that the gap begins there and not at the claim.
fn route_of(facts: &ShardFacts) -> Option<Route> {
    let primary = facts.primary.as_ref().filter(|name| !name.is_empty())?;
    let epoch = match &facts.transition {
        Some(transition) if transition.kind == PLANNED => facts.epoch.saturating_sub(1),
        _ => facts.epoch,
    };
    Some(Route { primary: ReplicaName::new(primary), address: facts.primary_address?, epoch: Epoch(epoch) })
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
            assert_eq!(way_of(&object(status)).unwrap().0, expected, "{case}");
        }
        assert!(way_of(&object(json!({"primary": "a", "primaryAddress": "nowhere"}))).is_err());
        let bare = DynamicObject::new("a", &resource("Shard", "shards"));
        assert_eq!(way_of(&bare).unwrap(), (None, None), "no status");
    }

    #[test]
    fn the_target_of_a_change_is_told_as_the_route_that_it_will_be() {
        let changing = |kind: &str, to: &str, address: serde_json::Value| {
            json!({
                "primary": "m-a", "primaryAddress": "10.0.0.1:3306", "epoch": 5,
                "transition": {"kind": kind, "epoch": 5, "to": to},
                "replicas": [{"name": "m-a", "address": "10.0.0.1"}, {"name": "m-b", "address": address}],
            })
        };
        let to = |address: &str| {
            let address = address.parse().unwrap();
            Some(Route { primary: ReplicaName::new("m-b"), address, epoch: Epoch(5) })
        };
        let there = json!("10.0.0.2");
        for (case, kind, target, address, expected) in [
            ("sudden", "Failover", "m-b", &there, Some((to("10.0.0.2:3306"), Change::Sudden))),
            ("planned", "Switchover", "m-b", &there, Some((to("10.0.0.2:3306"), Change::Planned))),
            ("by IPv6", "Failover", "m-b", &json!("fd00::2"), Some((to("[fd00::2]:3306"), Change::Sudden))),
            ("its address is not known", "Switchover", "m-b", &json!(null), Some((None, Change::Planned))),
            ("its address is none", "Failover", "m-b", &json!("soon"), Some((None, Change::Sudden))),
            ("it is not listed", "Failover", "m-c", &there, Some((None, Change::Sudden))),
            ("the primary is confirmed", "Confirm", "m-a", &there, None),
            ("another is confirmed", "Confirm", "m-b", &there, Some((to("10.0.0.2:3306"), Change::Sudden))),
            ("the first one", "Bootstrap", "m-b", &there, None),
        ] {
            let told = way_of(&object(changing(kind, target, address.clone()))).unwrap().1;
            assert_eq!(told.map(|transition| (transition.to, transition.change)), expected, "{case}");
        }
        let mut published = changing("Failover", "m-b", there);
        (published["primary"], published["primaryAddress"]) = (json!("m-b"), json!("10.0.0.2:3306"));
        published["transition"] = json!(null);
        let (route, transition) = way_of(&object(published)).unwrap();
        assert_eq!((route, transition), (to("10.0.0.2:3306"), None), "what was made ahead leads there");
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
