//! What becomes of data when a Datastore or a Shard is deleted: the `deletionPolicy` in force at that moment decides. I/O.
//!
//! Volumes and passwords refer to no owner, so the garbage collector never takes them. A finalizer holds the Shard until the
//! operator has read the policy past every cache and either deleted the Shard's volumes or marked them as kept; one on the
//! Datastore until its Shards have its policy. While the operator is away both wait, and so does the data.
//!
//! Objects are read as JSON: one that does not parse any more must still be able to go, and what it does not say is `Retain`.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use understudy_api::v1alpha1::DeletionPolicy;
use understudy_api::{Datastore, Shard, labels, names};

use crate::apply::{Applier, ApplyError, Writable, manager};
use crate::errors::chain;
use crate::events::{Events, Reason};

/// Holds a Datastore or a Shard until its `deletionPolicy` was carried out.
pub const FINALIZER: &str = "understudy.dev/deletion-policy";

/// Whether the object waits for [`FINALIZER`].
pub fn is_held(object: &impl ResourceExt) -> bool {
    object.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer on an object that has none yet, before anything is made that it must not leave behind.
pub async fn hold<K: Writable>(applier: &Applier, object: &K) -> Result<Option<K>, ApplyError> {
    if is_held(object) || object.meta().deletion_timestamp.is_some() {
        return Ok(None);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    applier.merge(manager::FAREWELL, &namespace, &name, with_finalizers(object, &finalizers)).await.map(Some)
}

fn with_finalizers(object: &impl ResourceExt, finalizers: &[String]) -> Value {
    json!({ "metadata": {
        "uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers,
    }})
}

/// A deleted object as it is now, whether it parses or not.
struct Leaving<'a> {
    applier: &'a Applier,
    namespace: &'a str,
    object: DynamicObject,
}

impl<'a> Leaving<'a> {
    /// `None` when it is gone already, or when there is another of its name.
    async fn read<K: Writable>(
        applier: &'a Applier,
        namespace: &'a str,
        name: &str,
        uid: &str,
    ) -> Result<Option<Self>, ApplyError> {
        let found = read::<K>(applier, namespace, name).await?;
        let is_it = |object: &DynamicObject| object.uid().as_deref() == Some(uid) && is_held(object);
        Ok(found.filter(is_it).map(|object| Self { applier, namespace, object }))
    }

    fn uid(&self) -> String {
        self.object.uid().unwrap_or_default()
    }

    fn name(&self) -> String {
        self.object.name_any()
    }

    /// Lets it go.
    async fn release<K: Writable>(&self) -> Result<(), ApplyError> {
        let others: Vec<_> =
            self.object.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
        let patch = with_finalizers(&self.object, &others);
        let answer = dynamic::<K>(self.applier, self.namespace);
        let params = kube::api::PatchParams { field_manager: Some(manager::FAREWELL.to_owned()), ..Default::default() };
        let name = self.name();
        match self
            .applier
            .call::<K, _>("release", &name, answer.patch(&name, &params, &kube::api::Patch::Merge(&patch)))
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn dynamic<K: Writable>(applier: &Applier, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(applier.client(), namespace, &ApiResource::erase::<K>(&()))
}

async fn read<K: Writable>(
    applier: &Applier,
    namespace: &str,
    name: &str,
) -> Result<Option<DynamicObject>, ApplyError> {
    applier.timed::<K, _>("get", name, dynamic::<K>(applier, namespace).get_opt(name)).await
}

fn policy_of(object: &DynamicObject) -> DeletionPolicy {
    match object.data["spec"]["deletionPolicy"].as_str() {
        Some("Delete") => DeletionPolicy::Delete,
        _ => DeletionPolicy::Retain,
    }
}

/// Gives a deleted Datastore's policy to its Shards, which are deleted next, and lets the Datastore go.
pub async fn of_datastore(applier: &Applier, namespace: &str, name: &str, uid: &str) -> Result<(), ApplyError> {
    let Some(datastore) = Leaving::read::<Datastore>(applier, namespace, name, uid).await? else { return Ok(()) };
    let policy = policy_of(&datastore.object);
    let shards = dynamic::<Shard>(applier, namespace);
    let params = ListParams::default().labels(&format!("{}={name}", labels::DATASTORE));
    for shard in applier.timed::<Shard, _>("list", name, shards.list(&params)).await? {
        let ours = shard.owner_references().iter().any(|owner| owner.uid == uid);
        if !ours || policy_of(&shard) == policy {
            continue;
        }
        let patch = json!({
            "metadata": { "uid": shard.uid(), "resourceVersion": shard.resource_version() },
            "spec": { "deletionPolicy": policy },
        });
        let params = kube::api::PatchParams { field_manager: Some(manager::FAREWELL.to_owned()), ..Default::default() };
        let name = shard.name_any();
        match applier
            .call::<Shard, _>("merge", &name, shards.patch(&name, &params, &kube::api::Patch::Merge(&patch)))
            .await
        {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    datastore.release::<Datastore>().await
}

/// Deletes or marks the volumes of a deleted Shard, as the policy in force says, and lets the Shard go.
pub async fn of_shard(
    applier: &Applier,
    events: &Events,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), ApplyError> {
    let Some(shard) = Leaving::read::<Shard>(applier, namespace, name, uid).await? else { return Ok(()) };
    let policy = shard.policy().await?;
    for claim in shard.volumes().await? {
        match policy {
            DeletionPolicy::Delete => {
                applier.delete(&claim, None).await?;
                let note = format!("the volume {} is deleted with its Shard, as deletionPolicy says", claim.name_any());
                events.say_on(shard.object.object_ref(&ApiResource::erase::<Shard>(&())), Reason::VolumeDeleted, note);
            }
            DeletionPolicy::Retain => shard.keep(&claim, events).await?,
        }
    }
    shard.passwords(policy).await?;
    shard.release::<Shard>().await
}

impl Leaving<'_> {
    /// That of its Datastore while there is one: the Shard's own may be of before.
    async fn policy(&self) -> Result<DeletionPolicy, ApplyError> {
        let owners = self.object.owner_references();
        let Some(owner) = owners.iter().find(|owner| owner.kind == "Datastore" && owner.controller == Some(true))
        else {
            return Ok(policy_of(&self.object));
        };
        let datastore = read::<Datastore>(self.applier, self.namespace, &owner.name).await?;
        let datastore = datastore.filter(|datastore| datastore.uid().as_ref() == Some(&owner.uid));
        Ok(policy_of(datastore.as_ref().unwrap_or(&self.object)))
    }

    /// The volumes that were made for this very Shard, past the cache: quarantined ones, and those whose Replica is gone, too.
    async fn volumes(&self) -> Result<Vec<PersistentVolumeClaim>, ApplyError> {
        let params = ListParams::default().labels(&format!("{}={}", labels::SHARD, self.name()));
        let claims = self.applier.api::<PersistentVolumeClaim>(self.namespace);
        let listed = self.applier.timed::<PersistentVolumeClaim, _>("list", &self.name(), claims.list(&params)).await?;
        let uid = self.uid();
        let is_ours =
            |claim: &PersistentVolumeClaim| claim.labels().get(labels::SHARD_UID) == Some(&uid) || self.owns(claim);
        let stays = |claim: &PersistentVolumeClaim| claim.metadata.deletion_timestamp.is_none();
        Ok(listed.into_iter().filter(|claim| is_ours(claim) && stays(claim)).collect())
    }

    fn owns(&self, object: &impl ResourceExt) -> bool {
        let uid = self.uid();
        object.owner_references().iter().any(|owner| owner.uid == uid)
    }

    /// The owner references of an object, without this one.
    fn others(&self, object: &impl ResourceExt) -> Value {
        let uid = self.uid();
        json!(object.owner_references().iter().filter(|owner| owner.uid != uid).collect::<Vec<_>>())
    }

    /// Marks a volume as one that outlives its Shard. Only one that the garbage collector would take must be written.
    async fn keep(&self, claim: &PersistentVolumeClaim, events: &Events) -> Result<(), ApplyError> {
        let name = claim.name_any();
        let patch = json!({ "metadata": {
            "uid": claim.uid(), "resourceVersion": claim.resource_version(),
            "labels": { labels::RETAINED: "true" }, "ownerReferences": self.others(claim),
        }});
        let merge = self.applier.merge::<PersistentVolumeClaim>(manager::FAREWELL, self.namespace, &name, patch);
        match merge.await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if self.owns(claim) || error.is_conflict() => return Err(error),
            Err(error) => tracing::warn!(volume = name, error = %chain(&error), "kept volume not labelled"),
        }
        let shard = self.name();
        let note = format!("Shard {shard} was deleted; its deletionPolicy keeps this volume until you delete it");
        events.say(claim, Reason::VolumeRetained, note);
        Ok(())
    }

    /// Passwords live as long as the volumes do. There is no right to delete a Secret, so the garbage collector is told to.
    async fn passwords(&self, policy: DeletionPolicy) -> Result<(), ApplyError> {
        let name = names::credentials_secret(&self.name());
        let Some(secret) = self.applier.get::<Secret>(self.namespace, &name).await? else { return Ok(()) };
        let is_used = secret.annotations().get(labels::SHARD_UID) == Some(&self.uid());
        let goes = policy == DeletionPolicy::Delete && is_used;
        if goes == self.owns(&secret) {
            return Ok(());
        }
        let mut owners = self.others(&secret);
        if let (true, Some(owners)) = (goes, owners.as_array_mut()) {
            owners.push(json!({
                "apiVersion": Shard::api_version(&()), "kind": Shard::kind(&()), "name": self.name(), "uid": self.uid(),
            }));
        }
        let patch = json!({ "metadata": {
            "uid": secret.uid(), "resourceVersion": secret.resource_version(), "ownerReferences": owners,
        }});
        match self.applier.merge::<Secret>(manager::FAREWELL, self.namespace, &name, patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeApi;

    const DELETED: &str = "2026-01-01T00:00:00Z";

    fn object(kind: &str, name: &str, uid: &str, policy: &str) -> Value {
        json!({
            "apiVersion": "understudy.dev/v1alpha1", "kind": kind,
            "metadata": {
                "name": name, "namespace": "prod", "uid": uid, "finalizers": [FINALIZER], "deletionTimestamp": DELETED,
            },
            "spec": { "deletionPolicy": policy },
        })
    }

    fn owner(kind: &str, name: &str, uid: &str) -> Value {
        json!({ "apiVersion": "understudy.dev/v1alpha1", "kind": kind, "name": name, "uid": uid, "controller": true })
    }

    fn volume(name: &str, shard_uid: &str, owners: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name, "namespace": "prod", "ownerReferences": owners,
                "labels": { "understudy.dev/shard": "m", "understudy.dev/shard-uid": shard_uid },
            },
        })
    }

    fn passwords(shard_uid: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": "m-credentials", "namespace": "prod", "annotations": { "understudy.dev/shard-uid": shard_uid },
            },
        })
    }

    async fn leave(api: &FakeApi) -> Result<(), ApplyError> {
        of_shard(&api.applier(), &Events::to_nobody(), "prod", "m", "u1").await
    }

    fn volumes(api: &FakeApi) -> Vec<&'static str> {
        ["m-a", "m-b", "m-old"]
            .into_iter()
            .filter(|name| api.object(&format!("persistentvolumeclaims/{name}")).is_some())
            .collect()
    }

    fn stage(shard: Value) -> FakeApi {
        FakeApi::with([
            shard,
            volume("m-a", "u1", json!([])),
            volume("m-b", "u1", json!([])),
            // Left by an earlier Shard of this name.
            volume("m-old", "u0", json!([])),
            passwords("u1"),
        ])
    }

    #[tokio::test]
    async fn the_policy_at_the_moment_of_deletion_decides_and_only_of_volumes_of_this_very_shard() {
        let mut silent = object("Shard", "m", "u1", "Delete");
        silent["spec"] = json!({});
        for (case, shard, left, kept) in [
            ("Retain", object("Shard", "m", "u1", "Retain"), &["m-a", "m-b", "m-old"][..], true),
            ("Delete", object("Shard", "m", "u1", "Delete"), &["m-old"], false),
            ("it says nothing", silent, &["m-a", "m-b", "m-old"], true),
        ] {
            let api = stage(shard);
            leave(&api).await.unwrap();
            assert_eq!(volumes(&api), left, "{case}");
            assert!(api.object("shards/m").is_none(), "{case}: the Shard is held");
            let secret = api.object("secrets/m-credentials").unwrap();
            assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"] == "u1", !kept, "{case}: {secret}");
            let label = |name: &str| {
                let volume = api.object(&format!("persistentvolumeclaims/{name}"));
                volume.is_some_and(|volume| volume["metadata"]["labels"]["understudy.dev/retained"] == "true")
            };
            assert_eq!((label("m-a"), label("m-old")), (kept, false), "{case}");
        }
    }

    #[tokio::test]
    async fn a_volume_that_was_made_to_go_with_its_shard_stays_when_the_policy_says_so_at_last() {
        let api = stage(object("Shard", "m", "u1", "Retain"));
        api.change("persistentvolumeclaims/m-a", |volume| {
            volume["metadata"]["ownerReferences"] = json!([owner("Shard", "m", "u1")]);
        });
        api.change("secrets/m-credentials", |secret| {
            secret["metadata"]["ownerReferences"] = json!([owner("Shard", "m", "u1")]);
        });
        leave(&api).await.unwrap();
        for object in ["persistentvolumeclaims/m-a", "secrets/m-credentials"] {
            assert_eq!(api.object(object).unwrap()["metadata"]["ownerReferences"], json!([]), "{object}");
        }
    }

    #[tokio::test]
    async fn a_shard_follows_the_policy_that_its_datastore_has_now() {
        for (case, datastore, left) in [
            ("changed to Retain just before", object("Datastore", "d", "d1", "Retain"), 3),
            ("changed to Delete just before", object("Datastore", "d", "d1", "Delete"), 1),
            ("another Datastore of the name", object("Datastore", "d", "d2", "Retain"), 1),
        ] {
            let of_shard = match case {
                "changed to Delete just before" => "Retain",
                _ => "Delete",
            };
            let mut shard = object("Shard", "m", "u1", of_shard);
            shard["metadata"]["ownerReferences"] = json!([owner("Datastore", "d", "d1")]);
            let api = stage(shard);
            api.add(datastore);
            leave(&api).await.unwrap();
            assert_eq!(volumes(&api).len(), left, "{case}");
        }
    }

    #[tokio::test]
    async fn a_deleted_datastore_gives_its_policy_to_its_shards_before_it_goes() {
        let mut mine = object("Shard", "d-0", "u1", "Delete");
        mine["metadata"]["labels"] = json!({ "understudy.dev/datastore": "d" });
        mine["metadata"]["ownerReferences"] = json!([owner("Datastore", "d", "d1")]);
        let mut theirs = object("Shard", "other", "u2", "Delete");
        theirs["metadata"]["labels"] = json!({ "understudy.dev/datastore": "d" });
        let api = FakeApi::with([object("Datastore", "d", "d1", "Retain"), mine, theirs]);
        of_datastore(&api.applier(), "prod", "d", "d1").await.unwrap();
        assert_eq!(api.object("shards/d-0").unwrap()["spec"]["deletionPolicy"], "Retain");
        assert_eq!(api.object("shards/other").unwrap()["spec"]["deletionPolicy"], "Delete");
        assert!(api.object("datastores/d").is_none(), "it is held");
    }

    #[tokio::test]
    async fn a_shard_goes_from_a_namespace_that_goes() {
        let api = stage(object("Shard", "m", "u1", "Delete"));
        for name in ["m-a", "m-b"] {
            api.change(&format!("persistentvolumeclaims/{name}"), |volume| {
                volume["metadata"]["deletionTimestamp"] = json!(DELETED);
                volume["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
            });
        }
        leave(&api).await.unwrap();
        assert!(api.object("shards/m").is_none(), "it is held");
        assert!(
            !api.writes().iter().any(|write| write.starts_with("POST")),
            "nothing can be made there: {:?}",
            api.writes()
        );
        leave(&api).await.expect("it is gone already");
    }

    #[tokio::test]
    async fn a_volume_that_cannot_be_labelled_holds_nothing_up_and_one_that_cannot_be_deleted_does() {
        let api = stage(object("Shard", "m", "u1", "Retain"));
        api.refuse("PATCH persistentvolumeclaims", 403, "no");
        leave(&api).await.unwrap();
        assert!(api.object("shards/m").is_none() && volumes(&api).len() == 3);

        let api = stage(object("Shard", "m", "u1", "Delete"));
        api.refuse("DELETE persistentvolumeclaims", 403, "a policy forbids it");
        let error = leave(&api).await.unwrap_err();
        assert!(error.to_string().contains("a policy forbids it"), "{error}");
        assert!(api.object("shards/m").is_some(), "it went without its volumes");
    }

    #[tokio::test]
    async fn a_shard_is_held_once_and_not_when_it_is_on_its_way_out() {
        let mut fresh = object("Shard", "m", "u1", "Delete");
        fresh["spec"] = json!({ "mysql": { "image": "mysql:9" }, "storage": { "size": "1Gi" } });
        let metadata = fresh["metadata"].as_object_mut().unwrap();
        metadata.remove("deletionTimestamp");
        metadata.insert("finalizers".to_owned(), json!(["somebody/else"]));
        let api = FakeApi::with([fresh]);
        let read = || serde_json::from_value::<Shard>(api.object("shards/m").unwrap()).unwrap();
        let held = hold(&api.applier(), &read()).await.unwrap().expect("written");
        assert_eq!(held.finalizers(), ["somebody/else", FINALIZER]);
        assert!(hold(&api.applier(), &read()).await.unwrap().is_none(), "held already");
        let mut leaving = read();
        leaving.metadata.finalizers = None;
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!(DELETED)).unwrap();
        assert!(hold(&api.applier(), &leaving).await.unwrap().is_none(), "the API server takes no finalizer any more");
    }
}
