//! No two objects derive one name for objects of one kind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use understudy_api::names;

/// What an object that a person names makes the operator make.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Maker {
    Datastore(String),
    Shard(String),
    Consumer { name: String, shard: String },
}

impl Maker {
    /// (kind, name) of each object, with who it is for: one Consumer makes a Secret once, whatever the shard.
    fn makes(&self) -> Vec<(&'static str, String, Self)> {
        let me = |kind, name: String| (kind, name, self.clone());
        match self {
            Self::Datastore(name) => vec![
                me("Consumer", names::consumer_of(name)),
                me("Shard", names::shard_of(name, 0)),
                me("Shard", names::shard_of(name, 10)),
                me("Deployment", names::gateway(name)),
                me("Deployment", names::query(name)),
                me("Service", names::gateway(name)),
                me("Service", names::query(name)),
                me("PodDisruptionBudget", names::gateway(name)),
                me("PodDisruptionBudget", names::query(name)),
                me("ServiceAccount", names::query(name)),
            ],
            Self::Shard(name) => vec![
                me("ConfigMap", names::config_map(name)),
                me("Secret", names::credentials_secret(name)),
                me("Secret", names::shard_tls_secret(name)),
                me("Service", names::primary_service(name)),
                me("Service", names::standbys_service(name)),
                me("PodDisruptionBudget", names::shard_budget(name)),
            ],
            Self::Consumer { name, shard } => {
                let itself = || Self::Consumer { name: name.clone(), shard: String::new() };
                vec![
                    ("Secret", names::consumer_tls_secret(name), itself()),
                    ("ServiceAccount", names::consumer_account(name), itself()),
                    me("Deployment", names::consumer_workload(name, shard)),
                    me("PodDisruptionBudget", names::consumer_workload(name, shard)),
                ]
            }
        }
    }
}

/// Names out of the very words that names are derived with, so that they meet if they can.
fn name(separator: &'static str) -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "a",
        "b",
        "0",
        "1",
        "tls",
        "consumer",
        "credentials",
        "gateway",
        "query",
        "store",
        "primary",
        "standbys",
        "replicas",
        "mysql",
    ]);
    prop::collection::vec(word, 1..4).prop_map(move |words| words.join(separator))
}

fn maker() -> impl Strategy<Value = Maker> {
    let consumer_name = prop_oneof![name("-"), name(".")];
    prop_oneof![
        name("-").prop_map(Maker::Datastore),
        name("-").prop_map(Maker::Shard),
        (consumer_name, name("-")).prop_map(|(name, shard)| Maker::Consumer { name, shard }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn whatever_two_objects_are_called_they_make_nothing_of_one_name(one in maker(), other in maker()) {
        let mut made = BTreeMap::new();
        for (kind, name, whose) in one.makes().into_iter().chain(other.makes()) {
            if let Some(before) = made.insert((kind, name.clone()), whose.clone()) {
                prop_assert_eq!(before, whose, "both make {} {}", kind, name);
            }
        }
    }
}

#[test]
fn a_shard_and_a_consumer_of_one_name_have_certificates_of_their_own() {
    assert_ne!(names::shard_tls_secret("events"), names::consumer_tls_secret("events"));
    assert_ne!(names::shard_tls_secret("events-consumer"), names::consumer_tls_secret("events"));
}

#[test]
fn a_shard_s_certificate_is_good_for_its_services_by_each_of_their_names() {
    let all = names::shard_sans("events", "prod");
    assert_eq!(all[0], names::shard_san("events"));
    for name in [
        "events-primary",
        "events-primary.prod",
        "events-primary.prod.svc",
        "events-primary.prod.svc.cluster.local",
        "events-standbys",
        "events-standbys.prod.svc",
    ] {
        assert!(all.iter().any(|found| found == name), "{name}: {all:?}");
    }
    let longest = names::shard_sans(&"a".repeat(names::MAX_SHARD), &"n".repeat(63));
    assert!(longest.iter().all(|name| name.len() <= 253), "{longest:?}");
}

#[test]
fn the_longest_names_fit_what_they_are_for() {
    let longest = |length| "a".repeat(length);
    let shard = longest(names::MAX_SHARD);
    for service in [names::primary_service(&shard), names::standbys_service(&shard)] {
        assert!(service.len() <= 63, "{service}");
    }
    let datastore = longest(names::MAX_DATASTORE);
    for service in [names::gateway(&datastore), names::query(&datastore)] {
        assert!(service.len() <= 63, "{service}");
    }
    assert!(names::shard_of(&datastore, 63).len() <= names::MAX_SHARD);
    assert!(names::consumer_of(&datastore).len() <= names::MAX_CONSUMER);
    assert!(names::consumer_workload(&longest(names::MAX_CONSUMER), &shard).len() <= 253);
}
