//! Packets that are dropped, and connections that are refused, by a chain of iptables in the node's network namespace. There FORWARD
//! sees every packet from and to the node's pods, also between two of them, and sees it with the addresses of pods: those of Services
//! are translated before. What goes between a pod and its own node is left alone, so a kubelet still reaches its pods; the lab itself
//! works from outside of all networks.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::Scene;
use super::kind::Peer;
use super::record::Active;
use super::target::{self, Pod, Which};
use crate::run;
use crate::topology::{API_PORT, HOST, KAFKA_PORT, Node};

/// Of the mangle table nobody else in a node uses these hooks, and they come before those of the filter table.
const HOOKS: [&str; 3] = ["INPUT", "FORWARD", "OUTPUT"];
/// Through which packets go from one of a node's pods to another and out, and back.
const FORWARD: [&str; 1] = ["FORWARD"];
const MYSQL_PORT: u16 = 3306;
/// The ports of a mysqld, for clients and for administrators.
const MYSQL_PORTS: &str = "3306:3307";

/// A table of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// Where packets are dropped.
    Mangle,
    /// The only one in which they can be answered.
    Filter,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Mangle => "mangle",
            Self::Filter => "filter",
        }
    }
}

/// Who is cut off.
#[derive(Debug, Clone, Copy)]
pub enum End<'a> {
    /// A pod.
    Pod(&'a Pod),
    /// A node, with its pods.
    Node(&'a Node),
}

/// Those that a cut must tell apart, by address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Others {
    operators: Vec<String>,
    standbys: Vec<String>,
    primaries: Vec<String>,
}

/// Drops packets between `end` and `from`, both ways. `node` is the node of the end.
pub fn cut(scene: &Scene<'_>, end: End<'_>, node: &Node, from: &[Peer]) -> Result<Active> {
    let others = others(scene, end, from)?;
    let rules = match end {
        End::Pod(pod) if pod.address.is_empty() => bail!("the pod {} has no address yet", pod.what()),
        End::Pod(pod) => rules(std::slice::from_ref(&pod.address), &all_of_pod(&pod.address), from, &others),
        End::Node(node) => rules(&[node.pod_cidr(), node.address()], &all_of_node(), from, &others),
    };
    let what = match end {
        End::Pod(pod) => pod.what(),
        End::Node(node) => node.name(),
    };
    let from = names(from);
    let fault = Active::Uncut { chain: chain(&format!("{what} {from}")), what, netns: node.netns_path().into(), from };
    scene.record(fault.clone())?;
    if let Active::Uncut { netns, chain, .. } = &fault {
        // A pod is reached from its own node through INPUT and OUTPUT, and that stays as it is.
        let hooks = if matches!(end, End::Node(_)) { &HOOKS[..] } else { &FORWARD[..] };
        put(netns, &restore(Table::Mangle, chain, &rules, hooks))?;
    }
    Ok(fault)
}

/// A standby that lies about its primary: each new connection to that one's mysqld is refused at once, as by a port where nobody listens.
/// Those that are open go on, so it replicates as before.
pub fn lie(scene: &Scene<'_>, standby: &Pod, node: &Node) -> Result<Active> {
    let primaries = others(scene, End::Pod(standby), &[Peer::Primary])?.primaries;
    if standby.address.is_empty() {
        bail!("the pod {} has no address yet", standby.what());
    }
    refuse(scene, standby.what(), node, &standby.address, &primaries, MYSQL_PORTS)
}

/// New connections from one address to ports of others are refused. `node` is where one of both ends is.
pub fn refuse(scene: &Scene<'_>, what: String, node: &Node, from: &str, to: &[String], ports: &str) -> Result<Active> {
    let by = to.join(", ");
    let netns = node.netns_path().into();
    let fault = Active::Admit { chain: chain(&format!("{what} refused by {by}")), what, netns, by };
    scene.record(fault.clone())?;
    if let Active::Admit { netns, chain, .. } = &fault {
        put(netns, &restore(Table::Filter, chain, &refusals(from, to, ports), &FORWARD))?;
    }
    Ok(fault)
}

/// Pure.
fn refusals(from: &str, to: &[String], ports: &str) -> Vec<String> {
    let refusal = |to: &String| {
        format!("-s {from} -d {to} -p tcp -m tcp --dport {ports} --syn -j REJECT --reject-with tcp-reset")
    };
    to.iter().map(refusal).collect()
}

/// Takes a whole chain in.
fn put(netns: &Path, text: &str) -> Result<()> {
    // Between two pods of one node packets pass a bridge, and this makes them pass the rules too.
    run::output(inside(netns).args(["sysctl", "-q", "-e", "-w", "net.bridge.bridge-nf-call-iptables=1"]))?;
    run::output_with(inside(netns).args(["iptables-restore", "--noflush", "--wait", "10"]), text.as_bytes())
        .map(drop)
        .with_context(|| format!("cannot put rules into {}", netns.display()))
}

fn names(from: &[Peer]) -> String {
    use clap::ValueEnum as _;
    let values = from.iter().filter_map(Peer::to_possible_value);
    values.map(|v| v.get_name().to_owned()).collect::<Vec<_>>().join(", ")
}

fn others(scene: &Scene<'_>, end: End<'_>, from: &[Peer]) -> Result<Others> {
    let needs = |peers: &[Peer]| from.iter().any(|peer| peers.contains(peer));
    let mut others = Others::default();
    if needs(&[Peer::Operator]) {
        others.operators = addresses(target::operators(&scene.api, Which::All)?);
    } else if needs(&[Peer::Clients]) {
        // Without an operator there is none to be spared.
        others.operators = target::operators(&scene.api, Which::All).map_or_else(|_| Vec::new(), addresses);
    }
    if needs(&[Peer::Standbys, Peer::Primary, Peer::Clients]) {
        let mut replicas = target::pods_with(&scene.api, "understudy.dev%2Fcomponent%3Dreplica")?;
        match end {
            // Who is of no shard, as the operator, deals with all of them.
            End::Pod(pod) => replicas.retain(|r| pod.shard.is_empty() || (is_of_shard(r, pod) && r.uid != pod.uid)),
            End::Node(node) => replicas.retain(|r| r.node != node.name()),
        }
        let (primaries, standbys): (Vec<_>, Vec<_>) = replicas.into_iter().partition(|r| r.role == "primary");
        (others.primaries, others.standbys) = (addresses(primaries), addresses(standbys));
    }
    if needs(&[Peer::Primary]) && others.primaries.is_empty() {
        bail!("there is no other replica that is primary: is the target itself it?");
    }
    if needs(&[Peer::Standbys]) && others.standbys.is_empty() {
        bail!("there is no other replica that is a standby");
    }
    Ok(others)
}

fn is_of_shard(replica: &Pod, pod: &Pod) -> bool {
    replica.namespace == pod.namespace && replica.shard == pod.shard
}

fn addresses(pods: Vec<Pod>) -> Vec<String> {
    pods.into_iter().map(|p| p.address).filter(|a| !a.is_empty()).collect()
}

fn all_of_pod(address: &str) -> Vec<String> {
    vec![format!("-s {address} -j DROP"), format!("-d {address} -j DROP")]
}

/// Its pods still reach each other.
fn all_of_node() -> Vec<String> {
    vec!["-i eth0 -j DROP".to_owned(), "-o eth0 -j DROP".to_owned()]
}

/// The rules of the chain, in order. `ends` are the addresses of the one side. Pure.
fn rules(ends: &[String], all: &[String], from: &[Peer], others: &Others) -> Vec<String> {
    if from.contains(&Peer::All) {
        return all.to_vec();
    }
    let mut from = from.to_vec();
    // The ports of clients come last: before them those are let through who are no clients.
    from.sort_unstable_by_key(|peer| (*peer == Peer::Clients, *peer));
    from.dedup();
    let mut rules = Vec::new();
    let mut both = |end: &str, other: &str, verdict: &str, at_other: &str, of_other: &str| {
        rules.push(format!("-s {end} -d {other}{at_other} -j {verdict}"));
        rules.push(format!("-s {other} -d {end}{of_other} -j {verdict}"));
    };
    let port = |option: &str, ports: &str| format!(" -p tcp -m tcp --{option} {ports}");
    for peer in from {
        for end in ends {
            match peer {
                Peer::Kafka => {
                    let ports = format!("{KAFKA_PORT}:{}", KAFKA_PORT + 2);
                    both(end, HOST, "DROP", &port("dport", &ports), &port("sport", &ports));
                }
                Peer::Api => {
                    let ports = API_PORT.to_string();
                    both(end, HOST, "DROP", &port("dport", &ports), &port("sport", &ports));
                }
                Peer::Operator => others.operators.iter().for_each(|o| both(end, o, "DROP", "", "")),
                Peer::Standbys => others.standbys.iter().for_each(|o| both(end, o, "DROP", "", "")),
                Peer::Primary => others.primaries.iter().for_each(|o| both(end, o, "DROP", "", "")),
                Peer::Clients => {
                    let spared = others.operators.iter().chain(&others.standbys).chain(&others.primaries);
                    spared.for_each(|o| both(end, o, "RETURN", "", ""));
                    let ports = MYSQL_PORT.to_string();
                    both(end, "0.0.0.0/0", "DROP", &port("sport", &ports), &port("dport", &ports));
                }
                Peer::All => {}
            }
        }
    }
    rules
}

/// What iptables-restore reads, which takes all of it or nothing. A chain of that name is emptied first. Pure.
fn restore(table: Table, chain: &str, rules: &[String], hooks: &[&str]) -> String {
    let mut text = format!("*{}\n:{chain} - [0:0]\n", table.name());
    for rule in rules {
        text += &format!("-A {chain} {rule}\n");
    }
    for hook in hooks {
        text += &format!("-I {hook} 1 -j {chain}\n");
    }
    text + "COMMIT\n"
}

/// A name for the chain of a cut or a refusal, the same for the same one. Pure.
fn chain(of: &str) -> String {
    use sha2::Digest as _;
    format!("LAB-CUT-{}", crate::image::hex(&sha2::Sha256::digest(of.as_bytes())[..6]))
}

fn inside(netns: &Path) -> std::process::Command {
    let mut command = run::sh("nsenter");
    command.arg(format!("--net={}", netns.display()));
    command
}

fn iptables(netns: &Path, table: Table, arguments: &[&str]) -> bool {
    run::succeeds(inside(netns).args(["iptables", "--wait", "10", "--table", table.name()]).args(arguments))
}

/// Takes the rules out. A node that was started anew has none.
pub fn join(netns: &Path, table: Table, chain: &str) -> Result<()> {
    if !netns.exists() || !iptables(netns, table, &["--list-rules", chain]) {
        return Ok(());
    }
    for hook in HOOKS {
        while iptables(netns, table, &["--delete", hook, "--jump", chain]) {}
    }
    if !(iptables(netns, table, &["--flush", chain]) && iptables(netns, table, &["--delete-chain", chain])) {
        bail!("the chain {chain} in {} does not go away", netns.display());
    }
    Ok(())
}

/// How long a flapping cut or refusal is there, and then is not.
pub const FLAP: Duration = Duration::from_secs(1);

/// Empties a chain, and fills it again: what is in it is kept in `rules`, so that both are one step.
pub fn flap(netns: &Path, table: Table, chain: &str, rules: &[String], is_on: bool) -> Result<()> {
    let mut text = format!("*{}\n:{chain} - [0:0]\n", table.name());
    for rule in rules.iter().filter(|_| is_on) {
        text += &format!("{rule}\n");
    }
    text += "COMMIT\n";
    run::output_with(inside(netns).args(["iptables-restore", "--noflush", "--wait", "10"]), text.as_bytes()).map(drop)
}

/// The rules of a chain, as iptables-restore takes them.
pub fn rules_of(netns: &Path, table: Table, chain: &str) -> Result<Vec<String>> {
    let mut command = inside(netns);
    command.args(["iptables", "--wait", "10", "--table", table.name(), "--list-rules", chain]);
    let listed = run::output(&mut command)?;
    Ok(listed.lines().filter(|line| line.starts_with("-A ")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others() -> Others {
        Others {
            operators: vec!["10.89.1.9".into()],
            standbys: vec!["10.89.2.5".into(), "10.89.3.5".into()],
            primaries: vec!["10.89.4.5".into()],
        }
    }

    fn of_pod(from: &[Peer]) -> String {
        rules(&["10.89.1.2".to_owned()], &all_of_pod("10.89.1.2"), from, &others()).join("\n")
    }

    #[test]
    fn each_peer_is_cut_off_in_both_directions_and_nobody_else() {
        for (peer, want) in [
            (
                Peer::Kafka,
                "-s 10.89.1.2 -d 10.88.0.1 -p tcp -m tcp --dport 9092:9094 -j DROP\n\
                 -s 10.88.0.1 -d 10.89.1.2 -p tcp -m tcp --sport 9092:9094 -j DROP",
            ),
            (
                Peer::Api,
                "-s 10.89.1.2 -d 10.88.0.1 -p tcp -m tcp --dport 6443 -j DROP\n\
                 -s 10.88.0.1 -d 10.89.1.2 -p tcp -m tcp --sport 6443 -j DROP",
            ),
            (Peer::Operator, "-s 10.89.1.2 -d 10.89.1.9 -j DROP\n-s 10.89.1.9 -d 10.89.1.2 -j DROP"),
            (Peer::Primary, "-s 10.89.1.2 -d 10.89.4.5 -j DROP\n-s 10.89.4.5 -d 10.89.1.2 -j DROP"),
            (
                Peer::Standbys,
                "-s 10.89.1.2 -d 10.89.2.5 -j DROP\n-s 10.89.2.5 -d 10.89.1.2 -j DROP\n\
                 -s 10.89.1.2 -d 10.89.3.5 -j DROP\n-s 10.89.3.5 -d 10.89.1.2 -j DROP",
            ),
            (Peer::All, "-s 10.89.1.2 -j DROP\n-d 10.89.1.2 -j DROP"),
        ] {
            assert_eq!(of_pod(&[peer]), want, "{peer:?}");
        }
    }

    #[test]
    fn who_talks_mysql_is_a_client_unless_it_is_the_operator_or_a_replica() {
        let text = of_pod(&[Peer::Clients, Peer::Standbys, Peer::Kafka]);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part} is not in\n{text}"));
        assert!(at("-s 10.89.2.5 -d 10.89.1.2 -j DROP") < at("-s 10.89.2.5 -d 10.89.1.2 -j RETURN"));
        assert!(at("-s 10.89.1.9 -d 10.89.1.2 -j RETURN") < at("--dport 3306 -j DROP"));
        assert!(at("--dport 9092:9094 -j DROP") < at("RETURN"));
        assert!(text.contains("-s 0.0.0.0/0 -d 10.89.1.2 -p tcp -m tcp --dport 3306 -j DROP"));
        assert!(text.contains("-s 10.89.1.2 -d 0.0.0.0/0 -p tcp -m tcp --sport 3306 -j DROP"));
    }

    #[test]
    fn all_makes_every_other_peer_needless() {
        assert_eq!(of_pod(&[Peer::Kafka, Peer::All, Peer::Clients]), of_pod(&[Peer::All]));
    }

    #[test]
    fn a_node_is_cut_off_with_its_pods_and_its_own_processes() {
        let node = Node::new(2);
        let rules = rules(&[node.pod_cidr(), node.address()], &all_of_node(), &[Peer::Api], &Others::default());
        assert_eq!(rules.len(), 4);
        let text = restore(Table::Mangle, "C", &rules, &HOOKS);
        for hook in HOOKS {
            assert!(text.contains(&format!("-I {hook} 1 -j C\n")), "{text}");
        }
        assert!(text.contains("-A C -s 10.89.2.0/24 -d 10.88.0.1 -p tcp"), "{text}");
        assert!(text.contains("-A C -s 10.88.0.12 -d 10.88.0.1 -p tcp"), "{text}");
    }

    #[test]
    fn a_pods_own_node_still_reaches_it() {
        let text = restore(Table::Mangle, "C", &all_of_pod("10.89.1.2"), &FORWARD);
        assert_eq!(
            text,
            "*mangle\n:C - [0:0]\n-A C -s 10.89.1.2 -j DROP\n-A C -d 10.89.1.2 -j DROP\n-I FORWARD 1 -j C\nCOMMIT\n"
        );
    }

    #[test]
    fn who_lies_about_a_server_is_refused_by_its_ports_and_keeps_the_connections_that_it_has() {
        let rules = refusals("10.89.2.5", &["10.89.4.5".to_owned()], MYSQL_PORTS);
        assert_eq!(
            restore(Table::Filter, "C", &rules, &FORWARD),
            "*filter\n:C - [0:0]\n-A C -s 10.89.2.5 -d 10.89.4.5 -p tcp -m tcp --dport 3306:3307 --syn -j REJECT --reject-with tcp-reset\n\
             -I FORWARD 1 -j C\nCOMMIT\n"
        );
    }

    #[test]
    fn a_chain_has_one_name_for_one_cut_and_fits_the_kernel() {
        assert_eq!(chain("a kafka"), chain("a kafka"));
        assert_ne!(chain("a kafka"), chain("a api"));
        assert!(chain("a").len() <= 28);
    }
}
