//! The definitions name every word that decisions use: a person looks a word up with `kubectl explain`.

use strum::IntoEnumIterator;
use understudy_api::crds;
use understudy_decide::Cause;
use understudy_decide::failover::record::Milestone;

/// The description of a field of a kind's status.
fn description(kind: &str, field: &str) -> String {
    let definition = crds::all().into_iter().find(|crd| crd.spec.names.kind == kind).expect("a kind");
    let definition = serde_json::to_value(definition).expect("a definition is JSON");
    let path = format!("/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/{field}/description");
    definition.pointer(&path).and_then(|text| text.as_str()).expect("a description").to_owned()
}

fn missing(text: &str, words: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<_> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    words.filter(|word| !known.contains(&word.as_str())).collect()
}

#[test]
fn every_cause_of_a_verdict_is_named() {
    for kind in ["Shard", "Replica"] {
        let text = description(kind, "verdict/properties/cause");
        assert_eq!(missing(&text, Cause::iter().map(|cause| cause.to_string())), [""; 0], "{kind}: {text}");
    }
}

#[test]
fn every_step_of_a_timeline_is_named() {
    let text = description("Failover", "timeline/items/properties/step");
    assert_eq!(missing(&text, Milestone::iter().map(|step| step.to_string())), [""; 0], "{text}");
}
