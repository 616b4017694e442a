//! Volumes: each is an ext4 of its own on a loop device of its own, in an image file on its node's disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::run;

/// Name of the provisioner in the StorageClass and on volumes.
pub const PROVISIONER: &str = "lab.understudy.dev/loop-ext4";
/// The StorageClass.
pub const STORAGE_CLASS: &str = "loop-ext4";

/// A volume on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Node whose disk holds it.
    pub node: String,
    /// Name of the PersistentVolume.
    pub name: String,
}

impl Volume {
    /// Image file on the node's disk.
    pub fn image(&self, paths: &Paths) -> PathBuf {
        paths.disks(&self.node).join(format!("{}.img", self.name))
    }

    /// Where it is mounted.
    pub fn mount_point(&self, paths: &Paths) -> PathBuf {
        paths.volume(&self.node, &self.name)
    }

    /// Makes the image with an empty file system, if it does not exist. The image gets its name when it is whole.
    pub fn ensure_image(&self, paths: &Paths, bytes: u64) -> Result<()> {
        let image = self.image(paths);
        if image.is_file() {
            return Ok(());
        }
        let temporary = image.with_extension("new");
        // Sparse, and zero by construction, so that nothing has to be zeroed in the background later.
        fs::File::create(&temporary)?.set_len(bytes)?;
        run::output(
            run::sh("mkfs.ext4 -q -F -m 0 -i 65536 -E lazy_itable_init=0,lazy_journal_init=1 -L")
                .arg("volume")
                .arg(&temporary),
        )?;
        Ok(fs::rename(temporary, image)?)
    }

    /// Attaches and mounts the volume, if it is not mounted.
    pub fn ensure_mounted(&self, paths: &Paths) -> Result<()> {
        let mount_point = self.mount_point(paths);
        if is_mounted(&mount_point)? {
            return Ok(());
        }
        fs::create_dir_all(&mount_point)?;
        let image = self.image(paths);
        let device = match loop_devices(&image).into_iter().next() {
            Some(device) => device,
            // Direct: the image's pages would otherwise be cached a second time, and a flush would cost three times as much.
            None => run::output(run::sh("losetup --find --show --direct-io=on").arg(&image))?.trim().into(),
        };
        run::output(run::sh("mount -t ext4 -o noatime").arg(&device).arg(&mount_point))?;
        Ok(())
    }

    /// Unmounts, detaches and deletes the volume. False when something in a node still uses it: try again later.
    pub fn free(&self, paths: &Paths) -> Result<bool> {
        let (mount_point, image) = (self.mount_point(paths), self.image(paths));
        if is_mounted(&mount_point)? {
            run::output(run::sh("umount").arg(&mount_point))?;
        }
        for device in loop_devices(&image) {
            // The kernel detaches it when its last mount is gone; until then it stays in the list.
            run::output(run::sh("losetup --detach").arg(device))?;
        }
        if !loop_devices(&image).is_empty() {
            return Ok(false);
        }
        for file in [image.clone(), image.with_extension("new")] {
            if file.exists() {
                fs::remove_file(&file).with_context(|| format!("cannot delete {}", file.display()))?;
            }
        }
        if mount_point.is_dir() {
            fs::remove_dir(&mount_point)?;
        }
        Ok(true)
    }
}

/// Makes the parent of all volumes a mount whose children reach the nodes. Must come before the first node starts.
pub fn ensure_shared(paths: &Paths) -> Result<()> {
    let dir = paths.volumes();
    fs::create_dir_all(&dir)?;
    if !is_mounted(&dir)? {
        run::output(run::sh("mount --bind").arg(&dir).arg(&dir))?;
        run::output(run::sh("mount --make-private").arg(&dir))?;
        run::output(run::sh("mount --make-shared").arg(&dir))?;
    }
    Ok(())
}

/// Whether something is mounted exactly there, in this mount namespace.
pub fn is_mounted(path: &Path) -> Result<bool> {
    Ok(mounts_under(path)?.iter().any(|m| m == path))
}

/// Mount points at or under `path`, the deepest first.
pub fn mounts_under(path: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    let mut found = mount_points(&table, path);
    found.sort_by_key(|p| std::cmp::Reverse(p.components().count()));
    Ok(found)
}

fn mount_points(table: &str, below: &Path) -> Vec<PathBuf> {
    table.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from).filter(|p| p.starts_with(below)).collect()
}

/// Loop devices whose backing file is `image`.
pub fn loop_devices(image: &Path) -> Vec<PathBuf> {
    all_loop_devices().into_iter().filter(|(_, backing)| backing == image).map(|(device, _)| device).collect()
}

/// All loop devices in use, with their backing files; a deleted file keeps its former name.
pub fn all_loop_devices() -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let backing = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            let backing = backing.trim_end();
            let backing = backing.strip_suffix(" (deleted)").unwrap_or(backing);
            Some((Path::new("/dev").join(entry.file_name()), PathBuf::from(backing)))
        })
        .collect()
}

/// Stops or lets through writes to a mounted file system.
pub fn freeze(mount_point: &Path, frozen: bool) -> Result<()> {
    run::output(run::sh(if frozen { "fsfreeze --freeze" } else { "fsfreeze --unfreeze" }).arg(mount_point)).map(|_| ())
}

/// Thaws every volume of the lab; those that were not frozen are left as they are. Returns how many were.
pub fn thaw_all(paths: &Paths) -> Result<usize> {
    let root = paths.volumes();
    let mounted = mounts_under(&root)?;
    Ok(mounted.iter().filter(|p| **p != root && freeze(p, false).is_ok()).count())
}

/// Bytes of a Kubernetes quantity such as `10Gi`, `500M` or `1073741824`.
pub fn parse_quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let unit: f64 = match suffix {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => f64::from(1 << 10),
        "Mi" => f64::from(1 << 20),
        "Gi" => f64::from(1 << 30),
        "Ti" => f64::from(1 << 30) * 1024.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * unit;
    (1.0..1e18).contains(&bytes).then_some(bytes.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, want) in [
            ("10Gi", Some(10 << 30)),
            ("1.5Mi", Some(1_572_864)),
            ("500M", Some(500_000_000)),
            ("1073741824", Some(1 << 30)),
            ("0", None),
            ("10GB", None),
            ("-1Gi", None),
            ("", None),
        ] {
            assert_eq!(parse_quantity(text), want, "{text}");
        }
    }

    #[test]
    fn only_mounts_at_or_under_the_path_are_found() {
        let table = "1 2 3:4 / /s/volumes rw - ext4 /dev/vda rw\n2 2 7:0 / /s/volumes/n/pvc-1 rw - ext4 /dev/loop0 rw\n\
                     3 2 7:1 / /s/volumes2 rw - ext4 /dev/loop1 rw\n";
        assert_eq!(mount_points(table, Path::new("/s/volumes")).len(), 2);
    }
}
