//! Every verdict that needs somebody and every alert has a runbook, each runbook is of one, and all are of the same form and in one list. What any
//! page of the repository points at is there.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use strum::IntoEnumIterator;
use understudy_api::v1alpha1::VerdictState;
use understudy_decide::failover::signature::{Fate, SIGNATURES};

/// What each page says, in this order.
const SECTIONS: [&str; 5] =
    ["What it means", "What the product does by itself", "What to look at", "What you may do", "When it is over"];
/// Where pages are, from the root of the repository; the first has the list of all.
const PAGES: [&str; 2] = ["operator/docs/runbooks", "ingest/docs/runbooks"];
/// Folders of every page of the repository.
const WRITTEN: [&str; 7] =
    [".", "lab", "ingest/docs", "operator/docs", "operator/docs/fault-matrix", PAGES[0], PAGES[1]];
/// Where alerts are.
const ALERTS: [&str; 2] = ["operator/docs/alerts", "ingest/docs/alerts"];

/// An alert, as a person meets it.
struct Alert {
    name: String,
    severity: String,
    /// The page that it names, from the root of the repository.
    page: Option<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of a folder, from the root of the repository, with what they say.
fn files(folder: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(root().join(folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        files.insert(format!("{folder}/{name}"), std::fs::read_to_string(&path).unwrap());
    }
    files
}

/// The pages, without the list of them.
fn pages() -> BTreeMap<String, String> {
    let all = PAGES.iter().flat_map(|folder| files(folder));
    all.filter(|(page, _)| !page.ends_with("/README.md")).collect()
}

fn list() -> String {
    std::fs::read_to_string(root().join(PAGES[0]).join("README.md")).unwrap()
}

fn alerts() -> Vec<Alert> {
    let mut alerts = Vec::new();
    for (file, text) in ALERTS.iter().flat_map(|folder| files(folder)) {
        if file.ends_with(".test.yaml") {
            continue;
        }
        let rules: Value = serde_saphyr::from_str(&text).unwrap();
        for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
            alerts.push(Alert {
                name: rule["alert"].as_str().unwrap().to_owned(),
                severity: rule["labels"]["severity"].as_str().unwrap().to_owned(),
                page: rule["annotations"]["runbook_url"].as_str().map(ToOwned::to_owned),
            });
        }
    }
    alerts
}

/// `ObserverPartition` as `operator/docs/runbooks/observer-partition.md`.
fn page_of(verdict: VerdictState) -> String {
    let mut name = String::new();
    for letter in verdict.to_string().chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    format!("{}/{name}.md", PAGES[0])
}

/// A page as the list points at it, from its own folder.
fn target_in_list(page: &str) -> String {
    match page.strip_prefix(&format!("{}/", PAGES[0])) {
        Some(name) => name.to_owned(),
        None => format!("../../../{page}"),
    }
}

fn title(text: &str) -> &str {
    text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap()
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
    for folder in ALERTS {
        assert!(files(folder).len() > 1, "{folder} has no alerts");
    }
    assert!(alerts.len() > 30, "{} alerts", alerts.len());
    for Alert { name, page, .. } in alerts {
        let page = page.unwrap_or_else(|| panic!("{name} has no runbook_url"));
        let text = pages.get(&page).unwrap_or_else(|| panic!("{name} has no page {page}"));
        assert!(text.contains(&format!("lert `{name}`")), "{page} does not name {name}");
        named.insert(page);
    }
    let orphans: Vec<_> = pages.keys().filter(|page| !named.contains(*page)).collect();
    assert!(orphans.is_empty(), "{orphans:?} are of no verdict and no alert");
}

#[test]
fn every_cause_of_a_dead_primary_stands_on_the_page_of_its_verdict() {
    let pages = pages();
    for signature in SIGNATURES {
        let verdict = match signature.fate {
            Fate::Gone => VerdictState::Gone,
            Fate::Stuck => VerdictState::Stuck,
        };
        let (page, cause) = (page_of(verdict), signature.cause);
        assert!(pages[&page].contains(&format!("`{cause}`")), "{page} does not name {cause}");
    }
}

#[test]
fn every_page_has_the_same_sections() {
    for (page, text) in pages() {
        let sections: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, SECTIONS, "{page}");
    }
}

#[test]
fn the_list_has_every_verdict_and_every_alert_with_its_severity_and_its_page() {
    let (pages, list) = (pages(), list());
    for verdict in verdicts() {
        let page = page_of(verdict);
        let row = format!("| [{}]({}) |", title(&pages[&page]), target_in_list(&page));
        let found = list.lines().find(|line| line.starts_with(&format!("| `{verdict}` |")));
        assert!(found.is_some_and(|line| line.ends_with(&row)), "{verdict}: {row}, not {found:?}");
    }
    let mut wanted = BTreeSet::new();
    for Alert { name, severity, page } in alerts() {
        let page = page.unwrap();
        let link = format!("[{}]({})", title(&pages[&page]), target_in_list(&page));
        wanted.insert(format!("| `{name}` | {severity} | {link} |"));
    }
    let found: BTreeSet<_> = list.lines().filter(|line| line.starts_with("| `Understudy")).map(str::to_owned).collect();
    assert_eq!(found, wanted);
}

#[test]
fn the_list_has_a_page_for_every_reason_for_which_something_is_held_back() {
    let table = std::fs::read_to_string(root().join("operator/docs/metrics.md")).unwrap();
    let row = table.lines().find(|line| line.starts_with("| `understudy_operator_shard_withheld`")).unwrap();
    let (_, reasons) = row.trim_end_matches(" |").split_once("the name of the event: ").unwrap();
    let list = list();
    for reason in reasons.split(", ") {
        let name = format!("`{reason}`");
        let is_its = |line: &str| line.starts_with("| `") && line.contains(&name) && line.contains("](");
        assert!(list.lines().any(is_its), "no page for {reason}");
    }
}

/// Every page of the repository, with what it says.
fn written() -> BTreeMap<String, String> {
    let mut written = BTreeMap::new();
    for folder in WRITTEN {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_name().unwrap().to_str().unwrap();
                written.insert(format!("{folder}/{name}"), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    written
}

#[test]
fn what_a_page_points_at_is_there() {
    for (page, text) in written() {
        let page = root().join(page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if target.is_empty() { page.clone() } else { page.parent().unwrap().join(target) };
            assert!(path.exists(), "{} points at {link}", page.display());
            let is_there = heading.is_empty() || headings(&std::fs::read_to_string(&path).unwrap()).contains(heading);
            assert!(is_there, "{} points at {link}", page.display());
        }
    }
}

/// The headings of a page as links name them: in small letters, without signs, with a dash for each space.
fn headings(text: &str) -> BTreeSet<String> {
    let mut headings = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with('#')) {
        let kept = line.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        headings.insert(kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect());
    }
    headings
}
