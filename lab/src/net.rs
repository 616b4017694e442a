//! The bridge, the cables to the nodes and the routes. Everything has a name that only the lab uses, so it can be found again.

use std::path::Path;

use anyhow::{Context, Result};

use crate::run;
use crate::topology::{BRIDGE, HOST, Node};

/// Makes the bridge with the host's address.
pub fn ensure_bridge() -> Result<()> {
    if !Path::new("/sys/class/net").join(BRIDGE).exists() {
        ip(&format!("link add {BRIDGE} type bridge"))?;
    }
    if !run::output(&mut run::sh(&format!("ip -4 -o addr show dev {BRIDGE}")))?.contains(&format!(" {HOST}/24 ")) {
        ip(&format!("addr add {HOST}/24 dev {BRIDGE}"))?;
    }
    ip(&format!("link set {BRIDGE} up"))
}

/// Gives the node a fresh network namespace: whatever an earlier life left in it is gone.
pub fn make_node(node: &Node, all: &[Node]) -> Result<()> {
    remove_node(node)?;
    let (netns, veth, address) = (node.netns(), node.veth(), node.address());
    ip(&format!("netns add {netns}"))?;
    ip(&format!("link add {veth} type veth peer name eth0 netns {netns}"))?;
    ip(&format!("link set {veth} master {BRIDGE} up"))?;
    ip(&format!("-n {netns} link set lo up"))?;
    ip(&format!("-n {netns} addr add {address}/24 dev eth0"))?;
    ip(&format!("-n {netns} link set eth0 up"))?;
    ip(&format!("-n {netns} route add default via {HOST}"))?;
    for other in all.iter().filter(|n| *n != node) {
        ip(&format!("-n {netns} route add {} via {}", other.pod_cidr(), other.address()))?;
    }
    ip(&format!("route replace {} via {address} dev {BRIDGE}", node.pod_cidr()))?;
    let mut sysctl = run::cmd(["nsenter", &format!("--net={}", node.netns_path()), "sysctl", "-q", "-w"]);
    sysctl.args(["net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.all.rp_filter=0"]);
    run::output(&mut sysctl).with_context(|| format!("cannot configure the network of {}", node.name()))?;
    Ok(())
}

/// Routes of the nodes that run to a node that came later.
pub fn ensure_routes(all: &[Node]) -> Result<()> {
    for node in all.iter().filter(|n| Path::new(&n.netns_path()).exists()) {
        for other in all.iter().filter(|n| *n != node) {
            ip(&format!("-n {} route replace {} via {}", node.netns(), other.pod_cidr(), other.address()))?;
        }
    }
    Ok(())
}

/// Takes the node's namespace and cable away.
pub fn remove_node(node: &Node) -> Result<()> {
    if Path::new("/sys/class/net").join(node.veth()).exists() {
        ip(&format!("link del {}", node.veth()))?;
    }
    if Path::new(&node.netns_path()).exists() {
        ip(&format!("netns del {}", node.netns()))?;
    }
    Ok(())
}

/// Takes the bridge away, and the routes through it with it.
pub fn remove_bridge() -> Result<()> {
    if Path::new("/sys/class/net").join(BRIDGE).exists() {
        ip(&format!("link del {BRIDGE}"))?;
    }
    Ok(())
}

/// Pulls or plugs the node's cable at the host's end; the node's own routes stay.
pub fn set_cable(node: &Node, plugged: bool) -> Result<()> {
    ip(&format!("link set {} {}", node.veth(), if plugged { "up" } else { "down" }))
}

fn ip(arguments: &str) -> Result<()> {
    run::output(&mut run::sh(&format!("ip {arguments}"))).map(|_| ())
}
