//! One module for what is shown, one for each thing that is asked for. I/O.

mod change;
mod drill;
mod leader;
mod lever;
mod show;
mod waiting;

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;

use crate::args::{Cli, Command};
use crate::cluster::{Cluster, ClusterError};
use crate::leader::Leader;
use crate::objects::{Datastore, Kind, Shard};
use crate::output;

/// Does what is asked.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let output = cli.global.output;
    let cluster = Cluster::connect(&cli.global).await?;
    match cli.command {
        Command::Status(options) => show::status(&cluster, &options, output).await,
        Command::Explain(options) => show::explain(&cluster, &options, output).await,
        Command::Timeline(options) => show::timeline(&cluster, &options, output).await,
        Command::Failover(options) => change::failover(&cluster, &options, output).await,
        Command::Switchover(options) => change::switchover(&cluster, &options, output).await,
        Command::Drill(options) => drill::drill(&cluster, &options, output).await,
        Command::Pause(options) => lever::set(&cluster, &options.target, true, output).await,
        Command::Resume(options) => lever::set(&cluster, &options.target, false, output).await,
    }
}

/// The time of the answer.
fn now() -> Timestamp {
    Timestamp::now()
}

/// A Shard, and whether the Datastore that made it is paused.
async fn shard(cluster: &Cluster, name: &str) -> Result<(Shard, bool), ClusterError> {
    let shard = Shard::read(&cluster.get(Kind::Shard, name).await?);
    let paused = match &shard.datastore {
        Some(datastore) => {
            let found = cluster.find(Kind::Datastore, datastore).await?;
            found.is_some_and(|found| Datastore::read(&found).paused)
        }
        None => false,
    };
    Ok((shard, paused))
}

/// The same, and who acts on it; whoever asks is told when that is nobody.
async fn shard_and_leader(cluster: &Cluster, name: &str) -> Result<(Shard, bool, Leader), ClusterError> {
    let leader = async { Ok::<_, ClusterError>(leader::leader(cluster).await) };
    let ((shard, datastore_paused), leader) = tokio::try_join!(shard(cluster, name), leader)?;
    warn(&leader);
    Ok((shard, datastore_paused, leader))
}

/// Tells whoever asks for something when nobody acts on it.
fn warn(leader: &Leader) {
    if let Some(trouble) = leader.trouble() {
        output::warn(&trouble);
    }
}

/// 0 when it is as it was asked for, else 1.
fn code(is_well: bool) -> ExitCode {
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
