//! `cargo lab bench`: faults, many times, under load, with the figures that the product promises. Against the Datastore that
//! `cargo lab demo` leaves.
//!
//! Pure: [`rows`] has the fault matrix, [`seen`] what the statuses showed, [`ended`] what a run came to, [`judge`] whether that is
//! as it must be, [`figures`] percentiles, [`file`] what is written down and where a bench goes on, [`table`] the page that is made
//! from it. I/O: [`matrix`] runs rows, [`run`] makes one run, [`prepare`] and [`strike`] do what it needs, [`eyes`] watch, [`deployed`]
//! says which image runs; [`idle`] and [`probes`] measure what the product costs while nothing happens.

mod deployed;
mod ended;
mod eyes;
mod figures;
mod file;
mod idle;
mod judge;
mod machine;
mod matrix;
mod prepare;
mod probes;
mod rows;
mod run;
mod seen;
mod sql;
mod strike;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use self::rows::Suite;
use super::test;
use crate::paths::Paths;
use crate::product::Profile;
use crate::progress::Ui;

/// What `cargo lab bench` takes.
#[derive(Debug, Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum What {
    /// Faults that must change the primary, each many times, into a file that a later call goes on with.
    Failover(matrix::Options),
    /// Troubles that must not, the same way.
    Benign(matrix::Options),
    /// Make the page of the fault matrix from the files beside it.
    Table(table::Options),
    /// As `failover --fault kill`: SIGKILL of a primary's mysqld, 20 times, into `.lab/bench`.
    Kill(matrix::How),
    /// As `failover --fault node-loss`, 5 times, into `.lab/bench`.
    NodeLoss(matrix::How),
    /// As `failover --fault switchover`, 20 times, into `.lab/bench`.
    Switchover(matrix::How),
    /// SIGKILL of the operator at random moments of bootstraps and failovers.
    Operator {
        /// How often.
        #[arg(long, default_value = "20")]
        runs: usize,
    },
    /// The API calls of the operator on an idle cluster.
    Idle {
        /// For how many seconds.
        #[arg(long, default_value = "300")]
        seconds: u64,
    },
    /// What the probes of all observers cost a server.
    Probes(probes::Options),
    /// What a real Prometheus scraped, against what is read back.
    Prometheus {
        /// For how many seconds.
        #[arg(long, default_value = "600")]
        seconds: u64,
    },
}

/// Runs it.
pub fn run(options: &Options, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    match &options.what {
        What::Failover(options) => matrix::run(Suite::Failover, options, paths, ui),
        What::Benign(options) => matrix::run(Suite::Benign, options, paths, ui),
        What::Table(options) => table::run(options, paths),
        What::Kill(how) => matrix::one("kill", 20, how, paths, ui),
        What::NodeLoss(how) => matrix::one("node-loss", 5, how, paths, ui),
        What::Switchover(how) => matrix::one("switchover", 20, how, paths, ui),
        What::Operator { runs } => {
            // Half of the kills fall into bootstraps, half into failovers.
            end_to_end(paths, ui, "operator_killed", ("UNDERSTUDY_E2E_OPERATOR_KILLS", runs.div_ceil(2).to_string()))
        }
        What::Idle { seconds } => idle::run(Duration::from_secs(*seconds), paths, ui),
        What::Probes(options) => probes::run(options, paths, ui),
        What::Prometheus { seconds } => {
            end_to_end(paths, ui, "prometheus_read_back", ("UNDERSTUDY_E2E_PROMETHEUS_SECONDS", seconds.to_string()))
        }
    }
}

fn end_to_end(paths: &Paths, ui: &Ui, filter: &str, more: (&str, String)) -> Result<ExitCode> {
    let mut command = test::end_to_end(paths, &test::prepare(paths, ui, Profile::Release)?);
    command.args([filter, "--", "--test-threads=1", "--nocapture"]).env(more.0, more.1);
    let status = command.status().context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
