//! Starts everything, and ends it in order. I/O.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin};
use crate::apply::Applier;
use crate::cache::Caches;
use crate::context::Context;
use crate::events::Events;
use crate::lease::{self, InCluster, Leading};
use crate::metrics::Metrics;
use crate::metrics::datastores::DatastoreFacts;
use crate::metrics::drills::DrillFacts;
use crate::recent::Recent;
use crate::settings::Settings;
use crate::topics::Brokers;
use crate::troubles::Troubles;
use crate::{authority, controllers, malformed};

/// How long tasks get to end after they were asked to.
const GRACE: Duration = Duration::from_secs(10);
/// Between two tries to reach the API server at start.
const RETRY: Duration = Duration::from_secs(2);

/// Runs the operator until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a crypto provider was installed before");
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(operate(settings))
}

async fn operate(settings: Settings) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(stop_on_signal(stop.clone()).context("cannot listen for signals")?);

    let config = config().await?;
    let api_server = api_server(&config);
    let client = Client::try_from(config).context("cannot make a client")?;

    let metrics = Arc::new(Metrics::default());
    let ready = Arc::new(AtomicBool::new(false));
    let admin = Admin { ready: ready.clone(), metrics: metrics.clone() };
    tasks.spawn(admin::serve(settings.admin_listen, admin, stop.clone()).await?);

    let applier = Applier::new(client.clone(), metrics.clone());
    let Some(authority) = obtain_authority(&applier, &settings.namespace, &stop).await else {
        return finish(tasks, stop).await;
    };
    let identity = authority::identity(&authority)?;
    tasks.spawn(authority::keep_fresh(
        identity.clone(),
        authority.clone(),
        applier.clone(),
        settings.namespace.clone(),
        stop.clone(),
    ));

    let (events, writer) = Events::new(client.clone(), settings.pod.clone(), stop.clone());
    tasks.spawn(writer);
    // The lease is given up after everything that acts has ended.
    let retire = CancellationToken::new();
    let leases = InCluster::new(client.clone(), &settings.namespace, settings.scope());
    let (leading, election) = lease::elect(leases, settings.pod.clone(), retire.clone());
    let election = tokio::spawn(election);
    tasks.spawn(count_leading(leading.clone(), metrics.clone(), stop.clone()));

    let (malformed, telling) =
        malformed::start(client.clone(), events.clone(), metrics.clone(), leading.clone(), stop.clone());
    tasks.spawn(telling);
    let caches = Caches::start(&client, settings.scope(), malformed, &tasks, &stop);
    let (brokers, sweeping) = Brokers::new(stop.clone());
    tasks.spawn(sweeping);
    let datastores = caches.datastores.clone();
    metrics.datastores.read_from(move || datastores.all().iter().map(|held| DatastoreFacts::of(held)).collect());
    let drills = caches.drills.clone();
    metrics.drills.read_from(move || drills.all().iter().map(|held| DrillFacts::of(held)).collect());
    let context = Context {
        settings: Arc::new(settings),
        applier,
        recent: Recent::default(),
        caches,
        leading,
        events,
        troubles: Troubles::default(),
        metrics,
        identity,
        authority,
        topics: Arc::new(brokers),
        api_server,
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    if stop.run_until_cancelled(context.caches.filled()).await.is_some() {
        ready.store(true, Ordering::Relaxed);
        tracing::info!(version = env!("CARGO_PKG_VERSION"), instance = %context.settings.pod, "ready");
        controllers::start(&context);
        stop.cancelled().await;
    }
    finish(tasks, stop).await?;
    retire.cancel();
    tokio::time::timeout(GRACE, election).await.context("the lease was not released in time")??;
    Ok(())
}

/// Waits for every task, but not for ever.
async fn finish(tasks: TaskTracker, stop: CancellationToken) -> anyhow::Result<()> {
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!(left = tasks.len(), "tasks did not end in time");
    }
    Ok(())
}

async fn config() -> anyhow::Result<Config> {
    let mut config = Config::infer().await.context("no way to reach a cluster: neither in one, nor a kubeconfig")?;
    // Calls have deadlines of their own, and a pass that fails is tried again: retries below would only hide time.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(3));
    config.write_timeout = Some(Duration::from_secs(10));
    Ok(config)
}

/// `ip:port` of the API server as pods reach it: the Service's when running in a pod, the configured one's otherwise.
fn api_server(config: &Config) -> Option<String> {
    let in_pod = std::env::var("KUBERNETES_SERVICE_HOST").ok().zip(std::env::var("KUBERNETES_SERVICE_PORT").ok());
    let (host, port) = match in_pod {
        Some((host, port)) => (host, port.parse().ok()?),
        None => {
            let host = config.cluster_url.host()?.trim_matches(['[', ']']).to_owned();
            (host, config.cluster_url.port_u16().unwrap_or(443))
        }
    };
    let address: IpAddr = host.parse().ok()?;
    Some(std::net::SocketAddr::new(address, port).to_string())
}

async fn obtain_authority(
    applier: &Applier,
    namespace: &str,
    stop: &CancellationToken,
) -> Option<Arc<understudy_link::Authority>> {
    loop {
        match stop.run_until_cancelled(authority::obtain(applier, namespace)).await? {
            Ok(authority) => return Some(Arc::new(authority)),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "no certificate authority yet");
                stop.run_until_cancelled(tokio::time::sleep(RETRY)).await?;
            }
        }
    }
}

fn stop_on_signal(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("asked to stop"),
            _ = interrupt.recv() => tracing::info!("interrupted"),
            () = stop.cancelled() => {}
        }
        stop.cancel();
    })
}

async fn count_leading(mut leading: Leading, metrics: Arc<Metrics>, stop: CancellationToken) {
    loop {
        metrics.leading.set(i64::from(leading.is_leading()));
        if stop.run_until_cancelled(leading.changed()).await != Some(true) {
            return;
        }
    }
}
