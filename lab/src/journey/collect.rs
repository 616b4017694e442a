//! What a person needs after a failed test: objects, events and logs. And the clearing of test namespaces. Runs kubectl.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::access::Access;
use super::install;
use crate::paths::Paths;
use crate::run;

/// The label of the namespaces that end-to-end tests make.
const TEST_LABEL: &str = "understudy.dev/e2e";
const KINDS: &str = "datastores,shards,replicas,consumers,failovers,drills,pods,persistentvolumeclaims,services,endpoints,configmaps,deployments,leases";

/// Writes everything of the operator's and the tests' namespaces into a new directory under `.lab`.
pub fn everything(access: &Access, paths: &Paths) -> Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let dir = paths.dot_lab().join(format!("failure-{now}"));
    let tests = names(access, &["namespaces", "-l", TEST_LABEL])?;
    for namespace in tests.iter().map(String::as_str).chain([install::NAMESPACE]) {
        // One that cannot be collected must not hide the others, nor the failure that is being looked into.
        if let Err(error) = one(access, namespace, &dir.join(namespace)) {
            eprintln!("cannot collect all of {namespace}: {error:#}");
        }
    }
    Ok(dir)
}

fn one(access: &Access, namespace: &str, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::write(dir.join("objects.yaml"), access.get(&["-n", namespace, KINDS, "-o", "yaml"])?)?;
    fs::write(dir.join("events.txt"), access.get(&["-n", namespace, "events", "--sort-by=.lastTimestamp"])?)?;
    for pod in names(access, &["-n", namespace, "pods"])? {
        for (suffix, previous) in [("log", "--previous=false"), ("previous.log", "--previous=true")] {
            let mut command = access.kubectl(&[
                "logs",
                "-n",
                namespace,
                &pod,
                "--all-containers",
                "--prefix",
                "--timestamps",
                previous,
            ]);
            // A container that never ran, or ran once, has no such log.
            if let Ok(text) = run::output(&mut command)
                && !text.is_empty()
            {
                fs::write(dir.join(format!("{pod}.{suffix}")), text)?;
            }
        }
    }
    Ok(())
}

/// Deletes what end-to-end tests left, in the background.
pub fn delete_test_namespaces(access: &Access) -> Result<()> {
    run::output(&mut access.kubectl(&["delete", "namespaces", "-l", TEST_LABEL, "--wait=false"])).map(drop)
}

fn names(access: &Access, args: &[&str]) -> Result<Vec<String>> {
    let text = access.get(&[args, &["-o", "jsonpath={.items[*].metadata.name}"]].concat())?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}
