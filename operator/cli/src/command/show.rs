//! `status`, `explain` and `timeline`: nothing is changed. I/O.

use std::process::ExitCode;

use anyhow::Result;
use kube::api::DynamicObject;

use super::{leader, now, shard, warn};
use crate::args::{ExplainOptions, Output, StatusOptions, TimelineOptions};
use crate::cluster::{Cluster, ClusterError};
use crate::objects::{Consumer, Datastore, Drill, Event, Failover, Kind, Replica, Shard};
use crate::output;
use crate::view::explain::{self, Seen};
use crate::view::status::{self, Store};
use crate::view::text::Extent;
use crate::view::timeline;

/// What `status --exit-code` ends with when something is not well.
const UNWELL: u8 = 3;

/// The store as one screen.
pub async fn status(cluster: &Cluster, options: &StatusOptions, output: Output) -> Result<ExitCode> {
    let leader = async { Ok::<_, ClusterError>(leader::leader(cluster).await) };
    let (mut store, leader) = tokio::try_join!(read(cluster), leader)?;
    store.operator = leader;
    if let Some(name) = &options.datastore
        && !store.keep(name.as_str())
    {
        return Err(cluster.not_found(Kind::Datastore, name.as_str()).await.into());
    }
    let screen = status::screen(&store, now());
    output::show(&screen, output, Extent::of(options.all))?;
    Ok(if options.exit_code && !screen.is_well() { ExitCode::from(UNWELL) } else { ExitCode::SUCCESS })
}

/// Everything of the namespace.
async fn read(cluster: &Cluster) -> Result<Store, ClusterError> {
    let mut store = Store { namespace: cluster.namespace().to_owned(), ..Store::default() };
    let drills = async {
        match cluster.list(Kind::Drill, None).await {
            Ok(listed) => Ok(Some(listed)),
            // Definitions of before there were drills.
            Err(ClusterError::NoKind { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let (datastores, shards, replicas, consumers, failovers, drills) = tokio::try_join!(
        cluster.list(Kind::Datastore, None),
        cluster.list(Kind::Shard, None),
        cluster.list(Kind::Replica, None),
        cluster.list(Kind::Consumer, None),
        cluster.list(Kind::Failover, None),
        drills,
    )?;
    store.datastores = each(&datastores.objects, Datastore::read);
    store.shards = each(&shards.objects, Shard::read);
    store.replicas = each(&replicas.objects, Replica::read);
    store.consumers = each(&consumers.objects, Consumer::read);
    store.failovers = each(&failovers.objects, Failover::read);
    store.drills = drills.as_ref().map(|drills| each(&drills.objects, Drill::read)).unwrap_or_default();
    let lists = [
        (Kind::Datastore, Some(&datastores)),
        (Kind::Shard, Some(&shards)),
        (Kind::Replica, Some(&replicas)),
        (Kind::Consumer, Some(&consumers)),
        (Kind::Failover, Some(&failovers)),
        (Kind::Drill, drills.as_ref()),
    ];
    let cut_off = lists.into_iter().filter(|(_, listed)| listed.is_some_and(|listed| !listed.is_whole));
    store.cut_off = cut_off.map(|(kind, _)| kind.plural()).collect();
    Ok(store)
}

fn each<T>(objects: &[DynamicObject], read: fn(&DynamicObject) -> T) -> Vec<T> {
    objects.iter().map(read).collect()
}

/// What is wrong with a shard.
pub async fn explain(cluster: &Cluster, options: &ExplainOptions, output: Output) -> Result<ExitCode> {
    let name = options.shard.as_str();
    let leader = async { Ok::<_, ClusterError>(leader::leader(cluster).await) };
    let ((shard, datastore_paused), operator) = tokio::try_join!(shard(cluster, name), leader)?;
    let fields = format!("involvedObject.kind={},involvedObject.name={name}", Kind::Shard.name());
    // Whoever may not read events is told the rest.
    let (events, not_read) = match cluster.list(Kind::Event, Some(&fields)).await {
        Ok(listed) => (each(&listed.objects, Event::read), Vec::new()),
        Err(error) => (Vec::new(), vec![error.to_string()]),
    };
    let namespace = cluster.namespace().to_owned();
    let screen = explain::screen(Seen { namespace, operator, shard, datastore_paused, events, not_read }, now());
    output::show(&screen, output, Extent::of(options.all))?;
    Ok(ExitCode::SUCCESS)
}

/// A change of primary step by step.
pub async fn timeline(cluster: &Cluster, options: &TimelineOptions, output: Output) -> Result<ExitCode> {
    let object = cluster.get(Kind::Failover, options.failover.as_str()).await?;
    // One that is closed does not change any more, whoever acts.
    if !Failover::read(&object).is_closed() {
        warn(&leader::leader(cluster).await);
    }
    output::show(&timeline::screen(object, now()), output, Extent::of(options.all))?;
    Ok(ExitCode::SUCCESS)
}
