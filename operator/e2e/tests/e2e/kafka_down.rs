//! All brokers are away for a while.

use std::time::Duration;

use anyhow::{Result, ensure};
use understudy_e2e::calm::{Calm, alive_through};
use understudy_e2e::fault::freeze_parts;
use understudy_e2e::{run, stage};

/// As `cargo lab status` names them.
const BROKERS: [&str; 3] = ["kafka-1", "kafka-2", "kafka-3"];
const AWAY: Duration = Duration::from_secs(20);

#[test]
fn without_kafka_no_primary_is_changed_and_what_was_acknowledged_is_stored_when_it_is_back() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let calm = Calm::of(&stage).await?;
        let mut load = stage.load(1000).await?;
        alive_through(&stage, freeze_parts(stage.cluster, &BROKERS, AWAY)).await?;
        load.goes_on(Duration::from_secs(120)).await?;
        stage.settled().await?;
        calm.holds(&stage, Duration::from_secs(5)).await?;
        let outcome = load.finish(&stage).await?;
        ensure!(outcome.is_exact(), "{outcome:?}");
        Ok(())
    })
}
