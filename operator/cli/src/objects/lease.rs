//! A Lease of the operator as read. Pure.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::Facts;

/// Which instance of the operator acts, as those instances agreed on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Where the operator runs.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Another one after each write.
    pub version: Option<String>,
    /// The instance that acts; none when it was given up.
    pub holder: Option<String>,
    /// When it was renewed or given up, by the holder's clock.
    pub renewed: Option<Timestamp>,
    /// For how many seconds it holds without being renewed.
    pub term: Option<i64>,
}

impl Lease {
    /// From an object of the kind.
    pub fn read(object: &DynamicObject) -> Self {
        let facts = Facts::of(object);
        Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            version: object.resource_version(),
            holder: facts.text("/spec/holderIdentity"),
            renewed: facts.time("/spec/renewTime"),
            term: facts.count("/spec/leaseDurationSeconds").filter(|term| *term > 0),
        }
    }
}
