//! Faults, put in from outside the product and taken out again. What must be undone is written to disk before it is done, so a
//! command that is killed at any moment leaves nothing that `heal` and `down` do not find; undoing twice does nothing.

mod clock;
mod cluster;
mod database;
mod elf;
mod holder;
mod images;
mod kind;
mod memory;
mod mutex;
mod network;
mod oom;
mod process;
mod record;
mod selftest;
mod standby;
mod target;
mod volume;

use std::cell::RefCell;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::Signal;

pub use self::holder::hold;
pub use self::kind::{Kind, Options, Peer};
pub use self::record::{active, is_held};
pub use self::selftest::selftest;
pub use self::target::{Target, Which};

use self::holder::Work;
use self::mutex::Reach;
use self::network::{End, Table};
use self::process::Victims;
use self::record::{Active, Pace, Undone, forget};
use self::target::Pod;
use crate::api::Api;
use crate::paths::Paths;
use crate::progress::Ui;
use crate::state::{Lock, State};
use crate::topology::{CGROUP, Node};
use crate::volume::Volume;
use crate::{cgroup, net, node};

/// Held while the record of faults changes.
const LOCK: &str = "faults.lock";
/// A fault that somebody keeps up should live at least this long.
const HELD_FOR: Duration = Duration::from_millis(700);

/// Where a fault is put in, and what was recorded of it so far.
#[derive(Debug)]
struct Scene<'a> {
    paths: &'a Paths,
    ui: &'a Ui,
    api: Api,
    state: State,
    entered: RefCell<Vec<Active>>,
}

impl<'a> Scene<'a> {
    fn new(paths: &'a Paths, ui: &'a Ui) -> Result<Self> {
        let (api, state) = (Api::new(paths), State::load(paths)?);
        Ok(Self { paths, ui, api, state, entered: RefCell::default() })
    }

    /// Writes down how to undo what is done next.
    fn record(&self, fault: Active) -> Result<()> {
        record::record(self.paths, &fault)?;
        self.entered.borrow_mut().push(fault);
        Ok(())
    }
}

fn lock(paths: &Paths, ui: &Ui) -> Result<Lock> {
    Lock::take(&paths.state, LOCK, |text| ui.say(text))
}

/// Puts a fault in, and takes it out again after `limit` where one is given. Without one it returns when the fault is in force.
pub fn inject(paths: &Paths, ui: &Ui, kind: Kind, target: &Target, limit: Option<Duration>) -> Result<()> {
    inject_with(paths, ui, kind, target, &Options::default(), limit)
}

/// As [`inject`], for faults that take more than a target. `stutter` without a limit returns when its last pause is over.
pub fn inject_with(
    paths: &Paths,
    ui: &Ui,
    kind: Kind,
    target: &Target,
    options: &Options,
    limit: Option<Duration>,
) -> Result<()> {
    let faults = {
        let _lock = lock(paths, ui)?;
        let scene = Scene::new(paths, ui)?;
        let put = put_in(&scene, kind, target, options);
        let entered = scene.entered.take();
        if let Err(error) = put {
            // One that could not be put in whole is taken out; what only a repair can undo stays on record for `heal`.
            for fault in record::undo_order(&entered) {
                if matches!(undo_in_place(paths, &scene.state, &fault), Ok(Undone::Whole)) {
                    forget(paths, &fault)?;
                }
            }
            return Err(error.context(format!("{kind} of {} was not put in", target.describe())));
        }
        entered
    };
    faults.iter().for_each(|fault| ui.say(&fault.describe()));
    let until = match limit {
        Some(limit) => format!("for {} s", limit.as_secs_f64()),
        None if faults.is_empty() => "done; there is nothing to undo".to_owned(),
        None => "until `cargo lab heal`".to_owned(),
    };
    ui.say(&format!("{kind} of {}: in force, {until}", target.describe()));
    check_holders(paths, kind, &faults)?;
    match limit {
        Some(limit) => hold_on(limit, options.until_eof),
        None if kind == Kind::Stutter => {
            for fault in &faults {
                if let Active::EndHolder { id, .. } = fault {
                    holder::wait_done(paths, id);
                }
            }
        }
        None => return Ok(()),
    }
    undo(paths, ui, &faults)?;
    ui.say(&format!("{kind} of {}: undone", target.describe()));
    Ok(())
}

/// Waits for so long, or until nobody holds the other end of standard input any more.
fn hold_on(limit: Duration, until_eof: bool) {
    if !until_eof {
        return std::thread::sleep(limit);
    }
    let (sender, ended) = sync_channel(1);
    // It ends with this process at the latest, which has nothing else to do than what comes next.
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        sender.send(()).ok();
    });
    // Either way the time is over.
    ended.recv_timeout(limit).ok();
}

/// A holder that cannot do its work ends at once, and that must not look like a fault in force.
fn check_holders(paths: &Paths, kind: Kind, faults: &[Active]) -> Result<()> {
    if kind == Kind::Stutter || !faults.iter().any(|f| matches!(f, Active::EndHolder { .. })) {
        return Ok(());
    }
    std::thread::sleep(HELD_FOR);
    let left = active(paths)?;
    for fault in faults {
        let Active::EndHolder { what, id, .. } = fault else { continue };
        if !left.iter().any(|f| matches!(f, Active::EndHolder { id: own, .. } if own == id)) {
            bail!("{kind} of {what} ended at once; {}", holder::last_words(paths));
        }
    }
    Ok(())
}

fn put_in(scene: &Scene<'_>, kind: Kind, target: &Target, options: &Options) -> Result<()> {
    match (kind, target) {
        (Kind::KafkaDown, _) => cluster::stop_kafka(scene),
        (Kind::ApiDown, _) => cluster::kill_control_plane(scene),
        (Kind::DnsDown, _) => cluster::freeze_dns(scene),
        (Kind::ImagePull, _) => images::hide(scene, images::PRODUCT),
        (Kind::SlowAll, _) => slow_all(scene, options),
        (Kind::ZoneLoss, Target::Zone(zone)) => cluster::lose(scene, &target::zone(&scene.state, zone)?),
        (_, Target::Part(name)) => on_part(scene, kind, name),
        (_, Target::Node(name)) => on_node(scene, kind, target::node(&scene.state, name)?, options),
        (_, Target::Replica { name, namespace }) => {
            on_replica(scene, kind, &target::pod(&scene.api, name, namespace.as_deref())?, options)
        }
        (_, Target::Pod { name, namespace }) => {
            on_pods(scene, kind, &[target::pod(&scene.api, name, namespace.as_deref())?], options)
        }
        (_, Target::Operator(which)) => on_pods(scene, kind, &target::operators(&scene.api, *which)?, options),
        (_, Target::Zone(_)) => bail!("a zone can be hit by zone-loss"),
        (Kind::ZoneLoss, Target::Lab) => bail!("say which zone with --zone"),
        (_, Target::Lab) => bail!("say what to hit with one of --replica, --node, --pod, --operator and --part"),
    }
}

/// Takes mutexes of the mysqld of a pod.
fn deadlock(scene: &Scene<'_>, pod: &Pod, reach: Reach) -> Result<()> {
    process::mysqld(pod)?.into_iter().try_for_each(|mysqld| mutex::lock(scene, pod, mysqld, reach))
}

fn on_replica(scene: &Scene<'_>, kind: Kind, pod: &Pod, options: &Options) -> Result<()> {
    let volume = || target::volume_of(&scene.api, scene.paths, pod);
    let what = pod.what();
    match kind {
        Kind::Kill => {
            process::kill(scene, &what, &process::mysqld(pod)?);
            Ok(())
        }
        Kind::Freeze => process::stop(scene, what, process::mysqld(pod)?),
        Kind::Deadlock => deadlock(scene, pod, Reach::Tables),
        Kind::Mute => deadlock(scene, pod, Reach::Greetings),
        Kind::Stall => volume::throttle(scene, what, &volume()?, Pace::Stalled),
        Kind::Slow => volume::throttle(scene, what, &volume()?, Pace::Operations(options.iops)),
        Kind::Wedge => volume::wedge(scene, what, &volume()?),
        Kind::Eio => volume::break_device(scene, what, &volume()?),
        Kind::ReadOnly => volume::make_read_only(scene, what, &volume()?),
        Kind::DiskFull => volume::fill(scene, what, &volume()?),
        Kind::Oom => oom::starve(scene, pod),
        Kind::ExhaustConnections => {
            let address = format!("{}:{}", pod.address, database::MYSQL_PORT);
            holder::start(scene, what, Work::Exhaust { address })
        }
        Kind::LongDdl => holder::start(scene, what, Work::LongDdl { replica: database::Replica::of(pod)? }),
        Kind::HeavyQueries => holder::start(scene, what, Work::HeavyQueries { replica: database::Replica::of(pod)? }),
        Kind::Stutter => {
            process::mysqld(pod)?;
            stutter(scene, what, vec![Victims::Mysqld(pod.uid.clone())], options)
        }
        Kind::Lie => {
            let fault = network::lie(scene, pod, target::node(&scene.state, &pod.node)?)?;
            if options.flap { flap(scene, &fault) } else { Ok(()) }
        }
        Kind::Errant => standby::write_alone(&scene.api, pod),
        Kind::BreakReplication => standby::break_replication(&scene.api, pod),
        Kind::Corrupt => standby::corrupt(scene, pod),
        Kind::Lag => holder::start(scene, what, Work::Lag { replica: standby::of(pod)? }),
        Kind::NodeFreeze | Kind::NodeLoss | Kind::Isolate | Kind::Drain => {
            on_node(scene, kind, target::node(&scene.state, &pod.node)?, options)
        }
        _ => on_pods(scene, kind, std::slice::from_ref(pod), options),
    }
}

/// What any pod can be hit by.
fn on_pods(scene: &Scene<'_>, kind: Kind, pods: &[Pod], options: &Options) -> Result<()> {
    match kind {
        Kind::Stutter => {
            let victims = pods.iter().map(|pod| Victims::Pod(pod.uid.clone())).collect();
            let names: Vec<_> = pods.iter().map(Pod::what).collect();
            stutter(scene, names.join(", "), victims, options)
        }
        _ => pods.iter().try_for_each(|pod| match kind {
            Kind::Kill => {
                process::kill(scene, &pod.what(), &process::all(pod)?);
                Ok(())
            }
            Kind::Freeze => process::stop(scene, pod.what(), process::all(pod)?),
            Kind::FreezePod => process::freeze_pod(scene, pod),
            Kind::ClockJump => clock::jump(scene, pod, options.by),
            Kind::Cut => cut(scene, pod, &options.from, options.flap),
            _ => bail!(
                "{kind} does not hit a pod; a pod, and so the operator, can be hit by kill, freeze, freeze-pod, stutter, \
                 clock-jump and cut"
            ),
        }),
    }
}

fn on_node(scene: &Scene<'_>, kind: Kind, node: &Node, options: &Options) -> Result<()> {
    match kind {
        Kind::NodeLoss | Kind::Kill => cluster::lose(scene, &[node]),
        Kind::NodeFreeze | Kind::Freeze => process::freeze_node(scene, node),
        Kind::Drain => cluster::drain(scene, node),
        Kind::Stutter => {
            let cgroup = process::gather(&scene.state, node)?;
            stutter(scene, node.name(), vec![Victims::Cgroup(cgroup)], options)
        }
        Kind::Cut => {
            let fault = network::cut(scene, End::Node(node), node, &options.from)?;
            if options.flap { flap(scene, &fault) } else { Ok(()) }
        }
        Kind::Isolate => {
            scene.record(Active::PlugCable { node: node.name() })?;
            net::set_cable(node, false)
        }
        _ => bail!(
            "{kind} does not hit a node; a node can be hit by node-loss, node-freeze, stutter, cut, isolate and drain"
        ),
    }
}

fn on_part(scene: &Scene<'_>, kind: Kind, name: &str) -> Result<()> {
    match kind {
        Kind::Kill => cluster::kill_part(scene, name),
        Kind::Freeze => cluster::stop_parts(scene, &[name.to_owned()]),
        _ => bail!("a part can be hit by kill or freeze"),
    }
}

fn stutter(scene: &Scene<'_>, what: String, victims: Vec<Victims>, options: &Options) -> Result<()> {
    for victim in &victims {
        if let Victims::Cgroup(cgroup) = victim {
            scene.record(Active::ThawCgroup { what: what.clone(), cgroup: cgroup.clone() })?;
        }
    }
    holder::start(scene, what, Work::Stutter { victims, times: options.times })
}

fn cut(scene: &Scene<'_>, pod: &Pod, from: &[Peer], is_flapping: bool) -> Result<()> {
    let fault = network::cut(scene, End::Pod(pod), target::node(&scene.state, &pod.node)?, from)?;
    if is_flapping { flap(scene, &fault) } else { Ok(()) }
}

fn flap(scene: &Scene<'_>, fault: &Active) -> Result<()> {
    let (what, netns, table, chain) = match fault {
        Active::Uncut { what, netns, chain, .. } => (what, netns, Table::Mangle, chain),
        Active::Admit { what, netns, chain, .. } => (what, netns, Table::Filter, chain),
        _ => bail!("only a cut and a lie can flap"),
    };
    holder::start(scene, what.clone(), Work::Flap { netns: netns.clone(), table, chain: chain.clone() })
}

fn slow_all(scene: &Scene<'_>, options: &Options) -> Result<()> {
    let volumes = volume::mounted(scene.paths, &scene.state)?;
    if volumes.is_empty() {
        bail!("no volume is mounted");
    }
    let pace = Pace::Operations(options.iops);
    volumes.iter().try_for_each(|v| volume::throttle(scene, v.node.clone(), v, pace))
}

/// Takes these faults out, each as far as the others let it.
fn undo(paths: &Paths, ui: &Ui, faults: &[Active]) -> Result<()> {
    let lost = lost_nodes(&Api::new(paths), faults);
    let mut by_repair = Vec::new();
    let mut failed = Vec::new();
    {
        let _lock = lock(paths, ui)?;
        let state = State::load(paths)?;
        for fault in record::undo_order(faults) {
            match undo_in_place(paths, &state, &fault) {
                Ok(Undone::Whole) => forget(paths, &fault)?,
                Ok(Undone::Later(why)) => ui.say(&format!("not undone yet: {why}")),
                Ok(Undone::ByRepair) => by_repair.push(fault),
                Err(error) => failed.push(format!("{}: {error:#}", fault.describe())),
            }
        }
    }
    repair(paths, ui, &by_repair, &lost)?;
    if !failed.is_empty() {
        bail!("not undone, and still on record for `cargo lab heal`: {}", failed.join("; "));
    }
    Ok(())
}

type Lost = (String, std::collections::BTreeSet<String>);

/// The nodes that are lost, with what Kubernetes believes to run there.
fn lost_nodes(api: &Api, faults: &[Active]) -> Vec<Lost> {
    let lost = faults.iter().filter_map(|fault| match fault {
        Active::StartNode { node } => Some((node.clone(), node::believed_to_run(api, node)?)),
        _ => None,
    });
    lost.collect()
}

/// Starts what was killed, and undoes what takes a lab that runs.
fn repair(paths: &Paths, ui: &Ui, faults: &[Active], lost: &[Lost]) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    crate::up::repair(paths, ui)?;
    let api = Api::new(paths);
    for (node, before) in lost {
        node::wait_reported(&api, node, before)?;
    }
    let _lock = lock(paths, ui)?;
    for fault in faults {
        if let Active::Uncordon { node } = fault {
            cluster::set_cordon(&api, node, false)?;
        }
        forget(paths, fault)?;
    }
    Ok(())
}

/// Takes out what needs no part to be started. The lock is held.
fn undo_in_place(paths: &Paths, state: &State, fault: &Active) -> Result<Undone> {
    let volume = |node: &String, name: &String| Volume { node: node.clone(), name: name.clone() };
    match fault {
        Active::EndHolder { work, process, id, .. } => {
            // It may have been recorded with its process since this was read.
            let known = active(paths)?.into_iter().find_map(|f| match f {
                Active::EndHolder { id: own, process, .. } if own == *id => process,
                _ => None,
            });
            // Without its record it ends by itself, and in order.
            forget(paths, fault)?;
            holder::end(known.as_ref().or(process.as_ref()));
            work.clean_up();
        }
        Active::Continue { processes, .. } => processes.iter().for_each(|p| p.signal(Signal::CONT)),
        Active::ThawCgroup { cgroup, .. } => {
            // The pod may be gone, and its cgroup with it.
            if cgroup.exists() {
                process::freeze_cgroup(cgroup, false)?;
            }
        }
        Active::ThawVolume { node, volume: name, .. } => {
            let mount_point = volume(node, name).mount_point(paths);
            if crate::volume::is_mounted(&mount_point)? {
                // The record comes before the freeze, so it may never have been frozen.
                crate::volume::freeze(&mount_point, false).unwrap_or(());
            }
        }
        Active::Unthrottle { device, .. } => self::volume::unthrottle(device),
        Active::Enlarge { device, .. } => self::volume::enlarge(device)?,
        Active::Remount { node, volume: name, .. } => {
            let volume = volume(node, name);
            if crate::volume::is_mounted(&volume.mount_point(paths))? {
                return self::volume::remount(paths, &volume);
            }
        }
        Active::RemoveFile { file, .. } => self::volume::remove_file(file)?,
        Active::Uncut { netns, chain, .. } => network::join(netns, Table::Mangle, chain)?,
        Active::Admit { netns, chain, .. } => network::join(netns, Table::Filter, chain)?,
        Active::ShowImage { node, image } => {
            if !state.is_alive(node) {
                return Ok(Undone::Later(format!("{node} is down, and lacks {image}")));
            }
            images::show(paths, node, image)?;
        }
        Active::Unlock { process, mutexes, .. } => mutex::unlock(process, mutexes)?,
        Active::ResetClock { patches, .. } => clock::reset(patches)?,
        Active::ResetMemory { cgroup, limit, .. } => oom::reset(cgroup, limit)?,
        Active::PlugCable { node } => {
            if state.is_alive(node) {
                net::set_cable(target::node(state, node)?, true)?;
            }
        }
        Active::StartNode { .. } | Active::StartPart { .. } | Active::Uncordon { .. } => {
            return Ok(Undone::ByRepair);
        }
    }
    Ok(Undone::Whole)
}

/// Takes all faults out that keep something standing still, recorded or not. Needs nothing of the cluster to work; `down` begins so.
/// What cannot be taken out goes with the lab.
pub fn release_all(paths: &Paths, state: &State) -> Result<()> {
    for fault in record::undo_order(&active(paths).unwrap_or_default()) {
        if let Err(error) = undo_in_place(paths, state, &fault) {
            println!("{}: {error:#}", fault.describe());
        }
    }
    release_unrecorded(paths)
}

/// What a record that was lost would have named.
fn release_unrecorded(paths: &Paths) -> Result<()> {
    self::volume::release_all(paths);
    cgroup::thaw_all();
    crate::volume::thaw_all(paths)?;
    let mark = format!("/{CGROUP}/");
    for pid in crate::process::all_pids() {
        let stopped = crate::process::stat(pid).is_some_and(|s| s.state == 'T');
        let cgroups = || std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        if stopped && cgroups().is_ok_and(|c| c.contains(&mark)) {
            crate::process::Process::of_pid(pid).inspect(|p| p.signal(Signal::CONT));
        }
    }
    Ok(())
}

/// `cargo lab heal`: takes out everything that is in force and starts what was killed.
pub fn heal(paths: &Paths, ui: &Ui) -> Result<()> {
    let faults = active(paths)?;
    {
        let _lock = lock(paths, ui)?;
        release_unrecorded(paths)?;
    }
    undo(paths, ui, &faults)?;
    if !faults.iter().any(Active::needs_repair) {
        // What died without a record is started too.
        crate::up::repair(paths, ui)?;
    }
    let left = active(paths)?;
    faults
        .iter()
        .filter(|fault| !left.contains(fault))
        .for_each(|fault| ui.say(&format!("healed {}", fault.describe())));
    if faults.is_empty() {
        ui.say("no fault was in force");
    }
    Ok(())
}
