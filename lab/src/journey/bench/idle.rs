//! `bench idle`: what the operator asks of the API server while nothing happens. Reads the API server's audit log.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::control_plane::audit_log;
use crate::paths::Paths;
use crate::progress::Ui;

/// Counts the requests of the operator's service accounts in the API server's audit log.
pub fn run(time: Duration, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let log = audit_log(paths);
    let length = || std::fs::metadata(&log).map(|m| m.len()).with_context(|| format!("cannot read {}", log.display()));
    let from = length()?;
    let step = ui.step(&format!("count the operator's API calls for {} s", time.as_secs()), Some(time));
    let end = Instant::now() + time;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_secs(1));
    }
    step.done();
    let bytes = std::fs::read(&log)?;
    let new = bytes.get(usize::try_from(from)?..).context("the audit log was rotated meanwhile; run it again")?;
    let calls = calls(&String::from_utf8_lossy(new));
    let total: u64 = calls.values().sum();
    println!(
        "{total} API calls by the operator in {} s: {:.2} a second",
        time.as_secs(),
        total as f64 / time.as_secs_f64()
    );
    for (call, count) in calls {
        println!("  {count:>6}  {call}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Requests by verb and resource. A watch is logged when it begins and when it ends, and counts when it begins.
fn calls(log: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in log.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
        let is_watch = event["verb"] == "watch";
        if is_watch == (event["stage"] == "ResponseStarted") {
            let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
            let call = format!("{} {}", text(&event["verb"]), text(&event["objectRef"]["resource"]));
            *counts.entry(call).or_insert(0) += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_counts_once() {
        let line = |verb: &str, stage: &str| {
            format!("{{\"verb\":\"{verb}\",\"stage\":\"{stage}\",\"objectRef\":{{\"resource\":\"shards\"}}}}\n")
        };
        let log =
            [line("watch", "ResponseStarted"), line("watch", "ResponseComplete"), line("update", "ResponseComplete")]
                .concat();
        let counts = calls(&log);
        assert_eq!(counts, [("watch shards".to_owned(), 1), ("update shards".to_owned(), 1)].into());
    }
}
