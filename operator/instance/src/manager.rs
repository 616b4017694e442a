//! Everything wired together, and the order in which it starts and ends. I/O.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::ring;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use understudy_link::evidence::Publisher;
use understudy_link::server::Limits;
use understudy_link::{Identity, names, server};
use understudy_mysql::probe::Account;
use understudy_mysql::schema::ADMIN;
use understudy_mysql::{Connect, Server, Trust};

use crate::admin::{self, Admin};
use crate::api::{self, Api};
use crate::child::Reaper;
use crate::config::Config;
use crate::contact::{self, OperatorStreams, UNACKNOWLEDGED};
use crate::drill::Drills;
use crate::facts::{Shared, Sources};
use crate::host::Host;
use crate::probes::Probers;
use crate::volume::Watch;
use crate::{certificate, life, locks, observe, orders, stop, telemetry};

const END_WITHIN: Duration = Duration::from_secs(3);

/// Runs the manager as this process, until it is asked to stop.
pub fn run_process() -> anyhow::Result<()> {
    let dropped_lines = telemetry::start().context("log not started")?;
    // The MySQL client takes the process's provider; there is only this one.
    drop(ring::default_provider().install_default());
    let config = Config::from_env().context("settings of the pod")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("runtime not started")?;
    let outcome = runtime.block_on(run(Arc::new(config), dropped_lines));
    // Threads that hang on the volume must not hold the end up.
    runtime.shutdown_background();
    outcome
}

async fn run(config: Arc<Config>, dropped_lines: Arc<AtomicU64>) -> anyhow::Result<()> {
    let (tasks, ending) = (TaskTracker::new(), CancellationToken::new());
    let shared = Arc::new(Shared::new(config.replica.clone()));
    let identity = Identity::from_dir(&config.tls).context("certificate")?;
    let trust = Trust::new(&identity.pem().ca, &names::shard(&config.shard)).context("authority")?;
    let volume = Watch::start(&config.volume).context("volume")?;
    let reaper = Reaper::new();
    tasks.spawn(reaper.clone().run(ending.clone()));
    let host = Arc::new(Host::new(config.clone(), shared.clone(), reaper, tasks.clone()));

    // One connection each, so that none waits behind another.
    let account = Account { user: ADMIN.to_owned(), password: config.passwords.of(ADMIN).to_owned() };
    let connection = || Arc::new(Server::new(&Connect::Tcp(config.mysql_admin_address(), trust.clone()), &account));
    let (desk, worker) = orders::open(shared.clone(), config.clone(), volume.clone(), connection(), host.clone());
    tasks.spawn(worker.run(ending.clone()));
    tasks.spawn(observe::pulse(shared.clone(), ending.clone()));
    let probers = Probers::start(&shared, &config, &trust, &tasks, &ending);
    tasks.spawn(observe::status(shared.clone(), connection(), probers.admin.clone(), ending.clone()));
    tasks.spawn(observe::replication(shared.clone(), connection(), probers.admin.clone(), ending.clone()));
    observe::process(shared.clone(), host.clone()).context("thread not started")?;
    tasks.spawn(locks::watch(
        shared.clone(),
        [probers.own.clone(), probers.admin.clone()],
        connection(),
        ending.clone(),
    ));
    tasks.spawn(identity.clone().keep_fresh(config.tls.clone(), ending.clone()));
    tasks.spawn(certificate::keep_fresh(identity.clone(), connection(), certificate::PACE, ending.clone()));
    tasks.spawn(certificate::follow_authority(identity.clone(), trust.clone(), ending.clone()));

    let sources = Sources {
        shared: shared.clone(),
        own: probers.own,
        admin: probers.admin,
        primary: probers.primary,
        volume: volume.clone(),
    };
    let streams = OperatorStreams::default();
    let (builds, plans) = mpsc::channel(1);
    let drills = Drills::new(shared.clone(), config.clone(), host.clone(), connection());
    let api = Api {
        shared: shared.clone(),
        config: config.clone(),
        desk: desk.clone(),
        builds,
        drills: drills.clone(),
        body: host.clone(),
        streams: streams.clone(),
    };
    let report = sources.clone();
    let evidence = Publisher::new(move || report.report(), shared.news(), ending.clone());
    let listener =
        TcpListener::bind(config.api_listen).await.with_context(|| format!("instance API on {}", config.api_listen))?;
    let limits = Limits { unacknowledged: UNACKNOWLEDGED, ..Limits::default() };
    tasks.spawn(server::serve(listener, identity.clone(), api::routes(api, evidence), limits, ending.clone()));
    let listener = TcpListener::bind(config.admin_listen)
        .await
        .with_context(|| format!("health and metrics on {}", config.admin_listen))?;
    let admin = axum::serve(listener, admin::routes(Admin { sources, dropped_lines }));
    tasks.spawn(ending.clone().run_until_cancelled_owned(async move {
        if let Err(e) = admin.await {
            tracing::error!(error = %e, "health and metrics are not served any more");
        }
    }));
    tasks.spawn(contact::watch(shared.clone(), config.clone(), identity, streams, desk, ending.clone()));

    let life = life::Parts {
        shared: shared.clone(),
        config: config.clone(),
        host: host.clone(),
        volume,
        server: connection(),
    };
    tasks.spawn(life::run(life, plans, ending.clone()));

    stop::asked().await.context("signals")?;
    tracing::info!("asked to stop");
    drills.let_go();
    stop::stop(&shared, &config, &host, &*connection()).await;
    ending.cancel();
    tasks.close();
    if tokio::time::timeout(END_WITHIN, tasks.wait()).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    Ok(())
}
