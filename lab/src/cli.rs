//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::fault::{self, Kind, Target};
use crate::image::Added;
use crate::import::{self, Base};
use crate::paths::{Paths, cache_dir};
use crate::product::{self, Profile};
use crate::progress::Ui;
use crate::{down, journey, node_init, provisioner, state, status, up};

const STATE_DIR: &str = "/var/lib/understudy-lab";

#[derive(Debug, Parser)]
#[command(name = "cargo lab", about = "A real Kubernetes, Kafka and S3 on this machine, and faults to put into them")]
struct Cli {
    /// Where the lab keeps its state; a machine has one lab.
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build what is missing and start, or repair, the cluster.
    Up {
        /// Number of nodes; zones a, b, c, c, ... (default 4, or as many as the lab has)
        #[arg(long)]
        nodes: Option<u8>,
    },
    /// Take everything away.
    Down,
    /// Show what runs.
    Status,
    /// Build the product and put its image into every node.
    Images {
        /// How it is compiled.
        #[arg(long, value_enum, default_value = "release")]
        profile: Profile,
    },
    /// Put an image of a base and some files into every node.
    Image(ImageArgs),
    /// Put a fault in.
    Fault(FaultArgs),
    /// Take all faults out and start what was killed.
    Heal,
    #[command(flatten)]
    Journey(journey::Command),
    /// The first process of a node.
    #[command(hide = true)]
    NodeInit {
        #[arg(long)]
        node: u8,
    },
    /// The process that makes volumes.
    #[command(hide = true)]
    ProvisionVolumes,
}

#[derive(Debug, Args)]
struct ImageArgs {
    /// Name and tag.
    name: String,
    /// Root file system to stand on.
    #[arg(long, value_enum, default_value = "debian")]
    base: Base,
    /// File or directory to add, SRC:DEST; may be given several times.
    #[arg(long = "add", value_name = "SRC:DEST")]
    added: Vec<String>,
    /// Program and leading arguments.
    #[arg(long, num_args = 1)]
    entrypoint: Vec<String>,
    /// NAME=value; may be given several times.
    #[arg(long)]
    env: Vec<String>,
    /// User, by number.
    #[arg(long, default_value = "")]
    user: String,
}

#[derive(Debug, Args)]
struct FaultArgs {
    /// What to do.
    #[arg(value_enum)]
    kind: Kind,
    /// Replica (pod and claim) to do it to.
    #[arg(long)]
    replica: Option<String>,
    /// Namespace of the replica, where its name alone is not unique.
    #[arg(long)]
    namespace: Option<String>,
    /// Node to do it to.
    #[arg(long)]
    node: Option<String>,
    /// Part of the lab to do it to, as `status` names it.
    #[arg(long)]
    part: Option<String>,
    /// Undo it after this time: 30s, 5m.
    #[arg(long = "for", value_parser = parse_time)]
    limit: Option<Duration>,
}

/// Runs the command.
pub fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    let paths = paths(cli.state_dir);
    let ui = Ui::new();
    match cli.command {
        Command::Up { nodes } => up::up(&paths, &ui, nodes)?,
        Command::Down => down::down(&paths, &ui)?,
        Command::Status => {
            if !status::status(&paths)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Images { profile } => product::build_images(&paths, &ui, profile).map(drop)?,
        Command::Image(args) => import_one(&paths, &ui, args)?,
        Command::Fault(args) => {
            let target = target(&args)?;
            fault::inject(&paths, &ui, args.kind, &target, args.limit)?;
        }
        Command::Heal => fault::heal(&paths, &ui)?,
        Command::Journey(command) => return journey::run(command, &paths, &ui),
        Command::NodeInit { node } => node_init::run(&paths, node)?,
        Command::ProvisionVolumes => provisioner::run(&paths)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn paths(state_dir: Option<PathBuf>) -> Paths {
    let var = |name: &str| std::env::var(name).ok();
    // cargo names this package when it runs this program, and another when a test of that one does.
    let is_ours = var("CARGO_PKG_NAME").as_deref() == Some(env!("CARGO_PKG_NAME"));
    let manifest =
        var("CARGO_MANIFEST_DIR").filter(|_| is_ours).unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").to_owned());
    let checkout = PathBuf::from(manifest).parent().map_or_else(|| ".".into(), PathBuf::from);
    Paths {
        state: state_dir.or_else(state::active).unwrap_or_else(|| STATE_DIR.into()),
        cache: cache_dir(var("XDG_CACHE_HOME").as_deref(), var("HOME").as_deref()),
        checkout,
    }
}

fn import_one(paths: &Paths, ui: &Ui, args: ImageArgs) -> Result<()> {
    let nodes = import::need_nodes(paths)?;
    let added: Vec<_> = args.added.iter().map(|a| Added::parse(a)).collect::<Result<_>>()?;
    let mut image = import::image(paths, ui, &args.name, args.base, added)?;
    image.entrypoint = args.entrypoint;
    image.env.extend(args.env);
    image.user = args.user;
    let prepared = image.prepare()?;
    if import::import(paths, ui, &prepared, &nodes)? == 0 {
        ui.say(&format!("every node has {} already", prepared.name()));
    }
    Ok(())
}

fn target(args: &FaultArgs) -> Result<Target> {
    match (&args.replica, &args.node, &args.part) {
        (Some(name), None, None) => Ok(Target::Replica { name: name.clone(), namespace: args.namespace.clone() }),
        (None, Some(name), None) => Ok(Target::Node(name.clone())),
        (None, None, Some(name)) => Ok(Target::Part(name.clone())),
        _ => bail!("say what to hit with one of --replica, --node and --part"),
    }
}

/// A time such as 1.5s or 5m.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a time such as 30s or 5m"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("`{unit}` is not a unit of time: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is not a time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_fault_has_exactly_one_target() {
        for (line, want) in [
            ("lab fault kill --replica a", true),
            ("lab fault node-loss --node node-1", true),
            ("lab fault kill --part kafka-1", true),
            ("lab fault kill", false),
            ("lab fault kill --replica a --node b", false),
        ] {
            let Command::Fault(args) = Cli::parse_from(line.split(' ')).command else { unreachable!("a fault line") };
            assert_eq!(target(&args).is_ok(), want, "{line}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("5m"), Ok(Duration::from_secs(300)));
        for wrong in ["", "s", "5 apples", "5d", "-1s"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
