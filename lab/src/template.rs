//! A containerd directory with the images every node needs, made once and kept in the cache. A new node gets it as hard links, which
//! takes a second instead of half a minute of unpacking: blobs and unpacked layers are never changed in place, only the two databases
//! are copied.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::image::{Prepared, hex};
use crate::import;
use crate::paths::Paths;
use crate::progress::Ui;
use crate::state::Lock;
use crate::topology::Node;
use crate::{api, run};

/// Files that containerd changes in place.
const DATABASES: [&str; 2] =
    ["io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"];

/// Gives the node's empty disk the images.
pub fn fill(paths: &Paths, ui: &Ui, images: &[Prepared], node: &Node) -> Result<()> {
    let target = paths.node(&node.name()).join("containerd");
    if target.join(DATABASES[0]).exists() {
        return Ok(());
    }
    let template = ensure(paths, ui, images)?;
    // Filled beside and renamed: half a disk must not pass for a whole one.
    let filling = target.with_extension("new");
    for dir in [&filling, &target] {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
    }
    fs::create_dir_all(&filling)?;
    let from = format!("{}/.", template.display());
    // The cache may lie on another file system, where links cannot reach.
    if !run::succeeds(run::sh("cp --archive --link").arg(&from).arg(&filling)) {
        run::output(run::sh("cp --archive").arg(&from).arg(&filling))?;
    }
    for database in DATABASES {
        let (own, shared) = (filling.join(database), template.join(database));
        fs::remove_file(&own).and_then(|()| fs::copy(&shared, &own)).with_context(|| format!("no {database}"))?;
    }
    fs::rename(&filling, &target)?;
    images.iter().try_for_each(|image| import::remember(paths, node, image))
}

fn ensure(paths: &Paths, ui: &Ui, images: &[Prepared]) -> Result<PathBuf> {
    let target = paths.cache.join(format!("images-{}", fingerprint(images)));
    if target.is_dir() {
        return Ok(target);
    }
    let _lock = Lock::take(&paths.cache, ".lock", |text| ui.say(text))?;
    for entry in fs::read_dir(&paths.cache)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("images-") || name.starts_with(".tmp-images") {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let names: Vec<_> = images.iter().map(Prepared::name).collect();
    let step = ui.step(&format!("unpack {}", names.join(", ")), None);
    let temporary = paths.cache.join(".tmp-images");
    let (root, scratch) = (temporary.join("root"), temporary.join("state"));
    fs::create_dir_all(&scratch)?;
    let mut daemon = containerd(&root, &scratch)?;
    let imported = import_all(&scratch.join("containerd.sock"), images);
    // It is idle by now, and its databases are written at each commit.
    daemon.kill()?;
    daemon.wait()?;
    imported?;
    fs::rename(&root, &target)?;
    fs::remove_dir_all(&temporary)?;
    step.done();
    Ok(target)
}

fn containerd(root: &Path, scratch: &Path) -> Result<Child> {
    let config = scratch.join("config.toml");
    fs::write(
        &config,
        format!(
            "version = 2\nroot = {root:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            scratch.join("run"),
            scratch.join("containerd.sock")
        ),
    )?;
    let log = fs::File::create(scratch.join("log"))?;
    let mut command = run::sh("unshare --mount --pid --fork --kill-child --mount-proc containerd --config");
    command.arg(config);
    run::tied(&command).stdout(Stdio::null()).stderr(log).spawn().context("cannot run `containerd`")
}

fn import_all(socket: &Path, images: &[Prepared]) -> Result<()> {
    api::wait(Duration::from_secs(30), "containerd does not answer", || {
        Ok(socket.exists() && run::succeeds(run::sh("ctr --address").arg(socket).arg("version")))
    })?;
    for image in images {
        if let Err(error) = import::stream(socket, image) {
            bail!("cannot unpack {}: {error:#}", image.name());
        }
    }
    Ok(())
}

fn fingerprint(images: &[Prepared]) -> String {
    let mut hash = Sha256::new();
    for image in images {
        hash.update(format!("{} {}\n", image.name(), image.id()));
    }
    hex(&hash.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;

    #[test]
    fn another_name_or_content_is_another_template() {
        let named = |name: &str| Image { name: name.into(), ..Image::default() }.prepare().unwrap();
        let user = Image { name: "a".into(), user: "1".into(), ..Image::default() }.prepare().unwrap();
        assert_eq!(fingerprint(&[named("a")]), fingerprint(&[named("a")]));
        assert_ne!(fingerprint(&[named("a")]), fingerprint(&[named("b")]));
        assert_ne!(fingerprint(&[named("a")]), fingerprint(&[user]));
    }
}
