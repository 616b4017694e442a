//! What the cluster is made of, built from source into the cache. A build happens in a temporary directory that is renamed when it is
//! whole, so a killed build never counts.

mod debian;
mod go;
mod java;
mod pause;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::paths::Paths;
use crate::progress::{Step, Ui};
use crate::state::{self, Lock};

/// Kubernetes.
pub const KUBERNETES: &str = "1.34.4";
/// etcd.
pub const ETCD: &str = "3.6.4";
/// CoreDNS.
pub const COREDNS: &str = "1.12.4";
/// Helm.
pub const HELM: &str = "3.18.6";
/// S3 server.
pub const VERSITYGW: &str = "1.8.0";
/// Kafka.
pub const KAFKA: &str = "4.1.1";
/// The lab's own pause program.
pub const PAUSE: &str = "1";
/// Debian release of the base image; the product is built on the same one.
pub const DEBIAN: &str = "bookworm";

/// What a build gets.
#[derive(Debug)]
pub struct Build<'a> {
    /// Empty directory that becomes the artifact.
    pub dir: &'a Path,
    /// Scratch space, removed afterwards.
    pub work: &'a Path,
    /// Where the output of tools goes.
    pub log: &'a Path,
    /// Progress.
    pub step: &'a Step<'a>,
}

/// How to make one artifact.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Name in the cache.
    pub name: &'static str,
    /// Version in the cache.
    pub version: &'static str,
    make: fn(&Build<'_>) -> Result<()>,
}

/// Compilations, one after the other: each uses all cores. What the control plane needs comes first.
pub const COMPILED: [Recipe; 5] = [
    Recipe { name: "etcd", version: ETCD, make: go::etcd },
    Recipe { name: "kubernetes", version: KUBERNETES, make: go::kubernetes },
    Recipe { name: "versitygw", version: VERSITYGW, make: go::versitygw },
    Recipe { name: "coredns", version: COREDNS, make: go::coredns },
    Recipe { name: "helm", version: HELM, make: go::helm },
];

/// Downloads and packaging, beside the compilations.
pub const FETCHED: [Recipe; 4] = [
    Recipe { name: "kafka", version: KAFKA, make: java::kafka },
    Recipe { name: "mysql", version: "sid", make: debian::mysql },
    Recipe { name: "debian", version: DEBIAN, make: debian::base },
    Recipe { name: "pause", version: PAUSE, make: pause::pause },
];

/// Debian's Prometheus, needed by the demo and the tests only.
pub const PROMETHEUS: Recipe = Recipe { name: "prometheus", version: DEBIAN, make: debian::prometheus };

pub use debian::{ROOTFS, install_packages};
#[cfg(test)]
pub use go::COREDNS_PLUGINS;

/// Makes whatever of the two lists is missing; true when something was.
pub fn ensure_all(paths: &Paths, ui: &Ui) -> Result<bool> {
    let missing = |list: &[Recipe]| list.iter().copied().filter(|r| !is_there(paths, r)).collect::<Vec<_>>();
    let lanes = [missing(&COMPILED), missing(&FETCHED)];
    if lanes.iter().all(Vec::is_empty) {
        return Ok(false);
    }
    let _lock = prepare(paths, ui)?;
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for lane in &lanes {
            let failures = &failures;
            scope.spawn(move || {
                for recipe in lane {
                    if let Err(error) = make(paths, ui, recipe)
                        && let Ok(mut list) = failures.lock()
                    {
                        list.push(error);
                    }
                }
            });
        }
    });
    match failures.into_inner().map_err(|_| anyhow!("a build panicked"))?.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(true),
    }
}

/// Makes one artifact if it is missing and tells where it is.
pub fn ensure(paths: &Paths, ui: &Ui, recipe: &Recipe) -> Result<PathBuf> {
    if !is_there(paths, recipe) {
        let _lock = prepare(paths, ui)?;
        make(paths, ui, recipe)?;
    }
    Ok(paths.artifact(recipe.name, recipe.version))
}

fn is_there(paths: &Paths, recipe: &Recipe) -> bool {
    paths.artifact(recipe.name, recipe.version).is_dir()
}

/// Under the cache's lock all unfinished builds are remains of dead ones.
fn prepare(paths: &Paths, ui: &Ui) -> Result<Lock> {
    let lock = Lock::take(&paths.cache, ".lock", |text| ui.say(text))?;
    for entry in fs::read_dir(&paths.cache)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(".tmp-") {
            fs::remove_dir_all(entry.path()).with_context(|| format!("cannot clear {}", entry.path().display()))?;
        }
    }
    Ok(lock)
}

fn make(paths: &Paths, ui: &Ui, recipe: &Recipe) -> Result<()> {
    let target = paths.artifact(recipe.name, recipe.version);
    if target.is_dir() {
        return Ok(());
    }
    let key = format!("{}-{}", recipe.name, recipe.version);
    let temporary = paths.cache.join(format!(".tmp-{key}"));
    let (dir, work) = (temporary.join("out"), temporary.join("work"));
    fs::create_dir_all(&dir)?;
    fs::create_dir_all(&work)?;
    let logs = paths.cache.join("logs");
    fs::create_dir_all(&logs)?;
    let step = ui.step(&format!("build {} {}", recipe.name, recipe.version), durations(paths).get(&key).copied());
    let build = Build { dir: &dir, work: &work, log: &logs.join(format!("{key}.log")), step: &step };
    (recipe.make)(&build).with_context(|| format!("cannot build {} {}", recipe.name, recipe.version))?;
    fs::rename(&dir, &target).with_context(|| format!("cannot put {} in place", target.display()))?;
    fs::remove_dir_all(&temporary)?;
    remember(paths, &key, step.done());
    Ok(())
}

fn durations(paths: &Paths) -> BTreeMap<String, Duration> {
    let seconds: BTreeMap<String, f64> =
        state::read_json(&paths.cache.join("durations.json")).ok().flatten().unwrap_or_default();
    seconds.into_iter().filter_map(|(k, v)| Some((k, Duration::try_from_secs_f64(v).ok()?))).collect()
}

/// A lost duration costs an estimate, nothing else.
fn remember(paths: &Paths, key: &str, took: Duration) {
    static ONE_WRITER: Mutex<()> = Mutex::new(());
    let _guard = ONE_WRITER.lock();
    let mut all = durations(paths);
    all.insert(key.to_owned(), took);
    let seconds: BTreeMap<_, _> = all.iter().map(|(k, v)| (k, v.as_secs_f64())).collect();
    state::write_json(&paths.cache.join("durations.json"), &seconds).ok();
}

/// Version of the MySQL server in the cache, as Debian names it without its revision.
pub fn mysql_version(paths: &Paths) -> Result<String> {
    let file = paths.artifact("mysql", "sid").join("VERSION");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &Path) -> Paths {
        Paths { state: dir.join("state"), cache: dir.join("cache"), checkout: dir.to_owned() }
    }

    #[test]
    fn a_build_that_fails_leaves_no_artifact_and_the_next_one_clears_its_remains() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(dir.path());
        let ui = Ui::new();
        let fails = Recipe {
            name: "thing",
            version: "1",
            make: |b| {
                fs::write(b.dir.join("half"), "x")?;
                anyhow::bail!("killed")
            },
        };
        assert!(ensure(&paths, &ui, &fails).is_err());
        assert!(!is_there(&paths, &fails));
        let works = Recipe {
            name: "thing",
            version: "1",
            make: |b| {
                assert_eq!(fs::read_dir(b.dir)?.count(), 0, "the remains were cleared");
                Ok(fs::write(b.dir.join("whole"), "x")?)
            },
        };
        assert!(ensure(&paths, &ui, &works).unwrap().join("whole").is_file());
        assert!(durations(&paths).contains_key("thing-1"));
    }
}
