//! Every verdict that needs somebody and every alert has a runbook, each runbook is of one, and all are of the same form.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use strum::IntoEnumIterator;
use understudy_api::v1alpha1::VerdictState;

/// What each page says, in this order.
const SECTIONS: [&str; 5] =
    ["What it means", "What the product does by itself", "What to look at", "What you may do", "When it is over"];

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The pages by name, without the list of them.
fn pages() -> BTreeMap<String, String> {
    let mut pages = BTreeMap::new();
    for entry in std::fs::read_dir(docs().join("runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name != "README.md" {
            pages.insert(name, std::fs::read_to_string(path).unwrap());
        }
    }
    pages
}

/// Names of the alerts with the runbooks that they name.
fn alerts() -> BTreeMap<String, Option<String>> {
    let text = std::fs::read_to_string(docs().join("alerts/operator.yaml")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = alerts["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let runbook = |rule: &Value| rule["annotations"]["runbook"].as_str().map(ToOwned::to_owned);
    rules.map(|rule| (rule["alert"].as_str().unwrap().to_owned(), runbook(rule))).collect()
}

/// `ObserverPartition` as `observer-partition.md`.
fn page_of(verdict: VerdictState) -> String {
    let mut name = String::new();
    for letter in verdict.to_string().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name + ".md"
}

fn verdicts() -> impl Iterator<Item = VerdictState> {
    VerdictState::iter().filter(|verdict| *verdict != VerdictState::Healthy)
}

#[test]
fn every_verdict_and_every_alert_has_a_page_that_names_it_and_no_page_is_of_nothing() {
    let pages = pages();
    let mut named = BTreeSet::new();
    for verdict in verdicts() {
        let page = page_of(verdict);
        let text = pages.get(&page).unwrap_or_else(|| panic!("{verdict} has no page {page}"));
        assert!(text.contains(&format!("Verdict `{verdict}`")), "{page} does not name {verdict}");
        named.insert(page);
    }
    let alerts = alerts();
    assert!(alerts.len() > 20, "{alerts:?}");
    for (alert, runbook) in alerts {
        let runbook = runbook.unwrap_or_else(|| panic!("{alert} names no runbook"));
        let page = runbook.strip_prefix("operator/docs/runbooks/").unwrap_or_else(|| panic!("{alert}: {runbook}"));
        let text = pages.get(page).unwrap_or_else(|| panic!("{alert} has no page {page}"));
        assert!(text.contains(&format!("lert `{alert}`")), "{page} does not name {alert}");
        named.insert(page.to_owned());
    }
    let orphans: Vec<_> = pages.keys().filter(|page| !named.contains(*page)).collect();
    assert!(orphans.is_empty(), "{orphans:?} are of no verdict and no alert");
}

#[test]
fn every_page_has_the_same_sections_and_is_in_the_list() {
    let list = std::fs::read_to_string(docs().join("runbooks/README.md")).unwrap();
    for (page, text) in pages() {
        let sections: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, SECTIONS, "{page}");
        assert!(list.contains(&format!("]({page})")), "{page} is not in the list");
    }
}

#[test]
fn what_a_page_points_at_is_there() {
    for (page, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            assert!(docs().join("runbooks").join(target).exists(), "{page} points at {target}");
        }
    }
}
