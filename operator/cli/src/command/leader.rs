//! Which operator acts: its Leases are looked at, and looked at again when they look old. I/O.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::now;
use crate::cluster::{Cluster, ClusterError};
use crate::leader::{Leader, Look, USUAL_NAMESPACE, lease_names};
use crate::objects::{Kind, Lease};
use crate::output;

/// How long a Lease that looks old is looked at: an instance that takes over from one that died does so within its term and two seconds.
const AGAIN: Duration = Duration::from_secs(6);
/// Between two such looks.
const BREATH: Duration = Duration::from_millis(500);

/// Who acts. When nobody seems to, the answer takes some seconds, and a person is told why.
pub async fn leader(cluster: &Cluster) -> Leader {
    let began = Instant::now();
    search(cluster, || {
        let words = format!("no operator seems to act; looking again for {} s", AGAIN.as_secs());
        output::progress(began.elapsed(), &words);
    })
    .await
}

/// The same without a word.
pub async fn leader_quietly(cluster: &Cluster) -> Leader {
    search(cluster, || {}).await
}

async fn search(cluster: &Cluster, doubtful: impl FnOnce()) -> Leader {
    let began = Instant::now();
    let first = look(cluster).await;
    let mut latest = first.clone();
    let mut doubtful = Some(doubtful);
    loop {
        let between = began.elapsed();
        let seconds = i64::try_from(between.as_secs()).unwrap_or(i64::MAX);
        let leader = Leader::of(cluster.namespace(), &first, &latest, seconds, now());
        if !leader.may_change() || between >= AGAIN {
            return leader;
        }
        if let Some(doubtful) = doubtful.take() {
            doubtful();
        }
        tokio::time::sleep(BREATH).await;
        latest = look(cluster).await;
    }
}

async fn look(cluster: &Cluster) -> Look {
    let names = lease_names(cluster.namespace());
    let looks = match cluster.operator_namespace() {
        Some(namespace) => join_all(names.iter().map(|name| look_in(cluster, namespace, name))).await,
        None => join_all(names.iter().map(|name| look_everywhere(cluster, name))).await,
    };
    together(looks)
}

async fn look_in(cluster: &Cluster, namespace: &str, name: &str) -> Look {
    match cluster.find_in(namespace, Kind::Lease, name).await {
        Ok(found) => Look { leases: found.iter().map(Lease::read).collect(), not_read: None },
        Err(error) => not_read(error),
    }
}

async fn look_everywhere(cluster: &Cluster, name: &str) -> Look {
    match cluster.everywhere(Kind::Lease, name).await {
        Ok(found) => Look { leases: found.iter().map(Lease::read).collect(), not_read: None },
        // Whoever may not list them may still be allowed to read the one.
        Err(error @ ClusterError::Refused { code: 403, .. }) => {
            let namespaces = [USUAL_NAMESPACE, cluster.namespace()];
            let looks = join_all(namespaces.iter().map(|namespace| look_in(cluster, namespace, name))).await;
            Look { leases: together(looks).leases, ..not_read(error) }
        }
        Err(error) => not_read(error),
    }
}

fn together(looks: Vec<Look>) -> Look {
    looks.into_iter().fold(Look::default(), |mut all, look| {
        all.leases.extend(look.leases);
        all.not_read = all.not_read.or(look.not_read);
        all
    })
}

/// In the API server's words: what else is said of a refusal is about our kinds.
fn not_read(error: ClusterError) -> Look {
    let why = match error {
        ClusterError::Refused { message, .. } => message,
        error => error.to_string(),
    };
    Look { leases: Vec::new(), not_read: Some(why) }
}
