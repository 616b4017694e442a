//! `cargo lab up`: from nothing to a running cluster, or from a damaged one; a whole one is left alone.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artifacts::{self, HELM, KUBERNETES};
use crate::lab::Lab;
use crate::paths::Paths;
use crate::progress::{Ui, clock};
use crate::topology::{HOST, MAX_NODES, Node, S3_ACCESS, S3_PORT, S3_SECRET, kafka_bootstrap};
use crate::{
    addons, api, control_plane, import, kafka, machine, net, node, pki, provisioner, run, s3, state, template, volume,
};

/// Number of nodes when nobody says otherwise.
const NODES: u8 = 4;

/// Brings the lab up with `nodes` nodes (or as many as it has).
pub fn up(paths: &Paths, ui: &Ui, nodes: Option<u8>) -> Result<()> {
    prepare(paths, ui)?;
    let mut lab = Lab::open(paths, ui)?;
    state::claim(paths)?;
    choose_nodes(&mut lab, nodes)?;
    converge(&mut lab)?;
    if lab.repairs.is_empty() {
        ui.say("the lab is up; there was nothing to do");
    } else {
        ui.say(&format!("the lab is up after {}", clock(ui.elapsed())));
    }
    println!("{}", farewell(&lab));
    Ok(())
}

/// Looks at the machine, and installs the programs that every build needs.
pub fn equip(ui: &Ui) -> Result<()> {
    machine::check()?;
    artifacts::install_packages(ui)
}

/// Everything that takes long and needs no cluster.
pub fn prepare(paths: &Paths, ui: &Ui) -> Result<()> {
    equip(ui)?;
    artifacts::ensure_all(paths, ui)?;
    Ok(())
}

/// Starts again what is dead in a lab that is up.
pub fn repair(paths: &Paths, ui: &Ui) -> Result<()> {
    let mut lab = Lab::open(paths, ui)?;
    if lab.state.nodes.is_empty() {
        bail!("there is no lab on this machine: run `cargo lab up`");
    }
    converge(&mut lab)
}

fn choose_nodes(lab: &mut Lab<'_>, wanted: Option<u8>) -> Result<()> {
    let has = u8::try_from(lab.state.nodes.len()).unwrap_or(MAX_NODES);
    let count = wanted.unwrap_or(if has == 0 { NODES } else { has });
    if !(1..=MAX_NODES).contains(&count) {
        bail!("the lab can have 1 to {MAX_NODES} nodes");
    }
    if count < has {
        bail!("the lab has {has} nodes; to make it smaller run `cargo lab down` first");
    }
    lab.state.nodes = (1..=count).map(Node::new).collect();
    lab.state.save(lab.paths)
}

/// Each part is started if it is not running; the order is that of what waits for what.
fn converge(lab: &mut Lab<'_>) -> Result<()> {
    let nodes = lab.state.nodes.clone();
    machine::raise_limits(lab)?;
    lab.install_own_program()?;
    net::ensure_bridge()?;
    pki::ensure(lab.paths)?;
    volume::ensure_shared(lab.paths)?;
    leave_kubeconfig(lab)?;

    let began = Instant::now();
    kafka::start(lab)?;
    control_plane::ensure(lab)?;
    tell(lab, "control plane", began);

    let began = Instant::now();
    let provisioner = provisioner_command(lab);
    lab.ensure_process(provisioner::PROCESS, &provisioner, &[&version_of_provisioner()])?;
    s3::ensure(lab)?;
    addons::ensure(lab)?;
    let mut images = import::system_images(lab.paths, lab.ui)?;
    images.push(import::mysql_image(lab.paths, lab.ui)?);
    let mut started = Vec::new();
    for node in &nodes {
        template::fill(lab.paths, lab.ui, &images, node)?;
        if node::ensure(lab, node, &nodes)? {
            started.push(node.clone());
        }
    }
    net::ensure_routes(&nodes)?;
    for node in &started {
        wait_containerd(lab, node)?;
    }
    for image in &images {
        if import::import(lab.paths, lab.ui, image, &nodes)? > 0 {
            lab.repairs.push(format!("imported {}", image.name()));
        }
    }
    node::wait_ready(lab, &nodes)?;
    tell(lab, &format!("{} nodes", nodes.len()), began);

    let began = Instant::now();
    kafka::wait_ready(lab)?;
    addons::wait_dns(&lab.api(), nodes.len())?;
    tell(lab, "Kafka and cluster DNS", began);
    Ok(())
}

fn tell(lab: &Lab<'_>, what: &str, began: Instant) {
    if !lab.repairs.is_empty() {
        lab.ui.say(&format!("{what}: ready in {}", clock(began.elapsed())));
    }
}

fn wait_containerd(lab: &Lab<'_>, node: &Node) -> Result<()> {
    let socket = lab.paths.containerd_socket(&node.name());
    api::wait(Duration::from_secs(30), &format!("containerd of {} does not answer", node.name()), || {
        if lab.running(&node::process_name(node)).is_none() {
            bail!("{} went down; {}", node.name(), lab.log_tail(&node::process_name(node)));
        }
        Ok(socket.exists() && run::succeeds(run::sh("ctr --address").arg(&socket).arg("version")))
    })
}

fn provisioner_command(lab: &Lab<'_>) -> std::process::Command {
    let mut command = run::cmd([lab.own_program()]);
    command.arg("--state-dir").arg(&lab.paths.state).arg("provision-volumes");
    command
}

/// Raised when the provisioner changes in a way that matters to a running lab.
fn version_of_provisioner() -> String {
    "3".to_owned()
}

/// What people and tools in the checkout need: `.lab/kubeconfig`, `.lab/env`, `.lab/bin`.
fn leave_kubeconfig(lab: &mut Lab<'_>) -> Result<()> {
    let dir = lab.paths.dot_lab();
    std::fs::create_dir_all(dir.join("bin"))?;
    let kubeconfig = dir.join("kubeconfig");
    let text = std::fs::read(lab.paths.admin_kubeconfig())?;
    if std::fs::read(&kubeconfig).ok().as_ref() != Some(&text) {
        state::write_atomic(&kubeconfig, &text)?;
    }
    for (name, target) in [
        ("kubectl", lab.paths.binary("kubernetes", KUBERNETES, "kubectl")),
        ("helm", lab.paths.binary("helm", HELM, "helm")),
    ] {
        let link = dir.join("bin").join(name);
        if std::fs::read_link(&link).ok().as_ref() != Some(&target) {
            std::fs::remove_file(&link).ok();
            symlink(&target, &link)?;
        }
    }
    let env = format!(
        "export KUBECONFIG={}\nexport PATH={}:$PATH\nexport KAFKA_BOOTSTRAP={}\nexport S3_ENDPOINT=http://{HOST}:{S3_PORT}\n\
         export AWS_ACCESS_KEY_ID={S3_ACCESS}\nexport AWS_SECRET_ACCESS_KEY={S3_SECRET}\nexport AWS_REGION=us-east-1\n",
        kubeconfig.display(),
        dir.join("bin").display(),
        kafka_bootstrap()
    );
    state::write_atomic(&dir.join("env"), env.as_bytes())?;
    let dir = dir.display().to_string();
    if !lab.state.dot_labs.contains(&dir) {
        lab.state.dot_labs.push(dir);
        lab.state.save(lab.paths)?;
    }
    Ok(())
}

fn farewell(lab: &Lab<'_>) -> String {
    format!(
        "  kubeconfig  {0}/kubeconfig   (or: . {0}/env, which puts kubectl and helm on the PATH)\n  Kafka       {1}\n  S3          http://{HOST}:{S3_PORT}  \
         ({S3_ACCESS} / {S3_SECRET})\n  next        cargo lab status",
        lab.paths.dot_lab().display(),
        kafka_bootstrap()
    )
}
