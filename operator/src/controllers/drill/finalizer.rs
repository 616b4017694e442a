//! Holds a deleted Drill until its run has ended: whoever was hit is let go, the record of what followed is known as a drill's, and no other Drill of
//! the Datastore begins before. Only while a run goes on, so that a Drill of which nothing does can be deleted while no operator runs. I/O.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use understudy_api::Drill;

use crate::apply::{Applier, ApplyError, manager};

/// Holds a Drill of which a run goes on.
pub const FINALIZER: &str = "understudy.dev/drill-run";

/// Whether it waits for [`FINALIZER`].
pub fn is_held(drill: &ObjectMeta) -> bool {
    drill.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Puts the finalizer on exactly this version, unless it is there.
pub async fn hold(applier: &Applier, drill: &Drill) -> Result<Drill, ApplyError> {
    if is_held(&drill.metadata) {
        return Ok(drill.clone());
    }
    let mut finalizers = drill.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    let patch = with(&drill.metadata, &finalizers);
    applier.merge(manager::DRILL, &drill.namespace().unwrap_or_default(), &drill.name_any(), patch).await
}

/// Takes it from exactly this version; its being gone already is success. What else the object says need not parse.
pub async fn release(applier: &Applier, drill: &ObjectMeta) -> Result<(), ApplyError> {
    let (namespace, name) = (drill.namespace.as_deref().unwrap_or_default(), drill.name.as_deref().unwrap_or_default());
    let others = drill.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER);
    let patch = Patch::Merge(with(drill, &others.cloned().collect::<Vec<_>>()));
    let api: Api<DynamicObject> = Api::namespaced_with(applier.client(), namespace, &ApiResource::erase::<Drill>(&()));
    let params = PatchParams { field_manager: Some(manager::DRILL.to_owned()), ..PatchParams::default() };
    match applier.call::<Drill, _>("release", name, api.patch(name, &params, &patch)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn with(drill: &ObjectMeta, finalizers: &[String]) -> Value {
    json!({ "metadata": { "uid": drill.uid, "resourceVersion": drill.resource_version, "finalizers": finalizers } })
}
