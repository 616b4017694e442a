//! Objects of a service that is not asked for any more. I/O.

use kube::ResourceExt;

use crate::apply::{Applier, ApplyError, Writable};

/// Deletes an object if it is there and has an owner in common with this one, which is what it would be made as.
pub async fn give_up<K: Writable>(applier: &Applier, object: &K) -> Result<(), ApplyError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let Some(live) = applier.get::<K>(&namespace, &name).await? else { return Ok(()) };
    let ours = |uid: &str| object.owner_references().iter().any(|owner| owner.uid == uid);
    match live.owner_references().iter().any(|owner| ours(&owner.uid)) {
        true => applier.delete(&live, None).await,
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::Role;
    use serde_json::json;

    use super::*;
    use crate::apply::{Live, manager};
    use crate::fake::FakeApi;

    const ROLE: &str = "roles/metrics-query";

    fn role(owner: &str) -> Role {
        serde_json::from_value(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {
                "name": "metrics-query", "namespace": "prod",
                "ownerReferences": [{
                    "apiVersion": "understudy.dev/v1alpha1", "kind": "Datastore", "name": "metrics", "uid": owner,
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "rules": [],
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn what_is_ours_goes_and_the_next_one_is_made() {
        let api = FakeApi::default();
        let applier = api.applier();
        let apply = async || applier.apply(manager::DATASTORE, &role("d1"), Live::Unwatched).await;
        assert!(apply().await.unwrap());
        for _ in 0..2 {
            give_up(&applier, &role("d1")).await.unwrap();
            assert_eq!(api.object(ROLE), None);
        }
        assert!(apply().await.unwrap());
        assert!(api.object(ROLE).is_some());
    }

    #[tokio::test]
    async fn what_somebody_else_made_stays() {
        for theirs in ["d0", "another"] {
            let api = FakeApi::with([serde_json::to_value(role(theirs)).unwrap()]);
            give_up(&api.applier(), &role("d1")).await.unwrap();
            assert!(api.object(ROLE).is_some() && api.writes().is_empty(), "{theirs}");
        }
    }
}
