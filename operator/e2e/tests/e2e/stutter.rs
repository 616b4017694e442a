//! A primary that pauses for a second, again and again, as virtual machines do.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::calm::{Calm, alive_through};
use understudy_e2e::fault::Fault;
use understudy_e2e::{run, stage};

const PAUSES: usize = 5;
/// A third of what a stopped process gets.
const PAUSE: Duration = Duration::from_secs(1);

#[test]
fn a_primary_that_pauses_for_a_second_again_and_again_stays_in_office() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let calm = Calm::of(&stage).await?;
        let mut load = stage.load(1000).await?;
        let pauses = async {
            for _ in 0..PAUSES {
                Fault::Freeze.inject_for(stage.cluster, &stage.namespace, calm.primary(), PAUSE).await?;
                // Pauses without a commit between them are one, and as long as all of them.
                calm.commits(&stage, Duration::from_secs(20)).await?;
            }
            anyhow::Ok(())
        };
        alive_through(&stage, pauses).await?;
        load.goes_on(Duration::from_secs(30)).await?;
        calm.holds(&stage, Duration::from_secs(5)).await?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}
