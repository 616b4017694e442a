//! What the end of the demonstration advises: only what works on the cluster that it ran on. Pure.

use super::install::{CRDS, NAMESPACE, RELEASE};
use super::store::{TOKEN_ID, TOKEN_SECRET};

const RECORD: &str = "the record of what just happened";

/// Whose cluster it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cluster {
    /// The lab's own.
    Lab,
    /// One that the user named, by flags as kubectl and as helm take them.
    Named {
        /// For kubectl, and for the commands of the lab.
        kubectl: Vec<String>,
        /// For helm.
        helm: Vec<String>,
    },
}

/// What the demonstration leaves behind.
#[derive(Debug, Clone, Copy)]
pub struct Left<'a> {
    /// Namespace of the Datastore.
    pub namespace: &'a str,
    /// Its name.
    pub datastore: &'a str,
    /// The shard whose primary was killed.
    pub shard: &'a str,
    /// Its primary now.
    pub primary: &'a str,
    /// The epoch of that one.
    pub epoch: i64,
}

/// What may be done next, and how all of it goes away: one line each.
pub fn advice(cluster: &Cluster, left: Left<'_>) -> Vec<String> {
    match cluster {
        Cluster::Lab => in_the_lab(left),
        Cluster::Named { kubectl, helm } => on_a_named_cluster(&words(kubectl), &words(helm), left),
    }
}

fn in_the_lab(left: Left<'_>) -> Vec<String> {
    let Left { namespace, shard, primary, epoch, .. } = left;
    let kubectl = if namespace == "default" { "kubectl".to_owned() } else { format!("kubectl -n {namespace}") };
    // kubectl takes no flags before the name of a plugin.
    let flag = kubectl.strip_prefix("kubectl").unwrap_or_default();
    let node_loss = format!("cargo lab fault node-loss --replica {primary}; {kubectl} get shards -w");
    vec![
        "The cluster keeps running; `cargo lab down` takes it away. Worth trying next:".into(),
        noted(&format!(". .lab/env; {kubectl} get failover {shard}-{epoch} -o yaml"), RECORD),
        noted(&format!(". .lab/env; kubectl understudy timeline {shard}-{epoch}{flag}"), "the same, step by step"),
        noted(&node_loss, "then: cargo lab heal"),
        load_and_verify("", left),
    ]
}

fn on_a_named_cluster(flags: &str, helm: &str, left: Left<'_>) -> Vec<String> {
    let Left { namespace, datastore, shard, primary, epoch } = left;
    let kubectl = format!("kubectl {flags}-n {namespace}");
    let leaving = format!("{kubectl} delete pod {primary} --wait=false; {kubectl} get shards -w");
    let of_prometheus = "prometheus prometheus-reader scrape-replica scrape-gateway scrape-consumer scrape-query";
    let kinds = "deployment,service,configmap,serviceaccount";
    let token = format!("[{{\"op\":\"remove\",\"path\":\"/data/{TOKEN_ID}\"}}]");
    let uninstall = |release: &str| format!("helm {helm}uninstall {release} -n {NAMESPACE}");
    vec![
        "The cluster is yours, and what was installed there goes on. Worth trying next:".into(),
        noted(&format!("{kubectl} get failover {shard}-{epoch} -o yaml"), RECORD),
        noted(&leaving, "a primary that leaves hands over"),
        load_and_verify(flags, left),
        "What was installed goes away with these, in this order:".into(),
        format!("  {kubectl} delete --ignore-not-found {kinds} {of_prometheus}"),
        format!("  kubectl {flags}delete clusterrole,clusterrolebinding understudy-prometheus-{namespace}"),
        format!("  kubectl {flags}-n {NAMESPACE} delete service scrape-operator"),
        noted(
            &format!("{kubectl} delete datastore {datastore}"),
            "its volumes stay, unless it has `deletionPolicy: Delete`",
        ),
        format!("  {kubectl} delete secret {TOKEN_SECRET}"),
        format!("  {kubectl} patch secret {datastore}-tokens --type json -p '{token}'"),
        noted(&format!("{}; {}", uninstall(RELEASE), uninstall(CRDS)), "the definitions stay: README.md, Uninstall"),
    ]
}

fn noted(command: &str, note: &str) -> String {
    format!("  {command}     # {note}")
}

fn load_and_verify(flags: &str, left: Left<'_>) -> String {
    let mut store = flags.to_owned();
    for (flag, value, default) in
        [("--namespace", left.namespace, "default"), ("--datastore", left.datastore, "metrics")]
    {
        if value != default {
            store += &format!("{flag} {value} ");
        }
    }
    let ledger = "--ledger .lab/mine";
    format!("  cargo lab load {store}--rate 5000 --for 60s {ledger}; cargo lab verify {store}{ledger}")
}

/// Each with a space behind it, as a shell reads them.
fn words(flags: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c);
    let word = |flag: &String| {
        if !flag.is_empty() && flag.chars().all(is_plain) {
            format!("{flag} ")
        } else {
            format!("'{}' ", flag.replace('\'', "'\\''"))
        }
    };
    flags.iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn left() -> Left<'static> {
        Left { namespace: "prod", datastore: "telemetry", shard: "telemetry-0", primary: "telemetry-0-k7x2", epoch: 2 }
    }

    fn named() -> Vec<String> {
        let flags = |context: &str| vec![context.to_owned(), "mine".to_owned()];
        advice(&Cluster::Named { kubectl: flags("--context"), helm: flags("--kube-context") }, left())
    }

    #[test]
    fn on_a_users_cluster_nothing_of_the_lab_alone_is_advised_and_every_command_names_the_cluster() {
        let lines = named();
        for of_the_lab in ["lab down", "lab fault", "lab heal", "lab up", ".lab/env"] {
            assert!(lines.iter().all(|line| !line.contains(of_the_lab)), "{of_the_lab}: {lines:#?}");
        }
        let commands: Vec<_> =
            lines.iter().filter(|line| line.starts_with("  ")).flat_map(|line| line.split("; ")).collect();
        assert!(commands.len() >= 8, "{commands:#?}");
        for command in commands {
            let flag = if command.trim().starts_with("helm ") { "--kube-context mine " } else { "--context mine " };
            assert!(command.contains(flag), "{command}");
        }
        let load = lines.iter().find(|line| line.contains("lab load")).unwrap();
        assert!(load.contains("--namespace prod --datastore telemetry "), "{load}");
    }

    #[test]
    fn what_the_demonstration_put_on_a_users_cluster_is_named_where_it_goes_away() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/prometheus.yaml");
        let manifest = fs::read_to_string(file).unwrap();
        let names = manifest.lines().filter_map(|line| line.strip_prefix("  name: "));
        let mut names: Vec<_> = names.map(|name| name.replace("@NAMESPACE@", "prod")).collect();
        assert!(names.len() > 10, "{names:?}");
        names.extend([TOKEN_SECRET, "telemetry-tokens", RELEASE, CRDS].map(str::to_owned));
        let text = named().join("\n");
        let words: Vec<_> = text.split([' ', ';', '\n']).collect();
        let kept: Vec<_> = names.iter().filter(|name| !words.contains(&name.as_str())).collect();
        assert!(kept.is_empty(), "nothing is said of {kept:?} in\n{text}");
    }

    #[test]
    fn in_the_lab_defaults_are_left_out() {
        let left = Left { namespace: "default", datastore: "metrics", ..left() };
        let lines = advice(&Cluster::Lab, left);
        assert!(lines[0].contains("cargo lab down"), "{lines:#?}");
        assert!(lines.iter().all(|line| !line.contains("--namespace") && !line.contains("-n ")), "{lines:#?}");
    }

    #[test]
    fn a_file_with_a_space_in_its_name_stays_one_word() {
        let flags = ["--kubeconfig".to_owned(), "/my files/it's".to_owned()];
        assert_eq!(words(&flags), "--kubeconfig '/my files/it'\\''s' ");
    }
}
