//! Whether an operator acts on what is shown, from its Leases. Pure.
//!
//! An instance that acts renews its Lease every second, and gives it up when it is stopped. The times in a Lease are of another machine's
//! clock, and this one's may be wrong: so a Lease that looks old is looked at again for longer than its term, and what was renewed meanwhile
//! is not old. `operator/src/lease.rs` is the other side.

use jiff::Timestamp;
use serde::Serialize;
use understudy_api::names;

use crate::objects::Lease;
use crate::view::time::{seconds_since, span};

/// The term of a Lease that does not say it.
const TERM: i64 = 4;
/// Where the operator is when nothing else is known: the README installs it there.
pub const USUAL_NAMESPACE: &str = "understudy-system";

/// Names of the Leases of operators that look after this namespace: alone, or with all others.
pub fn lease_names(namespace: &str) -> [String; 2] {
    [names::lease(None), names::lease(Some(namespace))]
}

/// What one look at the Leases showed.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Those that were read.
    pub leases: Vec<Lease>,
    /// Why others may be there that were not.
    pub not_read: Option<String>,
}

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all_fields = "camelCase")]
pub enum Leader {
    /// This instance renews its Lease.
    Leading {
        /// Namespace and name of the Lease.
        lease: String,
        /// The instance: the name of its pod.
        holder: String,
    },
    /// This instance has it and does not renew it.
    Silent {
        /// Namespace and name of the Lease.
        lease: String,
        /// The instance: the name of its pod.
        holder: String,
        /// For how long.
        for_seconds: i64,
    },
    /// The last one gave it up, and nobody took it.
    Vacant {
        /// Namespace and name of the Lease.
        lease: String,
        /// For how long, if that is known.
        for_seconds: Option<i64>,
    },
    /// No operator that would look after this namespace has ever acted.
    Never {
        /// The namespace.
        namespace: String,
    },
    /// The Leases could not be read.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Leader {
    /// From the first look, the latest one (the same when there was one only), and the seconds between the two.
    pub fn of(namespace: &str, first: &Look, latest: &Look, between: i64, now: Timestamp) -> Self {
        let leading = latest.leases.iter().find(|lease| is_renewed(lease, first, now));
        if let Some((lease, holder)) = leading.and_then(|lease| Some((lease, lease.holder.clone()?))) {
            return Self::Leading { lease: place(lease), holder };
        }
        // Of those that nobody renews, the one that was renewed last tells who acted last.
        let Some(last) = latest.leases.iter().max_by_key(|lease| lease.renewed) else {
            return match &latest.not_read {
                Some(why) => Self::Unknown { why: why.clone() },
                None => Self::Never { namespace: namespace.to_owned() },
            };
        };
        let age = last.renewed.map(|renewed| seconds_since(renewed, now).max(between));
        match &last.holder {
            Some(holder) => {
                Self::Silent { lease: place(last), holder: holder.clone(), for_seconds: age.unwrap_or(between) }
            }
            None => Self::Vacant { lease: place(last), for_seconds: age },
        }
    }

    /// Whether another look may show something better.
    pub fn may_change(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Vacant { .. })
    }

    /// That nobody acts, and what to do; none when somebody does, or when that is not known.
    pub fn absence(&self) -> Option<String> {
        let (why, lease) = match self {
            Self::Leading { .. } | Self::Unknown { .. } => return None,
            Self::Silent { lease, holder, for_seconds } => {
                (format!("{holder} holds the Lease {lease} and has not renewed it for {}", span(*for_seconds)), lease)
            }
            Self::Vacant { lease, for_seconds } => {
                let since = for_seconds.map(|seconds| format!(" for {}", span(seconds))).unwrap_or_default();
                (format!("nobody has held the Lease {lease}{since}"), lease)
            }
            Self::Never { namespace } => {
                let [all, one] = lease_names(namespace);
                return Some(format!(
                    "no operator acts: none has ever looked after namespace {namespace}, as there is no Lease {all} or {one}. See whether one is \
                     installed: `kubectl get deployments -A -l app.kubernetes.io/name=understudy`"
                ));
            }
        };
        let namespace = lease.split('/').next().unwrap_or(USUAL_NAMESPACE);
        Some(format!(
            "no operator acts: {why}. What is shown is as old, and nothing is done. See why: \
             `kubectl get deployments,pods -n {namespace} -l app.kubernetes.io/name=understudy`"
        ))
    }

    /// That it is not known whether somebody acts; none when it is.
    pub fn doubt(&self) -> Option<String> {
        let Self::Unknown { why } = self else { return None };
        Some(format!(
            "whether an operator acts is not known, and if none does, what is shown is old: {why}. The right to get Leases in the namespace \
             that it runs in is enough, with --operator-namespace"
        ))
    }

    /// Whichever of the two there is.
    pub fn trouble(&self) -> Option<String> {
        self.absence().or_else(|| self.doubt())
    }

    /// Who acts, or that nobody does.
    pub fn words(&self) -> String {
        match self {
            Self::Leading { holder, .. } => format!("an operator acts: {holder}"),
            other => other.trouble().unwrap_or_default(),
        }
    }
}

/// Before anybody has looked.
impl Default for Leader {
    fn default() -> Self {
        Self::Unknown { why: "nobody has looked".into() }
    }
}

fn place(lease: &Lease) -> String {
    format!("{}/{}", lease.namespace, lease.name)
}

/// By the clocks, or because it was renewed, or taken, between two looks. One that the first look may only have missed tells nothing.
fn is_renewed(lease: &Lease, first: &Look, now: Timestamp) -> bool {
    let term = lease.term.unwrap_or(TERM);
    let is_fresh = lease.renewed.is_some_and(|renewed| (now.as_second() - renewed.as_second()).abs() <= term);
    let before = first.leases.iter().find(|before| place(before) == place(lease));
    let is_newer = before.map_or(first.not_read.is_none(), |before| before.version != lease.version);
    lease.holder.is_some() && (is_fresh || is_newer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::fixtures::{at, object};

    fn lease(name: &str, holder: &str, version: u32, renewed: i64) -> Lease {
        Lease::read(&object(json!({
            "metadata": { "namespace": "there", "name": name, "resourceVersion": version.to_string() },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 4, "renewTime": at(renewed) },
        })))
    }

    fn look(leases: &[Lease]) -> Look {
        Look { leases: leases.to_vec(), not_read: None }
    }

    fn leader(first: &Look, latest: &Look, between: i64) -> Leader {
        Leader::of("prod", first, latest, between, at(0))
    }

    #[test]
    fn whoever_renews_acts_whatever_the_clocks_say() {
        let one = |holder: &str, version: u32, renewed: i64| look(&[lease("understudy", holder, version, renewed)]);
        let other = look(&[lease("understudy-other", "", 1, -900)]);
        let leading = Leader::Leading { lease: "there/understudy".into(), holder: "pod-a".into() };
        for (case, first, latest) in [
            ("renewed a moment ago", one("pod-a", 7, -2), one("pod-a", 7, -2)),
            ("its clock is a little ahead", one("pod-a", 7, 3), one("pod-a", 7, 3)),
            ("its clock is ten minutes behind", one("pod-a", 7, -600), one("pod-a", 8, -599)),
            ("its clock is ten minutes ahead", one("pod-a", 7, 600), one("pod-a", 8, 601)),
            ("taken for the first time meanwhile", other, one("pod-a", 1, -600)),
        ] {
            assert_eq!(leader(&first, &latest, 5), leading, "{case}");
        }
    }

    #[test]
    fn a_lease_that_nobody_renews_is_told_with_how_long() {
        let silent =
            |for_seconds| Leader::Silent { lease: "there/understudy".into(), holder: "pod-a".into(), for_seconds };
        let vacant = Leader::Vacant { lease: "there/understudy".into(), for_seconds: Some(60) };
        for (case, seen, expected) in [
            ("for ten minutes", lease("understudy", "pod-a", 7, -600), silent(600)),
            ("by a clock that is ahead", lease("understudy", "pod-a", 7, 600), silent(5)),
            ("just beyond its term", lease("understudy", "pod-a", 7, -5), silent(5)),
            ("given up", lease("understudy", "", 7, -60), vacant),
        ] {
            let seen = look(&[seen]);
            let found = leader(&seen, &seen, 5);
            assert_eq!(found, expected, "{case}");
            assert!(found.may_change() && found.doubt().is_none(), "{case}");
            let words = found.absence().unwrap();
            for part in ["no operator acts", "there/understudy", "kubectl get deployments,pods -n there"] {
                assert!(words.contains(part), "{case}: {words}");
            }
        }
        let words = silent(720).absence().unwrap();
        assert!(words.contains("pod-a holds the Lease there/understudy and has not renewed it for 12m"), "{words}");
    }

    #[test]
    fn an_old_lease_of_another_place_does_not_hide_the_one_that_is_held() {
        let seen = look(&[lease("understudy", "pod-z", 3, -86_400), lease("understudy-prod", "pod-a", 7, -1)]);
        let expected = Leader::Leading { lease: "there/understudy-prod".into(), holder: "pod-a".into() };
        assert_eq!(leader(&seen, &seen, 0), expected);
        let gone = look(&[lease("understudy", "pod-z", 3, -86_400), lease("understudy-prod", "pod-a", 7, -100)]);
        assert!(matches!(leader(&gone, &gone, 5), Leader::Silent { holder, .. } if holder == "pod-a"));
    }

    #[test]
    fn a_lease_that_could_not_be_read_at_first_is_not_one_that_was_taken_meanwhile() {
        let other = lease("understudy-prod", "", 1, -900);
        let first = Look { leases: vec![other.clone()], not_read: Some("no answer".into()) };
        let latest = look(&[other, lease("understudy", "pod-a", 7, -600)]);
        assert!(matches!(leader(&first, &latest, 5), Leader::Silent { holder, .. } if holder == "pod-a"));
    }

    #[test]
    fn without_a_lease_none_ever_acted_unless_they_could_not_be_read() {
        let never = leader(&Look::default(), &Look::default(), 0);
        let words = never.absence().unwrap();
        assert!(words.contains("understudy or understudy-prod") && words.contains("namespace prod"), "{words}");
        assert!(!never.may_change());
        let forbidden = Look { leases: Vec::new(), not_read: Some("leases is forbidden".into()) };
        let unknown = leader(&forbidden, &forbidden, 0);
        assert_eq!((unknown.absence(), unknown.may_change()), (None, false));
        assert!(unknown.doubt().unwrap().contains("leases is forbidden"));
        let found = Look { leases: vec![lease("understudy", "pod-a", 7, -1)], ..forbidden };
        assert!(matches!(leader(&found, &found, 0), Leader::Leading { .. }), "what was read is enough");
    }

    #[test]
    fn programs_read_the_state_by_its_name() {
        let silent = Leader::Silent { lease: "there/understudy".into(), holder: "pod-a".into(), for_seconds: 720 };
        let expected = json!({ "state": "Silent", "lease": "there/understudy", "holder": "pod-a", "forSeconds": 720 });
        assert_eq!(serde_json::to_value(&silent).unwrap(), expected);
    }

    #[test]
    fn what_the_product_is_found_by_is_what_the_chart_gives_it() {
        let chart = include_str!("../../../charts/understudy/templates/_names.tpl");
        assert!(chart.contains("app.kubernetes.io/name: understudy"));
        assert!(include_str!("../../../README.md").contains(USUAL_NAMESPACE));
    }
}
