//! The alerts that `ingest/docs/alerts` and `operator/docs/alerts` ship, checked and tried by Prometheus itself: `UNDERSTUDY_TEST_PROMTOOL` names its `promtool`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDERS: [&str; 2] = ["../docs/alerts", "../../operator/docs/alerts"];

fn path(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// Names of the files with rules, and of those with tests, without what all of them end with.
fn names(folder: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut rules, mut tests) = (BTreeSet::new(), BTreeSet::new());
    for entry in std::fs::read_dir(path(folder)).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".yaml").unwrap_or_else(|| panic!("{file} is no YAML"));
        match name.strip_suffix(".test") {
            Some(name) => tests.insert(name.to_owned()),
            None => rules.insert(name.to_owned()),
        };
    }
    (rules, tests)
}

fn promtool(arguments: [&str; 2], folder: &str, file: &str) {
    let program = std::env::var("UNDERSTUDY_TEST_PROMTOOL")
        .expect("UNDERSTUDY_TEST_PROMTOOL must name the promtool of Prometheus; `cargo lab test` sets it");
    let ran = Command::new(program).args(arguments).arg(file).current_dir(path(folder)).output().unwrap();
    let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(ran.status.success(), "{arguments:?} {file}: {said}");
}

#[test]
fn every_file_of_alerts_is_sound_and_its_tests_pass() {
    for folder in FOLDERS {
        let (rules, tests) = names(folder);
        assert!(!rules.is_empty() && rules == tests, "{folder}: rules {rules:?}, tests {tests:?}");
        for name in rules {
            promtool(["check", "rules"], folder, &format!("{name}.yaml"));
            promtool(["test", "rules"], folder, &format!("{name}.test.yaml"));
        }
    }
}
