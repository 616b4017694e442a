//! Hitting, and letting go. I/O: orders to managers over mutual TLS, and requests as Failover objects.

use std::time::Duration;

use futures::future::join_all;
use http::Method;
use kube::ResourceExt;
use understudy_api::v1alpha1::{FailoverKind, FailoverSpec};
use understudy_api::{Drill, Failover, labels, names};
use understudy_decide::drill::progress::request_name;
use understudy_decide::drill::snapshot::{Exercise, Run, Victim};
use understudy_decide::failover::snapshot::{MANAGER_PORT, with_port};
use understudy_link::client::{CallError, Client, Endpoint};
use understudy_wire::order::{DrillOrder, Fault, HealOrder, Struck};

use super::observe;
use crate::apply::manager;
use crate::context::Context;
use crate::controllers::queue::chain;

/// A wedge takes a few statements and a moment until every thread stands still.
const STRIKE: Duration = Duration::from_secs(8);
const HEAL: Duration = Duration::from_secs(3);
/// An answer that did not come may have been lost on the way; the manager does nothing twice in one run.
const TRIES: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(300);

/// Hits these victims of a run; the place of each that could not be hit, and why.
pub async fn strike(drill: &Drill, run: &Run, places: &[usize], context: &Context) -> Vec<(usize, String)> {
    let victims = places.iter().filter_map(|place| Some((*place, run.victims.get(*place)?)));
    let blows = victims.map(|(place, victim)| async move {
        let outcome = match run.exercise {
            Exercise::Switchover => request(drill, run, victim, context).await,
            Exercise::Fault(fault) => order(drill, run, victim, fault, context).await,
        };
        outcome.err().map(|error| (place, error))
    });
    join_all(blows).await.into_iter().flatten().collect()
}

/// Asks for a switchover, as a person would. One of that name is there when an earlier try was not answered.
async fn request(drill: &Drill, run: &Run, victim: &Victim, context: &Context) -> Result<(), String> {
    let namespace = drill.namespace().unwrap_or_default();
    let spec = FailoverSpec {
        shard: victim.shard.to_string(),
        kind: FailoverKind::Switchover,
        reason: Some(format!("rehearsed by Drill {}, run {}", drill.name_any(), run.id)),
        target: None,
        epoch: None,
        drill: Some(drill.name_any()),
    };
    let mut failover = Failover::new(&request_name(&run.id, victim), spec);
    let mut all = observe::labels_of(&victim.shard, &namespace, &context.caches);
    all.insert(labels::DRILL.to_owned(), drill.name_any());
    failover.metadata.namespace = Some(namespace);
    failover.metadata.labels = Some(all);
    for tries in 1.. {
        match context.applier.create(manager::DRILL, &failover).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_already_exists() => return Ok(()),
            Err(error) if error.is_refusal() || tries >= TRIES => return Err(chain(&error)),
            Err(_) => tokio::time::sleep(BETWEEN).await,
        }
    }
    Ok(())
}

async fn order(drill: &Drill, run: &Run, victim: &Victim, fault: Fault, context: &Context) -> Result<(), String> {
    let client = client(drill, victim, context).ok_or("its manager has no address")?;
    let hold = u64::try_from(run.hold.as_millis()).unwrap_or(0);
    let order = DrillOrder { epoch: victim.epoch, run: run.id.clone(), fault, hold };
    for tries in 1.. {
        let answer: Result<Struck, CallError> =
            client.order(&victim.replica, Method::POST, "/v1/drill", &order, STRIKE).await;
        match answer {
            Ok(_) => return Ok(()),
            Err(CallError::Refused { refusal, .. }) => return Err(refusal.to_string()),
            // A manager from before there were drills.
            Err(error @ CallError::Status { .. }) => return Err(error.to_string()),
            Err(error) if tries >= TRIES => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(BETWEEN).await,
        }
    }
    Ok(())
}

/// Tells these victims of a run to let go; the place of each that has. One that cannot be told lets go by itself at the end of the hold.
pub async fn heal(drill: &Drill, run: &Run, places: &[usize], context: &Context) -> Vec<usize> {
    let victims = places.iter().filter_map(|place| Some((*place, run.victims.get(*place)?)));
    let heals = victims.map(|(place, victim)| async move {
        let client = client(drill, victim, context)?;
        let order = HealOrder { epoch: victim.epoch, run: run.id.clone() };
        let told: Result<(), CallError> = client.order(&victim.replica, Method::POST, "/v1/heal", &order, HEAL).await;
        // It is told again and again, and the status says whom the run waits for.
        let untold =
            |error: &CallError| tracing::debug!(run = run.id, replica = %victim.replica, %error, "has not let go");
        told.inspect_err(untold).ok().map(|()| place)
    });
    join_all(heals).await.into_iter().flatten().collect()
}

fn client(drill: &Drill, victim: &Victim, context: &Context) -> Option<Client> {
    let namespace = drill.namespace().unwrap_or_default();
    let pod = context.caches.pods.get(&namespace, victim.replica.as_str())?;
    let address = with_port(pod.status.as_ref()?.pod_ip.as_ref()?, MANAGER_PORT).parse().ok()?;
    let endpoint = Endpoint { address, name: names::shard_san(victim.shard.as_str()) };
    Some(Client::new(endpoint, context.identity.clone()))
}
