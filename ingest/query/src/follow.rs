//! Keeps the topology current by watching Shards and the Datastore. I/O.
//!
//! What was known last stays while the API server is away: reading goes on. An object that cannot be understood changes
//! nothing either.

use std::collections::BTreeSet;

use kube::api::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use understudy_api::labels;
use understudy_watch::{follow, resource};
use understudy_wire::ShardName;

use crate::topology::Topology;

/// Follows the shards of a Datastore until stopped.
pub async fn follow_shards(
    client: Client,
    namespace: String,
    datastore: String,
    topology: watch::Sender<Topology>,
    stop: CancellationToken,
) {
    let config = watcher::Config::default().labels(&format!("{}={datastore}", labels::DATASTORE));
    let api = Api::namespaced_with(client, &namespace, &resource("Shard", "shards"));
    let mut listed = BTreeSet::new();
    follow(api, config, None, &stop, |event| apply_shard_event(&topology, &mut listed, event)).await;
}

/// Follows the placements of a Datastore until stopped.
pub async fn follow_datastore(
    client: Client,
    namespace: String,
    datastore: String,
    topology: watch::Sender<Topology>,
    stop: CancellationToken,
) {
    let config = watcher::Config::default().fields(&format!("metadata.name={datastore}"));
    let api = Api::namespaced_with(client, &namespace, &resource("Datastore", "datastores"));
    follow(api, config, None, &stop, |event| {
        // Without the object nothing says that data has gone: what was placed stays placed.
        let (Event::Apply(object) | Event::InitApply(object)) = event else { return };
        let Some(status) = status_of(&object) else { return };
        change(&topology, |topology| topology.apply_datastore(&status));
    })
    .await;
}

fn apply_shard_event(
    topology: &watch::Sender<Topology>,
    listed: &mut BTreeSet<ShardName>,
    event: Event<DynamicObject>,
) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) | Event::Apply(object) => {
            let name = ShardName::new(object.name_any());
            listed.insert(name.clone());
            let Some(status) = status_of(&object) else { return };
            change(topology, |topology| topology.apply_shard(name, &status));
        }
        Event::InitDone => change(topology, |topology| {
            topology.shards.retain(|name, _| listed.contains(name));
            topology.is_complete = true;
        }),
        Event::Delete(object) => {
            let name = ShardName::new(object.name_any());
            listed.remove(&name);
            change(topology, |topology| drop(topology.shards.remove(&name)));
        }
    }
}

fn change(topology: &watch::Sender<Topology>, apply: impl FnOnce(&mut Topology)) {
    topology.send_if_modified(|present| {
        let mut next = present.clone();
        apply(&mut next);
        for (name, view) in &next.shards {
            if present.shards.get(name).map(|known| (&known.primary, known.epoch)) != Some((&view.primary, view.epoch))
            {
                let primary = view.primary.as_ref().map_or("none", |server| server.replica.as_str());
                info!(shard = %name, primary, epoch = %view.epoch, "route");
            }
        }
        let is_news = next != *present;
        *present = next;
        is_news
    });
}

/// None when the status is not understood; an absent one is empty.
fn status_of<T: Default + DeserializeOwned>(object: &DynamicObject) -> Option<T> {
    let status = object.data.get("status").cloned().map_or_else(|| Ok(T::default()), serde_json::from_value);
    status
        .inspect_err(|e| error!(name = object.name_any(), error = %e, "a status is not understood; the last one stays"))
        .ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use understudy_wire::Epoch;

    use super::*;

    fn shard(name: &str, epoch: i64) -> DynamicObject {
        let status = json!({ "primary": "a", "primaryAddress": "10.0.0.1:3306", "epoch": epoch, "fromTheFuture": 1 });
        DynamicObject::new(name, &resource("Shard", "shards")).data(json!({ "status": status }))
    }

    #[test]
    fn shards_come_and_go_with_their_objects_and_a_new_list_replaces_the_old() {
        let (sender, topology) = watch::channel(Topology::default());
        let mut listed = BTreeSet::new();
        let mut tell = |event| apply_shard_event(&sender, &mut listed, event);
        let names = || topology.borrow().shards.keys().map(ToString::to_string).collect::<Vec<_>>();
        tell(Event::Init);
        tell(Event::InitApply(shard("s-0", 1)));
        tell(Event::InitApply(shard("s-1", 1)));
        assert!(!topology.borrow().is_complete);
        tell(Event::InitDone);
        assert!(topology.borrow().is_complete);
        tell(Event::Apply(shard("s-2", 1)));
        tell(Event::Delete(shard("s-0", 1)));
        assert_eq!(names(), ["s-1", "s-2"]);
        tell(Event::Init);
        tell(Event::InitApply(shard("s-2", 1)));
        assert_eq!(names(), ["s-1", "s-2"], "until the list is whole, what was known stays");
        tell(Event::InitDone);
        assert_eq!(names(), ["s-2"]);
    }

    #[test]
    fn a_status_that_is_not_understood_changes_nothing() {
        let (sender, topology) = watch::channel(Topology::default());
        let mut listed = BTreeSet::new();
        apply_shard_event(&sender, &mut listed, Event::Apply(shard("s-0", 3)));
        let mut broken = shard("s-0", 4);
        broken.data["status"]["epoch"] = json!("four");
        apply_shard_event(&sender, &mut listed, Event::Apply(broken));
        assert_eq!(topology.borrow().epoch(&ShardName::new("s-0")), Epoch(3));
    }
}
