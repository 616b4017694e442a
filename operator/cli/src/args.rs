//! The command line. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

/// `kubectl understudy`.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-understudy",
    bin_name = "kubectl understudy",
    version,
    about = "What a sharded store is doing, and changes of primary on request",
    after_help = "Exit codes: 0 fine, 1 the request failed or was refused, 2 usage, 130 a wait that was ended by Ctrl-C; \
                  `status --exit-code`: 3 when something is not well, or no operator acts."
)]
pub struct Cli {
    /// Where, and how it is shown.
    #[command(flatten)]
    pub global: Global,
    /// What is asked.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Namespace; without it, that of the context
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<Name>,
    /// Context of the kubeconfig; without it, the current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// File that says how to reach the API server
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace that the operator runs in; without it, its Lease is looked for everywhere
    #[arg(long, global = true, value_name = "NAME")]
    pub operator_namespace: Option<Name>,
    /// How the answer is written
    #[arg(short, long, global = true, value_enum, default_value = "text", value_name = "FORMAT")]
    pub output: Output,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs, complete
    Json,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the store on one screen
    Status(StatusOptions),
    /// Say what is wrong with a shard, who says so, and what is being done
    Explain(ExplainOptions),
    /// Replace a primary that is dead
    Failover(FailoverOptions),
    /// Change the primary as planned
    Switchover(SwitchoverOptions),
    /// Show a drill, or run it now
    Drill(DrillOptions),
    /// Show a change of primary step by step; with -o json, its whole record
    Timeline(TimelineOptions),
    /// Stop every action of the operator on a shard or a datastore, failover included
    Pause(LeverOptions),
    /// Let the operator act again
    Resume(LeverOptions),
}

/// What `status` takes.
#[derive(Debug, Args)]
pub struct StatusOptions {
    /// Only this Datastore
    #[arg(value_name = "DATASTORE")]
    pub datastore: Option<Name>,
    /// Show every row; without it, the first 20 of each table, sick ones first
    #[arg(long)]
    pub all: bool,
    /// Exit with 3 when something is not well
    #[arg(long)]
    pub exit_code: bool,
}

/// What `explain` takes.
#[derive(Debug, Args)]
pub struct ExplainOptions {
    /// The Shard
    #[arg(value_name = "SHARD")]
    pub shard: Name,
    /// Show every row
    #[arg(long)]
    pub all: bool,
}

/// What `failover` takes.
#[derive(Debug, Args)]
pub struct FailoverOptions {
    /// The Shard
    #[arg(value_name = "SHARD")]
    pub shard: Name,
    /// The Replica that is to take over; without it, the best one
    #[arg(long, value_name = "REPLICA")]
    pub to: Option<Name>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// How its end is waited for.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// What `switchover` takes.
#[derive(Debug, Args)]
pub struct SwitchoverOptions {
    /// The Shard
    #[arg(value_name = "SHARD")]
    pub shard: Name,
    /// The Replica that is to take over; without it, the best one
    #[arg(long, value_name = "REPLICA")]
    pub to: Option<Name>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// How its end is waited for.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// What `drill` takes.
#[derive(Debug, Args)]
pub struct DrillOptions {
    /// The Drill
    #[arg(value_name = "NAME")]
    pub drill: Name,
    /// Run it now
    #[arg(long)]
    pub now: bool,
    /// Wait for the end of the run that --now asks for, and tell its result
    #[arg(long, requires = "now")]
    pub wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = parse_time, requires = "wait")]
    pub timeout: Duration,
}

/// What `timeline` takes.
#[derive(Debug, Args)]
pub struct TimelineOptions {
    /// The Failover
    #[arg(value_name = "FAILOVER")]
    pub failover: Name,
    /// Show every row, and stacks whole
    #[arg(long)]
    pub all: bool,
}

/// What `pause` and `resume` take.
#[derive(Debug, Args)]
pub struct LeverOptions {
    /// A Shard, or a Datastore with all of its shards
    #[arg(value_name = "SHARD|datastore/NAME")]
    pub target: Target,
}

/// How the end of a change of primary is waited for.
#[derive(Clone, Copy, Debug, Args)]
pub struct Waiting {
    /// Wait until it has ended and redundancy is back, and show each step
    #[arg(long)]
    pub wait: bool,
    /// How long to wait at most
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time, requires = "wait")]
    pub timeout: Duration,
}

/// A name as Kubernetes takes it, so that it can stand in an address of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The same as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if begins && text.len() <= 253 && text.chars().all(is_plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a name has lower-case letters, digits, dashes and dots, and begins with a letter or digit".into())
        }
    }
}

/// What a lever is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One Shard.
    Shard(Name),
    /// A Datastore with its shards.
    Datastore(Name),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            None => text.parse().map(Self::Shard),
            Some(("shard" | "shards", name)) => name.parse().map(Self::Shard),
            Some(("datastore" | "datastores", name)) => name.parse().map(Self::Datastore),
            Some((kind, _)) => Err(format!("`{kind}` cannot be paused: name a Shard, or datastore/NAME")),
        }
    }
}

/// Nobody waits for longer.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// `90s`, `10m`, `1h 30m`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let time: SignedDuration = text.parse().map_err(|_| "a time is a number with a unit, such as 90s or 10m")?;
    let time = Duration::try_from(time).ok().filter(|time| !time.is_zero() && *time <= WEEK);
    time.ok_or_else(|| "a time must be more than nothing and at most a week".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    const PAGE: &str = include_str!("../../docs/plugin.md");
    const README: &str = include_str!("../../../README.md");

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let words = line.strip_prefix("kubectl understudy").unwrap_or(line).split_whitespace();
        Cli::try_parse_from(["kubectl-understudy"].into_iter().chain(words))
    }

    /// Lines of code blocks that begin with the command, up to a comment or a pipe.
    fn command_lines(page: &str) -> Vec<&str> {
        let is_fence = |line: &&str| line.trim_start().starts_with("```");
        let mut in_block = false;
        let mut found = Vec::new();
        for line in page.lines() {
            if is_fence(&line) {
                in_block = !in_block;
            } else if in_block && line.trim_start().starts_with("kubectl understudy") {
                let line = line.split(" #").next().unwrap_or(line);
                found.push(line.split(" |").next().unwrap_or(line).trim());
            }
        }
        found
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_line_of_the_docs_is_one() {
        let lines = command_lines(PAGE);
        assert!(lines.len() >= 15, "{lines:?}");
        for line in lines.iter().chain(&command_lines(README)) {
            if let Err(error) = parse(line) {
                assert_eq!(error.kind(), clap::error::ErrorKind::DisplayHelp, "{line}: {error}");
            }
        }
        let command = Cli::command();
        for sub in command.get_subcommands().map(clap::Command::get_name) {
            let begin = format!("kubectl understudy {sub}");
            assert!(lines.iter().any(|line| line.starts_with(&begin)), "docs/plugin.md has no example of {sub}");
        }
    }

    #[test]
    fn the_docs_name_every_option() {
        let command = Cli::command();
        for sub in command.get_subcommands() {
            for long in sub.get_arguments().filter_map(clap::Arg::get_long).filter(|long| *long != "help") {
                assert!(
                    PAGE.contains(&format!("--{long}")),
                    "docs/plugin.md says nothing of --{long} of {}",
                    sub.get_name()
                );
            }
        }
    }

    #[test]
    fn global_options_stand_before_and_after_the_command() {
        let elsewhere = parse("explain m --operator-namespace databases").unwrap().global.operator_namespace;
        assert_eq!(elsewhere.as_ref().map(Name::as_str), Some("databases"));
        for line in
            ["-n prod -o json status metrics", "status metrics -n prod -o json", "-n prod status metrics -o json"]
        {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.namespace.as_ref().map(Name::as_str), Some("prod"), "{line}");
            assert_eq!(cli.global.output, Output::Json, "{line}");
        }
        assert_eq!(parse("status").unwrap().global.output, Output::Text);
    }

    #[test]
    fn a_request_is_read_whole() {
        let line = "failover metrics-0 --to metrics-0-q9mm --reason broken --yes --wait --timeout 90s";
        let Command::Failover(options) = parse(line).unwrap().command else { panic!("not a failover") };
        assert_eq!(options.shard.as_str(), "metrics-0");
        assert_eq!(options.to.as_ref().map(Name::as_str), Some("metrics-0-q9mm"));
        assert_eq!(options.reason.as_deref(), Some("broken"));
        assert!(options.yes && options.waiting.wait);
        assert_eq!(options.waiting.timeout, Duration::from_secs(90));
        let Command::Failover(options) = parse("failover metrics-0").unwrap().command else { panic!("not a failover") };
        assert!(!options.yes && !options.waiting.wait && options.to.is_none());
        assert_eq!(options.waiting.timeout, Duration::from_secs(600));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for line in [
            "",
            "explain",
            "explain ../nodes",
            "explain Metrics",
            "failover a b",
            "switchover a --yes",
            "drill nightly --wait",
            "drill nightly --timeout 5m",
            "switchover a --timeout 5m",
            "failover a --wait --timeout 0s",
            "failover a --wait --timeout -5s",
            "failover a --wait --timeout soon",
            "failover a --wait --timeout 10000h",
            "pause node/a",
            "pause datastore/",
            "resume",
            "status -o yaml",
            "status --operator-namespace ../x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_lever_is_of_a_shard_unless_a_datastore_is_named() {
        for (text, target) in [
            ("metrics-0", Target::Shard(Name("metrics-0".into()))),
            ("shard/metrics-0", Target::Shard(Name("metrics-0".into()))),
            ("datastore/metrics", Target::Datastore(Name("metrics".into()))),
        ] {
            let Command::Pause(options) = parse(&format!("pause {text}")).unwrap().command else { panic!("{text}") };
            assert_eq!(options.target, target);
        }
    }
}
