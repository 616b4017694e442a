//! The gateway's process: configuration, signals, and the order of starting and stopping.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;
use understudy_gateway::admin;
use understudy_gateway::admission::Budget;
use understudy_gateway::config::Config;
use understudy_gateway::metrics::Metrics;
use understudy_gateway::quota::Quota;
use understudy_gateway::write::{Gateway, router};
use understudy_http::serve::SEND_TIMEOUT;
use understudy_http::{Connections, Running, serve, stop_signal};
use understudy_kafka::{Connection, KafkaProducer, Produce, ProducerConfig};
use understudy_tenant::TokenDirectory;

#[tokio::main]
async fn main() -> Result<()> {
    let config = Config::parse();
    let filter = EnvFilter::try_new(&config.log).context("read the log filter")?;
    tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init();
    run(config).await
}

async fn run(config: Config) -> Result<()> {
    let limits = Arc::new(config.limits());
    let metrics = Metrics::default();
    let tokens = TokenDirectory::load(&config.tokens_dir).context("read the tokens")?;
    let client = format!("understudy-gateway-{}", config.datastore);
    let mut producing = ProducerConfig::new(Connection::new(&config.kafka_bootstrap, client), &config.topic);
    // Frames are far smaller than what their requests hold while they wait.
    producing.queue_bytes = (limits.inflight_bytes / 4).max(16 << 20);
    producing.delivery_timeout = limits.produce_timeout;
    let producer: Arc<dyn Produce> = Arc::new(KafkaProducer::new(producing).context("start the producer")?);
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let admin_listener =
        TcpListener::bind(config.admin_listen).await.with_context(|| format!("listen on {}", config.admin_listen))?;

    let running = Running::default();
    let readiness = admin::Readiness::default();
    let gateway = Gateway {
        tokens: tokens.clone(),
        producer: producer.clone(),
        partitions: config.partitions,
        budget: Budget::new(limits.inflight_bytes),
        quota: Arc::new(Quota::new(limits.tenant_samples_per_second)),
        metrics: metrics.clone(),
        draining: running.draining.clone(),
        limits: limits.clone(),
    };
    let connections = Connections {
        most: limits.connections,
        header_timeout: limits.header_timeout,
        send_timeout: SEND_TIMEOUT,
        drain_timeout: limits.produce_timeout + Duration::from_secs(5),
    };
    let (tasks, background) = (&running.tasks, &running.background);
    tasks.spawn(tokens.keep_current(background.clone()));
    tasks.spawn(admin::keep_ready(producer, config.partitions, readiness.clone(), metrics.clone(), background.clone()));
    let admin_router = admin::router(readiness, running.draining.clone(), metrics.clone());
    let admin_connections = Connections::of_admin();
    tasks.spawn(serve(admin_listener, admin_router, admin_connections, Gauge::default(), background.clone()));
    let front = tokio::spawn(serve(listener, router(gateway), connections, metrics.connections, running.stop.clone()));
    tracing::info!(listen = %config.listen, admin = %config.admin_listen, topic = config.topic, "the gateway is up");

    stop_signal().await?;
    tracing::info!("stopping: requests are taken until nobody sends here any more");
    running.end(front, Duration::from_millis(config.drain_ms)).await.context("serve requests")?;
    tracing::info!("stopped");
    Ok(())
}
