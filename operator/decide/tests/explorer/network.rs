//! Who reaches whom, and how a probe of a server ends.

use understudy_wire::ReplicaName;
use understudy_wire::evidence::{Millis, ProbeError, Stage};

use super::cluster::{NodeW, Process};
use super::world::World;

/// How long a commit took, or where and how an attempt failed.
pub type Attempt = Result<Millis, (Stage, ProbeError)>;

/// From where the operator looks.
pub const OPERATOR: &str = "operator";
/// How long a commit takes as a rule.
const QUICK: Millis = 2;

/// Behind a lock: what the server answers a probe, which waits for it a second.
pub fn locked() -> ProbeError {
    ProbeError::Server { code: 1205, message: "Lock wait timeout exceeded".into() }
}

impl World {
    /// Whether nothing gets from a place to a node. A place is the operator, a consumer's pod or a node.
    pub fn is_severed(&self, from: &str, node: usize) -> bool {
        let NodeW { name, cut, .. } = &self.nodes[node];
        let between =
            |(one, other): &(String, String)| (one == from && other == name) || (other == from && one == name);
        (from == OPERATOR && *cut) || self.severed.iter().any(between)
    }

    /// How a probe up to a commit ends.
    pub fn try_commit(&self, subject: &ReplicaName, from: &str) -> Attempt {
        let unreachable = Err((Stage::Tcp, ProbeError::Timeout));
        let silent = Err((Stage::Commit, ProbeError::Timeout));
        let Some(rep) = self.replicas.get(subject) else { return unreachable };
        let Some(pod) = &rep.pod else { return unreachable };
        if pod.ended || !self.nodes[pod.node].runs() || self.is_severed(from, pod.node) {
            return unreachable;
        }
        if pod.frozen {
            return Err((Stage::Greeting, ProbeError::Timeout));
        }
        if pod.process != Process::Running {
            return Err((Stage::Tcp, ProbeError::Refused { message: "refused".into() }));
        }
        if pod.deadlocked {
            return silent;
        }
        if pod.read_only {
            return Err((Stage::Commit, ProbeError::ReadOnly));
        }
        let slow = self.slow.max(self.load).max(QUICK);
        match &rep.disk {
            Some(disk) if disk.fails => {
                Err((Stage::Commit, ProbeError::Server { code: 1026, message: "Error writing file (errno: 5)".into() }))
            }
            Some(disk) if !disk.takes_writes() => silent,
            _ if pod.locked_until.is_some() => Err((Stage::Commit, locked())),
            disk => Ok(disk.as_ref().map_or(slow, |disk| disk.slow.max(slow))),
        }
    }
}
