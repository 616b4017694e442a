//! Every CEL rule refuses what it is there to refuse, with a message that says what to do.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{Base, base, breaches, cases, rules_of, with};

#[test]
fn every_refusal_says_what_to_do() {
    for case in cases() {
        let old = case.old.map(|fields| with(base(case.kind), &fields));
        let object = with(base(case.kind), &case.set);
        let breaches = breaches(case.kind, &object, old.as_ref());
        let messages: Vec<_> = breaches.iter().map(|b| b.message.as_str()).collect();
        assert!(messages.iter().any(|m| m.contains(case.says)), "{:?}, {}: {messages:?}", case.kind, case.name);
    }
}

#[test]
fn what_is_there_before_a_change_is_sound() {
    for case in cases() {
        let Some(fields) = case.old else { continue };
        let breaches = breaches(case.kind, &with(base(case.kind), &fields), None);
        assert!(breaches.is_empty(), "{:?}, {}: {breaches:?}", case.kind, case.name);
    }
}

#[test]
fn every_rule_has_a_case_that_breaks_it() {
    for kind in Base::ALL {
        let mut unbroken: BTreeSet<String> = rules_of(kind);
        assert!(!unbroken.is_empty(), "{kind:?} has no rule");
        for case in cases().into_iter().filter(|case| case.kind == kind) {
            let old = case.old.map(|fields| with(base(kind), &fields));
            for breach in breaches(kind, &with(base(kind), &case.set), old.as_ref()) {
                unbroken.remove(&breach.rule);
            }
        }
        assert!(unbroken.is_empty(), "{kind:?}: no case breaks {unbroken:#?}");
    }
}

#[test]
fn what_is_in_order_breaks_no_rule() {
    for kind in Base::ALL {
        let object = base(kind);
        assert!(breaches(kind, &object, None).is_empty(), "{kind:?} made");
        assert!(breaches(kind, &object, Some(&object)).is_empty(), "{kind:?} unchanged");
    }
    let grown = with(base(Base::Shard), &[("/spec/storage/size", json!("11Gi")), ("/spec/replicas", json!(5))]);
    assert!(breaches(Base::Shard, &grown, Some(&base(Base::Shard))).is_empty());
    let condemned = with(base(Base::Replica), &[("/spec/condemned", json!({"reason": "AskedFor"}))]);
    assert!(breaches(Base::Replica, &condemned, Some(&base(Base::Replica))).is_empty());
    let transactional = [
        ("/spec/datastore", Value::Null),
        ("/spec/shards", json!(["a"])),
        ("/spec/kafka", json!({"bootstrapServers": "kafka:9092", "topic": "t"})),
        ("/spec/acceptGaps", json!(true)),
    ];
    assert!(breaches(Base::Consumer, &with(base(Base::Consumer), &transactional), None).is_empty());
    let by_hand = [
        ("/spec/datastore", Value::Null),
        ("/spec/schedule", Value::Null),
        ("/spec/scope", json!({"kind": "Shard", "name": "a"})),
        ("/spec/requestedAt", json!("2026-03-02T10:00:00Z")),
        ("/spec/abort", json!({"windows": [{"from": "22:00", "to": "02:00"}]})),
    ];
    assert!(breaches(Base::Drill, &with(base(Base::Drill), &by_hand), Some(&base(Base::Drill))).is_empty());
    let quota = [("/spec/gateway/limits", json!({"samplesPerSecondPerTenant": 1_000_000_000}))];
    assert!(breaches(Base::Datastore, &with(base(Base::Datastore), &quota), None).is_empty());
    let more = with(base(Base::Datastore), &[("/spec/shards", json!(4)), ("/spec/kafka/retentionHours", json!(24))]);
    assert!(breaches(Base::Datastore, &more, Some(&base(Base::Datastore))).is_empty());
}

#[test]
fn every_variable_that_may_be_set_is_in_the_description() {
    let schema = &support::schema(Base::Shard)["properties"]["spec"]["properties"]["mysql"]["properties"]["config"];
    let description = schema["description"].as_str().unwrap();
    for name in understudy_api::v1alpha1::ALLOWED_CONFIG {
        assert!(description.contains(name), "{name}");
    }
}
