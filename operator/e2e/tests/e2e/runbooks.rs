//! What the runbooks say to look at can be looked at, on a shard that is well too: every command of every page runs as it stands.

use anyhow::{Result, ensure};
use understudy_e2e::{run, runbook, stage};

#[test]
fn every_command_of_the_runbooks_runs_as_it_stands() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let shard = stage.shard_name(0);
        let values = [stage.namespace.name(), shard.as_str(), stage.datastore.as_str()];
        let mut failed = Vec::new();
        let mut ran = 0;
        for (page, text) in runbook::pages()? {
            for block in runbook::commands(&page, &text)? {
                if let Some(objection) = block.objection() {
                    failed.push(format!("{}: {objection}", block.place()));
                    continue;
                }
                match runbook::run(stage.cluster, &block, values).await {
                    Ok(_) => ran += 1,
                    Err(error) => failed.push(format!("{error:#}")),
                }
            }
        }
        println!("{ran} blocks of commands ran");
        ensure!(failed.is_empty(), "{} of the runbooks' blocks failed:\n{}", failed.len(), failed.join("\n"));
        ensure!(ran > 0, "no block was found");
        Ok(())
    })
}
