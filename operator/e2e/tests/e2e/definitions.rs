//! The definitions as a real API server takes them: it puts a price on every rule, and turns down a definition that is too dear.
//!
//! The rules are broken on copies under another group, which no operator watches: nothing acts on the objects.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use understudy_e2e::cluster::Cluster;
use understudy_e2e::manifest::folder;
use understudy_e2e::namespace::{LABEL, Namespace};
use understudy_e2e::run;
use understudy_e2e::wait::{Seen, until};

#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#[path = "../../../api/tests/support/cases/mod.rs"]
mod cases;

use cases::{Base, Case, base, cases, with};

/// The group of the copies.
const COPIES: &str = "e2e.understudy.dev";

#[test]
fn crds_are_accepted() -> Result<()> {
    run(async {
        let cluster = Cluster::get().await?;
        let copies = Copies::none(cluster).await?;
        for (name, definition) in definitions()? {
            let apply = PatchParams { dry_run: true, force: true, ..PatchParams::apply("e2e") };
            let definitions = &copies.definitions;
            definitions
                .patch(&name, &apply, &Patch::Apply(&definition))
                .await
                .with_context(|| format!("crds/ holds a {name} that the API server does not take"))?;
            // Over a definition that is there, rules that did not change are not priced again; a new one has all of its priced.
            definitions
                .create(&dry(), &copied(definition)?)
                .await
                .with_context(|| format!("crds/ holds a {name} that the API server does not take as a new one"))?;
        }
        Ok(())
    })
}

#[test]
fn every_broken_rule_is_refused_with_its_message() -> Result<()> {
    run(async {
        let cluster = Cluster::get().await?;
        let copies = Copies::none(cluster).await?.make().await?;
        let namespace = Namespace::create(&cluster.client, "rules").await?;
        let mut wrong = Vec::new();
        let cases = cases();
        ensure!(!cases.is_empty(), "there is no case");
        for (number, case) in cases.into_iter().enumerate() {
            let api = copies.of(case.kind, &namespace)?;
            if let Some(why) = refused(&api, &case, number).await? {
                wrong.push(format!("{:?}, {}: {why}", case.kind, case.name));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        for kind in Base::ALL {
            let api = copies.of(kind, &namespace)?;
            api.create(&dry(), &object(base(kind))?)
                .await
                .with_context(|| format!("{kind:?}: a sound one was refused"))?;
        }
        copies.clear().await?;
        namespace.delete().await
    })
}

/// What is wrong with the answer to an object that a rule must refuse; `None` when it is refused in the rule's own words.
async fn refused(api: &Api<DynamicObject>, case: &Case, number: usize) -> Result<Option<String>> {
    let named = [("/metadata/name", json!(format!("case-{number}")))];
    let answer = match &case.old {
        None => api.create(&dry(), &object(with(base(case.kind), &case.set))?).await,
        Some(before) => {
            let old = object(with(with(base(case.kind), before), &named))?;
            let old = api
                .create(&PostParams::default(), &old)
                .await
                .with_context(|| format!("{:?}, {}: the one before the change was refused", case.kind, case.name))?;
            let mut new = object(with(with(base(case.kind), &case.set), &named))?;
            new.metadata.resource_version = old.metadata.resource_version;
            api.replace(&format!("case-{number}"), &dry(), &new).await
        }
    };
    Ok(match answer {
        Ok(_) => Some("it was accepted".into()),
        Err(kube::Error::Api(status)) if status.message.contains(case.says) => None,
        Err(kube::Error::Api(status)) => Some(format!("it does not say `{}`: {}", case.says, status.message)),
        Err(error) => return Err(error.into()),
    })
}

fn dry() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// An object of a kind, as one of its copy.
fn object(mut value: Value) -> Result<DynamicObject> {
    let kind = value["kind"].as_str().context("an object has a kind")?;
    value["kind"] = json!(format!("Copied{kind}"));
    value["apiVersion"] = json!(format!("{COPIES}/v1alpha1"));
    Ok(serde_json::from_value(value)?)
}

/// The files under `crds/`, by the name of what they define.
fn definitions() -> Result<BTreeMap<String, Value>> {
    let files: Vec<PathBuf> =
        std::fs::read_dir(folder("crds"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    ensure!(files.len() == Base::ALL.len(), "{} files under crds/ and {} kinds", files.len(), Base::ALL.len());
    let mut all = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let value: Value = serde_saphyr::from_str(&text).with_context(|| format!("{} is not YAML", file.display()))?;
        let name = value["metadata"]["name"].as_str().context("a definition has a name")?.to_owned();
        all.insert(name, value);
    }
    Ok(all)
}

/// The same definition under another group and other names, so that `kubectl get shards` goes on to mean the shards.
fn copied(mut definition: Value) -> Result<CustomResourceDefinition> {
    let names = &mut definition["spec"]["names"];
    let word = |value: &Value| value.as_str().map(str::to_owned).context("a definition has names");
    let (plural, kind) = (format!("copied{}", word(&names["plural"])?), format!("Copied{}", word(&names["kind"])?));
    *names = json!({"plural": plural, "kind": kind});
    definition["spec"]["group"] = json!(COPIES);
    definition["metadata"] = json!({"name": format!("{plural}.{COPIES}"), "labels": {LABEL: "true"}});
    Ok(serde_json::from_value(definition)?)
}

/// Copies of the definitions, in the cluster.
struct Copies {
    definitions: Api<CustomResourceDefinition>,
    kinds: BTreeMap<String, ApiResource>,
}

impl Copies {
    /// What an earlier run left is deleted: a definition of today must not be an update of one of yesterday.
    async fn none(cluster: &Cluster) -> Result<Self> {
        let copies = Self { definitions: Api::all(cluster.client.clone()), kinds: BTreeMap::new() };
        copies.clear().await?;
        Ok(copies)
    }

    /// Makes them and waits until they are served.
    async fn make(mut self) -> Result<Self> {
        for definition in definitions()?.into_values() {
            let copy = copied(definition)?;
            let names = &copy.spec.names;
            let kind = GroupVersionKind::gvk(COPIES, "v1alpha1", &names.kind);
            self.kinds.insert(names.kind.clone(), ApiResource::from_gvk_with_plural(&kind, &names.plural));
            self.definitions.create(&PostParams::default(), &copy).await.context("a copy is not taken")?;
        }
        for (kind, resource) in &self.kinds {
            let api = Api::<DynamicObject>::all_with(self.client(), resource);
            until(format!("{kind} is served"), Duration::from_secs(30), async || {
                api.list(&ListParams::default()).await?;
                Ok(Seen::Done(()))
            })
            .await?;
        }
        Ok(self)
    }

    fn client(&self) -> Client {
        self.definitions.clone().into_client()
    }

    /// Objects of the copy of a kind.
    fn of(&self, kind: Base, namespace: &Namespace) -> Result<Api<DynamicObject>> {
        let resource = self.kinds.get(&format!("Copied{kind:?}")).with_context(|| format!("no copy of {kind:?}"))?;
        Ok(Api::namespaced_with(self.client(), namespace.name(), resource))
    }

    async fn clear(&self) -> Result<()> {
        let copies = ListParams::default().labels(LABEL);
        for left in self.definitions.list(&copies).await?.items {
            let name = left.metadata.name.unwrap_or_default();
            self.definitions.delete(&name, &DeleteParams::default()).await?;
        }
        until("the copies are gone", Duration::from_secs(60), async || {
            let left = self.definitions.list(&copies).await?.items.len();
            Ok(Seen::when(left == 0, (), format!("{left} left")))
        })
        .await
    }
}
