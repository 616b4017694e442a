//! `cargo lab bench`: one fault, many times, under load, with the figures that the product promises. Against the Datastore that
//! `cargo lab demo` leaves. Every run is written to `.lab/bench`, its ledger and its report too, so that no figure is without its
//! data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use understudy_lab_outcome::Outcome;

use super::access::Access;
use super::demo::{begin, follow};
use super::load::Running;
use super::store::{Store, is_whole};
use super::story::{Milestone, Story};
use super::test;
use super::watch::Watches;
use crate::api::wait;
use crate::control_plane::audit_log;
use crate::fault::{self, Kind, Target};
use crate::paths::Paths;
use crate::product::{self, Profile};
use crate::progress::Ui;
use crate::state;

/// What is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// SIGKILL of a primary's mysqld.
    Kill,
    /// SIGKILL of a primary's node.
    NodeLoss,
    /// A Failover that asks for a switchover.
    Switchover,
    /// SIGKILL of the operator at random moments of bootstraps and failovers.
    Operator,
    /// Nothing: the API calls of the operator on an idle cluster.
    Idle,
    /// What a real Prometheus scraped, against what is read back.
    Prometheus,
}

/// What `cargo lab bench` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// What to measure.
    #[arg(value_enum)]
    what: What,
    /// How often; by default as often as the project promises a figure for.
    #[arg(long)]
    runs: Option<usize>,
    /// Samples per second.
    #[arg(long, default_value = "5000")]
    rate: u64,
    /// Seconds, for `idle` and `prometheus`.
    #[arg(long)]
    seconds: Option<u64>,
    /// Namespace of the Datastore.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Its name.
    #[arg(long, default_value = "metrics")]
    datastore: String,
}

/// Load before the fault and after redundancy, so that the gaps stand out from the ordinary.
const STEADY: Duration = Duration::from_secs(8);

/// Names the files of this bench, in seconds since 1970.
static STARTED: LazyLock<u64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));

/// One run.
#[derive(Debug)]
struct Row {
    times: BTreeMap<Milestone, Duration>,
    outcome: Outcome,
}

/// Runs it.
pub fn run(options: &Options, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let runs = options.runs.unwrap_or(match options.what {
        What::NodeLoss => 5,
        _ => 20,
    });
    match options.what {
        What::Kill | What::NodeLoss | What::Switchover => faults(options, runs, paths, ui),
        What::Operator => {
            // Half of the kills fall into bootstraps, half into failovers.
            end_to_end(paths, ui, "operator_killed", &[("UNDERSTUDY_E2E_OPERATOR_KILLS", runs.div_ceil(2).to_string())])
        }
        What::Prometheus => {
            let seconds = options.seconds.unwrap_or(600).to_string();
            end_to_end(paths, ui, "prometheus_read_back", &[("UNDERSTUDY_E2E_PROMETHEUS_SECONDS", seconds)])
        }
        What::Idle => idle(options, paths, ui),
    }
}

fn end_to_end(paths: &Paths, ui: &Ui, filter: &str, more: &[(&str, String)]) -> Result<ExitCode> {
    let mut command = test::end_to_end(paths, &test::prepare(paths, ui, Profile::Release)?);
    command.args([filter, "--", "--test-threads=1", "--nocapture"]);
    command.envs(more.iter().map(|(name, value)| (name, value)));
    let status = command.status().context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn faults(options: &Options, runs: usize, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let access = Access::lab(paths);
    let store = Store { access: &access, namespace: options.namespace.clone(), name: options.datastore.clone() };
    let token = store.known_token()?.context("there is no Datastore of the lab: run `cargo lab demo` first")?;
    let program = product::build_load(paths, ui, Profile::Release)?;
    let dir = paths.dot_lab().join("bench");
    let name = options.what.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
    let mut rows = Vec::new();
    for index in 0..runs {
        store.wait_ready(ui, Duration::from_secs(300))?;
        ui.say(&format!("{name}: run {} of {runs}", index + 1));
        let ledger = dir.join(format!("{name}-{}-{:02}.ledger", *STARTED, index + 1));
        let load = Running::start(&program, &store, &token, options.rate, "15m", &ledger)?;
        let row = one(options, &store, paths, ui, index, load);
        if options.what == What::NodeLoss {
            fault::heal(paths, ui)?;
        }
        let row = row?;
        ui.say(&format!("  {}", row.summary()));
        rows.push(row);
        write(&dir, &name, options.rate, &rows)?;
    }
    println!("{}", table(&name, options.rate, &rows));
    let exact = rows.iter().all(|r| r.outcome.is_exact());
    Ok(if exact { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(options: &Options, store: &Store<'_>, paths: &Paths, ui: &Ui, index: usize, mut load: Running) -> Result<Row> {
    load.wait_flowing()?;
    std::thread::sleep(STEADY);
    let mut name = String::new();
    wait(Duration::from_secs(60), "the shard is not whole under load", || {
        load.check()?;
        let shards = store.shards()?;
        let shard = shards.get(index % shards.len().max(1)).context("the Datastore has no shard")?;
        name = shard["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Ok(is_whole(shard))
    })?;
    let name = name.as_str();
    let watches = Watches::start(store.access, &store.namespace, &["shards", "replicas"])?;
    let mut story = begin(&watches, name)?;
    let (old, epoch) = (story.primary().to_owned(), story.epoch());
    let at = Instant::now();
    strike(options.what, store, paths, ui, &story, name)?;
    let times = if options.what == What::Switchover {
        switched(&watches, &mut story, ui, at, epoch)?
    } else {
        follow(&watches, &mut story, ui, at, (&old, epoch))?
    };
    std::thread::sleep(STEADY);
    let (_, outcome) = load.finish(store)?;
    Ok(Row { times, outcome })
}

fn strike(what: What, store: &Store<'_>, paths: &Paths, ui: &Ui, story: &Story, shard: &str) -> Result<()> {
    let target = Target::Replica { name: story.primary().to_owned(), namespace: Some(store.namespace.clone()) };
    match what {
        What::NodeLoss => fault::inject(paths, ui, Kind::NodeLoss, &target, None),
        What::Switchover => {
            let request = json!({
                "apiVersion": "understudy.dev/v1alpha1", "kind": "Failover",
                "metadata": {"name": format!("bench-{shard}-{}", story.epoch() + 1)},
                "spec": {"shard": shard, "kind": "Switchover", "reason": "cargo lab bench switchover"},
            });
            store.access.apply(&store.namespace, &request.to_string())
        }
        _ => fault::inject(paths, ui, Kind::Kill, &target, None),
    }
}

/// A switchover loses no replica, so it ends when another takes writes.
fn switched(
    watches: &Watches,
    story: &mut Story,
    ui: &Ui,
    at: Instant,
    epoch: i64,
) -> Result<BTreeMap<Milestone, Duration>> {
    let mut times = BTreeMap::new();
    while story.epoch() <= epoch {
        let left = Duration::from_secs(60).saturating_sub(at.elapsed());
        let event = watches.next(left)?.context("no switchover within 60 s")?;
        let after = event.at.saturating_duration_since(at);
        for line in story.tell(&event.object, event.deleted) {
            ui.say(&format!("  +{:>5.1} s  {}", after.as_secs_f64(), line.text));
            line.milestone.map(|m| times.entry(m).or_insert(after));
        }
    }
    Ok(times)
}

impl Row {
    fn figures(&self) -> [(&'static str, Option<f64>); 6] {
        let time = |m: Milestone| self.times.get(&m).map(Duration::as_secs_f64);
        [
            ("ack gap", self.outcome.ack_gap_seconds),
            ("write gap", self.outcome.write_gap_seconds),
            ("visible gap", self.outcome.visible_gap_seconds),
            ("claimed", time(Milestone::Claimed)),
            ("promoted", time(Milestone::Promoted)),
            ("redundant", time(Milestone::Redundant)),
        ]
    }

    fn summary(&self) -> String {
        let figures =
            self.figures().map(|(name, value)| format!("{name} {}", value.map_or("-".into(), |v| format!("{v:.2} s"))));
        let o = &self.outcome;
        format!(
            "{}; acknowledged {}, lost {}, doubled {}, explained {}, unknown {}",
            figures.join(", "),
            o.acknowledged,
            o.lost,
            o.doubled,
            o.explained,
            o.unknown
        )
    }
}

fn write(dir: &std::path::Path, name: &str, rate: u64, rows: &[Row]) -> Result<()> {
    let file: PathBuf = dir.join(format!("{name}-{}.json", *STARTED));
    let row = |row: &Row| {
        let mut value: serde_json::Map<String, Value> =
            row.figures().iter().map(|(name, value)| (name.replace(' ', "_"), json!(value))).collect();
        let o = &row.outcome;
        value.extend([
            ("acknowledged".to_owned(), json!(o.acknowledged)),
            ("lost".to_owned(), json!(o.lost)),
            ("doubled".to_owned(), json!(o.doubled)),
            ("explained".to_owned(), json!(o.explained)),
            ("unknown".to_owned(), json!(o.unknown)),
        ]);
        Value::Object(value)
    };
    state::write_json(&file, &json!({"bench": name, "rate": rate, "runs": rows.iter().map(row).collect::<Vec<_>>()}))
}

fn table(name: &str, rate: u64, rows: &[Row]) -> String {
    let mut lines = vec![format!("{name}: {} runs at {rate} samples a second", rows.len())];
    lines.push(format!("  {:<12}{:>10}{:>10}{:>10}", "seconds", "median", "max", "runs"));
    let Some(first) = rows.first() else { return lines.join("\n") };
    for (index, (figure, _)) in first.figures().iter().enumerate() {
        let values: Vec<f64> = rows.iter().filter_map(|r| r.figures()[index].1).collect();
        if let Some((median, max)) = median_and_max(values.clone()) {
            lines.push(format!("  {figure:<12}{median:>10.2}{max:>10.2}{:>10}", values.len()));
        }
    }
    let sum = |of: fn(&Outcome) -> u64| rows.iter().map(|r| of(&r.outcome)).sum::<u64>();
    lines.push(format!(
        "  acknowledged {}, lost {}, doubled {}, explained {}, unknown {}",
        sum(|o| o.acknowledged),
        sum(|o| o.lost),
        sum(|o| o.doubled),
        sum(|o| o.explained),
        sum(|o| o.unknown)
    ));
    lines.join("\n")
}

fn median_and_max(mut values: Vec<f64>) -> Option<(f64, f64)> {
    values.sort_by(f64::total_cmp);
    let max = *values.last()?;
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Some((median, max))
}

/// Counts the requests of the operator's service accounts in the API server's audit log.
fn idle(options: &Options, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let time = Duration::from_secs(options.seconds.unwrap_or(300));
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
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(median_and_max(vec![3.0, 1.0, 2.0]), Some((2.0, 3.0)));
        assert_eq!(median_and_max(vec![4.0, 1.0, 2.0, 3.0]), Some((2.5, 4.0)));
        assert_eq!(median_and_max(Vec::new()), None);
    }

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
