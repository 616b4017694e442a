//! The product's journey from outside: demonstrate it, test it, load it, verify and measure it. The cluster below is the lab's own, or
//! one that the user names.

mod access;
mod advice;
mod bench;
mod build;
mod collect;
mod demo;
mod fault;
mod install;
mod load;
mod prometheus;
mod store;
mod story;
mod test;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::paths::Paths;
use crate::progress::Ui;

/// What a user does with the product.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// From nothing to a Datastore with a real Prometheus in front, then kill a primary and show what happens.
    Demo(demo::Options),
    /// Run the tests, setting up what they need.
    Test(test::Options),
    /// Send uniquely valued samples through the gateway and write down what was acknowledged.
    Load(load::LoadOptions),
    /// Read everything in a ledger back and say what is lost or doubled, and how long the gaps were. Fails when something is, and
    /// when nothing was acknowledged.
    Verify(load::VerifyOptions),
    /// Repeat a fault many times and print the figures.
    Bench(bench::Options),
}

/// Runs it.
pub fn run(command: Command, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    match command {
        Command::Demo(options) => demo::run(&options, paths, ui),
        Command::Test(options) => test::run(&options, paths, ui),
        Command::Load(options) => load::load(&options, paths, ui),
        Command::Verify(options) => load::verify(&options, paths, ui),
        Command::Bench(options) => bench::run(&options, paths, ui),
    }
}
