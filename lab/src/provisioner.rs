//! Gives every claim of the lab's StorageClass its volume, and takes released volumes back. Level-triggered: each pass looks at all
//! claims and volumes; watches only say when to look again. Runs as a process of its own on the host.

use std::collections::BTreeSet;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::api::Api;
use crate::fault;
use crate::paths::Paths;
use crate::state::State;
use crate::volume::{self, PROVISIONER, STORAGE_CLASS, Volume};

/// Name of the process in the state.
pub const PROCESS: &str = "volumes";

const CLAIMS: &str = "/api/v1/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const FINALIZER: &str = "lab.understudy.dev/volume";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Whether a pass left something to be tried again soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    Settled,
    Again,
}

/// Never returns.
pub fn run(paths: &Paths) -> Result<()> {
    let api = Api::new(paths);
    let (kick, kicked) = sync_channel(1);
    for path in [CLAIMS, VOLUMES] {
        let (api, kick) = (api.clone(), kick.clone());
        std::thread::spawn(move || watch(&api, path, &kick));
    }
    let mut known = BTreeSet::new();
    loop {
        let (pass, errors) = pass(paths, &api);
        // The same failure is tried again each second and told once.
        errors.difference(&known).for_each(|e| println!("{e}"));
        known = errors;
        let pause = match pass {
            Pass::Settled => Duration::from_secs(30),
            Pass::Again => Duration::from_secs(1),
        };
        // A timeout is as good a reason to look as a change is.
        kicked.recv_timeout(pause).ok();
    }
}

/// A full channel means that a pass is due anyway.
fn watch(api: &Api, path: &str, kick: &SyncSender<()>) {
    loop {
        let ended = api.watch(path, || kick.try_send(()).unwrap_or(()));
        if let Err(error) = ended {
            println!("{error:#}");
            std::thread::sleep(Duration::from_secs(1));
        }
        kick.try_send(()).unwrap_or(());
    }
}

fn pass(paths: &Paths, api: &Api) -> (Pass, BTreeSet<String>) {
    let (mut all, mut errors) = (Pass::Settled, BTreeSet::new());
    let results = work(paths, api).unwrap_or_else(|error| vec![Err(error)]);
    for result in results {
        match result {
            Ok(Pass::Settled) => {}
            Ok(Pass::Again) => all = Pass::Again,
            Err(error) => {
                errors.insert(format!("{error:#}"));
                all = Pass::Again;
            }
        }
    }
    (all, errors)
}

/// One outcome for each claim and volume that was looked at.
fn work(paths: &Paths, api: &Api) -> Result<Vec<Result<Pass>>> {
    let claims = api.list(CLAIMS)?;
    let volumes = api.list(VOLUMES)?;
    let state = State::load(paths)?;
    Ok(std::thread::scope(|scope| {
        let new = claims.iter().filter_map(Claim::waiting).filter(|c| state.is_alive(&c.volume.node));
        let mut jobs: Vec<_> = new.map(|c| scope.spawn(move || provision(paths, api, &c))).collect();
        for object in volumes.iter().filter(|v| is_ours(v)) {
            jobs.push(scope.spawn(move || tend(paths, api, object)));
        }
        jobs.into_iter().map(|job| job.join().unwrap_or(Ok(Pass::Again))).collect()
    }))
}

/// A claim that waits for its volume, on the node the scheduler chose.
#[derive(Debug, PartialEq, Eq)]
struct Claim<'a> {
    volume: Volume,
    bytes: u64,
    object: &'a ClaimObject,
}

type ClaimObject = Value;

impl<'a> Claim<'a> {
    fn waiting(object: &'a ClaimObject) -> Option<Self> {
        let (meta, spec) = (&object["metadata"], &object["spec"]);
        let pending = spec["volumeName"].as_str().unwrap_or_default().is_empty() && meta["deletionTimestamp"].is_null();
        if !pending || spec["storageClassName"] != STORAGE_CLASS {
            return None;
        }
        let node = meta["annotations"][SELECTED_NODE].as_str()?.to_owned();
        let bytes = volume::parse_quantity(spec["resources"]["requests"]["storage"].as_str()?)?;
        Some(Self { volume: Volume { node, name: format!("pvc-{}", meta["uid"].as_str()?) }, bytes, object })
    }
}

fn provision(paths: &Paths, api: &Api, claim: &Claim<'_>) -> Result<Pass> {
    let volume = &claim.volume;
    volume
        .ensure_image(paths, claim.bytes)
        .and_then(|()| volume.ensure_mounted(paths))
        .with_context(|| format!("cannot make {} on {}", volume.name, volume.node))?;
    if api.create(VOLUMES, &persistent_volume(paths, claim))? {
        println!("{} on {}: made for {}", volume.name, volume.node, claim.object["metadata"]["name"]);
    }
    Ok(Pass::Settled)
}

fn persistent_volume(paths: &Paths, claim: &Claim<'_>) -> Value {
    let (meta, spec) = (&claim.object["metadata"], &claim.object["spec"]);
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": claim.volume.name,
            "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER},
            "finalizers": [FINALIZER],
        },
        "spec": {
            "capacity": {"storage": claim.bytes.to_string()},
            "accessModes": spec["accessModes"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta["namespace"],
                         "name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
            "local": {"path": claim.volume.mount_point(paths)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [claim.volume.node]}]}]}},
        },
    })
}

fn is_ours(object: &Value) -> bool {
    object["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"] == PROVISIONER
}

fn of_object(object: &Value) -> Option<Volume> {
    let terms = &object["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    let node = terms[0]["matchExpressions"][0]["values"][0].as_str()?;
    Some(Volume { node: node.to_owned(), name: object["metadata"]["name"].as_str()?.to_owned() })
}

/// Keeps a bound volume mounted, and takes a released one back.
fn tend(paths: &Paths, api: &Api, object: &Value) -> Result<Pass> {
    let Some(volume) = of_object(object) else { return Ok(Pass::Settled) };
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let unwanted = phase == "Released" && object["spec"]["persistentVolumeReclaimPolicy"] == "Delete";
    let deleted = !object["metadata"]["deletionTimestamp"].is_null() && phase != "Bound";
    if unwanted || deleted {
        return release(paths, api, &volume);
    }
    if phase == "Bound" {
        volume.ensure_mounted(paths).with_context(|| format!("cannot mount {}", volume.name))?;
    }
    Ok(Pass::Settled)
}

fn release(paths: &Paths, api: &Api, volume: &Volume) -> Result<Pass> {
    // Unmounting a frozen volume would take away the handle by which it can be thawed, and on a stalled device it would hang.
    if fault::is_held(paths, volume) {
        return Ok(Pass::Again);
    }
    if !volume.free(paths).with_context(|| format!("cannot free {}", volume.name))? {
        return Ok(Pass::Again);
    }
    let path = format!("{VOLUMES}/{}", volume.name);
    api.delete(&path)?;
    let finalizers = api.get(&path)?.map(|v| v["metadata"]["finalizers"].clone()).unwrap_or_default();
    if let Some(all) = finalizers.as_array() {
        let rest: Vec<_> = all.iter().filter(|f| **f != FINALIZER).collect();
        api.merge(&path, &json!({"metadata": {"finalizers": rest}}))?;
    }
    println!("{} on {}: freed", volume.name, volume.node);
    Ok(Pass::Settled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn claim() -> Value {
        json!({
            "metadata": {"uid": "u1", "name": "data", "namespace": "ns", "resourceVersion": "7",
                         "annotations": {SELECTED_NODE: "node-2"}},
            "spec": {"storageClassName": STORAGE_CLASS, "accessModes": ["ReadWriteOnce"],
                     "resources": {"requests": {"storage": "1Gi"}}},
        })
    }

    #[test]
    fn only_claims_of_our_class_with_a_node_wait_for_a_volume() {
        let waiting = claim();
        assert_eq!(Claim::waiting(&waiting).unwrap().volume, Volume { node: "node-2".into(), name: "pvc-u1".into() });
        for (name, pointer, value) in [
            ("another class", "/spec/storageClassName", json!("other")),
            ("bound", "/spec/volumeName", json!("pvc-u1")),
            ("no node yet", "/metadata/annotations", json!({})),
            ("going away", "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("no size", "/spec/resources", json!({})),
        ] {
            let mut other = claim();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            other.pointer_mut(parent).unwrap()[key] = value;
            assert_eq!(Claim::waiting(&other), None, "{name}");
        }
    }

    #[test]
    fn a_volume_is_tied_to_its_claim_and_its_node() {
        let paths = Paths { state: Path::new("/s").into(), cache: "/c".into(), checkout: "/w".into() };
        let object = claim();
        let volume = persistent_volume(&paths, &Claim::waiting(&object).unwrap());
        assert_eq!(volume["spec"]["claimRef"]["uid"], "u1");
        assert_eq!(volume["spec"]["local"]["path"], "/s/volumes/node-2/pvc-u1");
        assert_eq!(of_object(&volume), Some(Volume { node: "node-2".into(), name: "pvc-u1".into() }));
    }
}
