//! Keeps the topology current by watching Shards and the Datastore. I/O.
//!
//! What was known last stays while the API server is away: reading goes on. An object that cannot be understood changes
//! nothing either.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use understudy_api::labels;
use understudy_wire::ShardName;

use crate::topology::Topology;

/// How long a watch lasts before it is begun anew: a connection that died without a word is noticed after this time and
/// some seconds.
const WATCH_SECONDS: u32 = 20;
/// First and longest pause after a watch failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The client of a pod: it gives up on a silent API server soon enough to find another.
pub async fn client() -> Result<Client, kube::Error> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 10));
    Client::try_from(config)
}

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
    follow(api, config, &stop, |event| apply_shard_event(&topology, &mut listed, event)).await;
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
    follow(api, config, &stop, |event| {
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

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(understudy_api::GROUP, "v1alpha1", kind), plural)
}

async fn follow(
    api: Api<DynamicObject>,
    config: watcher::Config,
    stop: &CancellationToken,
    mut told: impl FnMut(Event<DynamicObject>),
) {
    let mut events = std::pin::pin!(watcher::watcher(api, config.timeout(WATCH_SECONDS)));
    let mut pause = PAUSE.0;
    loop {
        let Some(event) = stop.run_until_cancelled(events.next()).await else { return };
        match event {
            Some(Ok(event)) => {
                pause = PAUSE.0;
                told(event);
            }
            Some(Err(e)) => {
                warn!(error = %e, "watch interrupted; what was known last stays");
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(PAUSE.1);
            }
            None => return,
        }
    }
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
