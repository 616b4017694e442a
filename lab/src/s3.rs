//! The S3 server, on the host's bridge address.

use std::fs;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::artifacts::VERSITYGW;
use crate::lab::Lab;
use crate::topology::{HOST, S3_ACCESS, S3_PORT, S3_SECRET};
use crate::{api, run};

/// Name of the process in the state.
pub const PROCESS: &str = "s3";

/// Starts the server and waits until it takes connections.
pub fn ensure(lab: &mut Lab<'_>) -> Result<()> {
    let data = lab.paths.state.join("s3");
    fs::create_dir_all(&data)?;
    let mut command = run::cmd([lab.paths.binary("versitygw", VERSITYGW, "versitygw")]);
    command.args(["--access", S3_ACCESS, "--secret", S3_SECRET, "--region", "us-east-1", "--quiet"]);
    command.arg("--port").arg(format!("{HOST}:{S3_PORT}")).arg("posix").arg(&data);
    lab.ensure_process(PROCESS, &command, &[])?;
    api::wait(Duration::from_secs(20), "the S3 server does not answer", || {
        if lab.running(PROCESS).is_none() {
            bail!("the S3 server ended; {}", lab.log_tail(PROCESS));
        }
        let address = format!("{HOST}:{S3_PORT}");
        Ok(address.parse().is_ok_and(|a| TcpStream::connect_timeout(&a, Duration::from_secs(1)).is_ok()))
    })
}
