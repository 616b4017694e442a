//! The process of a consumer: settings, tasks, signals, in the order of starting and stopping. I/O.
//!
//! A view of one's own is one call: [`main`] with the view.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use understudy_http::stop::ListenError;
use understudy_http::{Connections, stop_signal};
use understudy_kafka::{
    Admin, DeadLetter, KafkaProducer, ProducerConfig, Reader, ReaderConfig, Stop, dead_letter_topic,
};
use understudy_link::{Identity, server};

use crate::config::Settings;
use crate::facts::{Facts, INTERVAL};
use crate::guard::OwnerId;
use crate::lanes::Holes;
use crate::log::{Ends, keep_asking, keep_hinting, keep_spreading};
use crate::machine::Times;
use crate::metrics::Metrics;
use crate::placement::Placement;
use crate::publish::Publisher;
use crate::route::{Route, Transition};
use crate::run::{Config, Deps, run};
use crate::session::{Deadlines, Names};
use crate::status::Snapshot;
use crate::view::View;
use crate::{serve, watch as follow};

/// How long closing the Kafka client may take.
const CLOSE: Duration = Duration::from_secs(3);

/// Starts logging and runs until SIGTERM or SIGINT. The view gets the settings, for its schema and limits of its own.
pub async fn main<V: View>(settings: Settings, view: impl FnOnce(&Settings) -> Result<V>) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&settings.log).context("read the log filter")?;
    tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_env_filter(filter).init();
    // Two libraries bring a provider each; the one of ours must be chosen before either is used.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("a cryptography provider is installed already");
    }
    let view = view(&settings)?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone()));
    let outcome = serve_until(settings, view, stop).await;
    signals.abort();
    outcome
}

async fn stop_on_signal(stop: CancellationToken) -> Result<(), ListenError> {
    stop_signal().await?;
    tracing::info!("stopping");
    stop.cancel();
    Ok(())
}

async fn serve_until<V: View>(settings: Settings, view: V, stop: CancellationToken) -> Result<()> {
    let identity = Identity::from_dir(&settings.tls_dir).context("read the certificate")?;
    let evidence = TcpListener::bind(settings.evidence_listen).await.context("listen for readers of evidence")?;
    let admin = TcpListener::bind(settings.admin_listen).await.context("listen on the admin port")?;
    let client = understudy_watch::client().await.context("find the API server")?;
    let kafka = Admin::new(&settings.kafka()).context("start the Kafka client")?;

    let facts = Arc::new(Facts::new(&settings.pod, std::time::Instant::now()));
    let metrics = Metrics::default();
    let (board, seen) = watch::channel(Snapshot::idle(&settings.shard));
    // The servers and watchers outlive the driver, so that its last words are heard.
    let background = CancellationToken::new();
    let tasks = TaskTracker::new();
    let evidence_routes = serve::evidence(facts.clone(), seen.clone(), background.clone());
    tasks.spawn(server::serve(
        evidence,
        identity.clone(),
        evidence_routes,
        server::Limits::default(),
        background.clone(),
    ));
    tasks.spawn(identity.keep_fresh(settings.tls_dir.clone(), background.clone()));
    let admin_routes = serve::admin(facts.clone(), metrics.clone());
    tasks.spawn(understudy_http::serve(
        admin,
        admin_routes,
        Connections::of_admin(),
        Gauge::default(),
        background.clone(),
    ));
    tasks.spawn(keep_ticking(facts.clone(), background.clone()));
    let (routes, route) = watch::channel(None);
    let (transitions, transition) = watch::channel(None);
    tasks.spawn(follow::follow_shard(
        client.clone(),
        settings.namespace.clone(),
        settings.shard.clone(),
        routes,
        transitions,
        background.clone(),
    ));
    let (ends, ends_seen) = watch::channel(Ends::default());
    tasks.spawn(keep_asking(kafka, settings.topic.clone(), ends, facts.clone(), background.clone()));
    let publisher = Publisher {
        namespace: settings.namespace.clone(),
        consumer: settings.consumer.clone(),
        pod: settings.pod.clone(),
    };
    tasks.spawn(publisher.run(client.clone(), seen.clone(), background.clone()));

    let outcome = async {
        let placement = place(&settings, client, ends_seen.clone(), &tasks, &background)?;
        let way = (route, transition);
        drive(&settings, view, way, placement, ends_seen, facts, board, seen, metrics, &tasks, &background, stop).await
    };
    let outcome = outcome.await;
    background.cancel();
    tasks.close();
    tasks.wait().await;
    tracing::info!("stopped");
    outcome
}

/// What feeds the shard: followed by watch with a Datastore, computed from the partitions of the topic without.
fn place(
    settings: &Settings,
    client: Client,
    ends: watch::Receiver<Ends>,
    tasks: &TaskTracker,
    background: &CancellationToken,
) -> Result<watch::Receiver<Option<Placement>>> {
    let (placements, placement) = watch::channel(None);
    let (shard, stop) = (settings.shard.clone(), background.clone());
    if let Some(datastore) = &settings.datastore {
        let namespace = settings.namespace.clone();
        tasks.spawn(follow::follow_datastore(client, namespace, datastore.clone(), shard, placements, stop));
    } else if settings.shards.is_empty() {
        bail!("neither UNDERSTUDY_DATASTORE nor UNDERSTUDY_SHARDS says what feeds the shard");
    } else {
        tasks.spawn(keep_spreading(shard, settings.shards.clone(), ends, placements, stop));
    }
    Ok(placement)
}

#[expect(clippy::too_many_arguments, reason = "it only puts together what was made one by one")]
async fn drive<V: View>(
    settings: &Settings,
    view: V,
    (routes, transitions): (watch::Receiver<Option<Route>>, watch::Receiver<Option<Transition>>),
    placement: watch::Receiver<Option<Placement>>,
    ends: watch::Receiver<Ends>,
    facts: Arc<Facts>,
    board: watch::Sender<Snapshot>,
    seen: watch::Receiver<Snapshot>,
    metrics: Metrics,
    tasks: &TaskTracker,
    background: &CancellationToken,
    stop: CancellationToken,
) -> Result<()> {
    let mut reading = ReaderConfig::new(settings.kafka(), &settings.topic, &settings.group);
    reading.accept_gaps = settings.accept_gaps;
    let (reader, events) = Reader::start(reading).context("start the Kafka reader")?;
    let reader = Arc::new(reader);
    tasks.spawn(keep_hinting(reader.clone(), seen, background.clone()));
    let producing = ProducerConfig::new(settings.kafka(), dead_letter_topic(&settings.topic));
    let dead = DeadLetter::new(Arc::new(KafkaProducer::new(producing).context("start the Kafka producer")?));
    let config = Config {
        names: Names {
            consumer: settings.group.clone(),
            topic: settings.topic.clone(),
            schema: settings.schema.clone(),
        },
        shard: settings.shard.clone(),
        owner: OwnerId::new(&settings.pod, &incarnation()),
        limits: settings.limits(),
        deadlines: Deadlines::default(),
        times: Times::default(),
        holes: if settings.accept_gaps { Holes::Expected } else { Holes::Refused },
        start: settings.start.into(),
        paused: settings.paused,
        paused_partitions: settings.paused_partitions()?,
    };
    let login = settings.clone();
    let deps = Deps {
        login: Arc::new(move || login.login()),
        routes,
        transitions,
        placement,
        log: reader.clone(),
        events,
        ends,
        dead,
        facts,
        board,
        metrics,
    };
    tracing::info!(owner = %config.owner, shard = settings.shard, topic = settings.topic, "the consumer is up");
    run(config, view, deps, stop).await;
    background.cancel();
    tasks.close();
    tasks.wait().await;
    // The only handle left, unless a task was abandoned: then the client is closed by the end of the process.
    if let Some(reader) = Arc::into_inner(reader)
        && reader.stop(CLOSE).await == Stop::Abandoned
    {
        tracing::warn!("the Kafka client did not close in time");
    }
    Ok(())
}

/// Differs between any two processes of a pod.
fn incarnation() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), std::process::id())
}

async fn keep_ticking(facts: Arc<Facts>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        facts.tick(std::time::Instant::now());
    }
}
