//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use crate::fault::{self, Kind, Options, Peer, Target, Which};
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
    /// The process that keeps a fault up.
    #[command(hide = true)]
    HoldFault {
        #[arg(long)]
        id: String,
    },
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
    #[arg(value_enum, required_unless_present = "selftest")]
    kind: Option<Kind>,
    /// Put every fault into something made for it, see that it does what its name says, and take it out.
    #[arg(long, conflicts_with = "kind")]
    selftest: bool,
    /// Replica (pod and claim) to do it to.
    #[arg(long)]
    replica: Option<String>,
    /// Pod to do it to.
    #[arg(long)]
    pod: Option<String>,
    /// Namespace of the replica or pod, where its name alone is not unique.
    #[arg(long)]
    namespace: Option<String>,
    /// Node to do it to.
    #[arg(long)]
    node: Option<String>,
    /// Zone to do it to.
    #[arg(long)]
    zone: Option<String>,
    /// Instances of the operator to do it to.
    #[arg(long, value_enum)]
    operator: Option<Which>,
    /// Part of the lab to do it to, as `status` names it.
    #[arg(long)]
    part: Option<String>,
    /// For cut: from whom, with commas between.
    #[arg(long, value_enum, value_delimiter = ',')]
    from: Vec<Peer>,
    /// For cut and lie: one second on, one second off.
    #[arg(long)]
    flap: bool,
    /// For stutter: how many pauses.
    #[arg(long)]
    times: Option<u32>,
    /// For slow and slow-all: reads and writes a second, each.
    #[arg(long)]
    iops: Option<u32>,
    /// For clock-jump: how far ahead, or behind with a minus: 1h, -5m.
    #[arg(long, value_parser = parse_jump, allow_hyphen_values = true)]
    by: Option<i32>,
    /// Undo it after this time: 30s, 5m.
    #[arg(long = "for", value_parser = parse_time)]
    limit: Option<Duration>,
    /// And sooner when standard input ends, for programs that do not know for how long.
    #[arg(long, hide = true, requires = "limit")]
    until_eof: bool,
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
        Command::Fault(args) => return put_in(&args, &paths, &ui),
        Command::Heal => fault::heal(&paths, &ui)?,
        Command::Journey(command) => return journey::run(command, &paths, &ui),
        Command::NodeInit { node } => node_init::run(&paths, node)?,
        Command::ProvisionVolumes => provisioner::run(&paths)?,
        Command::HoldFault { id } => fault::hold(&paths, &id)?,
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

fn put_in(args: &FaultArgs, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let Some(kind) = args.kind else {
        return Ok(if fault::selftest(paths, ui)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    };
    let target = target(args)?;
    fault::inject_with(paths, ui, kind, &target, &options(args, kind)?, args.limit)?;
    Ok(ExitCode::SUCCESS)
}

fn target(args: &FaultArgs) -> Result<Target> {
    let named = |name: &String| (name.clone(), args.namespace.clone());
    let mut all = Vec::new();
    all.extend(args.replica.as_ref().map(named).map(|(name, namespace)| Target::Replica { name, namespace }));
    all.extend(args.pod.as_ref().map(named).map(|(name, namespace)| Target::Pod { name, namespace }));
    all.extend(args.node.clone().map(Target::Node));
    all.extend(args.zone.clone().map(Target::Zone));
    all.extend(args.operator.map(Target::Operator));
    all.extend(args.part.clone().map(Target::Part));
    let has_one_place =
        |kind| matches!(kind, Kind::KafkaDown | Kind::ApiDown | Kind::DnsDown | Kind::ImagePull | Kind::SlowAll);
    match (all.pop(), all.is_empty(), args.kind.is_some_and(has_one_place)) {
        (None, _, true) => Ok(Target::Lab),
        (Some(target), true, false) => Ok(target),
        (Some(_), _, true) => bail!("this fault hits the lab as a whole and takes no target"),
        _ => bail!("say what to hit with one of --replica, --node, --zone, --pod, --operator and --part"),
    }
}

/// A fault that would ignore what was asked for is refused.
fn options(args: &FaultArgs, kind: Kind) -> Result<Options> {
    for (is_given, takes, name) in [
        (!args.from.is_empty(), kind == Kind::Cut, "--from"),
        (args.flap, matches!(kind, Kind::Cut | Kind::Lie), "--flap"),
        (args.times.is_some(), kind == Kind::Stutter, "--times"),
        (args.iops.is_some(), matches!(kind, Kind::Slow | Kind::SlowAll), "--iops"),
        (args.by.is_some(), kind == Kind::ClockJump, "--by"),
    ] {
        if is_given && !takes {
            bail!("{kind} does not take {name}");
        }
    }
    let default = Options::default();
    Ok(Options {
        from: if args.from.is_empty() { default.from } else { args.from.clone() },
        flap: args.flap,
        times: args.times.unwrap_or(default.times),
        iops: args.iops.unwrap_or(default.iops),
        by: args.by.unwrap_or(default.by),
        until_eof: args.until_eof,
    })
}

fn parse_jump(text: &str) -> Result<i32, String> {
    let (sign, time) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let seconds = i32::try_from(parse_time(time)?.as_secs()).map_err(|_| format!("`{text}` is too far"))?;
    Ok(sign * seconds)
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

    fn fault(line: &str) -> FaultArgs {
        let Command::Fault(args) = Cli::parse_from(line.split(' ')).command else { unreachable!("a fault line") };
        args
    }

    #[test]
    fn a_fault_has_exactly_one_target_unless_it_hits_the_lab_as_a_whole() {
        for (line, want) in [
            ("lab fault kill --replica a", Some(Target::Replica { name: "a".into(), namespace: None })),
            ("lab fault node-loss --node node-1", Some(Target::Node("node-1".into()))),
            ("lab fault zone-loss --zone c", Some(Target::Zone("c".into()))),
            ("lab fault freeze --operator leader", Some(Target::Operator(Which::Leader))),
            ("lab fault kill --part kafka-1", Some(Target::Part("kafka-1".into()))),
            (
                "lab fault freeze-pod --pod a --namespace n",
                Some(Target::Pod { name: "a".into(), namespace: Some("n".into()) }),
            ),
            ("lab fault kafka-down", Some(Target::Lab)),
            ("lab fault kafka-down --node node-1", None),
            ("lab fault kill", None),
            ("lab fault kill --replica a --node b", None),
            ("lab fault kill --replica a --node b --zone c", None),
        ] {
            assert_eq!(target(&fault(line)).ok(), want, "{line}");
        }
    }

    #[test]
    fn what_a_fault_does_not_take_is_refused_and_not_ignored() {
        let of = |line: &str| {
            let args = fault(line);
            let kind = args.kind.unwrap();
            options(&args, kind).map_err(|error| error.to_string())
        };
        let cut = of("lab fault cut --replica a --from kafka,clients --flap").unwrap();
        assert_eq!((cut.from, cut.flap), (vec![Peer::Kafka, Peer::Clients], true));
        assert!(of("lab fault lie --replica a --flap").unwrap().flap);
        assert_eq!(of("lab fault clock-jump --pod a --by -5m").unwrap().by, -300);
        assert_eq!(of("lab fault cut --replica a").unwrap(), Options::default());
        for (line, says) in [
            ("lab fault kill --replica a --from api", "kill does not take --from"),
            ("lab fault kill --replica a --flap", "kill does not take --flap"),
            ("lab fault lie --replica a --from api", "lie does not take --from"),
            ("lab fault wedge --replica a --iops 3", "wedge does not take --iops"),
            ("lab fault freeze --replica a --times 3", "freeze does not take --times"),
        ] {
            assert_eq!(of(line), Err(says.to_owned()), "{line}");
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
