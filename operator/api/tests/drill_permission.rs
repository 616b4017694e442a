//! The policy of `examples/drill-permission.yaml`, evaluated as an API server would: what it lets through and what not. Who is asked at all is for a
//! cluster to say, and is tested in one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use kube::core::cel::{VapEvaluator, VapExpression};
use serde_json::{Value, json};

/// The rule of the policy, and the words it refuses with.
fn rule() -> VapExpression {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/drill-permission.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap();
    let policy = documents.iter().find(|document| document["kind"] == "ValidatingAdmissionPolicy").unwrap();
    let rules = policy["spec"]["validations"].as_array().unwrap();
    assert_eq!(rules.len(), 1, "this test knows of one rule");
    VapExpression {
        expression: rules[0]["expression"].as_str().unwrap().to_owned(),
        message: rules[0]["message"].as_str().map(ToOwned::to_owned),
        message_expression: None,
    }
}

fn is_let_through(new: Value, old: Option<Value>) -> bool {
    let builder = VapEvaluator::builder().object(json!({ "spec": new }));
    let builder = match old {
        Some(old) => builder.old_object(json!({ "spec": old })),
        None => builder,
    };
    let results = builder.build().evaluate(&[rule()]);
    let refusal = results[0].message.clone().unwrap_or_default();
    assert!(results[0].passed || refusal.contains("permit-drills"), "it fails otherwise: {refusal}");
    results[0].passed
}

#[test]
fn a_fault_that_was_not_allowed_before_is_refused_and_everything_else_is_not() {
    let allowed = |faults: &[&str]| json!({ "shards": 2, "drills": { "faults": faults } });
    let plain = || json!({ "shards": 2 });
    let empty = || json!({ "shards": 2, "drills": {} });
    for (case, new, old, expected) in [
        ("made without", plain(), None, true),
        ("made with an empty permission", empty(), None, true),
        ("made with an empty list", allowed(&[]), None, true),
        ("made with one", allowed(&["Kill"]), None, false),
        ("changed otherwise", json!({ "shards": 3 }), Some(plain()), true),
        ("the first", allowed(&["Kill"]), Some(plain()), false),
        ("the first after an empty permission", allowed(&["Kill"]), Some(empty()), false),
        ("one more", allowed(&["Kill", "Wedge"]), Some(allowed(&["Kill"])), false),
        ("one for another", allowed(&["Wedge"]), Some(allowed(&["Kill"])), false),
        ("as before", allowed(&["Kill"]), Some(allowed(&["Kill"])), true),
        ("one less", allowed(&["Kill"]), Some(allowed(&["Wedge", "Kill"])), true),
        ("none any more", plain(), Some(allowed(&["Kill"])), true),
    ] {
        assert_eq!(is_let_through(new, old), expected, "{case}");
    }
}
