//! What a shard's objects say, in a line for a person, and whether nothing is left to do. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use understudy_api::v1alpha1::{Datastore, Failover, FailoverPhase, Replica, ReplicaPhase, Role, Shard, VerdictState};

/// A shard's status in one line.
pub fn shard(shard: &Shard) -> String {
    let Some(status) = &shard.status else { return "no status yet".into() };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".into());
    let verdict = status.verdict.as_ref().map_or("no verdict".to_owned(), |v| match &v.cause {
        Some(cause) => format!("{} ({cause})", v.state),
        None => v.state.to_string(),
    });
    let replicas: Vec<_> = status
        .replicas
        .iter()
        .map(|r| format!("{} {} {}{}", r.name, r.role, text(&r.phase), if r.ready { "" } else { " not ready" }))
        .collect();
    format!(
        "primary {} target {} epoch {}{}, ready {}, promotable {}, {verdict}, doing {}; {}",
        text(&status.primary),
        text(&status.target_primary),
        status.epoch,
        if status.transition.is_some() { " claimed" } else { "" },
        text(&status.ready),
        status.promotable,
        text(&status.doing),
        replicas.join(", ")
    )
}

/// What keeps a shard from having everything its spec asks for; `None` when nothing does.
pub fn unsettled(shard: &Shard) -> Option<&'static str> {
    let Some(status) = &shard.status else { return Some("it has no status") };
    let wanted = shard.spec.replicas;
    let verdict = status.verdict.as_ref().map(|v| v.state);
    [
        (status.observed_generation != shard.metadata.generation, "its spec was not seen yet"),
        (status.primary.is_none(), "it has no primary"),
        (status.transition.is_some(), "its primary is being changed"),
        (verdict != Some(VerdictState::Healthy), "its primary is not Healthy"),
        (status.ready_replicas != wanted, "not all replicas are ready"),
        (status.promotable != wanted - 1, "not all standbys are promotable"),
        (serving(shard).len() != wanted.max(0) as usize, "it has too many or too few replicas"),
    ]
    .into_iter()
    .find_map(|(unsettled, why)| unsettled.then_some(why))
}

/// What a Datastore lacks, in its own words; `None` when it is ready for the spec that it has now.
pub fn wanting(datastore: &Datastore) -> Option<String> {
    let Some(status) = &datastore.status else { return Some("the Datastore has no status".into()) };
    if status.observed_generation != datastore.metadata.generation {
        return Some("the Datastore's spec was not seen yet".into());
    }
    match status.conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone()),
        None => Some("the Datastore is not ready".into()),
    }
}

/// Names of the replicas that were not condemned.
pub fn serving(shard: &Shard) -> Vec<String> {
    let replicas = shard.status.iter().flat_map(|s| &s.replicas);
    replicas.filter(|r| r.role != Role::Condemned).map(|r| r.name.clone()).collect()
}

/// The primary's name; empty while there is none.
pub fn primary(shard: &Shard) -> String {
    shard.status.as_ref().and_then(|s| s.primary.clone()).unwrap_or_default()
}

/// Whether a change of primary is under way.
pub fn is_changing(shard: &Shard) -> bool {
    shard.status.as_ref().is_some_and(|s| s.transition.is_some())
}

/// What is concluded of the primary.
pub fn verdict(shard: &Shard) -> Option<VerdictState> {
    shard.status.as_ref()?.verdict.as_ref().map(|verdict| verdict.state)
}

/// The highest epoch that was claimed; the primary serves under it unless a change is under way.
pub fn epoch(shard: &Shard) -> i64 {
    shard.status.as_ref().map_or(0, |s| s.epoch)
}

/// Names of the standbys.
pub fn standbys(shard: &Shard) -> Vec<String> {
    let replicas = shard.status.iter().flat_map(|s| &s.replicas);
    replicas.filter(|r| r.role == Role::Standby).map(|r| r.name.clone()).collect()
}

/// Replicas in one line.
pub fn replicas(replicas: &BTreeMap<String, Replica>) -> String {
    let one = |(name, replica): (&String, &Replica)| {
        let status = replica.status.clone().unwrap_or_default();
        let build = status.rebuild.and_then(|r| r.summary).map_or(String::new(), |s| format!(" ({s})"));
        format!("{name} {} {}{build}", status.role, status.phase)
    };
    replicas.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Whether a replica runs and was not condemned.
pub fn is_running(replica: &Replica) -> bool {
    replica.status.as_ref().is_some_and(|s| s.phase == ReplicaPhase::Running && s.role != Role::Condemned)
}

/// A record in one line.
pub fn failover(failover: &Failover) -> String {
    let Some(status) = &failover.status else { return "no status yet".into() };
    let steps: Vec<_> = status.timeline.iter().map(|t| format!("{} +{} ms", t.step, t.elapsed_ms)).collect();
    let result = status.result.map_or("no result yet".to_owned(), |r| r.to_string());
    format!("{} {result}: {}; {}", status.phase, status.message.as_deref().unwrap_or("no message"), steps.join(", "))
}

/// Whether a change of primary has come to its end.
pub fn is_closed(failover: &Failover) -> bool {
    failover.status.as_ref().is_some_and(|s| s.phase == FailoverPhase::Closed)
}

/// `http://IP:PORT` of each pod that is ready.
pub fn addresses<'a>(pods: impl IntoIterator<Item = &'a Pod>, port: u16) -> Vec<String> {
    let ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    };
    let address = |pod: &Pod| pod.status.as_ref()?.pod_ip.clone();
    pods.into_iter().filter(|p| ready(p)).filter_map(address).map(|ip| format!("http://{ip}:{port}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settled() -> serde_json::Value {
        let replica = |name: &str, role: &str| json!({"name": name, "role": role, "ready": true, "phase": "Running"});
        json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": "Shard", "metadata": {"name": "s", "generation": 2},
            "spec": {"replicas": 2, "mysql": {"image": "mysql:8.4"}, "storage": {"size": "1Gi"}},
            "status": {
                "observedGeneration": 2, "primary": "s-a", "targetPrimary": "s-a", "epoch": 3, "nextServerId": 4,
                "verdict": {"state": "Healthy"}, "ready": "2/2", "readyReplicas": 2, "promotable": 1,
                "replicas": [replica("s-a", "primary"), replica("s-b", "standby"), replica("s-old", "condemned")],
            },
        })
    }

    fn parse(value: serde_json::Value) -> Shard {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_shard_with_all_it_asks_for_is_settled() {
        let shard = parse(settled());
        assert_eq!(unsettled(&shard), None);
        assert_eq!((primary(&shard).as_str(), standbys(&shard)), ("s-a", vec!["s-b".to_owned()]));
    }

    #[test]
    fn each_thing_still_to_do_is_named() {
        for (path, value, why) in [
            ("/status/observedGeneration", json!(1), "spec"),
            ("/status/verdict/state", json!("Suspect"), "Healthy"),
            ("/status/readyReplicas", json!(1), "ready"),
            ("/status/promotable", json!(0), "promotable"),
            ("/status/replicas/2/role", json!("spare"), "too many"),
        ] {
            let mut object = settled();
            *object.pointer_mut(path).unwrap() = value;
            let shard = parse(object);
            assert!(unsettled(&shard).is_some_and(|w| w.contains(why)), "{path}: {:?}", unsettled(&shard));
        }
    }

    #[test]
    fn a_shard_whose_primary_is_being_changed_is_not_settled() {
        let mut object = settled();
        object["status"]["transition"] = json!({"kind": "Failover", "epoch": 4, "from": "s-a", "to": "s-b"});
        let shard = parse(object);
        assert!(is_changing(&shard));
        assert_eq!(unsettled(&shard), Some("its primary is being changed"));
    }
}
