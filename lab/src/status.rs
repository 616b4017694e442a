//! `cargo lab status`: what runs, in which version, where it listens, and what is wrong.

use anyhow::Result;

use crate::api::Api;
use crate::artifacts::{self, COREDNS, ETCD, KAFKA, KUBERNETES, VERSITYGW};
use crate::paths::Paths;
use crate::state::State;
use crate::topology::{API_PORT, ETCD_PORT, HOST, KAFKA_PORT, Node, S3_PORT};
use crate::volume;
use crate::{fault, import, kafka, node, process, provisioner, s3};

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    part: String,
    version: String,
    state: &'static str,
    pid: String,
    place: String,
}

/// Prints the table. True when everything that should run does.
pub fn status(paths: &Paths) -> Result<bool> {
    let state = State::load(paths)?;
    if state.nodes.is_empty() {
        println!("there is no lab on this machine: run `cargo lab up`");
        return Ok(false);
    }
    let api = Api::new(paths);
    let up = api.is_ready();
    let nodes = if up { api.list("/api/v1/nodes")? } else { Vec::new() };
    let mut rows = parts(&state, up);
    for node in &state.nodes {
        let ready = nodes.iter().any(|n| n["metadata"]["name"] == node.name().as_str() && node::is_ready(n));
        rows.push(node_row(&state, node, ready));
    }
    println!("{:<26}{:<10}{:<12}{:>8}  PLACE", "PART", "VERSION", "STATE", "PID");
    for row in &rows {
        println!("{:<26}{:<10}{:<12}{:>8}  {}", row.part, row.version, row.state, row.pid, row.place);
    }
    let mysql = artifacts::mysql_version(paths).unwrap_or_else(|_| "unknown".into());
    println!("images    {}  (MySQL {mysql}, CoreDNS {COREDNS})", import::imported(paths, &state.nodes)?.join(" "));
    let root = paths.volumes();
    println!("volumes   {} mounted", volume::mounts_under(&root)?.iter().filter(|m| **m != root).count());
    for fault in fault::active(paths)? {
        println!("fault     {}", fault.describe());
    }
    Ok(rows.iter().all(|r| r.state == "running" || r.state == "ready"))
}

fn parts(state: &State, api_ready: bool) -> Vec<Row> {
    let mut rows = vec![
        row(state, "etcd", ETCD, true, format!("127.0.0.1:{ETCD_PORT}")),
        row(state, "kube-apiserver", KUBERNETES, api_ready, format!("https://{HOST}:{API_PORT}")),
        row(state, "kube-controller-manager", KUBERNETES, true, format!("{HOST}:10257")),
        row(state, "kube-scheduler", KUBERNETES, true, format!("{HOST}:10259")),
        row(state, provisioner::PROCESS, "", true, format!("StorageClass {}", volume::STORAGE_CLASS)),
        row(state, s3::PROCESS, VERSITYGW, true, format!("http://{HOST}:{S3_PORT}")),
    ];
    for id in kafka::BROKERS {
        let name = kafka::process_name(id);
        let answers = !state.is_alive(&name) || kafka::is_listening(id);
        rows.push(row(state, &name, KAFKA, answers, format!("{HOST}:{}", KAFKA_PORT + id - 1)));
    }
    rows
}

fn row(state: &State, name: &str, version: &str, answers: bool, place: String) -> Row {
    let alive = state.is_alive(name);
    let word = match (alive, answers) {
        (false, _) => "DEAD",
        (true, _) if is_stopped(state, name) => "STOPPED",
        (true, false) => "NO ANSWER",
        (true, true) => "running",
    };
    Row { part: name.to_owned(), version: version.to_owned(), state: word, pid: pid(state, name), place }
}

fn node_row(state: &State, node: &Node, ready: bool) -> Row {
    let word = match (state.is_alive(&node::process_name(node)), ready) {
        (false, _) => "DOWN",
        (true, false) => "NOT READY",
        (true, true) => "ready",
    };
    let place = format!("{}  zone {}  pods {}", node.address(), node.zone, node.pod_cidr());
    Row { part: node.name(), version: KUBERNETES.to_owned(), state: word, pid: pid(state, &node.name()), place }
}

fn is_stopped(state: &State, name: &str) -> bool {
    state.processes.get(name).and_then(|p| process::stat(p.pid)).is_some_and(|s| s.state == 'T')
}

fn pid(state: &State, name: &str) -> String {
    state.processes.get(name).filter(|p| p.is_alive()).map_or_else(|| "-".to_owned(), |p| p.pid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_is_not_running_is_dead_whatever_answers_on_its_port() {
        assert_eq!(row(&State::default(), "etcd", "1", true, String::new()).state, "DEAD");
        assert_eq!(node_row(&State::default(), &Node::new(1), true).state, "DOWN");
    }
}
