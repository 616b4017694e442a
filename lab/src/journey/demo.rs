//! `cargo lab demo`: everything there is, on a cluster of several nodes, with a primary killed while data flows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use understudy_lab_outcome::Outcome;

use super::access::{Access, ClusterOptions};
use super::advice::{Cluster, Left, advice};
use super::load::Running;
use super::store::{Store, is_whole, name_in};
use super::story::{Milestone, Story};
use super::watch::Watches;
use super::{fault, install, prometheus};
use crate::artifacts;
use crate::paths::Paths;
use crate::product::{self, Profile};
use crate::progress::{Ui, clock};
use crate::up;

/// What the demonstration takes.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Image of the product that your own cluster can pull; needed with --kubeconfig or --context.
    #[arg(long)]
    image: Option<String>,
    /// Image of Prometheus that your own cluster can pull.
    #[arg(long, default_value = "prom/prometheus:v2.55.1")]
    prometheus_image: String,
    /// The Datastore; with your own cluster, one that names your own Kafka.
    #[arg(long, value_name = "FILE")]
    example: Option<PathBuf>,
    /// Namespace to apply it to.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Samples per second while the primary is killed.
    #[arg(long, default_value = "1000")]
    rate: u64,
}

/// When each milestone was seen, counted from the kill.
type Times = BTreeMap<Milestone, Duration>;

/// What the end tells.
struct Seen {
    shard: String,
    old: String,
    new: String,
    epoch: i64,
    times: Times,
    outcome: Outcome,
}

/// Runs it.
pub fn run(options: &Options, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let image = match (options.cluster.is_named(), &options.image, &options.example) {
        (false, _, _) => build_lab(paths, ui)?,
        (true, Some(image), Some(_)) => image.clone(),
        (true, _, _) => bail!(
            "with a cluster of your own, give --image (the product, where its nodes can pull it) and --example (a Datastore that names your Kafka)"
        ),
    };
    let program = product::build_load(paths, ui, Profile::Release)?;
    product::build_plugin(paths, ui, Profile::Release)?;
    let access = Access::of(&options.cluster, paths)?;
    need_namespace(&access, &options.namespace)?;
    install::charts(&access, paths, ui, &image)?;
    let store = make_store(options, &access, paths, ui)?;
    let prometheus_image = if access.is_lab() { prometheus::image_name() } else { options.prometheus_image.clone() };
    prometheus::install(&store, paths, ui, &prometheus_image)?;
    let series = prometheus::wait_readable(&store, ui)?;
    let demo = Demo { store: &store, paths, ui, program, rate: options.rate };
    let seen = demo.kill_under_load()?;
    summary(ui, &store, &seen, series);
    Ok(if seen.outcome.is_exact() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cluster and all images in it; the name of the product's.
///
/// What compiles the cluster and what compiles the product run side by side, as neither keeps all cores busy all of the time; and both
/// before the cluster runs, which would take a part of them.
fn build_lab(paths: &Paths, ui: &Ui) -> Result<String> {
    // The product's build needs some of the programs that this installs, a compiler for C++ among them.
    up::equip(ui)?;
    std::thread::scope(|scope| {
        let product = scope.spawn(|| product::build_programs(paths, ui, Profile::Release));
        let cluster = up::prepare(paths, ui);
        if cluster.is_err() && !product.is_finished() {
            ui.say("the cluster cannot be built; waiting for the product's compiler before saying why");
        }
        let product = product.join().map_err(|_| anyhow!("the build of the product panicked"))?;
        cluster.and(product.map(drop))
    })?;
    up::up(paths, ui, None)?;
    prometheus::build_image(paths, ui)?;
    product::build_images(paths, ui, Profile::Release)
}

/// Before anything is installed: the demonstration says how to take away what it made, and a namespace of yours is not its own.
fn need_namespace(access: &Access, name: &str) -> Result<()> {
    let found = access.get(&["namespace", name, "--ignore-not-found", "-o", "name"])?;
    ensure!(!found.trim().is_empty(), "there is no namespace {name}; make it with `kubectl create namespace {name}`");
    Ok(())
}

fn make_store<'a>(options: &Options, access: &'a Access, paths: &Paths, ui: &Ui) -> Result<Store<'a>> {
    let example = options.example.clone().unwrap_or_else(|| paths.checkout.join("examples/quickstart.yaml"));
    let store = Store { access, namespace: options.namespace.clone(), name: name_in(&example)? };
    store.token()?;
    ui.say(&format!("kubectl apply -f {}", shown(&example, paths)));
    let mysql = if access.is_lab() { Some(format!("mysql:{}", artifacts::mysql_version(paths)?)) } else { None };
    store.apply(&example, mysql.as_deref())?;
    store.wait_ready(ui, Duration::from_secs(600))?;
    Ok(store)
}

fn shown(file: &Path, paths: &Paths) -> String {
    file.strip_prefix(&paths.checkout).unwrap_or(file).display().to_string()
}

/// What the story needs once everything is installed.
struct Demo<'a> {
    store: &'a Store<'a>,
    paths: &'a Paths,
    ui: &'a Ui,
    program: PathBuf,
    rate: u64,
}

impl Demo<'_> {
    /// The story itself: load, kill, watch, verify.
    fn kill_under_load(&self) -> Result<Seen> {
        let (store, ui) = (self.store, self.ui);
        let ledger = self.paths.dot_lab().join("demo.ledger");
        ui.say(&format!("send {} uniquely valued samples a second, with a ledger of what is acknowledged", self.rate));
        let mut load = Running::start(&self.program, store, &store.token()?, self.rate, "30m", &ledger)?;
        load.wait_flowing()?;
        ui.say("kubectl get datastores,shards,replicas,consumers");
        println!("{}", store.access.get(&["-n", &store.namespace, "datastores,shards,replicas,consumers"])?.trim_end());

        let shard = store.shards()?.into_iter().find(is_whole).context("no shard is whole")?;
        let name = shard["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let watches = Watches::start(store.access, &store.namespace, &["shards", "replicas"])?;
        let mut story = begin(&watches, &name)?;
        let (old, epoch) = (story.primary().to_owned(), story.epoch());
        fault::kill(store, self.paths, ui, &old)?;
        let killed = Instant::now();
        ui.say(&format!("kill -9 of the mysqld of {old}, the primary of {name}"));
        let times = follow(&watches, &mut story, ui, killed, (&old, epoch))?;
        drop(watches);
        ui.say("stop sending, read everything back");
        let (text, outcome) = load.finish(store)?;
        print!("{text}");
        Ok(Seen { shard: name, new: story.primary().to_owned(), epoch: story.epoch(), old, times, outcome })
    }
}

/// Takes in what there is: the watches begin with it, and then only changes come.
pub fn begin(watches: &Watches, shard: &str) -> Result<Story> {
    let mut story = Story::new(shard);
    let end = Instant::now() + Duration::from_secs(3);
    while let Some(event) = watches.next(end.saturating_duration_since(Instant::now()).min(Duration::from_secs(1)))? {
        story.tell(&event.object, event.deleted);
    }
    ensure!(!story.primary().is_empty(), "the shard {shard} has no primary");
    Ok(story)
}

/// Prints each line with its time since the kill, until the shard is redundant under another primary.
pub fn follow(watches: &Watches, story: &mut Story, ui: &Ui, killed: Instant, before: (&str, i64)) -> Result<Times> {
    let mut times = Times::new();
    let limit = Duration::from_secs(300);
    loop {
        let left = limit.saturating_sub(killed.elapsed());
        let Some(event) = watches.next(left)? else {
            bail!(
                "the shard is not redundant {} s after the kill; `kubectl describe shard` tells more",
                limit.as_secs()
            );
        };
        let after = event.at.saturating_duration_since(killed);
        for line in story.tell(&event.object, event.deleted) {
            ui.say(&format!("  +{:>5.1} s  {}", after.as_secs_f64(), line.text));
            if let Some(milestone) = line.milestone {
                times.entry(milestone).or_insert(after);
            }
            let moved = story.primary() != before.0 && story.epoch() > before.1;
            if line.milestone == Some(Milestone::Redundant) && moved {
                times.insert(Milestone::Redundant, after);
                return Ok(times);
            }
        }
    }
}

fn summary(ui: &Ui, store: &Store<'_>, seen: &Seen, series: u64) {
    let time = |m: Milestone| seen.times.get(&m).map_or("not seen".into(), |t| format!("{:.1} s", t.as_secs_f64()));
    let gap = |g: Option<f64>| g.map_or("not measured".into(), |g| format!("{g:.2} s"));
    let outcome = &seen.outcome;
    println!();
    println!("What was seen");
    println!("  noticed        {} after the kill", time(Milestone::Noticed));
    println!(
        "  promoted       {}: {} in place of {}, epoch {}",
        time(Milestone::Promoted),
        seen.new,
        seen.old,
        seen.epoch
    );
    println!("  redundant      {}: a new server on a new volume", time(Milestone::Redundant));
    println!("  ack gap        {} in which no send was acknowledged", gap(outcome.ack_gap_seconds));
    println!("  write gap      {} without a commit on the shard", gap(outcome.write_gap_seconds));
    println!("  visible gap    {} without a newer sample to read", gap(outcome.visible_gap_seconds));
    println!(
        "  samples        {} acknowledged, {} lost, {} doubled, {} unanswered, {} twice by sends of unknown outcome",
        outcome.acknowledged, outcome.lost, outcome.doubled, outcome.unknown, outcome.explained
    );
    println!("  Prometheus     {} series of this cluster, written and read back through the product", series);
    println!("  all of it      {}", clock(ui.elapsed()));
    println!();
    let access = store.access;
    let cluster = if access.is_lab() {
        Cluster::Lab
    } else {
        Cluster::Named { kubectl: access.flags(), helm: access.helm_flags() }
    };
    let left = Left {
        namespace: &store.namespace,
        datastore: &store.name,
        shard: &seen.shard,
        primary: &seen.new,
        epoch: seen.epoch,
    };
    advice(&cluster, left).iter().for_each(|line| println!("{line}"));
}
