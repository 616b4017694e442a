//! The query service's process: configuration, signals, and the order of starting and stopping.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use understudy_http::{Connections, Running, serve, stop_signal};
use understudy_query::api::{Service, Turns, router};
use understudy_query::ask::Asker;
use understudy_query::config::Config;
use understudy_query::metrics::Metrics;
use understudy_query::server::MysqlServers;
use understudy_query::topology::Topology;
use understudy_query::{admin, follow};
use understudy_tenant::TokenDirectory;

#[tokio::main]
async fn main() -> Result<()> {
    let config = Config::parse();
    let filter = EnvFilter::try_new(&config.log).context("read the log filter")?;
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    let provider = rustls::crypto::ring::default_provider().install_default();
    provider.map_err(|_| anyhow!("a provider of cryptography was installed before"))?;
    run(config).await
}

async fn run(config: Config) -> Result<()> {
    let limits = config.limits();
    let metrics = Metrics::default();
    let tokens = TokenDirectory::load(&config.tokens_dir).context("read the tokens")?;
    let client = understudy_watch::client().await.context("make a client of the API server")?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let admin_listener =
        TcpListener::bind(config.admin_listen).await.with_context(|| format!("listen on {}", config.admin_listen))?;

    let (topology, known) = watch::channel(Topology::default());
    let authority = config.tls_dir.join("ca.crt");
    let servers =
        MysqlServers::new(config.credentials_dir.clone(), Some(authority), config.consumer.clone(), limits.clone());
    let asker = Asker::new(servers, known.clone(), limits.clone(), config.topic.clone(), metrics.clone());
    let service = Arc::new(Service {
        asker,
        tokens: tokens.clone(),
        limits: limits.clone(),
        partitions: config.partitions,
        metrics: metrics.clone(),
        turns: Turns::default(),
    });

    let running = Running::default();
    let (tasks, background) = (&running.tasks, &running.background);
    let (namespace, datastore) = (config.namespace.clone(), config.datastore.clone());
    let shards = follow::follow_shards(
        client.clone(),
        namespace.clone(),
        datastore.clone(),
        topology.clone(),
        background.clone(),
    );
    tasks.spawn(shards);
    tasks.spawn(follow::follow_datastore(client, namespace, datastore, topology, background.clone()));
    tasks.spawn(tokens.keep_current(background.clone()));
    tasks.spawn(Arc::clone(&service.asker).tidy(background.clone()));
    let connections = Connections {
        most: limits.connections,
        header_timeout: limits.header_timeout,
        send_timeout: limits.send_timeout,
        drain_timeout: limits.request + Duration::from_secs(2),
    };
    let admin_connections = Connections::of_admin();
    let admin_router = admin::router(known, running.draining.clone(), metrics.clone());
    tasks.spawn(serve(admin_listener, admin_router, admin_connections, Gauge::default(), background.clone()));
    let front = tokio::spawn(serve(listener, router(service), connections, metrics.connections, running.stop.clone()));
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, datastore = config.datastore, "up");

    stop_signal().await?;
    tracing::info!("stopping: requests are taken until nobody asks here any more");
    running.end(front, Duration::from_millis(config.drain_ms)).await.context("the server panicked")?;
    tracing::info!("stopped");
    Ok(())
}
