//! A node is gone at once, with the primary on it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use understudy_e2e::fault::{Fault, heal};
use understudy_e2e::record::{self, Commits, Truth};
use understudy_e2e::{run, see, stage};

#[test]
fn loss_of_a_primarys_node_promotes_without_waiting_for_kubernetes_and_loses_nothing() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let before = stage.shard().await?;
        let (old, epoch) = (see::primary(&before), see::epoch(&before));
        let node = stage.replicas().await?.remove(&old).and_then(|r| r.status).and_then(|s| s.node);
        let node = node.with_context(|| format!("{old} names no node"))?;
        let load = stage.load(1000).await?;
        Fault::NodeLoss.inject(stage.cluster, &stage.namespace, &old).await?;

        // Kubernetes itself says NotReady only after some 50 s.
        let promoted = stage.promoted(&old, epoch, Duration::from_secs(30)).await;
        let rebuilt = match promoted {
            Ok(_) => redundant_elsewhere(&stage, &node).await,
            Err(error) => Err(error),
        };
        heal(stage.cluster).await?;
        rebuilt?;
        stage.settled().await?;

        let settled = stage.shard().await?;
        ensure!(!see::serving(&settled).contains(&old), "{old} came back with its node");
        ensure!(see::epoch(&settled) == epoch + 1, "the epoch went from {epoch} to {}", see::epoch(&settled));
        let record = stage.record(epoch + 1).await?;
        record::check(
            &record,
            &Truth { from: &old, to: &see::primary(&settled), epoch: epoch + 1, commits: Commits::Watched },
        )?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}

/// Redundancy comes back on the nodes that are left, while the lost one is still away.
async fn redundant_elsewhere(stage: &stage::Stage, lost: &str) -> Result<()> {
    use understudy_e2e::wait::{Seen, until};
    until("the shard is redundant without the lost node", stage::SETTLE, async || {
        let shard = stage.shard().await?;
        let why = see::unsettled(&shard);
        let seen = format!("{}: {}", why.unwrap_or("settled"), see::shard(&shard));
        Ok(Seen::when(why.is_none(), (), seen))
    })
    .await?;
    let mut replicas = stage.replicas().await?;
    replicas.retain(|_, replica| see::is_running(replica));
    let running: Vec<_> = replicas.into_iter().map(|(name, r)| (name, r.status.and_then(|s| s.node))).collect();
    ensure!(!running.is_empty(), "no replica counts as running");
    let elsewhere = |node: &Option<String>| node.as_deref().is_some_and(|node| node != lost);
    ensure!(running.iter().all(|(_, node)| elsewhere(node)), "without {lost} there run {running:?}");
    Ok(())
}
