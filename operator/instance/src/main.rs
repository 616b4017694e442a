//! `understudy-instance run`: the instance manager. `understudy-instance install DIR`: puts this binary where a pod can run it.

use std::path::PathBuf;
use std::process::ExitCode;

use understudy_instance::{install, manager};

const USAGE: &str = "usage: understudy-instance run | install DIRECTORY";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run"] => manager::run_process(),
        ["install", directory] => install::install(&PathBuf::from(directory)).map_err(Into::into),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}
