//! `kubectl understudy`: what a sharded store is doing, and changes of primary on request.
//!
//! What is shown is made by [`view`] from [`objects`], purely; so is whether an operator acts on it, by [`leader`]. [`cluster`] alone speaks to
//! an API server, [`output`] and [`confirm`] to a terminal. `operator/docs/plugin.md` is the page for users.

mod args;
mod cluster;
mod command;
mod confirm;
mod leader;
mod objects;
mod output;
mod request;
mod view;

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Parser;

fn main() -> ExitCode {
    match run(args::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: args::Cli) -> Result<ExitCode> {
    // In a build of the whole workspace more than one provider of cryptography may be compiled in.
    let provider = rustls::crypto::ring::default_provider().install_default();
    provider.map_err(|_| anyhow!("a provider of cryptography was installed before"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let outcome = runtime.block_on(command::run(cli));
    // What hangs on a server that does not answer must not keep this process.
    runtime.shutdown_background();
    outcome
}
