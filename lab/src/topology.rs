//! Names and addresses of the one lab a machine can have. Pure.

use serde::{Deserialize, Serialize};

/// The bridge all nodes hang on; the host's end carries the control plane, Kafka and S3.
pub const BRIDGE: &str = "understudy0";
/// The host's address on the bridge.
pub const HOST: &str = "10.88.0.1";
/// Range of Services.
pub const SERVICE_CIDR: &str = "10.90.0.0/16";
/// First address of the Service range: the API server inside the cluster.
pub const KUBERNETES_SERVICE: &str = "10.90.0.1";
/// Cluster DNS.
pub const DNS_SERVICE: &str = "10.90.0.10";
/// Range of all pods; each node has a /24 of it.
pub const POD_CIDR: &str = "10.89.0.0/16";
/// API server.
pub const API_PORT: u16 = 6443;
/// Kafka brokers 1, 2 and 3 listen on this port and the two after it.
pub const KAFKA_PORT: u16 = 9092;
/// Their controllers.
pub const KAFKA_CONTROLLER_PORT: u16 = 9192;
/// S3.
pub const S3_PORT: u16 = 9000;
/// Access key of the lab's S3; it guards nothing.
pub const S3_ACCESS: &str = "understudy";
/// Secret key of the lab's S3.
pub const S3_SECRET: &str = "understudy-lab";
/// etcd, for the API server only.
pub const ETCD_PORT: u16 = 23790;
/// etcd's peer port.
pub const ETCD_PEER_PORT: u16 = 23800;
/// Parent of all nodes' cgroups, in every hierarchy.
pub const CGROUP: &str = "understudy-lab";
/// More nodes than this do not fit the address plan or any sense on one machine.
pub const MAX_NODES: u8 = 16;

/// A node of the cluster: a network, mount and process namespace of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// From 1.
    pub index: u8,
    /// Failure domain, a label of the Kubernetes node.
    pub zone: String,
}

impl Node {
    /// Node `index` (from 1) with its zone: a, b, then c for all others.
    pub fn new(index: u8) -> Self {
        let zone = match index {
            1 => "a",
            2 => "b",
            _ => "c",
        };
        Self { index, zone: zone.to_owned() }
    }
    /// Name in Kubernetes.
    pub fn name(&self) -> String {
        format!("node-{}", self.index)
    }
    /// Address on the bridge.
    pub fn address(&self) -> String {
        format!("10.88.0.{}", 10 + self.index)
    }
    /// Range of this node's pods.
    pub fn pod_cidr(&self) -> String {
        format!("10.89.{}.0/24", self.index)
    }
    /// Name of the network namespace.
    pub fn netns(&self) -> String {
        format!("understudy-{}", self.index)
    }
    /// Path of the network namespace.
    pub fn netns_path(&self) -> String {
        format!("/run/netns/{}", self.netns())
    }
    /// The host's end of the node's cable.
    pub fn veth(&self) -> String {
        format!("understudy-v{}", self.index)
    }
    /// cgroup of the node's pods, from the root of a hierarchy.
    pub fn cgroup(&self) -> String {
        format!("{CGROUP}/{}", self.name())
    }
}

/// `host:port` of the three brokers.
pub fn kafka_bootstrap() -> String {
    (0..3).map(|i| format!("{HOST}:{}", KAFKA_PORT + i)).collect::<Vec<_>>().join(",")
}

/// URL of the API server.
pub fn api_url() -> String {
    format!("https://{HOST}:{API_PORT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_nodes_lie_in_zones_a_b_c_c() {
        let zones: Vec<_> = (1..=4).map(|i| Node::new(i).zone).collect();
        assert_eq!(zones, ["a", "b", "c", "c"]);
    }

    #[test]
    fn interface_names_fit_the_kernels_fifteen_bytes() {
        assert!(Node::new(MAX_NODES).veth().len() <= 15);
        assert!(BRIDGE.len() <= 15);
    }
}
