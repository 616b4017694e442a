//! Misfortunes as text: what a failing run prints, and what can be edited and run again.

use std::fmt;
use std::str::FromStr;

use understudy_wire::evidence::Millis;

use super::verb::Verb;

/// How many shards there may be, and how long the cooldown may be. The first is what a script has that does not say.
pub const SHARDS: &[usize] = &[1, 1, 10, 40];
pub const COOLDOWNS: &[Millis] = &[10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 3_000, 30_000];

/// What befalls the world of one run, and what else it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Of everything that is left to chance beside the misfortunes: delays, losses, where the operator dies.
    pub seed: u64,
    pub nodes: u64,
    pub replicas: usize,
    pub consumers: usize,
    /// How many shards there are, this one included.
    pub shards: usize,
    pub cooldown: Millis,
    /// Whether the primary must not be changed for anything that befalls it, but for a drain.
    pub benign: bool,
    /// In the order of time.
    pub misfortunes: Vec<Misfortune>,
}

impl Default for Script {
    fn default() -> Self {
        let (shards, cooldown) = (SHARDS[0], COOLDOWNS[0]);
        Self { seed: 0, nodes: 0, replicas: 0, consumers: 1, shards, cooldown, benign: false, misfortunes: Vec::new() }
    }
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfortune {
    /// Milliseconds after the beginning.
    pub at: Millis,
    pub verb: Verb,
    /// A replica, a node, an observer, two places with a `/` between them, or a word. `primary` is whoever is in office then, and its node.
    pub about: Option<String>,
    /// What the verb counts.
    pub amount: Option<u64>,
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
        let Self { seed, nodes, replicas, consumers, shards, cooldown, benign, .. } = self;
        writeln!(f, "seed {seed}\nnodes {nodes}\nreplicas {replicas}")?;
        writeln!(f, "consumers {consumers}\nshards {shards}\ncooldown {cooldown}")?;
        if *benign {
            writeln!(f, "benign")?;
        }
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
            let count = |text: &str| usize::try_from(number(text)?).map_err(|error| error.to_string());
            match line.split_once(' ') {
                Some(("seed", seed)) => script.seed = number(seed)?,
                Some(("nodes", nodes)) => script.nodes = number(nodes)?,
                Some(("replicas", replicas)) => script.replicas = count(replicas)?,
                Some(("consumers", consumers)) => script.consumers = count(consumers)?,
                Some(("shards", shards)) => script.shards = count(shards)?,
                Some(("cooldown", cooldown)) => script.cooldown = number(cooldown)?,
                None if line == "benign" => script.benign = true,
                _ => script.misfortunes.push(line.parse()?),
            }
        }
        if script.nodes == 0 || script.replicas == 0 || script.consumers == 0 {
            return Err("a script says how many nodes and replicas there are, and there is a consumer".into());
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
    let script = Script {
        seed: 42,
        nodes: 4,
        replicas: 3,
        consumers: 2,
        shards: 40,
        cooldown: 3_000,
        benign: true,
        misfortunes: (0..).zip(Verb::iter()).map(misfortune).collect(),
    };
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
