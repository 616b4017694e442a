//! Volumes that hang, answer with errors, turn read-only, get slow or full. Each is an ext4 on a loop device of its own, so what is
//! done to the device or the file system reaches nobody else, and costs nothing while no fault is in force.
//!
//! - hang, slow: cgroup v1's `blkio.throttle` of the device, in every cgroup of the lab and in the root, to which the kernel counts
//!   the journal and what is written back later. A limit holds for its own cgroup only, not for those below.
//! - EIO: the loop device is made 4 KiB long; what lies behind that ends in an error, and comes back with the device's size.
//! - read-only: ext4's own answer to an error (`errors=remount-ro`), which it is told to have met. A plain remount is refused while
//!   files are open for writing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::Scene;
use super::record::{Active, Pace, Undone};
use crate::paths::Paths;
use crate::run;
use crate::volume::{self, Volume};
use crate::{cgroup, state};

/// How long a device is while it answers EIO, in bytes.
const STUMP: u64 = 4096;
/// Below the one directory of a file system in which nobody keeps anything.
const FILLER: &str = "lost+found/understudy-lab-filler";

/// `LOOP_GET_STATUS64`, the limit of the size at byte 32, `LOOP_SET_STATUS64`. losetup can set the limit only with a new device.
const SET_SIZE_LIMIT: &str = r#"open(my $d, "+<", $ARGV[0]) or die "$!\n"; my $s = "\0" x 232;
ioctl($d, 0x4C05, $s) or die "LOOP_GET_STATUS64: $!\n"; substr($s, 32, 8) = pack("Q", $ARGV[1]);
ioctl($d, 0x4C04, $s) or die "LOOP_SET_STATUS64: $!\n";"#;

/// The loop device under a volume.
pub fn device(paths: &Paths, volume: &Volume) -> Result<PathBuf> {
    let found = volume::loop_devices(&volume.image(paths)).into_iter().next();
    found.with_context(|| format!("{} on {} has no loop device", volume.name, volume.node))
}

fn in_sysfs(device: &Path) -> PathBuf {
    Path::new("/sys/block").join(device.file_name().unwrap_or_default())
}

/// `major:minor`.
fn number(device: &Path) -> Result<String> {
    let file = in_sysfs(device).join("dev");
    Ok(fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?.trim().to_owned())
}

/// Writes to the file system hang; reads answer.
pub fn wedge(scene: &Scene<'_>, what: String, volume: &Volume) -> Result<()> {
    scene.record(Active::ThawVolume { what, node: volume.node.clone(), volume: volume.name.clone() })?;
    volume::freeze(&volume.mount_point(scene.paths), true)
}

/// The device gets slow, or as good as stands still.
pub fn throttle(scene: &Scene<'_>, what: String, volume: &Volume, pace: Pace) -> Result<()> {
    if matches!(pace, Pace::Operations(0)) {
        bail!("a disk of 0 operations a second is `stall`; --iops takes 1 or more");
    }
    let device = number(&device(scene.paths, volume)?)?;
    scene.record(Active::Unthrottle {
        what,
        node: volume.node.clone(),
        volume: volume.name.clone(),
        device: device.clone(),
        pace,
    })?;
    for (file, rate) in limits(pace) {
        for dir in cgroup::all("blkio") {
            let written = fs::write(dir.join(file), rule(&device, rate));
            // A container's cgroup may have gone meanwhile.
            if dir.exists() {
                written.with_context(|| format!("cannot limit {device} in {}", dir.display()))?;
            }
        }
    }
    Ok(())
}

/// Files of a blkio cgroup, and what is allowed a second.
fn limits(pace: Pace) -> Vec<(&'static str, u32)> {
    let (bytes, operations) = (
        ["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"],
        ["blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"],
    );
    match pace {
        Pace::Stalled => bytes.map(|file| (file, 1)).into_iter().collect(),
        Pace::Operations(n) => operations.map(|file| (file, n)).into_iter().collect(),
    }
}

fn rule(device: &str, rate: u32) -> String {
    format!("{device} {rate}")
}

/// Takes every limit of a device away; what waits goes on at once.
pub fn unthrottle(device: &str) {
    unthrottle_where(|limited| limited == device);
}

/// Only limits that are there are taken away: the kernel begins to count the operations of a device with the first that is written.
fn unthrottle_where(is_wanted: impl Fn(&str) -> bool) {
    for (file, _) in [limits(Pace::Stalled), limits(Pace::Operations(1))].concat() {
        for dir in cgroup::all("blkio") {
            let rules = fs::read_to_string(dir.join(file)).unwrap_or_default();
            for device in limited(&rules).filter(|device| is_wanted(device)) {
                // The device or the cgroup may be gone, and the limit with it.
                fs::write(dir.join(file), rule(device, 0)).ok();
            }
        }
    }
}

/// The devices of a file of limits, a line each. Pure.
fn limited(rules: &str) -> impl Iterator<Item = &str> {
    rules.lines().filter_map(|line| line.split_whitespace().next())
}

/// The device answers EIO.
pub fn break_device(scene: &Scene<'_>, what: String, volume: &Volume) -> Result<()> {
    let device = device(scene.paths, volume)?;
    scene.record(Active::Enlarge {
        what,
        node: volume.node.clone(),
        volume: volume.name.clone(),
        device: device.clone(),
    })?;
    set_size_limit(&device, STUMP)
}

/// Gives a device all of its file, if it has less.
pub fn enlarge(device: &Path) -> Result<()> {
    let limit = fs::read_to_string(in_sysfs(device).join("loop/sizelimit")).unwrap_or_default();
    // Without a file behind it there is no limit either.
    if limit.trim().is_empty() || limit.trim() == "0" { Ok(()) } else { set_size_limit(device, 0) }
}

fn set_size_limit(device: &Path, bytes: u64) -> Result<()> {
    let mut perl = run::cmd(["perl", "-e", SET_SIZE_LIMIT]);
    perl.arg(device).arg(bytes.to_string());
    run::output(&mut perl).with_context(|| format!("cannot set the size of {}", device.display())).map(drop)
}

/// The file system meets an error and turns read-only.
pub fn make_read_only(scene: &Scene<'_>, what: String, volume: &Volume) -> Result<()> {
    let device = device(scene.paths, volume)?;
    let trigger = ext4_of(&device).join("trigger_fs_error");
    scene.record(Active::Remount { what, node: volume.node.clone(), volume: volume.name.clone() })?;
    run::output(run::sh("mount -o remount,errors=remount-ro").arg(volume.mount_point(scene.paths)))?;
    fs::write(&trigger, "cargo lab fault read-only").with_context(|| format!("cannot write {}", trigger.display()))
}

/// There as long as the kernel has the file system, whoever has it mounted.
fn ext4_of(device: &Path) -> PathBuf {
    Path::new("/sys/fs/ext4").join(device.file_name().unwrap_or_default())
}

/// Mounts a file system anew that gave up, which takes that nobody uses it.
pub fn remount(paths: &Paths, volume: &Volume) -> Result<Undone> {
    let mount_point = volume.mount_point(paths);
    if !gave_up(&cgroup::mount_table(), &mount_point) {
        return Ok(Undone::Whole);
    }
    let later = || Undone::Later(format!("{} stays read-only as long as its pod is there: delete that", volume.name));
    let device = device(paths, volume)?;
    if run::output(run::sh("umount").arg(&mount_point)).is_err() {
        return Ok(later());
    }
    let is_used = ext4_of(&device).exists();
    volume.ensure_mounted(paths)?;
    Ok(if is_used { later() } else { Undone::Whole })
}

/// Whether a file system ended itself after an error. Pure.
fn gave_up(mounts: &str, mount_point: &Path) -> bool {
    mounts.lines().any(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        let options = fields.get(3).into_iter().flat_map(|options| options.split(','));
        // Older kernels say `ro`.
        fields.get(1).is_some_and(|at| Path::new(at) == mount_point)
            && options.into_iter().any(|o| ["emergency_ro", "shutdown", "ro"].contains(&o))
    })
}

/// Fills a file system to its last block. The blocks are reserved, not written.
pub fn fill(scene: &Scene<'_>, what: String, volume: &Volume) -> Result<()> {
    let mount_point = volume.mount_point(scene.paths);
    let path = mount_point.join(FILLER);
    scene.record(Active::RemoveFile { what, file: path.clone() })?;
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let free = statvfs(mount_point.as_path())?;
    let block = free.f_frsize.max(1);
    let (mut at, mut blocks) = (0, free.f_bavail.max(1));
    while blocks > 0 {
        match fallocate(&file, FallocateFlags::empty(), at, blocks * block) {
            Ok(()) => at += blocks * block,
            Err(Errno::NOSPC) => blocks /= 2,
            Err(error) => return Err(error).with_context(|| format!("cannot fill {}", path.display())),
        }
    }
    scene.ui.say(&format!("{}: {} MiB were free, and are not", volume.name, at >> 20));
    Ok(())
}

/// Deletes a file that fills a volume.
pub fn remove_file(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot delete {}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Every volume of the lab that is mounted.
pub fn mounted(paths: &Paths, state: &state::State) -> Result<Vec<Volume>> {
    let root = paths.volumes();
    let mounts = volume::mounts_under(&root)?;
    let found = mounts.iter().filter_map(|mount| {
        let mut parts = mount.strip_prefix(&root).ok()?.iter();
        let (node, name) = (parts.next()?.to_str()?, parts.next()?.to_str()?);
        Some(Volume { node: node.to_owned(), name: name.to_owned() })
    });
    Ok(found.filter(|v| state.nodes.iter().any(|n| n.name() == v.node)).collect())
}

/// Sets going what stands still on any device of the lab, recorded or not.
pub fn release_all(paths: &Paths) {
    let devices = volume::all_loop_devices();
    let ours: Vec<_> =
        devices.iter().filter(|(_, backing)| backing.starts_with(&paths.state)).map(|(d, _)| d).collect();
    let numbers: Vec<_> = ours.iter().filter_map(|device| number(device).ok()).collect();
    unthrottle_where(|limited| numbers.iter().any(|number| number == limited));
    for device in ours {
        enlarge(device).unwrap_or(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_device_gets_a_byte_a_second_and_a_slow_one_so_many_operations() {
        assert_eq!(
            limits(Pace::Stalled),
            [("blkio.throttle.read_bps_device", 1), ("blkio.throttle.write_bps_device", 1)]
        );
        assert_eq!(
            limits(Pace::Operations(20)),
            [("blkio.throttle.read_iops_device", 20), ("blkio.throttle.write_iops_device", 20)]
        );
        assert_eq!(rule("7:3", 20), "7:3 20");
        assert_eq!(limited("7:3 20\n7:30 1\n").collect::<Vec<_>>(), ["7:3", "7:30"]);
    }

    #[test]
    fn only_a_file_system_that_ended_itself_is_mounted_anew() {
        let at = Path::new("/s/volumes/n/pvc-1");
        for (case, options, want) in [
            ("in order", "rw,noatime", false),
            ("told what to do about errors", "rw,noatime,errors=remount-ro", false),
            ("after an error", "rw,noatime,errors=remount-ro,emergency_ro", true),
            ("after an error, on an older kernel", "ro,noatime,errors=remount-ro", true),
            ("shut down", "rw,noatime,shutdown", true),
        ] {
            let other = "/dev/loop9 /s/volumes/n/pvc-10 ext4 ro,emergency_ro 0 0\n";
            assert_eq!(
                gave_up(&format!("{other}/dev/loop0 /s/volumes/n/pvc-1 ext4 {options} 0 0\n"), at),
                want,
                "{case}"
            );
        }
    }
}
