//! Which replicas run as the spec asks now, and which as an earlier one did. Pure.

use understudy_api::conditions::{self, Claim};

use super::build;
use super::observe::Objects;

/// How a person brings a replica up to date.
const ROLL: &str = "to replace one: kubectl patch replica NAME --type merge -p '{\"spec\":{\"condemned\":{\"reason\":\"Rolled\"}}}', \
                    standbys first and one at a time, the primary after a switchover";

/// Replicas that were not condemned, by whether their pods are up to date; those without a pod will be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rolled {
    /// How many there are.
    pub all: usize,
    /// Names of those that run as an earlier spec asked.
    pub behind: Vec<String>,
}

impl Rolled {
    /// From the objects of a shard.
    pub fn of(objects: &Objects) -> Self {
        let cast = objects.replicas.iter().filter(|replica| !build::is_condemned(replica));
        let names: Vec<_> = cast.filter_map(|replica| replica.metadata.name.clone()).collect();
        let is_behind = |name: &&String| is_up_to_date(objects, name) == Some(false);
        Self { all: names.len(), behind: names.iter().filter(is_behind).cloned().collect() }
    }

    /// Such as `2/3`.
    pub fn text(&self) -> String {
        format!("{}/{}", self.all - self.behind.len(), self.all)
    }

    /// The condition of the shard.
    pub fn claim(&self) -> Claim {
        if self.behind.is_empty() {
            return Claim::yes(conditions::UP_TO_DATE, "AllUpToDate", "every replica runs as the spec asks");
        }
        let behind = self.behind.join(", ");
        let message = format!("{behind} run with the image, configuration or resources of an earlier spec; {ROLL}");
        Claim::no(conditions::UP_TO_DATE, "ReplicasBehind", message)
    }
}

/// Whether the pod of a replica is up to date, if it has one.
pub fn is_up_to_date(objects: &Objects, replica: &str) -> Option<bool> {
    objects.pods.get(replica).map(|pod| build::is_up_to_date(&**pod, &objects.shard))
}

/// The condition of a replica.
pub fn of_replica(is_up_to_date: Option<bool>) -> Claim {
    let kind = conditions::UP_TO_DATE;
    match is_up_to_date {
        Some(true) => {
            Claim::yes(kind, "AsTheSpecAsks", "its pod has the image, configuration and resources of the spec")
        }
        Some(false) => Claim::no(
            kind,
            "PodOfBefore",
            format!("its pod has the image, configuration or resources of an earlier spec; {ROLL}"),
        ),
        None => Claim::unknown(kind, "NoPod", "it has no pod"),
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
        assert!(claim.message.starts_with("m-a, m-c run with"), "{}", claim.message);
        let current = Rolled { all: 3, behind: vec![] };
        assert_eq!((current.text().as_str(), current.claim().holds), ("3/3", Some(true)));
    }

    #[test]
    fn a_replica_without_a_pod_is_neither() {
        assert_eq!(
            [Some(true), Some(false), None].map(|state| of_replica(state).holds),
            [Some(true), Some(false), None]
        );
    }
}
