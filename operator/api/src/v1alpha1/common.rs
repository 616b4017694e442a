//! What more than one kind uses.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, LocalObjectReference, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use strum::{AsRefStr, Display, EnumIter, IntoStaticStr};

use crate::schema;

/// What a replica is to its shard. The same words are the values of the label `understudy.dev/role`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    AsRefStr,
    IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Replicates and may be promoted.
    Standby,
    /// Is still being built.
    #[default]
    Spare,
    /// Was replaced; its volume is kept in quarantine.
    Condemned,
    /// What a later version wrote and this one does not know.
    #[serde(other)]
    Unknown,
}

/// What the pure core concludes from the evidence.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    Display,
    AsRefStr,
    EnumIter,
    IntoStaticStr,
)]
pub enum VerdictState {
    /// Commits succeed.
    Healthy,
    /// Commits succeed, slowly.
    Slow,
    /// Out of connections or behind a lock, and alive.
    Saturated,
    /// Something points to its death, and is not yet enough to act on.
    Suspect,
    /// The server is there and does not serve.
    Stuck,
    /// The process, the pod or the node is gone.
    Gone,
    /// Some observers cannot see it, and others see it commit.
    ObserverPartition,
    /// There is no evidence; or a later version wrote what this one does not know.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A verdict and since when it holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The conclusion.
    pub state: VerdictState,
    /// What named a state of Suspect, Stuck or Gone: ProcessExited, DataLost, VolumeFailed, VolumeFull, Restarted, PodStopped, Unreachable, Stopped,
    /// VolumeStalled, Deadlocked, or Unexplained when commits fail and none of these fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When this state with this cause began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    /// For a person: what was seen, by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What becomes of volumes when their owner is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// The volumes stay.
    #[default]
    Retain,
    /// The volumes are deleted with their owner.
    Delete,
}

/// An amount of a resource, written as a number (`1`) or as text (`500m`, `2Gi`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Amount(pub String);

impl Amount {
    /// In whole units, such as bytes of memory; parts of one count as one, as in Kubernetes. `None` when it is no amount, or more than 64 bits
    /// hold.
    pub fn units(&self) -> Option<u64> {
        let end = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, suffix) = self.0.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
        let (twos, tens): (u32, i32) = match suffix {
            "" => (0, 0),
            "Ki" => (10, 0),
            "Mi" => (20, 0),
            "Gi" => (30, 0),
            "Ti" => (40, 0),
            "Pi" => (50, 0),
            "Ei" => (60, 0),
            "n" => (0, -9),
            "u" => (0, -6),
            "m" => (0, -3),
            "k" => (0, 3),
            "M" => (0, 6),
            "G" => (0, 9),
            "T" => (0, 12),
            "P" => (0, 15),
            "E" => (0, 18),
            exponent => (0, exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
        };
        let shifted = digits.checked_mul(1 << twos)?;
        let tens = tens.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let units = match (10_u128.checked_pow(tens.unsigned_abs()), tens >= 0) {
            (Some(power), true) => shifted.checked_mul(power)?,
            (Some(power), false) => shifted.div_ceil(power),
            (None, true) => (digits == 0).then_some(0)?,
            (None, false) => u128::from(digits > 0),
        };
        u64::try_from(units).ok()
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Number(number) => Self(number.to_string()),
            Written::Text(text) => Self(text),
        })
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": r"^([0-9]+|[0-9]*\.[0-9]+)([eE][+-]?[0-9]+|[KMGTPE]i|[numkMGTPE])?$",
        })
    }
}

/// Requests and limits of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Amount>,
    /// What the container may not exceed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Amount>,
}

impl Resources {
    /// The same as a container's field.
    pub fn to_requirements(&self) -> ResourceRequirements {
        let quantities = |amounts: &BTreeMap<String, Amount>| {
            (!amounts.is_empty())
                .then(|| amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.0.clone()))).collect())
        };
        ResourceRequirements {
            requests: quantities(&self.requests),
            limits: quantities(&self.limits),
            ..Default::default()
        }
    }
}

/// What a person may add to pods that the operator makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Added to the labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::short_texts")]
    #[x_kube(validation = Rule::new("!self.exists(k, k.startsWith('understudy.dev/'))").message("labels under understudy.dev/ are set by the operator; choose another prefix"))]
    pub labels: BTreeMap<String, String>,
    /// Added to the annotations of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::terse::<Vec<Toleration>>")]
    pub tolerations: Vec<Toleration>,
    /// Added to the spreading over nodes and zones that the operator asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::terse::<Option<Affinity>>")]
    pub affinity: Option<Affinity>,
    /// The PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Secrets of this namespace with which images are pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::terse::<Vec<LocalObjectReference>>")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// A Secret in the namespace of the object that names it. There is no way to name one elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.__namespace__)").message("a Secret must be in the namespace of the object that names it; leave out `namespace` and copy the Secret here"))]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("not the name of a Secret; give the bare name of a Secret in this namespace, without a namespace before it"))]
    pub name: String,
    /// Not allowed; here only so that naming one is refused rather than dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Where a topic is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaTopic {
    /// Brokers to begin with, `host:port` with commas between them.
    #[schemars(length(max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^[^,: ]+:[0-9]+(,[^,: ]+:[0-9]+)*$')").message("bootstrapServers must be host:port, with commas and no blanks between several"))]
    pub bootstrap_servers: String,
    /// The topic's name.
    #[schemars(length(max = 249))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9._-]{1,237}$')").message("a topic's name has letters, digits, dots, dashes and underscores, and at most 237 of them: the dead letters get a topic with the same name and more"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("the topic cannot be changed: stored offsets count in the old one; make a new object"))]
    pub topic: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        for (text, units) in [
            ("0", Some(0)),
            ("536870912", Some(512 << 20)),
            ("512Mi", Some(512 << 20)),
            ("1.5Gi", Some(1536 << 20)),
            (".5Ki", Some(512)),
            ("2Ti", Some(2 << 40)),
            ("500M", Some(500_000_000)),
            ("1k", Some(1000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("1e3", Some(1000)),
            ("1E3", Some(1000)),
            ("12.5e+2", Some(1250)),
            ("1500e-3", Some(2)),
            ("536870912000m", Some(512 << 20)),
            ("1m", Some(1)),
            ("1n", Some(1)),
            ("0e99", Some(0)),
            ("1e-99", Some(1)),
            ("16Ei", None),
            ("1e99", None),
            ("99999999999999999999999999999999999999999", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1Gi", None),
            ("1GB", None),
            ("1 Gi", None),
            ("Mi", None),
        ] {
            assert_eq!(Amount(text.to_owned()).units(), units, "{text}");
        }
    }
}
