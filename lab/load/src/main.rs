//! Sends uniquely valued samples into a running system, writes down what it was told, and later holds what can be read
//! against that. `cargo lab load` and `cargo lab verify` run it.

mod cluster;
mod gaps;
mod ledger;
mod load;
mod plan;
mod probe;
mod prom;
mod pulse;
mod query;
#[cfg(test)]
mod rehearsal;
mod send;
mod stale;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Parser, Subcommand};

use crate::ledger::book::Book;
use crate::ledger::reader::read_lines;
use crate::query::{Query, endpoint};
use crate::verify::passes::read_back;
use crate::verify::report::Report;
use crate::verify::text::NOTHING_ACKNOWLEDGED;

/// What one read of the verification may take.
const READ_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
#[command(about = "Send uniquely valued samples with a ledger of them, and hold the ledger against what can be read")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send, watch, and write the ledger.
    Load(Box<load::LoadOptions>),
    /// Read everything back and hold it against the ledger. Fails when anything is lost, doubled or was never sent, and
    /// when nothing was acknowledged.
    Verify(VerifyOptions),
    /// Time commits on a shard's primary, with so many probes beside them, and print what was found as JSON.
    Probe(probe::ProbeOptions),
}

#[derive(Debug, Args)]
struct VerifyOptions {
    /// The ledger of a load.
    #[arg(long)]
    ledger: PathBuf,
    /// Address of the query service, several with commas or given several times.
    #[arg(long = "query", required = true, value_delimiter = ',')]
    queries: Vec<String>,
    /// `ID.SECRET`.
    #[arg(long, env = "UNDERSTUDY_TOKEN", hide_env_values = true)]
    token: String,
    /// How long acknowledged samples may be missing while none of them comes; six times as long in all.
    #[arg(long, value_parser = parse_time, default_value = "120s")]
    wait: Duration,
    /// Write all figures here as JSON; without a file, to standard output instead of the text.
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    json: Option<Option<PathBuf>>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    // The product's clients and this one use the same provider of cryptography; more than one may be compiled in.
    let provider = rustls::crypto::ring::default_provider().install_default();
    provider.map_err(|_| anyhow!("a provider of cryptography was installed before"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Load(options) => load::load(*options).await.map(|()| ExitCode::SUCCESS),
            Command::Verify(options) => verify(options).await,
            Command::Probe(options) => probe::probe(options).await.map(|()| ExitCode::SUCCESS),
        }
    });
    // What hangs on a server that does not answer must not keep this process.
    runtime.shutdown_background();
    outcome
}

async fn verify(options: VerifyOptions) -> Result<ExitCode> {
    let json = options.json.clone();
    let report = hold_against(options).await?;
    match json {
        None => print!("{report}"),
        Some(None) => {
            println!("{}", serde_json::to_string_pretty(&report)?);
            if !report.has_promise() {
                eprintln!("{NOTHING_ACKNOWLEDGED}");
            }
        }
        Some(Some(path)) => {
            let text = serde_json::to_vec_pretty(&report)?;
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            print!("{report}");
        }
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Reads everything back and says what was found.
async fn hold_against(options: VerifyOptions) -> Result<Report> {
    let open = || format!("open the ledger {}", options.ledger.display());
    let file = std::fs::File::open(&options.ledger).with_context(open)?;
    let book = Book::read(read_lines(std::io::BufReader::new(file)))?;
    let urls = options.queries.iter().map(|base| endpoint(base, "/api/v1/read")).collect::<Result<Vec<_>>>()?;
    let query = Query::new(urls, options.token, READ_DEADLINE)?;
    let found = read_back(&book, &query, options.wait).await?;
    let settled = found.settled_after.map(|time| time.as_secs_f64());
    Ok(Report::of(&book).with_findings(&found.findings, settled).with_freshness(found.fresh_until))
}

/// `500ms`, `30s`, `5m`, `1h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a time is a number with ms, s, m or h".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "a time is a number with ms, s, m or h")?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "that is too long".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in
            [("500ms", Some(500)), ("30s", Some(30_000)), ("5m", Some(300_000)), ("2h", Some(7_200_000))]
        {
            assert_eq!(parse_time(text).ok(), millis.map(Duration::from_millis), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5 s", "1.5s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
