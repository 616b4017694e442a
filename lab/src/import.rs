//! Puts images into every node's containerd, and knows which images the lab makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::artifacts::{self, COREDNS, DEBIAN, PAUSE, ROOTFS};
use crate::image::{Added, Image, Layer, Prepared};
use crate::paths::Paths;
use crate::progress::Ui;
use crate::state::{Lock, State, read_json, write_json};
use crate::topology::Node;
use crate::{addons, node, run};

/// Root file systems an image can stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Base {
    /// Nothing: static programs only.
    None,
    /// Debian with ca-certificates.
    Debian,
    /// MySQL server and clients.
    Mysql,
    /// Debian's Prometheus.
    Prometheus,
}

/// Images in a node, by name, with the id of what was imported.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Imported(BTreeMap<String, String>);

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Layers of a base.
pub fn base(paths: &Paths, ui: &Ui, base: Base) -> Result<Vec<Layer>> {
    let dir = match base {
        Base::None => return Ok(Vec::new()),
        Base::Debian => paths.artifact("debian", DEBIAN),
        Base::Mysql => paths.artifact("mysql", "sid"),
        Base::Prometheus => artifacts::ensure(paths, ui, &artifacts::PROMETHEUS)?,
    };
    Ok(vec![Layer::Tar(dir.join(ROOTFS))])
}

/// An image of a base and some files, with the usual search path.
pub fn image(paths: &Paths, ui: &Ui, name: &str, on: Base, files: Vec<Added>) -> Result<Image> {
    let mut layers = base(paths, ui, on)?;
    if !files.is_empty() {
        layers.push(Layer::Files(files));
    }
    Ok(Image { name: name.to_owned(), layers, env: vec![PATH.to_owned()], ..Image::default() })
}

/// What every node needs before any pod can run.
pub fn system_images(paths: &Paths, ui: &Ui) -> Result<Vec<Prepared>> {
    let pause = Added { source: paths.binary("pause", PAUSE, "pause"), target: "/pause".into() };
    let mut pause = image(paths, ui, node::PAUSE_IMAGE, Base::None, vec![pause])?;
    pause.entrypoint = vec!["/pause".into()];
    let coredns = Added { source: paths.binary("coredns", COREDNS, "coredns"), target: "/coredns".into() };
    let mut coredns = image(paths, ui, &addons::coredns_image(), Base::None, vec![coredns])?;
    coredns.entrypoint = vec!["/coredns".into()];
    [pause, coredns].iter().map(Image::prepare).collect()
}

/// The stock MySQL image.
pub fn mysql_image(paths: &Paths, ui: &Ui) -> Result<Prepared> {
    let name = format!("mysql:{}", artifacts::mysql_version(paths)?);
    let mut image = image(paths, ui, &name, Base::Mysql, Vec::new())?;
    image.entrypoint = vec!["mysqld".into()];
    image.prepare()
}

fn record(paths: &Paths, node: &Node) -> PathBuf {
    paths.node(&node.name()).join("images.json")
}

/// Imports an image into the nodes that lack it, all at once. Returns how many lacked it.
pub fn import(paths: &Paths, ui: &Ui, image: &Prepared, nodes: &[Node]) -> Result<usize> {
    let _lock = Lock::take(&paths.state, "images.lock", |text| ui.say(text))?;
    let mut lacking = Vec::new();
    for node in nodes {
        let known: Imported = read_json(&record(paths, node))?.unwrap_or_default();
        if known.0.get(image.name()).is_none_or(|id| id != image.id()) {
            lacking.push(node);
        }
    }
    if lacking.is_empty() {
        return Ok(0);
    }
    let step = ui.step(&format!("import {} into {} nodes", image.name(), lacking.len()), None);
    std::thread::scope(|scope| {
        let jobs: Vec<_> = lacking.iter().map(|n| scope.spawn(|| import_into(paths, image, n))).collect();
        jobs.into_iter().try_for_each(|job| job.join().map_err(|_| anyhow!("an import panicked"))?)
    })?;
    step.done();
    Ok(lacking.len())
}

fn import_into(paths: &Paths, image: &Prepared, node: &Node) -> Result<()> {
    stream(&paths.containerd_socket(&node.name()), image)
        .with_context(|| format!("cannot import {} into {}", image.name(), node.name()))?;
    remember(paths, node, image)
}

/// Imports an image into the containerd behind a socket.
pub fn stream(socket: &Path, image: &Prepared) -> Result<()> {
    let mut command = run::sh("ctr --address");
    command.arg(socket).args(["--namespace", "k8s.io", "images", "import", "-"]);
    let mut child = run::tied(&command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `ctr`")?;
    let sent =
        image.write(std::io::BufWriter::with_capacity(1 << 20, child.stdin.take().expect("stdin was asked for")));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    sent
}

/// Writes down that the node has the image.
pub fn remember(paths: &Paths, node: &Node, image: &Prepared) -> Result<()> {
    let path = record(paths, node);
    let mut known: Imported = read_json(&path)?.unwrap_or_default();
    known.0.insert(image.name().to_owned(), image.id().to_owned());
    write_json(&path, &known)
}

/// Names of the images every node of the lab has.
pub fn imported(paths: &Paths, nodes: &[Node]) -> Result<Vec<String>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for node in nodes {
        let known: Imported = read_json(&record(paths, node))?.unwrap_or_default();
        for name in known.0.into_keys() {
            *counts.entry(name).or_default() += 1;
        }
    }
    Ok(counts.into_iter().filter(|(_, n)| *n == nodes.len()).map(|(name, _)| name).collect())
}

/// A lab without nodes has nowhere to import to.
pub fn need_nodes(paths: &Paths) -> Result<Vec<Node>> {
    let state = State::load(paths)?;
    if state.nodes.is_empty() || !state.nodes.iter().all(|n| state.is_alive(&node::process_name(n))) {
        bail!("the lab is not up, or a node is down: run `cargo lab up`");
    }
    Ok(state.nodes)
}
