//! Whether each fault does here what its name says: it is put into something that was made for it, looked at from outside, taken out,
//! and looked at again. The disks are tried on a volume of no pod, processes on a small program that is called mysqld and stands in
//! cgroups like a pod's; nodes and parts are the lab's own, and are away for some seconds.

mod scratch;
mod victim;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::scratch::Scratch;
use self::victim::{JUMP, UID, Victim};
use super::holder::{self, Work};
use super::kind::{Kind, Peer};
use super::mutex::Reach;
use super::network::{self, End};
use super::process::Victims;
use super::record::Pace;
use super::target;
use super::{Scene, clock, cluster, images, oom, undo, volume};
use crate::api::Api;
use crate::paths::Paths;
use crate::process;
use crate::progress::Ui;
use crate::state::State;
use crate::topology::HOST;
use crate::{kafka, run};

/// The image of the cluster's DNS, as containerd calls it.
const DNS_IMAGE: &str = "docker.io/understudy-lab/coredns";
/// At this pace four reads take two seconds, and a write of a file half of one.
const SLOW_IOPS: u32 = 2;

/// What was seen of one fault.
#[derive(Debug)]
struct Row {
    kind: Kind,
    wanted: &'static str,
    seen: String,
    before: String,
    healed: String,
}

impl Row {
    fn is_right(&self) -> bool {
        self.seen == self.wanted && self.before == self.healed && self.before != self.wanted
    }
}

/// Tries all that can be tried without a Datastore and prints a table. True when each fault did what it should.
pub fn selftest(paths: &Paths, ui: &Ui) -> Result<bool> {
    let state = State::load(paths)?;
    if state.nodes.is_empty() || !Api::new(paths).is_ready() {
        bail!("the self-test needs a lab that is whole: run `cargo lab up`");
    }
    if !super::active(paths)?.is_empty() {
        bail!("a fault is in force, and would be mistaken for the self-test's: run `cargo lab heal` first");
    }
    let mut rows = Vec::new();
    disks(paths, ui, &state, &mut rows)?;
    processes(paths, ui, &mut rows)?;
    network(paths, ui, &state, &mut rows)?;
    parts(paths, ui, &state, &mut rows)?;
    println!("{}", table(&rows));
    Ok(rows.iter().all(Row::is_right))
}

fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<21}{:<9}{:<38}{:<38}{}\n", "FAULT", "", "WANTED", "SEEN", "AFTERWARDS");
    for row in rows {
        let verdict = if row.is_right() { "ok" } else { "WRONG" };
        text += &format!("{:<21}{verdict:<9}{:<38}{:<38}{}\n", row.kind.to_string(), row.wanted, row.seen, row.healed);
    }
    text + "not tried: node-loss, zone-loss, isolate, drain, slow-all (slow on each); \
            long-ddl, heavy-queries, errant, lag, break-replication, corrupt (they need a Datastore)"
}

/// Looks, puts the fault in, looks, takes it out, looks again when `recover` has started what died of it.
fn try_one(
    paths: &Paths,
    ui: &Ui,
    (kind, wanted): (Kind, &'static str),
    put: impl FnOnce(&Scene<'_>) -> Result<()>,
    see: impl Fn() -> String,
    recover: impl FnOnce() -> Result<()>,
) -> Result<Row> {
    let before = see();
    let (put, entered) = {
        let _lock = super::lock(paths, ui)?;
        let scene = Scene::new(paths, ui)?;
        let put = put(&scene);
        (put, scene.entered.take())
    };
    // What needs a moment to be seen gets it.
    let seen = match put {
        Ok(()) => settle(&see, wanted),
        Err(error) => format!("{error:#}"),
    };
    undo(paths, ui, &entered)?;
    recover()?;
    let healed = settle(&see, &before);
    let row = Row { kind, wanted, seen, before, healed };
    ui.say(&format!("{kind}: {}", if row.is_right() { "does what it says" } else { "does NOT do what it says" }));
    Ok(row)
}

/// What is seen as soon as it is `wanted`, or after a while.
fn settle(see: &impl Fn() -> String, wanted: &str) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let seen = see();
        if seen == wanted || Instant::now() > end {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn disks(paths: &Paths, ui: &Ui, state: &State, rows: &mut Vec<Row>) -> Result<()> {
    let node = state.nodes.first().context("the lab has no node")?;
    let scratch = Scratch::make(paths, node)?;
    let (volume, see) = (&scratch.volume, || scratch.see());
    let what = || "selftest".to_owned();
    let mut row = |kind, wanted, put: &dyn Fn(&Scene<'_>) -> Result<()>| -> Result<()> {
        rows.push(try_one(paths, ui, (kind, wanted), put, see, || Ok(()))?);
        Ok(())
    };
    row(Kind::Wedge, "read answers, write hangs", &|scene| volume::wedge(scene, what(), volume))?;
    row(Kind::Stall, "read hangs, write hangs", &|scene| volume::throttle(scene, what(), volume, Pace::Stalled))?;
    row(Kind::Slow, "read is slow, write is slow", &|scene| {
        volume::throttle(scene, what(), volume, Pace::Operations(SLOW_IOPS))
    })?;
    row(Kind::Eio, "read EIO, write EIO", &|scene| volume::break_device(scene, what(), volume))?;
    row(Kind::DiskFull, "read answers, write ENOSPC", &|scene| volume::fill(scene, what(), volume))?;
    row(Kind::ReadOnly, "read answers, write EROFS", &|scene| volume::make_read_only(scene, what(), volume))
}

fn processes(paths: &Paths, ui: &Ui, rows: &mut Vec<Row>) -> Result<()> {
    let victim = Victim::make(paths)?;
    let pod = &victim.pod;
    let what = || pod.what();
    let (life, greets) = (|| victim.life(), || victim.greets());
    let both = || format!("{}, {}", victim.life(), victim.greets());
    let mut row = |kind, wanted, put: &dyn Fn(&Scene<'_>) -> Result<()>, see: &dyn Fn() -> String| -> Result<()> {
        // Who dies is started again by the pod's manager, which is not there.
        rows.push(try_one(paths, ui, (kind, wanted), put, see, || victim.ensure())?);
        Ok(())
    };
    let mysqld = || super::process::mysqld(pod);
    row(Kind::Freeze, "stands still, stopped", &|scene| super::process::stop(scene, what(), mysqld()?), &life)?;
    row(Kind::FreezePod, "stands still", &|scene| super::process::freeze_pod(scene, pod), &life)?;
    row(
        Kind::Stutter,
        "stands still, stopped",
        &|scene| {
            let victims = vec![Victims::Mysqld(UID.to_owned())];
            holder::start(scene, what(), Work::Stutter { victims, times: 100 })
        },
        &life,
    )?;
    row(Kind::Deadlock, "stands still, greets", &|scene| super::deadlock(scene, pod, Reach::Tables), &both)?;
    row(Kind::Mute, "stands still, no word", &|scene| super::deadlock(scene, pod, Reach::Greetings), &both)?;
    row(Kind::ClockJump, "ahead, ahead, ahead", &|scene| clock::jump(scene, pod, JUMP), &|| victim.clocks())?;
    let exhaust =
        |scene: &Scene<'_>| holder::start(scene, what(), Work::Exhaust { address: victim.address.to_string() });
    row(Kind::ExhaustConnections, "error 1040", &exhaust, &greets)?;
    row(Kind::Oom, "gone", &|scene| oom::starve(scene, pod), &life)?;
    let kill = |scene: &Scene<'_>| -> Result<()> {
        super::process::kill(scene, &what(), &mysqld()?);
        Ok(())
    };
    row(Kind::Kill, "gone", &kill, &life)
}

/// Whether a page is there within two seconds.
fn answers(url: &str) -> String {
    /// curl's word for a connection that was not taken.
    const REFUSED: i32 = 7;
    let mut curl = run::sh("curl -sS --noproxy * --fail --max-time 2 -o /dev/null");
    let status = run::tied(curl.arg(url)).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let word = match status.ok().and_then(|status| status.code()) {
        Some(0) => "answers",
        Some(REFUSED) => "refused",
        _ => "silent",
    };
    word.to_owned()
}

fn network(paths: &Paths, ui: &Ui, state: &State, rows: &mut Vec<Row>) -> Result<()> {
    let pods = target::pods_with(&Api::new(paths), "k8s-app%3Dkube-dns")?;
    let pod = pods.iter().find(|pod| !pod.address.is_empty()).context("the cluster has no DNS")?;
    let node = target::node(state, &pod.node)?;
    let ready = format!("http://{}:8181/ready", pod.address);
    rows.push(try_one(
        paths,
        ui,
        (Kind::Cut, "silent"),
        |scene| network::cut(scene, End::Pod(pod), node, &[Peer::All]).map(drop),
        || answers(&ready),
        || Ok(()),
    )?);
    let to = [pod.address.clone()];
    rows.push(try_one(
        paths,
        ui,
        (Kind::Lie, "refused"),
        |scene| network::refuse(scene, "selftest".to_owned(), node, HOST, &to, "8181").map(drop),
        || answers(&ready),
        || Ok(()),
    )?);
    rows.push(try_one(paths, ui, (Kind::DnsDown, "silent"), cluster::freeze_dns, || answers(&ready), || Ok(()))?);
    Ok(())
}

fn parts(paths: &Paths, ui: &Ui, state: &State, rows: &mut Vec<Row>) -> Result<()> {
    let node = state.nodes.last().context("the lab has no node")?;
    let api = Api::new(paths);
    let kubelet = format!("https://{}:10250/healthz", node.address());
    let word = |is_there: bool| if is_there { "answers" } else { "silent" }.to_owned();
    rows.push(try_one(
        paths,
        ui,
        (Kind::NodeFreeze, "silent"),
        |scene| super::process::freeze_node(scene, node),
        || word(api.healthy(&kubelet)),
        || Ok(()),
    )?);
    // The product's image comes with a Datastore; that of the DNS is there before.
    let name = node.name();
    let is_known = || match images::of_node(paths, &name, DNS_IMAGE) {
        Ok(found) => word(!found.is_empty()),
        Err(error) => format!("{error:#}"),
    };
    rows.push(try_one(
        paths,
        ui,
        (Kind::ImagePull, "silent"),
        |scene| images::hide(scene, DNS_IMAGE),
        is_known,
        || Ok(()),
    )?);
    let brokers = || {
        let running = kafka::BROKERS.iter().filter(|id| {
            let process = state.processes.get(&kafka::process_name(**id));
            process.and_then(|p| process::stat(p.pid)).is_some_and(|s| s.state != 'T')
        });
        format!("{} brokers run", running.count())
    };
    rows.push(try_one(paths, ui, (Kind::KafkaDown, "0 brokers run"), cluster::stop_kafka, brokers, || Ok(()))?);
    rows.push(try_one(
        paths,
        ui,
        (Kind::ApiDown, "silent"),
        cluster::kill_control_plane,
        || word(api.is_ready()),
        || Ok(()),
    )?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seen: &str, before: &str, healed: &str) -> Row {
        Row { kind: Kind::Wedge, wanted: "hangs", seen: seen.into(), before: before.into(), healed: healed.into() }
    }

    #[test]
    fn a_fault_is_right_when_it_was_seen_and_is_over() {
        for (case, row, want) in [
            ("seen and over", row("hangs", "answers", "answers"), true),
            ("not seen", row("answers", "answers", "answers"), false),
            ("not over", row("hangs", "answers", "hangs"), false),
            ("there before it was put in", row("hangs", "hangs", "hangs"), false),
        ] {
            assert_eq!(row.is_right(), want, "{case}");
            assert_eq!(table(&[row]).contains("WRONG"), !want, "{case}");
        }
    }
}
