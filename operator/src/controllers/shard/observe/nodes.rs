//! Which nodes the pods of a shard may not run on, by taints and labels, as the scheduler judges. Pure.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};
use kube::ResourceExt;
use understudy_api::v1alpha1::PodTemplate;

/// Whether a node has a taint that the pods do not tolerate, or lacks a label that they ask for.
pub fn is_barred(node: &Node, template: &PodTemplate) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let mut strict = taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    let is_tolerated = |taint: &Taint| template.tolerations.iter().any(|toleration| tolerates(toleration, taint));
    let is_selected = template.node_selector.iter().all(|(key, value)| node.labels().get(key) == Some(value));
    !strict.all(is_tolerated) || !is_selected || !is_wanted(node, template)
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_for = |wanted: Option<&str>, found: &str| wanted.is_none_or(|wanted| wanted.is_empty() || wanted == found);
    let value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    };
    is_for(toleration.effect.as_deref(), &taint.effect) && is_for(toleration.key.as_deref(), &taint.key) && value
}

/// Whether one of the alternatives that the node affinity requires fits.
fn is_wanted(node: &Node, template: &PodTemplate) -> bool {
    let affinity = template.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| fits(node, term)))
}

fn fits(node: &Node, term: &NodeSelectorTerm) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.name_any();
    // An empty term fits nothing, and there is one field only.
    (!labels.is_empty() || !fields.is_empty())
        && labels.iter().all(|wanted| holds(wanted, node.labels().get(&wanted.key).map(String::as_str)))
        && fields.iter().all(|wanted| wanted.key == "metadata.name" && holds(wanted, Some(&name)))
}

fn holds(wanted: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let is_among = |found: &str| values.iter().any(|value| value == found);
    let numbers = || Some((found?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match wanted.operator.as_str() {
        "In" => found.is_some_and(is_among),
        "NotIn" => found.is_none_or(|found| !is_among(found)),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => numbers().is_some_and(|(found, bound)| found > bound),
        "Lt" => numbers().is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}
