//! `load`: sends one run, with the watcher beside it. I/O.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use understudy_lab_outcome::Progress;

use crate::cluster::{Cluster, ClusterOptions};
use crate::ledger::book::Book;
use crate::ledger::reader::read_lines;
use crate::ledger::writer::{Clock, Ledger, LedgerError};
use crate::ledger::{Act, FORMAT, Record};
use crate::plan::{Run, instances};
use crate::query::{Query, endpoint};
use crate::send::{Sender, Tally, Target};
use crate::verify::report::Report;
use crate::watch::direct::{WRITER, watch_direct};
use crate::watch::routes::Shards;
use crate::watch::stored::{Login, READER, watch_offsets};
use crate::watch::visible::{locate_groups, watch_visible};
use crate::{parse_time, pulse};

/// From the first call to the first send: connections are made and series prepared meanwhile.
const LEAD: Duration = Duration::from_millis(500);
/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_secs(5);
/// A read of the newest sample that takes longer counts as failed.
const VISIBLE_DEADLINE: Duration = Duration::from_secs(3);

/// What `load` takes.
#[derive(Debug, Args)]
pub struct LoadOptions {
    #[command(flatten)]
    cluster: ClusterOptions,
    /// Samples per second; canaries, one per group and tick, come on top.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// How long to send: 30s, 5m.
    #[arg(long = "for", value_parser = parse_time, default_value = "60s")]
    time: Duration,
    /// Where to write down what was sent and acknowledged. Must not exist.
    #[arg(long)]
    ledger: PathBuf,
    /// Address of the gateway, several with commas or given several times. The path is that of remote write if none is given.
    #[arg(long = "gateway", required = true, value_delimiter = ',')]
    gateways: Vec<String>,
    /// Address of the query service, as `--gateway`. Without it the visible gap is not measured.
    #[arg(long = "query", value_delimiter = ',')]
    queries: Vec<String>,
    /// `ID.SECRET`.
    #[arg(long, env = "UNDERSTUDY_TOKEN", hide_env_values = true)]
    token: String,
    /// Series; by default as many that each has a sample in each tick.
    #[arg(long)]
    series: Option<u64>,
    /// Groups of series, each with its own `instance`; spread evenly over the partitions when the cluster tells how many there are.
    #[arg(long, default_value_t = 32)]
    groups: u64,
    /// Requests per tick, each with the samples of its share of the groups.
    #[arg(long, default_value_t = 4)]
    lanes: u64,
    /// Milliseconds between two requests of a lane.
    #[arg(long, default_value_t = 100)]
    tick_ms: u64,
    /// How long to go on retrying what is not acknowledged when the time is over.
    #[arg(long, value_parser = parse_time, default_value = "30s")]
    drain: Duration,
    /// How long to watch on, after that, for what was sent last to become visible.
    #[arg(long, value_parser = parse_time, default_value = "3s")]
    settle: Duration,
    /// Also keep a reader and a writer on the primary that each shard has at the beginning, to see what they can still do with it
    /// once another is primary. The writer commits one row of the heartbeat table, five times a second.
    #[arg(long)]
    direct: bool,
}

/// Sends, watches, and prints what the ledger says.
pub async fn load(options: LoadOptions) -> Result<()> {
    let cluster = options.cluster.clone().connect().await?;
    let run = Arc::new(plan(&options, cluster.as_ref()).await?);
    let target = Target {
        gateways: options.gateways.iter().map(|base| endpoint(base, "/api/v1/write")).collect::<Result<_>>()?,
        token: options.token.clone(),
    };
    let queries: Vec<_> = options.queries.iter().map(|base| endpoint(base, "/api/v1/read")).collect::<Result<_>>()?;

    let clock = Clock::start();
    let (ledger, closing) = Ledger::create(&options.ledger, clock)?;
    let begin = Instant::now() + LEAD;
    let start_ms = Timestamp::now().as_millisecond() + LEAD.as_millis() as i64;
    let run = Arc::new(Run { start_ms, ..(*run).clone() });
    ledger.record(Record::Run { format: FORMAT, run: (*run).clone(), at: clock.now() })?;

    let watching = CancellationToken::new();
    let mut watchers = JoinSet::new();
    watchers.spawn(pulse::record_pauses(ledger.clone(), watching.clone()));
    let shards = watch_shards(cluster, options.direct, &ledger, &watching, &mut watchers).await?;
    if !queries.is_empty() {
        let query = Query::new(queries, options.token.clone(), VISIBLE_DEADLINE)?;
        watchers.spawn(watch_visible(Arc::clone(&run), query.clone(), ledger.clone(), watching.clone()));
        watchers.spawn(locate_groups(Arc::clone(&run), query, shards.clone(), ledger.clone(), watching.clone()));
    }
    announce(&run, &options, &shards);

    let tally = Arc::new(Tally::default());
    let stop = stop_on_signal()?;
    let sender = Sender::new(Arc::clone(&run), target, ledger.clone(), Arc::clone(&tally))?;
    let ticks = options.time.as_millis() as u64 / run.tick_ms;
    let sending = sender.run(begin, ticks, options.drain, stop);
    let outcome = tokio::select! {
        outcome = sending => outcome,
        never = show_progress(&tally, begin) => match never {},
        failure = first_failure(&mut watchers) => Err(failure),
    };
    outcome.context("the run ended before its time")?;
    sleep(options.settle).await;
    watching.cancel();
    while let Some(outcome) = watchers.join_next().await {
        outcome.context("a watcher panicked")??;
    }
    ledger.record(Record::End { at: clock.now() })?;
    drop(ledger);
    tokio::task::spawn_blocking(move || closing.close()).await??;
    summarise(&options)
}

async fn plan(options: &LoadOptions, cluster: Option<&Cluster>) -> Result<Run> {
    let now = Timestamp::now();
    let id = format!("{:x}-{:x}", now.as_millisecond(), std::process::id());
    let token_id = options.token.split('.').next().unwrap_or_default();
    let spread = match cluster {
        Some(cluster) => cluster.spread(token_id).await?,
        None => None,
    };
    let spread = spread.as_ref().map(|(tenant, partitions)| (tenant.as_str(), *partitions));
    let series = options.series.unwrap_or_else(|| options.groups.max(options.rate * options.tick_ms / 1000));
    let run = Run {
        instances: instances(&id, options.groups, spread)?,
        id,
        start_ms: now.as_millisecond(),
        rate: options.rate,
        series,
        lanes: options.lanes,
        tick_ms: options.tick_ms,
    };
    Ok(run.check()?)
}

type Watchers = JoinSet<Result<(), LedgerError>>;

async fn watch_shards(
    cluster: Option<Cluster>,
    direct: bool,
    ledger: &Ledger,
    watching: &CancellationToken,
    watchers: &mut Watchers,
) -> Result<Vec<String>> {
    let Some(cluster) = cluster else { return Ok(Vec::new()) };
    let shards = cluster.shards().await?;
    if shards.is_empty() {
        bail!("there is no shard to watch in namespace {}", cluster.namespace);
    }
    let mut routes = HashMap::new();
    for shard in &shards {
        let login = |account| Login::of(cluster.client.clone(), &cluster.namespace, shard, account);
        let (sender, receiver) = watch::channel(None);
        routes.insert(shard.clone(), sender);
        let acts: &[(Act, &'static str)] = if direct { &[(Act::Read, READER), (Act::Write, WRITER)] } else { &[] };
        for (act, account) in acts {
            let (login, route) = (login(*account).await?, receiver.clone());
            watchers.spawn(watch_direct(shard.clone(), *act, login, route, ledger.clone(), watching.clone()));
        }
        let login = login(READER).await?;
        watchers.spawn(watch_offsets(shard.clone(), login, receiver, ledger.clone(), watching.clone()));
    }
    let follow = Shards::new(cluster.client, &cluster.namespace).follow(routes, ledger.clone(), watching.clone());
    watchers.spawn(follow);
    Ok(shards)
}

fn announce(run: &Run, options: &LoadOptions, shards: &[String]) {
    let per_second = run.groups() * 1000 / run.tick_ms;
    let (seconds, watched) =
        (options.time.as_secs(), if shards.is_empty() { "none".into() } else { shards.join(", ") });
    eprintln!(
        "run {}: {} samples/s and {per_second} canaries/s for {seconds} s; shards watched: {watched}",
        run.id, run.rate
    );
}

/// Ends when the first signal says so; the sending then drains.
fn stop_on_signal() -> Result<CancellationToken> {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    // Lives as long as the process: it waits for signals and holds nothing.
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        eprintln!("stopping: no new sends, waiting for what is unanswered");
        token.cancel();
    });
    Ok(stop)
}

/// Only ends with a failure: the watchers run until they are told to stop.
async fn first_failure(watchers: &mut Watchers) -> LedgerError {
    loop {
        match watchers.join_next().await {
            Some(Ok(Err(failure))) => return failure,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

async fn show_progress(tally: &Tally, begin: Instant) -> std::convert::Infallible {
    let mut ticks = interval(SHOW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (sent, done) = (read(&tally.sent), read(&tally.done));
        let progress = Progress {
            seconds: begin.elapsed().as_secs(),
            acknowledged: read(&tally.acked_samples),
            unanswered: sent.saturating_sub(done),
            failed: read(&tally.failed),
            skipped: read(&tally.skipped),
        };
        eprintln!("{progress}");
    }
}

fn summarise(options: &LoadOptions) -> Result<()> {
    let file = std::fs::File::open(&options.ledger).context("read the ledger again")?;
    let book = Book::read(read_lines(std::io::BufReader::new(file)))?;
    print!("{}", Report::of(&book).before_reading_back());
    println!("  ledger {}", options.ledger.display());
    Ok(())
}
