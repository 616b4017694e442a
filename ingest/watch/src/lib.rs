//! How an ingest service follows objects of the API server: the consumer its Shard, the query service all of a Datastore. I/O.
//!
//! What was known last is kept while the API server is away, so nothing here is ever told of a failure.

use std::time::Duration;

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

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

/// A kind of ours, without its schema: only the fields that matter to who reads it are looked at, so that a newer object is
/// understood too.
pub fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(understudy_api::GROUP, "v1alpha1", kind), plural)
}

/// Tells of the objects that `config` selects, until stopped. `name` is for the log, where one object is followed.
pub async fn follow(
    api: Api<DynamicObject>,
    config: watcher::Config,
    name: Option<&str>,
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
                tracing::warn!(name, error = %e, "watch interrupted; what was known last stays");
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                pause = (pause * 2).min(PAUSE.1);
            }
            None => return,
        }
    }
}
