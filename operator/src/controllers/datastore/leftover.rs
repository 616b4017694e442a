//! Objects of a service that is not asked for any more, of kinds that the operator may not delete. I/O.
//!
//! A right to delete rights cannot be given for those of one owner only. So the garbage collector is told to: an object of ours is
//! given an owner that does not exist, and is deleted as if its owner had been.

use kube::ResourceExt;

use crate::apply::{Applier, ApplyError, Live, Writable, manager};

/// The UID of no object.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// Has an object deleted if it is there and has an owner in common with this one, which is what it would be made as.
pub async fn give_up<K: Writable>(applier: &Applier, object: &K) -> Result<(), ApplyError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let Some(live) = applier.get::<K>(&namespace, &name).await? else { return Ok(()) };
    let ours = |uid: &str| object.owner_references().iter().any(|owner| owner.uid == uid);
    if !live.owner_references().iter().any(|owner| ours(&owner.uid)) {
        return Ok(());
    }
    let mut object = object.clone();
    object.meta_mut().uid = live.uid();
    for owner in object.owner_references_mut() {
        owner.uid = NOBODY.to_owned();
        owner.block_owner_deletion = None;
    }
    // All of it is sent: the next one of this name is then another than what was sent last, and is not taken for there already.
    applier.apply(manager::DATASTORE, &object, Live::Unwatched).await.map(drop)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::Role;
    use serde_json::json;

    use super::*;
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

    async fn apply(applier: &Applier) -> Result<bool, ApplyError> {
        applier.apply(manager::DATASTORE, &role("d1"), Live::Unwatched).await
    }

    fn owner(api: &FakeApi) -> String {
        api.object(ROLE).unwrap()["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn the_garbage_collector_gets_what_is_ours_and_the_next_one_is_made_as_soon_as_it_is_gone() {
        let api = FakeApi::default();
        let applier = api.applier();
        assert!(apply(&applier).await.unwrap());
        assert_eq!(owner(&api), "d1");
        for _ in 0..2 {
            give_up(&applier, &role("d1")).await.unwrap();
            assert_eq!(owner(&api), NOBODY);
        }
        assert!(apply(&applier).await.unwrap_err().is_conflict(), "it is waited for");
        // As the garbage collector does.
        api.change(ROLE, |role| role["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        give_up(&applier, &role("d1")).await.unwrap();
        assert!(apply(&applier).await.unwrap());
        assert_eq!(owner(&api), "d1");
        assert!(!api.writes().iter().any(|write| write.starts_with("DELETE")), "{:?}", api.writes());
    }

    #[tokio::test]
    async fn what_somebody_else_made_stays() {
        for theirs in ["d0", "another"] {
            let api = FakeApi::with([serde_json::to_value(role(theirs)).unwrap()]);
            give_up(&api.applier(), &role("d1")).await.unwrap();
            assert_eq!((owner(&api).as_str(), api.writes().len()), (theirs, 0));
        }
    }
}
