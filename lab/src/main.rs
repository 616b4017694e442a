//! `cargo lab`: a real Kubernetes with several nodes, Kafka and S3 on this machine, built from source; faults to put into it.

mod addons;
mod api;
mod artifacts;
mod cargo;
mod cgroup;
mod cli;
mod control_plane;
mod down;
mod fault;
mod image;
mod import;
mod journey;
mod kafka;
mod lab;
mod machine;
mod net;
mod node;
mod node_init;
mod paths;
mod pki;
mod process;
mod product;
mod progress;
mod provisioner;
mod run;
mod s3;
mod state;
mod status;
mod template;
mod topology;
mod up;
mod volume;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
