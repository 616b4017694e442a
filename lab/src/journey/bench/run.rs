//! One run: load with a ledger, warm up, fault, hold, heal, wait for redundancy, read everything back. I/O.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use understudy_lab_outcome::Outcome;

use super::super::access::holds;
use super::super::load::Running;
use super::super::store::Store;
use super::deployed;
use super::ended::{Ended, together};
use super::eyes::Eyes;
use super::file::{Header, Run};
use super::judge::{self, Change, Facts};
use super::machine;
use super::prepare::{self, LANDS_WITHIN};
use super::rows::{Act, Aim, Ends, Fault, Hits, Must, Prepare, Row, Suite};
use super::seen::Seen;
use super::strike::{Strike, Victim, heal};
use crate::api::{Api, wait};
use crate::paths::Paths;
use crate::progress::Ui;
use crate::run;

/// Load before the fault, at least.
const WARM: Duration = Duration::from_secs(10);
/// Load after everything is there again, so that gaps stand out from the ordinary.
const STEADY: Duration = Duration::from_secs(8);
/// Until the Datastore of the run before is whole.
const READY_WITHIN: Duration = Duration::from_secs(600);
/// Until commits are steady.
const STEADY_WITHIN: Duration = Duration::from_secs(180);
/// Until every shard has everything again, from the end of the fault on.
const REDUNDANT_WITHIN: Duration = Duration::from_secs(600);
/// A change of primary that has not begun so long after the end of the fault is not waited for.
const MISSED_AFTER: Duration = Duration::from_secs(60);
/// How long a fault may go on after its time, or one with an end of its own may take.
const OVER_WITHIN: Duration = Duration::from_secs(900);
/// How long acknowledged samples may take to be readable: what a load left behind may be much.
const READABLE_WITHIN: [&str; 2] = ["--wait", "10m"];
/// How long a successor that is to be killed is waited for.
const SUCCESSOR_WITHIN: Duration = Duration::from_secs(60);
/// How long everything has been there again before a fault is taken out that has nobody left to hit.
const SPENT: Duration = Duration::from_secs(3);
/// In which the last look at the statuses is taken.
const LATE: Duration = Duration::from_secs(1);
/// How long the API server has been away when the primary dies. Nobody is left who has not noticed.
const AWAY: Duration = Duration::from_secs(5);
/// Between two questions whether it is back.
const ASK_EVERY: Duration = Duration::from_millis(100);

const KILL: Fault = Fault { kind: "kill", args: &[], aim: Aim::Primary };

/// Where runs are made.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The lab.
    pub paths: &'a Paths,
    /// Progress.
    pub ui: &'a Ui,
    /// The Datastore.
    pub store: &'a Store<'a>,
    /// The program that sends and verifies.
    pub program: &'a Path,
    /// `ID.SECRET`.
    pub token: &'a str,
    /// Samples a second.
    pub rate: u64,
    /// In place of what the rows say.
    pub hold: Option<Duration>,
    /// Where ledgers are kept.
    pub dir: &'a Path,
}

/// What was done.
struct Struck {
    /// When it came into force.
    at: Instant,
    /// How long nobody could do anything about it.
    excused: Option<Duration>,
    /// Whether all of it was taken out again.
    is_out: bool,
    /// What became of a load that was part of it.
    beside: Option<Outcome>,
}

impl Struck {
    /// In force then, and over.
    fn at(at: Instant) -> Self {
        Self { at, excused: None, is_out: true, beside: None }
    }
}

impl Ground<'_> {
    /// Makes the run with this number of a row. `calm` has the epochs that nothing but the row may change: those at the end of the run
    /// before. What changed since is told with this run.
    pub fn run(&self, row: &'static Row, index: usize, header: &Header, calm: &BTreeMap<String, i64>) -> Result<Run> {
        prepare::clear(self.paths)?;
        self.store.wait_ready(self.ui, READY_WITHIN)?;
        deployed::ensure_is(self.store, &header.revision.image)?;
        let started_at = machine::now()?;
        let seed = seed(&header.revision.commit, row, index);
        let shards = self.shards()?;
        let subjects = match row.prepare {
            Prepare::Gather => prepare::gather(self.store, self.ui, &shards)?,
            _ => shards.clone(),
        };
        let shard = subjects.get(index % subjects.len().max(1)).context("the Datastore has no shard")?;
        let hold = row.held(self.hold);
        if row.prepare == Prepare::HandOver {
            prepare::hand_over(self.store, self.ui, &shards, shard)?;
        }

        let mut load = self.start(row, index, hold)?;
        load.wait_flowing()?;
        let mut eyes = Eyes::open(self.store, shards)?;
        let before = if row.prepare.changes_primaries() { eyes.seen.epochs() } else { calm.clone() };
        self.warm_up(&mut load, &mut eyes)?;
        let aimed_at = victim(&self.store.namespace, &eyes.seen, shard)?;
        let paused = match row.prepare {
            Prepare::Lag(time) => {
                self.ui.say(&format!("  let the standbys of {shard} fall {} s behind", time.as_secs()));
                prepare::lag(self.store, &mut eyes, &aimed_at, time)?;
                None
            }
            Prepare::PauseOperator => Some(prepare::pause_operator(self.paths, &mut eyes, &aimed_at)?),
            Prepare::Nothing | Prepare::Gather | Prepare::HandOver => None,
        };
        let (mut load, early) =
            if row.act == Act::Idle { (None, Some(self.verified(load)?)) } else { (Some(load), None) };
        // So that faults do not fall on the same beat of the probes.
        eyes.pass(Duration::from_millis(u64::from(seed % 1000)))?;
        let victim = victim(&self.store.namespace, &eyes.seen, shard)?;
        let hit = hit(row, &eyes.seen, &victim);
        let lag = eyes.seen.lag(shard);
        eyes.seen.begin();
        let Struck { at, excused, is_out, beside } = self.strike(row, index, hold, &victim, &mut eyes)?;
        let redundant = self.settle(row, &hit, &victim, &mut eyes, load.as_mut())?;
        if let Some(mut paused) = paused {
            eyes.watch(Instant::now() + LANDS_WITHIN, |_| paused.is_over())?;
        }
        if !is_out && heal(self.paths).is_err() {
            self.ui.say("  a fault is still in force; what comes after may be about that");
        }
        let outcome = match (load.take(), early) {
            (Some(load), _) => self.verified(load)?,
            (None, Some(outcome)) => outcome,
            (None, None) => bail!("the run has no load"),
        };
        let outcome = together(outcome, beside.as_ref());
        eyes.pass(LATE)?;
        let records = self.records(&before)?;
        let (seen, victim) = (&eyes.seen, &victim);
        let ended = Ended {
            row,
            index,
            header,
            seed,
            started_at,
            victim,
            hit,
            hold,
            lag,
            at,
            excused,
            seen,
            before,
            records,
            outcome,
            redundant,
        };
        Ok(ended.run())
    }

    /// The epoch of each shard, as it is now.
    pub fn epochs(&self) -> Result<BTreeMap<String, i64>> {
        let epoch = |shard: &Value| {
            let name = shard["metadata"]["name"].as_str()?.to_owned();
            Some((name, shard["status"]["epoch"].as_i64().unwrap_or(0)))
        };
        Ok(self.store.shards()?.iter().filter_map(epoch).collect())
    }

    /// Changes of primary since these epochs that a row does not let be which lets none be.
    pub fn false_failovers(&self, row: &Row, since: &BTreeMap<String, i64>) -> Result<u64> {
        if row.must != Must::Nothing {
            return Ok(0);
        }
        let changes = self.records(since)?.iter().filter_map(Change::of).collect();
        Ok(judge::false_failovers(row, &Facts { changes, ..Facts::default() }))
    }

    /// Deletes the ledger of a run from which nothing more is to be learnt: hundreds of them would fill the disk that all volumes are on.
    pub fn forget(&self, row: &Row, index: usize) {
        let ledger = self.ledger(row, index);
        // One that is gone is what is wanted; of most runs there is no second.
        std::fs::remove_file(beside(&ledger)).ok();
        std::fs::remove_file(ledger).ok();
    }

    /// The names of the shards, in order.
    fn shards(&self) -> Result<Vec<String>> {
        let all = self.store.shards()?;
        let mut names: Vec<_> =
            all.iter().filter_map(|shard| shard["metadata"]["name"].as_str().map(str::to_owned)).collect();
        names.sort_unstable();
        ensure!(!names.is_empty(), "the Datastore {} has no shard", self.store.name);
        Ok(names)
    }

    fn start(&self, row: &Row, index: usize, hold: Duration) -> Result<Running> {
        let ledger = self.ledger(row, index);
        let lasts = hold + STEADY_WITHIN + 2 * OVER_WITHIN + REDUNDANT_WITHIN + MISSED_AFTER;
        // What a client of its own does to a server must not be what keeps it alive.
        let more: &[&str] = if row.suite == Suite::Failover { &["--direct"] } else { &[] };
        let time = format!("{}s", lasts.as_secs());
        Running::start_with(self.program, self.store, self.token, self.rate, &time, &ledger, more)
    }

    /// Stops a load and reads everything back.
    fn verified(&self, load: Running) -> Result<Outcome> {
        Ok(load.finish_with(self.store, &READABLE_WITHIN)?.1)
    }

    /// Another load beside the first, so many times as large.
    fn saturate(&self, factor: u64, ledger: &Path, hold: Duration, eyes: &mut Eyes<'_>) -> Result<Struck> {
        let ledger = beside(ledger);
        let (rate, time) = (self.rate * factor, format!("{}s", (hold + OVER_WITHIN).as_secs()));
        let mut load = Running::start(self.program, self.store, self.token, rate, &time, &ledger)?;
        load.wait_flowing()?;
        let at = Instant::now();
        eyes.pass(hold)?;
        Ok(Struck { beside: Some(self.verified(load)?), ..Struck::at(at) })
    }

    fn ledger(&self, row: &Row, index: usize) -> PathBuf {
        self.dir.join(format!("{}-{}-{index:03}.ledger", row.id.to_lowercase(), row.name))
    }

    /// At least so long, and until every shard has everything and its consumers do not lag.
    fn warm_up(&self, load: &mut Running, eyes: &mut Eyes<'_>) -> Result<()> {
        eyes.pass(WARM)?;
        wait(STEADY_WITHIN, "the shards are not whole, or their consumers not current, under load", || {
            load.check()?;
            eyes.pass(Duration::from_millis(500))?;
            Ok(eyes.seen.is_whole() && self.store.shards()?.iter().all(|shard| holds(shard, "ConsumersCurrent")))
        })
    }

    /// Does what the row says for as long as it says.
    fn strike(&self, row: &Row, index: usize, hold: Duration, victim: &Victim, eyes: &mut Eyes<'_>) -> Result<Struck> {
        let at = Instant::now();
        let done = Struck::at;
        match row.act {
            Act::Fault(_) | Act::Both(..) => self.faults(row, hold, victim, eyes),
            Act::KillBoth => self.kill_both(victim, eyes).map(done),
            Act::KillDuring(fault) => self.kill_during(&fault, hold, victim, eyes),
            Act::Load(factor) => self.saturate(factor, &self.ledger(row, index), hold, eyes),
            Act::Switchover => {
                let epoch = eyes.seen.epochs().get(&victim.shard).copied().unwrap_or(0);
                prepare::ask_for_switchover(self.store, &victim.shard, epoch, None)?;
                Ok(done(at))
            }
            Act::DeletePod => self.delete("pod", &victim.primary, hold, eyes).map(|()| done(at)),
            Act::DeleteStandbyDuring(fault) => self.delete_during(&fault, hold, victim, eyes),
            Act::DeleteStandby => self.delete("replica", &victim.standby, hold, eyes).map(|()| done(at)),
            Act::Idle => eyes.pass(hold).map(|()| done(at)),
        }
    }

    fn faults(&self, row: &Row, hold: Duration, victim: &Victim, eyes: &mut Eyes<'_>) -> Result<Struck> {
        let faults = row.act.faults();
        let started = faults.iter().map(|fault| Strike::start(self.paths, fault, victim, hold));
        let mut strikes = started.collect::<Result<Vec<_>>>()?;
        let mut last: Option<Instant> = None;
        for strike in &mut strikes {
            last = last.max(Some(landing(strike, eyes)?));
        }
        let (end, mut is_out) = (Instant::now() + hold + OVER_WITHIN, true);
        let spent = if row.ends == Ends::Whole { SPENT } else { Duration::ZERO };
        let mut spent_since: Option<Instant> = None;
        for strike in &mut strikes {
            let is_over = eyes.watch(end, |seen| {
                let is_spent = is_spent(row, victim, seen);
                spent_since = spent_since.filter(|_| is_spent).or_else(|| is_spent.then(Instant::now));
                if spent_since.is_some_and(|since| since.elapsed() >= spent) {
                    strike.release();
                }
                strike.is_over()
            })?;
            ensure!(is_over, "the fault {} did not end", row.name);
            // What hangs on a replica that is about to be replaced may come out only after that.
            is_out &= strike.ended_well()?;
        }
        Ok(Struck { is_out, ..Struck::at(last.context("the row has no fault")?) })
    }

    /// Kills the primary after the API server has gone. Nobody is promoted before it is back, since an epoch is claimed there; how long
    /// that is is told beside the gap.
    fn kill_during(&self, fault: &Fault, hold: Duration, victim: &Victim, eyes: &mut Eyes<'_>) -> Result<Struck> {
        let mut around = Strike::start(self.paths, fault, victim, hold)?;
        landing(&mut around, eyes)?;
        eyes.pass(AWAY)?;
        let mut kill = Strike::start(self.paths, &KILL, victim, Duration::ZERO)?;
        let at = landing(&mut kill, eyes)?;
        ensure!(!around.is_over()?, "the API server was back before the primary died: let it be away for longer");
        let (api, is_over) = (Api::new(self.paths), AtomicBool::new(false));
        let (ended, back) = std::thread::scope(|scope| {
            let back = scope.spawn(|| returned(&api, &is_over));
            let ended = eyes.watch(Instant::now() + hold + OVER_WITHIN, |_| around.is_over());
            is_over.store(true, Ordering::Relaxed);
            (ended, back.join())
        });
        let ended = ended?;
        ensure!(ended, "the fault {} did not end", fault.kind);
        let back = back.map_err(|_| anyhow!("who waits for the API server panicked"))?;
        let back = back.context("the API server did not come back")?;
        let excused = Some(back.saturating_duration_since(at));
        Ok(Struck { excused, is_out: around.ended_well()?, ..Struck::at(at) })
    }

    /// Has a standby replaced by one that cannot start before the fault is over.
    fn delete_during(&self, fault: &Fault, hold: Duration, victim: &Victim, eyes: &mut Eyes<'_>) -> Result<Struck> {
        let mut around = Strike::start(self.paths, fault, victim, hold)?;
        let at = landing(&mut around, eyes)?;
        self.delete("replica", &victim.standby, Duration::ZERO, eyes)?;
        let ended = eyes.watch(Instant::now() + hold + OVER_WITHIN, |_| around.is_over())?;
        ensure!(ended, "the fault {} did not end", fault.kind);
        ensure!(
            !eyes.seen.is_whole(),
            "the new standby was there before {} was over: it kept nobody from starting",
            fault.kind
        );
        Ok(Struck { is_out: around.ended_well()?, ..Struck::at(at) })
    }

    /// Kills the primary, and whoever is about to follow it.
    fn kill_both(&self, victim: &Victim, eyes: &mut Eyes<'_>) -> Result<Instant> {
        let mut strike = Strike::start(self.paths, &KILL, victim, Duration::ZERO)?;
        let at = landing(&mut strike, eyes)?;
        let shard = &victim.shard;
        let follows = |seen: &Seen| seen.successor(shard).is_some() || seen.has_changed(shard);
        let is_there = eyes.watch(Instant::now() + SUCCESSOR_WITHIN, |seen| Ok(follows(seen)))?;
        ensure!(is_there, "no epoch was claimed within {} s", SUCCESSOR_WITHIN.as_secs());
        let successor = eyes.seen.successor(shard).unwrap_or(eyes.seen.primary(shard)).to_owned();
        self.ui.say(&format!("  and its successor {successor}"));
        let next = Victim { primary: successor, ..victim.clone() };
        let mut second = Strike::start(self.paths, &KILL, &next, Duration::ZERO)?;
        landing(&mut second, eyes)?;
        Ok(at)
    }

    fn delete(&self, kind: &str, name: &str, hold: Duration, eyes: &mut Eyes<'_>) -> Result<()> {
        let namespace = &self.store.namespace;
        let mut command = self.store.access.kubectl(&[
            "delete",
            "--request-timeout=60s",
            "-n",
            namespace,
            kind,
            name,
            "--wait=false",
        ]);
        run::output(&mut command)?;
        eyes.pass(hold)
    }

    /// Waits until everything is there again, and still is a moment later, with an operator that acts; whether it is. A change that is
    /// owed is waited for too, and another standby where the one that was hit is of no use.
    fn settle(
        &self,
        row: &Row,
        hit: &[String],
        victim: &Victim,
        eyes: &mut Eyes<'_>,
        mut load: Option<&mut Running>,
    ) -> Result<bool> {
        let begun = Instant::now();
        let acted = prepare::acted(self.store)?;
        let is_owed = row.owes_change();
        // What the fault did may take a moment to show; a change that is owed shows it.
        if !is_owed {
            eyes.pass(STEADY)?;
        }
        loop {
            let is_whole = eyes.watch(begun + REDUNDANT_WITHIN, |seen| {
                if let Some(load) = &mut load {
                    load.check()?;
                }
                let is_missed = !is_owed || begun.elapsed() > MISSED_AFTER;
                Ok(seen.is_whole()
                    && !(row.replaces && is_left(seen, victim))
                    && (is_missed || hit.iter().all(|shard| seen.has_changed(shard))))
            })?;
            if !is_whole {
                return Ok(false);
            }
            let is_steady = !eyes.watch(Instant::now() + STEADY, |seen| Ok(!seen.is_whole()))?;
            // Without an operator every status stays as it is, and nothing false is done.
            if is_steady && prepare::acted(self.store)? != acted {
                return Ok(true);
            }
            if begun.elapsed() > REDUNDANT_WITHIN {
                return Ok(false);
            }
        }
    }

    /// Failovers that are records of an epoch since then.
    fn records(&self, before: &BTreeMap<String, i64>) -> Result<Vec<Value>> {
        let mut all = self.store.access.items(&["-n", &self.store.namespace, "failovers"])?;
        all.retain(|failover| {
            let shard = failover["spec"]["shard"].as_str().unwrap_or_default();
            before.get(shard).is_some_and(|epoch| judge::epoch_of(failover).is_some_and(|of| of > *epoch))
        });
        all.sort_by_key(judge::epoch_of);
        Ok(all)
    }
}

/// The ledger of a load beside another.
fn beside(ledger: &Path) -> PathBuf {
    ledger.with_extension("beside.ledger")
}

/// Whether the standby that was aimed at is in the cast.
fn is_left(seen: &Seen, victim: &Victim) -> bool {
    seen.replicas(&victim.shard).iter().any(|place| place.name == victim.standby)
}

/// Whether whom a row was aimed at was replaced, so that nothing more comes of its fault than was seen. Of a fault that hits others as
/// well this is never so. Pure.
fn is_spent(row: &Row, victim: &Victim, seen: &Seen) -> bool {
    let faults = row.act.faults();
    let are_all = |aim: Aim| faults.iter().all(|fault| fault.aim == aim);
    if row.must == Must::Failover && are_all(Aim::Primary) {
        return seen.has_changed(&victim.shard) && (row.ends == Ends::Promoted || seen.is_whole());
    }
    row.replaces && are_all(Aim::Standby) && seen.is_whole() && !is_left(seen, victim)
}

/// Waits until a fault is in force.
fn landing(strike: &mut Strike, eyes: &mut Eyes<'_>) -> Result<Instant> {
    let mut at = None;
    eyes.watch(Instant::now() + LANDS_WITHIN, |_| {
        at = strike.landed()?;
        Ok(at.is_some())
    })?;
    at.with_context(|| format!("the fault was not in force within {} s", LANDS_WITHIN.as_secs()))
}

/// When the API server is back: the moment of the first question that it answered. None when the fault is over without one.
fn returned(api: &Api, is_over: &AtomicBool) -> Option<Instant> {
    loop {
        let asked = Instant::now();
        if api.is_ready() {
            return Some(asked);
        }
        if is_over.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(ASK_EVERY);
    }
}

/// Draws chance from what a run is, so that the same run is the same again.
fn seed(commit: &str, row: &Row, index: usize) -> u32 {
    let hash = Sha256::digest(format!("{commit} {} {index}", row.name));
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn victim(namespace: &str, seen: &Seen, shard: &str) -> Result<Victim> {
    let primary = seen.primary(shard);
    ensure!(!primary.is_empty(), "the shard {shard} has no primary");
    let places = seen.replicas(shard);
    let place = places.iter().find(|place| place.name == primary);
    let place = place.with_context(|| format!("the status of {shard} does not say where {primary} is"))?;
    let standby = places.iter().find(|place| place.name != primary);
    Ok(Victim {
        namespace: namespace.to_owned(),
        shard: shard.to_owned(),
        primary: primary.to_owned(),
        standby: standby.map(|place| place.name.clone()).unwrap_or_default(),
        node: place.node.clone(),
        zone: place.zone.clone(),
    })
}

/// The shards that a row hits when it is aimed at this one.
fn hit(row: &Row, seen: &Seen, victim: &Victim) -> Vec<String> {
    let is_hit = |shard: &&String| {
        let primary = seen.primary(shard);
        let place = seen.replicas(shard).into_iter().find(|place| place.name == primary);
        match row.hits {
            Hits::Shard => **shard == victim.shard,
            Hits::Node => place.is_some_and(|place| place.node == victim.node),
            Hits::Zone => place.is_some_and(|place| place.zone == victim.zone),
            Hits::All => true,
        }
    };
    seen.names().filter(is_hit).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::ended::subject;
    use super::super::rows::ROWS;
    use super::*;

    fn seen() -> Seen {
        let shard = |name: &str, primary: &str, nodes: [(&str, &str); 2]| {
            let replicas: Vec<_> = ["a", "b"]
                .iter()
                .zip(nodes)
                .map(|(suffix, (node, zone))| json!({"name": format!("{name}-{suffix}"), "role": "standby", "node": node, "zone": zone}))
                .collect();
            json!({"kind": "Shard", "metadata": {"name": name}, "status": {"primary": primary, "replicas": replicas}})
        };
        let mut seen = Seen::of(["s-0", "s-1", "s-2"].map(str::to_owned));
        for object in [
            shard("s-0", "s-0-a", [("n1", "z1"), ("n2", "z2")]),
            shard("s-1", "s-1-b", [("n2", "z2"), ("n1", "z1")]),
            shard("s-2", "s-2-a", [("n3", "z1"), ("n2", "z2")]),
        ] {
            seen.take(&object, Instant::now());
        }
        seen
    }

    #[test]
    fn a_row_hits_the_shards_whose_primaries_are_where_the_fault_is() {
        let seen = seen();
        let victim = victim("n", &seen, "s-0").unwrap();
        assert_eq!((victim.primary.as_str(), victim.standby.as_str()), ("s-0-a", "s-0-b"));
        for (name, hits, aimed_at) in [
            ("kill", vec!["s-0"], "s-0-a"),
            ("node-loss", vec!["s-0", "s-1"], "n1"),
            ("zone-loss", vec!["s-0", "s-1", "s-2"], "z1"),
            ("kafka-down", vec!["s-0", "s-1", "s-2"], "lab"),
            ("standby-kill", vec!["s-0"], "s-0-b"),
            ("clone", vec!["s-0"], "s-0-b"),
            ("image-pull", vec!["s-0"], "s-0-b"),
            ("kill-without-api", vec!["s-0"], "s-0-a"),
            ("idle", vec!["s-0", "s-1", "s-2"], "all"),
        ] {
            let row = ROWS.iter().find(|row| row.name == name).unwrap();
            assert_eq!(hit(row, &seen, &victim), hits, "{name}");
            assert_eq!(subject(row, &victim), aimed_at, "{name}");
        }
    }

    #[test]
    fn a_fault_is_spent_when_whom_it_was_aimed_at_is_replaced() {
        let shard = |primary: &str, standby: &str, ready: i64| {
            let replicas = [primary, standby, "x"]
                .map(|name| json!({"name": name, "role": "standby", "node": "n1", "zone": "z1"}));
            json!({"kind": "Shard", "metadata": {"name": "s-0", "generation": 1}, "spec": {"replicas": 3},
                "status": {"observedGeneration": 1, "primary": primary, "replicas": replicas, "transition": null,
                    "verdict": {"state": "Healthy"}, "readyReplicas": ready, "promotable": ready - 1}})
        };
        for (case, name, primary, standby, ready, expected) in [
            ("nothing has happened", "freeze", "a", "b", 3, false),
            ("another is primary, and not all are there", "freeze", "b", "c", 2, false),
            ("and all are there", "freeze", "b", "c", 3, true),
            ("another is primary: it is to find that", "thaw", "b", "c", 2, true),
            ("nobody is", "thaw", "", "b", 2, false),
            ("a node hits others too", "node-loss", "b", "c", 3, false),
            ("it may hand over: the rest is of interest", "slow", "b", "c", 3, false),
            ("the standby is there", "standby-lag", "a", "b", 3, false),
            ("another is, and is not ready", "standby-lag", "a", "c", 2, false),
            ("and is", "standby-lag", "a", "c", 3, true),
            ("nobody has to be replaced", "lie", "a", "c", 3, false),
        ] {
            let mut seen = Seen::of(["s-0".to_owned()]);
            seen.take(&shard("a", "b", 3), Instant::now());
            let victim = victim("n", &seen, "s-0").unwrap();
            seen.begin();
            seen.take(&shard(primary, standby, ready), Instant::now());
            let row = ROWS.iter().find(|row| row.name == name).unwrap();
            assert_eq!(is_spent(row, &victim, &seen), expected, "{case}");
        }
    }

    #[test]
    fn a_shard_without_a_primary_is_no_victim() {
        assert!(victim("n", &Seen::of(["s-0".to_owned()]), "s-0").is_err());
    }

    #[test]
    fn chance_is_the_same_for_the_same_run_and_another_for_another() {
        let (kill, freeze) = (&ROWS[0], &ROWS[1]);
        assert_eq!(seed("c0ffee", kill, 0), seed("c0ffee", kill, 0));
        let others = [seed("c0ffee", kill, 1), seed("c0ffee", freeze, 0), seed("0ther", kill, 0)];
        assert!(!others.contains(&seed("c0ffee", kill, 0)));
    }
}
