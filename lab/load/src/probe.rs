//! `probe`: how long a commit takes on a shard's primary, with as many probes beside it as asked for. By more of them than the
//! product itself makes, what one costs can be told. I/O, but for [`cost`].

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use kube::Api;
use kube::api::DynamicObject;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use understudy_lab_outcome::ProbeCost;

use crate::cluster::{ClusterOptions, resource};
use crate::gaps::quantile;
use crate::parse_time;
use crate::watch::direct::WRITER;
use crate::watch::routes::route_of;
use crate::watch::stored::Login;

/// Time between the starts of two commits that are timed.
const COMMIT_EVERY: Duration = Duration::from_millis(50);
/// What a probe may take: the product gives its stages about as long together.
const DEADLINE: Duration = Duration::from_secs(3);
/// Probes that may be under way at once; when so many are, the server is not asked for more.
const AT_ONCE: usize = 64;
const LOCK_WAIT: &str = "SET SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1";
const SELECT: &str = "SELECT epoch FROM understudy.epoch WHERE id = 1";

/// What `probe` takes. `--shard` names the one shard.
#[derive(Debug, Args)]
pub struct ProbeOptions {
    #[command(flatten)]
    cluster: ClusterOptions,
    /// How long: 30s, 5m.
    #[arg(long = "for", value_parser = parse_time, default_value = "30s")]
    time: Duration,
    /// Probes a second.
    #[arg(long, default_value_t = 0)]
    rate: u32,
}

/// Commits and probes, and prints [`ProbeCost`] as JSON.
pub async fn probe(options: ProbeOptions) -> Result<()> {
    let cluster = options.cluster.connect().await?.context("name the cluster with --kubeconfig or --context")?;
    let shards = cluster.shards().await?;
    let [shard] = &shards[..] else { bail!("name one shard with --shard") };
    let api: Api<DynamicObject> =
        Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &resource("Shard", "shards"));
    let object = api.get(shard).await.with_context(|| format!("read the Shard {shard}"))?;
    let route = route_of(&object).with_context(|| format!("the Shard {shard} has no primary"))?;
    let login = Login::of(cluster.client, &cluster.namespace, shard, WRITER).await?;
    // With these given, no connection asks the server for them first, which a probe of the product does not do either.
    let login = OptsBuilder::from_opts(login.options(route.address)).max_allowed_packet(Some(1 << 20));
    let login = Opts::from(login);

    let end = Instant::now() + options.time;
    let (times, probes) = tokio::join!(time_commits(&login, end), make_probes(&login, options.rate, end));
    println!("{}", serde_json::to_string(&cost(times?, options.time, probes)?)?);
    Ok(())
}

/// How long each commit of one row took, in milliseconds.
async fn time_commits(login: &Opts, end: Instant) -> Result<Vec<f64>> {
    let mut conn = timeout(DEADLINE, Conn::new(login.clone())).await.context("connect: no answer in time")??;
    let mut ticks = interval(COMMIT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut times = Vec::new();
    while Instant::now() < end {
        ticks.tick().await;
        let begun = Instant::now();
        timeout(DEADLINE, conn.query_drop(row("lab-commit"))).await.context("commit: no answer in time")??;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    conn.disconnect().await?;
    Ok(times)
}

/// Probes made, and how many of them failed.
async fn make_probes(login: &Opts, rate: u32, end: Instant) -> (u64, u64) {
    if rate == 0 {
        sleep(end.saturating_duration_since(Instant::now())).await;
        return (0, 0);
    }
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut running = JoinSet::new();
    let (mut made, mut failed) = (0, 0);
    while Instant::now() < end {
        ticks.tick().await;
        if running.len() < AT_ONCE {
            made += 1;
            running.spawn(timeout(DEADLINE, one(login.clone())));
        }
        while let Some(outcome) = running.try_join_next() {
            failed += u64::from(!matches!(outcome, Ok(Ok(Ok(())))));
        }
    }
    while let Some(outcome) = running.join_next().await {
        failed += u64::from(!matches!(outcome, Ok(Ok(Ok(())))));
    }
    (made, failed)
}

/// What the product's own probe does: a new connection, a login, a read, a commit, a goodbye.
async fn one(login: Opts) -> Result<(), mysql_async::Error> {
    let mut conn = Conn::new(login).await?;
    conn.query_drop(LOCK_WAIT).await?;
    conn.query_drop(SELECT).await?;
    conn.query_drop(row("lab-probe")).await?;
    conn.disconnect().await
}

/// A row of the heartbeat table, on which nothing depends.
fn row(name: &str) -> String {
    format!(
        "INSERT INTO understudy.heartbeat (observer, seq, at_ms) VALUES ('{name}', 1, 0) AS new \
         ON DUPLICATE KEY UPDATE seq = heartbeat.seq + 1, at_ms = new.at_ms"
    )
}

fn cost(mut times: Vec<f64>, within: Duration, (probes, failed): (u64, u64)) -> Result<ProbeCost> {
    let commits = times.len() as u64;
    let mut share = |share| quantile(&mut times, share).context("no commit was made: give it more time");
    let (p50_ms, p99_ms, max_ms) = (share(0.5)?, share(0.99)?, share(1.0)?);
    Ok(ProbeCost { seconds: within.as_secs_f64(), commits, p50_ms, p99_ms, max_ms, probes, failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_told_by_quantiles_of_the_commits() {
        let times = (1..=100).map(f64::from).collect();
        let cost = cost(times, Duration::from_secs(30), (7, 2)).unwrap();
        assert_eq!((cost.commits, cost.probes, cost.failed), (100, 7, 2));
        assert_eq!((cost.p50_ms, cost.p99_ms, cost.max_ms), (51.0, 100.0, 100.0));
    }

    #[test]
    fn nothing_is_said_of_no_commits() {
        assert!(cost(Vec::new(), Duration::from_secs(1), (0, 0)).is_err());
    }
}
