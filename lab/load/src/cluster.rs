//! What the cluster tells about a Datastore: its shards, and how its series are spread over partitions. I/O.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

/// Which cluster, and what of it. Without any of it no shard is watched.
#[derive(Clone, Debug, Args)]
pub struct ClusterOptions {
    /// File that says how to reach the API server.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of that file, or of the default one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace of the Datastore.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Datastore whose shards are watched.
    #[arg(long)]
    datastore: Option<String>,
    /// Shard to watch; may be given several times. Without any, all of the Datastore.
    #[arg(long = "shard")]
    shards: Vec<String>,
}

/// A cluster that can be asked.
#[derive(Clone)]
pub struct Cluster {
    /// Of the API server.
    pub client: Client,
    /// Where everything is.
    pub namespace: String,
    options: ClusterOptions,
}

impl ClusterOptions {
    /// The cluster, if one is named.
    pub async fn connect(self) -> Result<Option<Cluster>> {
        if self.kubeconfig.is_none() && self.context.is_none() {
            return Ok(None);
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
                Config::from_custom_kubeconfig(file, &options).await?
            }
            None => Config::from_kubeconfig(&options).await?,
        };
        let client = Client::try_from(config).context("make a client of the API server")?;
        Ok(Some(Cluster { client, namespace: self.namespace.clone(), options: self }))
    }
}

/// The resource behind one of the product's kinds. The lab reads objects by their contract and not through the product's
/// own types.
pub fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: "understudy.dev".into(),
        version: "v1alpha1".into(),
        api_version: "understudy.dev/v1alpha1".into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

impl Cluster {
    /// The shards to watch.
    pub async fn shards(&self) -> Result<Vec<String>> {
        if !self.options.shards.is_empty() {
            return Ok(self.options.shards.clone());
        }
        let selector = self.options.datastore.as_ref().map(|name| format!("understudy.dev/datastore={name}"));
        let params = ListParams { label_selector: selector, ..ListParams::default() };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource("Shard", "shards"));
        let list = api.list_metadata(&params).await.context("list the shards")?;
        Ok(list.items.iter().map(ResourceExt::name_any).collect())
    }

    /// The tenant that `token_id` stands for and the number of partitions, if the cluster tells.
    pub async fn spread(&self, token_id: &str) -> Result<Option<(String, u32)>> {
        let Some(name) = &self.options.datastore else { return Ok(None) };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource("Datastore", "datastores"));
        let datastore = api.get(name).await.with_context(|| format!("read the Datastore {name}"))?;
        let spec = &datastore.data["spec"];
        let partitions = spec["kafka"]["partitions"].as_u64().and_then(|count| u32::try_from(count).ok());
        let secret = spec["gateway"]["tokens"]["name"].as_str();
        let (Some(partitions), Some(secret)) = (partitions, secret) else { return Ok(None) };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = secrets.get(secret).await.with_context(|| format!("read the Secret {secret}"))?;
        let entry = secret.data.unwrap_or_default().remove(token_id).map(|entry| entry.0);
        let tenant = entry.and_then(|entry| Some(String::from_utf8(entry).ok()?.split(' ').next()?.to_owned()));
        Ok(tenant.map(|tenant| (tenant, partitions)))
    }
}
