//! How many replicas a drain may take at once. Pure.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use understudy_api::v1alpha1::Role;
use understudy_api::{Shard, labels, names};

use super::{COMPONENT, owned};

/// All but one replica stay. A shard of one replica has no budget: it would stop every drain for ever.
pub fn budget(shard: &Shard) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: owned(shard, names::shard_budget(&shard.name_any())),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int((shard.spec.replicas - 1).max(0))),
            selector: Some(present_replicas(&shard.name_any())),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// The pods of a shard that are not condemned.
pub(super) fn present_replicas(shard: &str) -> LabelSelector {
    LabelSelector {
        // The component too: a consumer's pods carry the shard's label as well.
        match_labels: Some(
            [(labels::COMPONENT.to_owned(), COMPONENT.to_owned()), (labels::SHARD.to_owned(), shard.to_owned())].into(),
        ),
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: labels::ROLE.to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(vec![Role::Condemned.to_string()]),
        }]),
    }
}
