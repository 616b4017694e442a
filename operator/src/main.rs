//! The operator: `understudy run` in the cluster, `understudy crds` for whoever generates the definitions.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use understudy::{runtime, settings::Settings, telemetry};
use understudy_api::crds;

#[derive(Parser)]
#[command(name = "understudy", version, about = "Operator for sharded stores of time series")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the operator until it is asked to stop.
    Run(Box<Settings>),
    /// Prints the CustomResourceDefinitions, or writes one file a kind.
    Crds {
        /// The folder to write to.
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(settings) => {
            telemetry::start(&settings.log)?;
            runtime::run(*settings)
        }
        Command::Crds { write } => emit_crds(write),
    }
}

fn emit_crds(write: Option<PathBuf>) -> anyhow::Result<()> {
    for crd in crds::all() {
        let content = crds::file_content(&crd).context("a definition cannot be written as YAML")?;
        match &write {
            Some(folder) => {
                let path = folder.join(crds::file_name(&crd));
                std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
            }
            None => print!("---\n{content}"),
        }
    }
    Ok(())
}
