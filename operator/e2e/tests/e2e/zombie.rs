//! What a client that holds on to a connection to a primary, past every route, can do after that was replaced and comes to life again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use understudy_e2e::fault::{Fault, heal};
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::sql::{self, Account, Said, Session};
use understudy_e2e::stage::{self, Stage};
use understudy_e2e::{run, see};

/// The longest that a zombie may answer, and that one statement may take.
const ANSWERS: Duration = Duration::from_secs(60);
const READ: &str = "SELECT epoch FROM understudy.epoch";
const WRITE: &str = "INSERT INTO understudy.heartbeat VALUES ('zombie', 1, 0) ON DUPLICATE KEY UPDATE seq = seq + 1";
const WRITTEN: &str = "SELECT COALESCE(MAX(seq), 0) FROM understudy.heartbeat WHERE observer = 'zombie'";

#[test]
fn a_client_of_a_thawed_primary_writes_nothing_that_the_shard_has_and_is_soon_cut_off() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        let pod = stage.pods().await?.remove(&old).context("the primary has no pod")?;
        let address = pod.status.and_then(|status| status.pod_ip).context("its pod has no address")?;
        let from = see::standbys(&before).pop().context("there is no standby")?;
        let shard = stage.shard_name(0);
        let mut client =
            Session::open(stage.cluster, &stage.namespace, (&shard, &from), Account::Probe, &address).await?;
        let first = client.ask(WRITE, ANSWERS).await;
        ensure!(first == Said::Row(String::new()), "the client cannot write before: {first:?}");
        let load = stage.load(1000).await?;

        // Its manager stands still as well: nobody can fence it before it thaws.
        Fault::FreezePod.inject(stage.cluster, &stage.namespace, &old).await?;
        let promoted = stage.promoted(&old, epoch, Duration::from_secs(60)).await;
        heal(stage.cluster).await?;
        let new = see::primary(&promoted?);
        let after = Zombie::of(&mut client).await?;
        println!("{}", after.words());
        stage.settled().await?;

        let settled = stage.shard().await?;
        ensure!(see::primary(&settled) == new && see::epoch(&settled) == epoch + 1, "{}", see::shard(&settled));
        ensure!(!see::serving(&settled).contains(&old), "{old} serves again");
        let kept = written(&stage, &new).await?;
        ensure!(kept <= 1, "the shard has {kept} writes of a client that wrote once before: {}", after.words());
        let record = stage.record(epoch + 1).await?;
        record::check(&record, &Truth { from: &old, to: &new, epoch: epoch + 1, commits: Commits::Watched })?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

/// What a client could do with a server that had been replaced, and for how long after the thaw.
#[derive(Default)]
struct Zombie {
    reads: usize,
    last_read: Option<Duration>,
    writes: usize,
    last_write: Option<Duration>,
    refused: Option<String>,
    ended: String,
}

impl Zombie {
    /// Reads and writes until the connection ends. A write that is taken after one was refused is an error.
    async fn of(client: &mut Session) -> Result<Self> {
        let thawed = Instant::now();
        let mut zombie = Self::default();
        while thawed.elapsed() < ANSWERS {
            match client.ask(READ, ANSWERS).await {
                Said::Row(_) => {
                    zombie.reads += 1;
                    zombie.last_read = Some(thawed.elapsed());
                }
                said => return Ok(Self { ended: format!("{said:?}"), ..zombie }),
            }
            match client.ask(WRITE, ANSWERS).await {
                Said::Row(_) if zombie.refused.is_none() => {
                    zombie.writes += 1;
                    zombie.last_write = Some(thawed.elapsed());
                }
                Said::Row(_) => bail!("a write was taken after one was refused: {}", zombie.words()),
                Said::Refused(error) => {
                    zombie.refused.get_or_insert(error);
                }
                said @ (Said::Silence | Said::Gone(_)) => return Ok(Self { ended: format!("{said:?}"), ..zombie }),
            }
        }
        bail!("the old primary still answers: {}", zombie.words())
    }

    fn words(&self) -> String {
        let Self { reads, last_read, writes, last_write, refused, ended } = self;
        format!(
            "after the thaw {reads} reads were answered, the last one after {last_read:?}, and {writes} writes, the last one after \
             {last_write:?}; refused: {refused:?}; in the end: {ended}"
        )
    }
}

/// How often the client wrote, as far as this server has it.
async fn written(stage: &Stage, replica: &str) -> Result<u64> {
    let shard = stage.shard_name(0);
    let row = sql::ask(stage.cluster, &stage.namespace, (&shard, replica), Account::Reader, WRITTEN).await?;
    row.trim().parse().with_context(|| format!("not a number: {row}"))
}
