//! What a real Prometheus scraped of this cluster, against what can be read back of it, with a failover in between.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use understudy_e2e::fault::Fault;
use understudy_e2e::prometheus::{Prometheus, SCRAPE};
use understudy_e2e::remote_read::{differences, read};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{run, see};

const JOBS: [&str; 4] = ["apiserver", "kubelet", "cadvisor", "understudy"];
/// A slice is compared at a time, so that no answer gets too large. The last one takes what is left, two scrapes at least.
const SLICE: i64 = 60_000;

/// How often every job is scraped; `cargo lab bench prometheus` asks for as many scrapes as ten minutes hold.
fn wanted() -> u64 {
    let seconds = std::env::var("UNDERSTUDY_E2E_PROMETHEUS_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(90);
    (seconds / SCRAPE.as_secs()).max(3)
}

fn now() -> Result<i64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64)
}

#[test]
fn what_prometheus_scraped_is_read_back_to_the_bit_after_a_failover() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let prometheus = Prometheus::start(&stage).await?;
        readable_through_the_reader(&prometheus).await?;
        let from = now()?;

        let before = stage.shard().await?;
        let old = see::primary(&before);
        scraped(&prometheus, from, wanted() / 3).await?;
        Fault::Kill.inject(stage.cluster, &stage.namespace, &old).await?;
        stage.promoted(&old, see::epoch(&before), Duration::from_secs(20)).await?;
        stage.settled().await?;
        let end = scraped(&prometheus, from, wanted()).await?;

        let (series, samples) = compare(&stage, &prometheus, from, end).await?;
        println!("{series} series, {samples} samples, equal to the bit");
        ensure!(series > 1000, "only {series} series were compared");
        prometheus.stop(&stage).await
    })
}

/// Waits until every job was scraped this often since `from`; the moment at which that was seen.
async fn scraped(prometheus: &Prometheus, from: i64, times: u64) -> Result<i64> {
    let limit = SCRAPE * u32::try_from(times + 4)?;
    until(format!("every job was scraped {times} times"), limit, async || {
        let at = now()?;
        let scrapes = prometheus.scrapes(((at - from) / 1_000).unsigned_abs()).await?;
        let all = JOBS.iter().all(|job| scrapes.get(*job).is_some_and(|seen| *seen >= times));
        Ok(Seen::when(all, at, format!("{scrapes:?}")))
    })
    .await
}

async fn readable_through_the_reader(prometheus: &Prometheus) -> Result<()> {
    until("PromQL over the stored samples sees every job", Duration::from_secs(180), async || {
        let answer = prometheus.ask("count by (job) (up == 1)").await?;
        let jobs: Vec<_> = answer.iter().filter_map(|r| r["metric"]["job"].as_str().map(str::to_owned)).collect();
        Ok(Seen::when(JOBS.iter().all(|j| jobs.contains(&(*j).to_owned())), (), format!("{jobs:?}")))
    })
    .await
}

/// Compares slice by slice; a slice may still be on its way when it is first asked for.
async fn compare(stage: &Stage, prometheus: &Prometheus, from: i64, end: i64) -> Result<(usize, usize)> {
    let query =
        stage.addresses("query", 8090).await?.into_iter().next().context("no pod of the query service is ready")?;
    let (mut most, mut samples) = (0, 0);
    let mut slice = from;
    while slice < end {
        let least = 2 * SCRAPE.as_millis() as i64;
        let to = if end - slice < SLICE + least { end } else { slice + SLICE } - 1;
        let mut in_slice = 0;
        for job in JOBS {
            let theirs = read(&prometheus.sender, None, job, slice, to).await?;
            ensure!(!theirs.is_empty(), "Prometheus has nothing of the job {job} between {slice} and {to}");
            until(format!("{job} from {slice} to {to} is equal"), Duration::from_secs(30), async || {
                let ours = read(&query, Some(&stage.token), job, slice, to).await?;
                let found = differences(&theirs, &ours);
                let seen = format!(
                    "{} differences in {} series: {:?}",
                    found.len(),
                    theirs.len(),
                    &found[..found.len().min(3)]
                );
                Ok(Seen::when(found.is_empty(), (), seen))
            })
            .await?;
            in_slice += theirs.len();
            samples += theirs.values().map(Vec::len).sum::<usize>();
        }
        most = most.max(in_slice);
        slice = to + 1;
    }
    Ok((most, samples))
}
