//! Where something was measured: the machine, the versions, the commit. Reads `/proc`, runs git.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::artifacts::{self, KAFKA, KUBERNETES};
use crate::image::hex;
use crate::paths::Paths;
use crate::run;

/// What may change without anything being another thing to measure: pages, and the files that a bench writes.
const APART: [&str; 2] = [":(exclude)operator/docs/fault-matrix", ":(exclude,glob)**/*.md"];

/// What a machine is, as far as it matters to figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor, as it names itself.
    pub processor: String,
    /// How many of it.
    pub cores: usize,
    /// Memory, rounded.
    pub memory_gib: u64,
    /// Version of the kernel.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            processor: value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(0, std::num::NonZeroUsize::get),
            memory_gib: gib(&read("/proc/meminfo")),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }

    /// In a line.
    pub fn describe(&self) -> String {
        format!("{} cores of {}, {} GiB, Linux {}", self.cores, self.processor, self.memory_gib, self.kernel)
    }
}

/// The value of the first line `name : value`.
fn value(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))?;
    Some(line.1.trim().to_owned())
}

fn gib(meminfo: &str) -> u64 {
    let total = value(meminfo, "MemTotal");
    let kib: u64 = total.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    (kib + (1 << 19)) >> 20
}

/// Of what the lab runs.
pub fn versions(paths: &Paths) -> Result<BTreeMap<String, String>> {
    let all = [
        ("Kubernetes", KUBERNETES.to_owned()),
        ("Kafka", KAFKA.to_owned()),
        ("MySQL", artifacts::mysql_version(paths)?),
        ("Understudy", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    Ok(all.into_iter().map(|(name, version)| (name.to_owned(), version)).collect())
}

/// The last commit of a checkout that changed what is measured, so that figures that were committed can be added to; and a hash of all
/// that differs from it, where something does: two checkouts that differ from one commit are not the same thing to measure.
pub fn commit(checkout: &Path) -> Result<(String, Option<String>)> {
    let git = |args: &[&str]| {
        let mut command = run::cmd(["git", "-C"]);
        run::output(command.arg(checkout).args(args)).context("cannot tell the commit of the checkout")
    };
    let commit = git(&[&["log", "-1", "--format=%H", "--", "."][..], &APART[..]].concat())?.trim().to_owned();
    let changes = git(&[&["status", "--porcelain", "--", "."][..], &APART[..]].concat())?;
    if changes.trim().is_empty() {
        return Ok((commit, None));
    }
    let diff = ["diff", "--no-ext-diff", "--binary", "HEAD", "--", "."];
    let new = ["ls-files", "--others", "--exclude-standard", "-z", "--", "."];
    let mut hash = Sha256::new();
    hash.update(git(&[&diff[..], &APART[..]].concat())?);
    for name in git(&[&new[..], &APART[..]].concat())?.split('\0').filter(|name| !name.is_empty()) {
        hash.update(name);
        // What is no file, as another checkout below this one, has its name alone.
        hash.update(fs::read(checkout.join(name)).unwrap_or_default());
    }
    Ok((commit, Some(hex(&hash.finalize()[..6]))))
}

/// Now, in UTC, for people.
pub fn now() -> Result<String> {
    Ok(run::output(&mut run::sh("date -u +%Y-%m-%dT%H:%M:%SZ"))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_checkouts_that_differ_from_one_commit_in_other_ways_are_told_apart_and_pages_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let git = |line: &str| {
            let mut command = run::cmd(["git", "-C"]);
            run::output(command.arg(dir.path()).args(["-c", "user.name=n", "-c", "user.email=e"]).args(line.split(' ')))
                .unwrap()
        };
        git("init --quiet");
        fs::write(at("a.rs"), "1").unwrap();
        git("add a.rs");
        git("commit --quiet -m first");
        let clean = commit(dir.path()).unwrap();
        assert_eq!(clean.1, None);
        fs::write(at("page.md"), "words").unwrap();
        assert_eq!(commit(dir.path()).unwrap(), clean);
        let mut seen = std::collections::BTreeSet::new();
        for (name, text) in [("a.rs", "2"), ("a.rs", "3"), ("b.rs", "1"), ("b.rs", "2")] {
            fs::write(at(name), text).unwrap();
            let (of, changes) = commit(dir.path()).unwrap();
            assert_eq!(of, clean.0);
            assert!(seen.insert(changes.unwrap()), "{name}: {text}");
        }
    }

    #[test]
    fn a_machine_is_read_from_proc() {
        let info = "processor\t: 0\nmodel name\t: Some Processor @ 2.5 GHz\nprocessor\t: 1\nmodel name\t: Another\n";
        assert_eq!(value(info, "model name").as_deref(), Some("Some Processor @ 2.5 GHz"));
        assert_eq!(value(info, "model"), None);
        assert_eq!(gib("MemTotal:        8140000 kB\nMemFree: 1 kB\n"), 8);
        assert_eq!(gib(""), 0);
        let machine = Machine { processor: "P".into(), cores: 2, memory_gib: 8, kernel: "6.1".into() };
        assert_eq!(machine.describe(), "2 cores of P, 8 GiB, Linux 6.1");
    }
}
