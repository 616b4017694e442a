//! Misfortunes as text: what a failing run prints, and what can be edited and run again.

use std::fmt;
use std::str::FromStr;

use understudy_wire::evidence::Millis;

/// What befalls the world of one run, and what else it is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// Of everything that is left to chance beside the misfortunes: delays, losses, where the operator dies.
    pub seed: u64,
    pub nodes: u64,
    pub replicas: usize,
    /// In the order of time.
    pub misfortunes: Vec<Misfortune>,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfortune {
    /// Milliseconds after the beginning.
    pub at: Millis,
    pub verb: Verb,
    /// A replica or a node.
    pub about: Option<String>,
    /// What the verb counts.
    pub amount: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString, strum::EnumIter)]
#[strum(serialize_all = "kebab-case")]
pub enum Verb {
    /// A process is killed.
    Kill,
    Freeze,
    Thaw,
    /// A pod is asked to stop.
    Stop,
    /// The volume of a replica hangs.
    Hang,
    Unhang,
    /// A pod is deleted by force.
    Delete,
    /// A pod is restarted in place.
    Restart,
    Evict,
    /// The applier of a standby stands still.
    Lag,
    CatchUp,
    /// The applier of a standby ends with an error.
    Corrupt,
    NodeDown,
    NodeUp,
    /// The operator cannot reach a node.
    Cut,
    Join,
    /// Every node is shut down and comes back.
    Blackout,
    /// Another operator begins after so many milliseconds.
    OperatorDies,
    /// The operator is paused with what it has decided, another begins at once, and after so many milliseconds it goes on.
    OperatorSleeps,
    /// A person asks for a switchover.
    Ask,
    /// So many replicas are asked for.
    Want,
    /// Kafka drops everything before this offset.
    Drop,
}

impl fmt::Display for Misfortune {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} {}", self.at / 1_000, self.at % 1_000, self.verb)?;
        if let Some(about) = &self.about {
            write!(f, " {about}")?;
        }
        self.amount.map_or(Ok(()), |amount| write!(f, " {amount}"))
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}\nnodes {}\nreplicas {}", self.seed, self.nodes, self.replicas)?;
        self.misfortunes.iter().try_for_each(|misfortune| writeln!(f, "{misfortune}"))
    }
}

impl FromStr for Misfortune {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("not a misfortune: {line}");
        let mut words = line.split_whitespace();
        let (seconds, millis) = words.next().and_then(|at| at.split_once('.')).ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
        let at = number(seconds)? * 1_000 + number(&format!("{millis:0<3}"))?;
        let verb = words.next().and_then(|verb| verb.parse().ok()).ok_or_else(wrong)?;
        let mut misfortune = Self { at, verb, about: None, amount: None };
        for word in words {
            match word.parse() {
                Ok(amount) => misfortune.amount = Some(amount),
                Err(_) => misfortune.about = Some(word.to_owned()),
            }
        }
        Ok(misfortune)
    }
}

impl FromStr for Script {
    type Err = String;

    /// One thing a line; what follows a `#` is not read.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        for line in lines.filter(|line| !line.is_empty()) {
            let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("not a number: {line}"));
            match line.split_once(' ') {
                Some(("seed", seed)) => script.seed = number(seed)?,
                Some(("nodes", nodes)) => script.nodes = number(nodes)?,
                Some(("replicas", replicas)) => {
                    script.replicas = usize::try_from(number(replicas)?).map_err(|error| error.to_string())?;
                }
                _ => script.misfortunes.push(line.parse()?),
            }
        }
        if script.nodes == 0 || script.replicas == 0 {
            return Err("a script says how many nodes and replicas there are".into());
        }
        script.misfortunes.sort_by_key(|misfortune| misfortune.at);
        Ok(script)
    }
}

#[test]
fn a_script_is_read_as_it_is_written() {
    use strum::IntoEnumIterator;
    let misfortune = |(number, verb)| Misfortune {
        at: 250 * number,
        verb,
        about: (number % 2 == 0).then(|| "m-x4c2".to_owned()),
        amount: (number % 3 == 0).then_some(number),
    };
    let script =
        Script { seed: 42, nodes: 4, replicas: 3, misfortunes: (0..).zip(Verb::iter()).map(misfortune).collect() };
    let text = format!("# what went wrong\n{script}");
    assert_eq!(text.parse(), Ok(script), "{text}");
    for (case, text) in [
        ("nothing is said of nodes", "seed 1\nreplicas 3"),
        ("a verb that there is not", "seed 1\nnodes 3\nreplicas 3\n1.000 explode m-x"),
        ("no time", "seed 1\nnodes 3\nreplicas 3\nkill m-x"),
    ] {
        assert!(text.parse::<Script>().is_err(), "{case}");
    }
}
