//! What is told of each Datastore, read anew for each scrape from what the watch saw last. Pure, but for what it is read from.
//!
//! Only the instance that leads tells it, so that no Datastore is told of twice.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kube::ResourceExt;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use understudy_api::Datastore;
use understudy_api::v1alpha1::Availability;

/// What is told of one Datastore.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatastoreFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The types of its conditions, and whether each holds; one that is Unknown is not among them.
    pub conditions: Vec<(String, bool)>,
    /// That of its shards together, once one of them tells.
    pub availability: Option<Availability>,
}

impl DatastoreFacts {
    /// As its status has it.
    pub fn of(datastore: &Datastore) -> Self {
        let conditions = datastore.status.iter().flat_map(|status| &status.conditions);
        let known = conditions.filter(|condition| condition.status != "Unknown");
        Self {
            namespace: datastore.namespace().unwrap_or_default(),
            name: datastore.name_any(),
            conditions: known.map(|condition| (condition.type_.clone(), condition.status == "True")).collect(),
            availability: datastore.status.as_ref().and_then(|status| status.availability.clone()),
        }
    }
}

type Reading = Box<dyn Fn() -> Vec<DatastoreFacts> + Send + Sync>;

/// All Datastores that there are.
#[derive(Clone, Default)]
pub struct Datastores(Arc<OnceLock<Reading>>);

impl fmt::Debug for Datastores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datastores").finish_non_exhaustive()
    }
}

impl Datastores {
    /// How they are read from now on; said once.
    pub fn read_from(&self, reading: impl Fn() -> Vec<DatastoreFacts> + Send + Sync + 'static) {
        self.0.get_or_init(|| Box::new(reading));
    }

    fn all(&self) -> Vec<DatastoreFacts> {
        self.0.get().map(|read| read()).unwrap_or_default()
    }
}

/// Name, help and value of what is told of its availability.
type Number = (&'static str, &'static str, fn(&Availability) -> Option<f64>);

const NUMBERS: &[Number] = &[
    (
        "datastore_unavailable_seconds",
        "Time in which shards took no writes, all together, today and in the 30 days before",
        |of| Some(of.unavailable_seconds),
    ),
    ("datastore_mtbf_seconds", "Mean time between failovers of any shard over these days; absent without one", |of| {
        of.mtbf_seconds
    }),
    ("datastore_mttr_seconds", "Mean time without writes of a failover over these days; absent without one", |of| {
        of.mttr_seconds
    }),
];

/// Tells of the Datastores while this instance leads.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) datastores: Datastores,
    pub(super) leading: Gauge,
}

impl Collector for Telling {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.leading.get() == 0 {
            return Ok(());
        }
        let help = "1 for each condition that is True, 0 for each that is False; absent while Unknown";
        let mut metric = encoder.encode_descriptor("datastore_condition", help, None, MetricType::Gauge)?;
        let all = self.datastores.all();
        for facts in &all {
            for (condition, holds) in &facts.conditions {
                let labels = [
                    ("namespace", facts.namespace.as_str()),
                    ("datastore", facts.name.as_str()),
                    ("condition", condition.as_str()),
                ];
                let series = metric.encode_family(&labels)?;
                ConstGauge::new(f64::from(u8::from(*holds))).encode(series)?;
            }
        }
        for (name, help, of) in NUMBERS {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for facts in &all {
                let Some(number) = facts.availability.as_ref().and_then(of) else { continue };
                let labels = [("namespace", facts.namespace.as_str()), ("datastore", facts.name.as_str())];
                ConstGauge::new(number).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
