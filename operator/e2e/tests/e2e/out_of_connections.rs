//! Clients take every connection of a primary.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use understudy_api::v1alpha1::VerdictState;
use understudy_e2e::calm::{Calm, alive_through};
use understudy_e2e::crowd::Crowd;
use understudy_e2e::wait::{Seen, never, until};
use understudy_e2e::{run, see, stage};

#[test]
fn a_primary_without_a_free_connection_is_saturated_and_stays_in_office() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let calm = Calm::of(&stage).await?;
        let pod = stage.pods().await?.remove(calm.primary()).context("the primary has no pod")?;
        let address = pod.status.and_then(|status| status.pod_ip).context("its pod has no address")?;
        let mut load = stage.load(1000).await?;
        let mut crowd = Crowd::before(format!("{address}:3306").parse()?);
        let crowded = async {
            // Some that are turned away at the login make room, so the crowd is filled up with each look.
            until("the verdict is Saturated", Duration::from_secs(30), async || {
                let held = crowd.fill().await?;
                let shard = stage.shard().await?;
                let is_saturated = see::verdict(&shard) == Some(VerdictState::Saturated);
                Ok(Seen::when(is_saturated, (), format!("{held} connections are held; {}", see::shard(&shard))))
            })
            .await?;
            never("a change of primary", Duration::from_secs(5), async || {
                crowd.fill().await?;
                calm.broken(&stage).await
            })
            .await?;
            load.goes_on(Duration::from_secs(30)).await
        };
        alive_through(&stage, crowded).await?;
        drop(crowd);
        stage.settled().await?;
        calm.holds(&stage, Duration::from_secs(2)).await?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}
