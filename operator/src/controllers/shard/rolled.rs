//! Which replicas are as they would be made now, and which as an earlier spec or operator made them. Pure.
//!
//! It is only shown: nothing is replaced because of it.

use kube::ResourceExt;
use understudy_api::conditions::{self, Claim};

use super::build;
use super::observe::Objects;

/// How a person brings a replica up to date.
const ROLL: &str = "to replace one: kubectl patch replica NAME --type merge -p '{\"spec\":{\"condemned\":{\"reason\":\"Rolled\"}}}', \
                    standbys first and one at a time, the primary after a switchover";

/// How a replica is, held against what would be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no pod: that will be made as it should be.
    NoPod,
    /// The same.
    Current,
    /// Its pod would be made otherwise: by another spec, or by another operator.
    PodOfBefore,
    /// Its volume is smaller.
    SmallVolume,
}

/// How a replica is.
pub fn standing(objects: &Objects, replica: &str) -> Standing {
    let Some(pod) = objects.pods.get(replica) else { return Standing::NoPod };
    if pod.annotations().get(build::FINGERPRINT) != Some(&objects.fingerprint) {
        return Standing::PodOfBefore;
    }
    match objects.claims.get(replica) {
        Some(claim) if build::is_smaller(claim, &objects.shard) => Standing::SmallVolume,
        _ => Standing::Current,
    }
}

/// Replicas that were not condemned, by whether they are up to date; those without a pod will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rolled {
    /// How many there are.
    pub all: usize,
    /// Names of those that are as an earlier spec or operator made them.
    pub behind: Vec<String>,
}

impl Rolled {
    /// From the objects of a shard.
    pub fn of(objects: &Objects) -> Self {
        let cast = objects.replicas.iter().filter(|replica| !build::is_condemned(replica));
        let names: Vec<_> = cast.filter_map(|replica| replica.metadata.name.clone()).collect();
        let is_behind =
            |name: &&String| matches!(standing(objects, name), Standing::PodOfBefore | Standing::SmallVolume);
        Self { all: names.len(), behind: names.iter().filter(is_behind).cloned().collect() }
    }

    /// Such as `2/3`.
    pub fn text(&self) -> String {
        format!("{}/{}", self.all - self.behind.len(), self.all)
    }

    /// The condition of the shard.
    pub fn claim(&self) -> Claim {
        if self.behind.is_empty() {
            let message = "every replica is as the spec and the operator would make it now";
            return Claim::yes(conditions::UP_TO_DATE, "AllUpToDate", message);
        }
        let behind = self.behind.join(", ");
        let message = format!("{behind} are as an earlier spec or operator made them; {ROLL}");
        Claim::no(conditions::UP_TO_DATE, "ReplicasBehind", message)
    }
}

/// The condition of a replica.
pub fn of_replica(standing: Standing) -> Claim {
    let kind = conditions::UP_TO_DATE;
    match standing {
        Standing::Current => {
            Claim::yes(kind, "AsMadeNow", "its pod and volume are as the spec and the operator would make them now")
        }
        Standing::PodOfBefore => {
            Claim::no(kind, "PodOfBefore", format!("its pod is as an earlier spec or operator made it; {ROLL}"))
        }
        Standing::SmallVolume => {
            Claim::no(kind, "VolumeOfBefore", format!("its volume is smaller than the spec asks; {ROLL}"))
        }
        Standing::NoPod => Claim::unknown(kind, "NoPod", "it has no pod"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_names_the_replicas_that_run_as_an_earlier_spec_asked() {
        let behind = Rolled { all: 3, behind: vec!["m-a".to_owned(), "m-c".to_owned()] };
        let claim = behind.claim();
        assert_eq!((behind.text().as_str(), claim.holds), ("1/3", Some(false)));
        assert!(claim.message.starts_with("m-a, m-c are as an earlier spec"), "{}", claim.message);
        let current = Rolled { all: 3, behind: vec![] };
        assert_eq!((current.text().as_str(), current.claim().holds), ("3/3", Some(true)));
    }

    #[test]
    fn a_replica_without_a_pod_is_neither() {
        let all = [Standing::Current, Standing::PodOfBefore, Standing::SmallVolume, Standing::NoPod];
        let holds = all.map(|standing| of_replica(standing).holds);
        assert_eq!(holds, [Some(true), Some(false), Some(false), None]);
    }
}
