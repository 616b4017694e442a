//! The role labels of pods and volumes, by which Services find a replica. I/O.

use std::time::Instant;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use understudy_api::labels;
use understudy_decide::Role;
use understudy_wire::ReplicaName;

use super::act::{ActError, Taken, soon};
use super::observe::Objects;
use super::stage::Stage;
use crate::apply::{Applier, ApplyError, Live, Writable, manager};

impl Stage {
    /// Labels the pod and the volume of a replica, as far as they are seen with another role.
    pub(super) async fn label(
        &mut self,
        replica: &ReplicaName,
        role: Role,
        objects: &Objects,
    ) -> Result<Taken, ActError> {
        if !self.overlay.take(&format!("label {replica} {role}"), Instant::now()) {
            return Ok(Taken::Void);
        }
        let applier = &self.context.applier;
        // A condemned replica's pod is on its way out.
        if let Some(pod) = objects.pods.get(replica.as_str()).filter(|_| role != Role::Condemned) {
            soon(relabel::<Pod>(applier, &self.namespace, &pod.metadata, role)).await?;
        }
        if let Some(claim) = objects.claims.get(replica.as_str()) {
            soon(relabel::<PersistentVolumeClaim>(applier, &self.namespace, &claim.metadata, role)).await?;
        }
        Ok(Taken::Done)
    }
}

/// Sets the role of an object that is seen with another one. It is sent whatever was sent before: labels leave the generation of a
/// pod as it is, so that somebody else's change of them does not show there.
async fn relabel<K: Writable>(
    applier: &Applier,
    namespace: &str,
    seen: &ObjectMeta,
    role: Role,
) -> Result<(), ApplyError> {
    let role = role.to_string();
    if seen.labels.as_ref().and_then(|labels| labels.get(labels::ROLE)) == Some(&role) {
        return Ok(());
    }
    let name = seen.name.as_deref().unwrap_or_default();
    let body = json!({ "metadata": { "name": name, "uid": seen.uid, "labels": { labels::ROLE: role } } });
    applier.apply_as::<K>(manager::ROLE, namespace, name, body, Live::Absent).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;

    fn role_of(api: &FakeApi) -> String {
        let pod = api.object("pods/m-a").unwrap();
        pod["metadata"]["labels"][labels::ROLE].as_str().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn a_role_that_was_set_before_is_set_again_when_somebody_changed_it() {
        let api = FakeApi::with([json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "m-a", "namespace": "prod", "generation": 1, "labels": { labels::ROLE: "spare" } },
        })]);
        let applier = api.applier();
        let set = async |role: Role| {
            let pod: Pod = serde_json::from_value(api.object("pods/m-a").unwrap()).unwrap();
            relabel::<Pod>(&applier, "prod", &pod.metadata, role).await.unwrap();
        };
        for role in [Role::Standby, Role::Primary] {
            set(role).await;
            assert_eq!(role_of(&api), role.to_string());
        }
        for (case, by_hand) in [("by hand", "standby"), ("by another instance that led meanwhile", "spare")] {
            api.change("pods/m-a", |pod| pod["metadata"]["labels"][labels::ROLE] = json!(by_hand));
            set(Role::Primary).await;
            assert_eq!(role_of(&api), "primary", "{case}");
        }
        let writes = api.writes().len();
        set(Role::Primary).await;
        assert_eq!(api.writes().len(), writes, "it is as it should be");
    }
}
