//! Faults, put in by this program's own `fault` command: as a person would put them in, and taken out again by it. One child
//! process and one thread a fault; the child ends with the value, and the thread with the child's output.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::rows::{Aim, Fault};
use crate::paths::Paths;

/// What the command says as soon as a fault is in force.
const IN_FORCE: &str = "in force";
/// How long what a command said last may take to be read after its end.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Whom a run hits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Victim {
    /// Namespace of its replicas.
    pub namespace: String,
    /// The shard that is aimed at.
    pub shard: String,
    /// Its primary.
    pub primary: String,
    /// One of its standbys; empty when it has none.
    pub standby: String,
    /// The node of the primary.
    pub node: String,
    /// The zone of that.
    pub zone: String,
}

impl Victim {
    /// The name of what a fault is aimed at.
    pub fn name(&self, aim: Aim) -> &str {
        match aim {
            Aim::Primary => &self.primary,
            Aim::Standby => &self.standby,
            Aim::Node => &self.node,
            Aim::Zone => &self.zone,
            Aim::Operator => "operator",
            Aim::Lab => "lab",
        }
    }
}

/// The arguments of `cargo lab` for a fault.
pub fn words(fault: &Fault, victim: &Victim, hold: Duration) -> Vec<String> {
    let target: Vec<&str> = match fault.aim {
        Aim::Primary | Aim::Standby => {
            vec!["--namespace", victim.namespace.as_str(), "--replica", victim.name(fault.aim)]
        }
        Aim::Node => vec!["--node", victim.node.as_str()],
        Aim::Zone => vec!["--zone", victim.zone.as_str()],
        Aim::Operator => vec!["--operator", "leader"],
        Aim::Lab => Vec::new(),
    };
    let all = ["fault", fault.kind].into_iter().chain(target).chain(fault.args.iter().copied());
    let mut words: Vec<String> = all.map(str::to_owned).collect();
    if !hold.is_zero() {
        words.extend(["--for".to_owned(), format!("{}ms", hold.as_millis())]);
    }
    words
}

/// A fault, from its beginning to its end.
#[derive(Debug)]
pub struct Strike {
    child: Child,
    what: String,
    landings: Receiver<Instant>,
    reader: Option<JoinHandle<()>>,
    landed: Option<Instant>,
}

impl Strike {
    /// Begins to put it in.
    pub fn start(paths: &Paths, fault: &Fault, victim: &Victim, hold: Duration) -> Result<Self> {
        let mut command = own(&paths.state)?;
        command.args(words(fault, victim, hold));
        if !hold.is_zero() {
            command.arg("--until-eof");
        }
        Self::of(&mut command, &format!("fault {}", fault.kind))
    }

    fn of(command: &mut Command, what: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{what}`"))?;
        let out = child.stdout.take().context("the fault has no output")?;
        let (sender, landings) = sync_channel(1);
        // It reads on after the landing: what nobody reads would hold the fault up. It ends with the child.
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if line.contains(IN_FORCE) {
                    // Only the first one counts, and there may be nobody left to hear it.
                    sender.try_send(Instant::now()).ok();
                }
            }
        });
        Ok(Self { child, what: what.to_owned(), landings, reader: Some(reader), landed: None })
    }

    /// When it came into force; None while it has not. One that has an end of its own may end before it says so.
    pub fn landed(&mut self) -> Result<Option<Instant>> {
        if self.landed.is_none() {
            self.landed = self.landings.try_recv().ok();
        }
        if self.landed.is_none()
            && let Some(status) = self.child.try_wait()?
        {
            if !status.success() {
                bail!("`{}` failed ({status})", self.what);
            }
            // It may have said so between the two looks.
            self.landed = Some(self.landings.recv_timeout(LAST_WORD).unwrap_or_else(|_| Instant::now()));
        }
        Ok(self.landed)
    }

    /// Has it taken out before its time; again does nothing.
    pub fn release(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Whether it was taken out again, or came to its own end.
    pub fn is_over(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Whether it ended as it should; false when it could not be taken out.
    pub fn ended_well(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some_and(|status| status.success()))
    }
}

impl Drop for Strike {
    fn drop(&mut self) {
        // Both fail when it has ended. What a killed one leaves in force is on record, and `heal` takes it out.
        self.child.kill().ok();
        self.child.wait().ok();
        // A process that the fault left behind may hold its output open, and the thread ends with that one.
        if let Some(reader) = self.reader.take_if(|reader| reader.is_finished()) {
            reader.join().ok();
        }
    }
}

/// Takes out everything that is in force.
pub fn heal(paths: &Paths) -> Result<()> {
    let status = own(&paths.state)?.arg("heal").status().context("cannot run `heal`")?;
    if !status.success() {
        bail!("the faults could not be taken out ({status}); try `cargo lab heal`");
    }
    Ok(())
}

/// This program, about the same lab.
fn own(state: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("--state-dir").arg(state);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::super::rows::{Act, ROWS};
    use super::*;
    use crate::api::wait;

    fn victim() -> Victim {
        Victim {
            namespace: "n".into(),
            shard: "s".into(),
            primary: "p".into(),
            standby: "t".into(),
            node: "node-1".into(),
            zone: "a".into(),
        }
    }

    #[test]
    fn a_fault_is_put_in_by_the_words_that_a_person_would_use() {
        let line = |name: &str, hold| {
            let row = ROWS.iter().find(|row| row.name == name).unwrap();
            let lines: Vec<_> = row.act.faults().iter().map(|fault| words(fault, &victim(), hold).join(" ")).collect();
            lines.join("; ")
        };
        let second = Duration::from_millis(1500);
        assert_eq!(line("kill", Duration::ZERO), "fault kill --namespace n --replica p");
        assert_eq!(line("freeze", second), "fault freeze --namespace n --replica p --for 1500ms");
        assert_eq!(line("standby-kill", Duration::ZERO), "fault kill --namespace n --replica t");
        assert_eq!(line("node-loss", second), "fault node-loss --node node-1 --for 1500ms");
        assert_eq!(line("zone-loss", second), "fault zone-loss --zone a --for 1500ms");
        assert_eq!(line("operator-stutter", Duration::ZERO), "fault stutter --operator leader --times 100");
        assert_eq!(line("kafka-down", second), "fault kafka-down --for 1500ms");
        assert_eq!(line("clock-back", second), "fault clock-jump --namespace n --replica p --by=-1h --for 1500ms");
        assert_eq!(line("flap-lie", second), "fault lie --namespace n --replica t --flap --for 1500ms");
        assert_eq!(line("image-pull", second), "fault image-pull --for 1500ms");
        assert_eq!(line("kill-without-api", second), "fault api-down --for 1500ms");
        let both = line("cut-clients", second);
        assert!(
            both.contains("--from kafka") && both.contains("; fault cut ") && both.contains("--from clients"),
            "{both}"
        );
        assert!(
            ROWS.iter()
                .filter(|row| matches!(row.act, Act::Fault(_) | Act::Both(..)))
                .all(|row| !row.act.faults().is_empty())
        );
    }

    fn shell(script: &str) -> Strike {
        let mut command = Command::new("sh");
        Strike::of(command.args(["-c", script]), "sh").unwrap()
    }

    fn landing(strike: &mut Strike) -> Result<Instant> {
        let mut at = None;
        wait(Duration::from_secs(30), "no landing", || {
            at = strike.landed()?;
            Ok(at.is_some())
        })?;
        at.context("no landing")
    }

    #[test]
    fn a_fault_has_landed_when_it_says_so_and_not_before_and_is_over_later() {
        let mut strike = shell("echo waiting; echo 'Freeze of a: in force'; exec tail -f /dev/null");
        landing(&mut strike).unwrap();
        assert!(!strike.is_over().unwrap());
    }

    #[test]
    fn a_fault_that_is_released_is_taken_out_before_its_time() {
        let mut strike = shell("echo 'Freeze of a: in force'; exec cat");
        landing(&mut strike).unwrap();
        assert!(!strike.is_over().unwrap());
        strike.release();
        strike.release();
        wait(Duration::from_secs(30), "it goes on", || strike.is_over()).unwrap();
        assert!(strike.ended_well().unwrap());
    }

    #[test]
    fn a_fault_that_ends_by_itself_has_landed_and_one_that_fails_has_not() {
        let mut strike = shell("exit 0");
        landing(&mut strike).unwrap();
        assert!(strike.is_over().unwrap() && strike.ended_well().unwrap());
        let mut strike = shell("exit 3");
        assert!(landing(&mut strike).unwrap_err().to_string().contains("exit status: 3"));
    }
}
