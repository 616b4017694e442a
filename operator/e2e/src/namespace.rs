//! A namespace for each test, or for the tests that share a shard. I/O.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::wait::{Seen, until};

/// The mark of a test's namespace. `cargo lab test` collects logs from such namespaces before it deletes them.
pub const LABEL: &str = "understudy.dev/e2e";

/// A namespace that was made for a test.
#[derive(Clone)]
pub struct Namespace {
    client: Client,
    name: String,
}

impl Namespace {
    /// Makes `e2e-NAME-xxxxx`, under the restricted Pod Security Standard like a careful user's.
    pub async fn create(client: &Client, name: &str) -> Result<Self> {
        let unique = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % 0x10_0000;
        let name = format!("e2e-{name}-{unique:05x}");
        let labels = [(LABEL, "true"), ("pod-security.kubernetes.io/enforce", "restricted")];
        let object = v1::Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
                ..ObjectMeta::default()
            },
            ..v1::Namespace::default()
        };
        cluster_wide::<v1::Namespace>(client)
            .create(&PostParams::default(), &object)
            .await
            .context("cannot make a namespace")?;
        println!("namespace {name}");
        Ok(Self { client: client.clone(), name })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The objects of one kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Reads the objects of one kind with these labels, by name.
    pub async fn list<K>(&self, labels: &str) -> Result<BTreeMap<String, K>>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let list = self.api::<K>().list(&ListParams::default().labels(labels)).await?;
        Ok(list.items.into_iter().filter_map(|object| Some((object.meta().name.clone()?, object))).collect())
    }

    /// Puts a Secret with these texts into it.
    pub async fn secret(&self, name: &str, texts: &[(&str, String)]) -> Result<()> {
        let secret = v1::Secret {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            string_data: Some(texts.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()),
            ..v1::Secret::default()
        };
        self.api()
            .create(&PostParams::default(), &secret)
            .await
            .with_context(|| format!("cannot make the Secret {name}"))?;
        Ok(())
    }

    /// Asks for its deletion; what is in it goes in the background.
    pub async fn delete(self) -> Result<()> {
        cluster_wide::<v1::Namespace>(&self.client).delete(&self.name, &DeleteParams::background()).await?;
        Ok(())
    }
}

/// Deletes the namespaces that earlier runs left, and waits until they are gone: their servers would take the memory of the next ones.
pub async fn delete_leftovers(client: &Client) -> Result<()> {
    let api = cluster_wide::<v1::Namespace>(client);
    let marked = ListParams::default().labels(LABEL);
    for namespace in api.list(&marked).await?.items {
        let name = namespace.metadata.name.unwrap_or_default();
        println!("deleting {name}, left by an earlier run");
        api.delete(&name, &DeleteParams::background()).await?;
    }
    until("the namespaces of earlier runs are gone", Duration::from_secs(180), async || {
        let left: Vec<_> = api.list(&marked).await?.items.into_iter().filter_map(|n| n.metadata.name).collect();
        Ok(Seen::when(left.is_empty(), (), left.join(", ")))
    })
    .await
}

fn cluster_wide<K>(client: &Client) -> Api<K>
where
    K: Resource<Scope = ClusterResourceScope>,
    K::DynamicType: Default,
{
    Api::all(client.clone())
}
