//! Objects that the schema lets through and that cannot work.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use understudy_api::conditions;
use understudy_api::v1alpha1::Shard;
use understudy_e2e::cluster::Cluster;
use understudy_e2e::namespace::Namespace;
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{manifest, run, see, stage};

#[test]
fn malformed_objects_do_not_stop_a_sound_one_beside_them_and_say_what_is_wrong() -> Result<()> {
    run(async {
        let cluster = Cluster::get().await?;
        let namespace = Namespace::create(&cluster.client, "malformed").await?;
        let template = manifest::datastore()?.spec.shard_template;
        let shard = |name: &str, change: &dyn Fn(&mut Value)| -> Result<DynamicObject> {
            let mut spec = json!({"replicas": 1, "mysql": template.mysql, "storage": template.storage});
            change(&mut spec);
            Ok(serde_json::from_value(
                json!({"apiVersion": "understudy.dev/v1alpha1", "kind": "Shard", "metadata": {"name": name}, "spec": spec}),
            )?)
        };
        let weight = json!({"podAffinityTerm": {"topologyKey": "x"}, "weight": 3_000_000_000_i64});
        let objects = [
            // An integer that fits the schema and no 32 bits: no program of ours can read this object.
            shard("undecodable", &|s| {
                s["podTemplate"] =
                    json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [weight]}}});
            })?,
            // The API server will refuse the pod.
            shard("requests-above-limits", &|s| {
                s["mysql"]["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
            })?,
            shard("no-such-class", &|s| s["storage"]["storageClassName"] = json!("there-is-none"))?,
            shard("sound", &|_| {})?,
        ];
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("understudy.dev", "v1alpha1", "Shard"));
        let api = Api::<DynamicObject>::namespaced_with(cluster.client.clone(), namespace.name(), &kind);
        for object in &objects {
            let name = object.name_any();
            api.create(&PostParams::default(), object)
                .await
                .with_context(|| format!("{name} was refused by the API server"))?;
        }
        until("the sound shard is at rest", stage::SETTLE, async || {
            let shard = namespace.api::<Shard>().get("sound").await?;
            Ok(Seen::when(see::unsettled(&shard).is_none(), (), see::shard(&shard)))
        })
        .await?;
        for (name, kinds, words) in [
            // The API server's own.
            (
                "requests-above-limits",
                &[conditions::READY, conditions::PROVISIONED][..],
                "must be less than or equal to cpu limit",
            ),
            ("no-such-class", &[conditions::READY, conditions::PROVISIONED], "StorageClass there-is-none"),
            ("undecodable", &[conditions::READY], "does not parse"),
        ] {
            until(format!("{name} says what is wrong"), Duration::from_secs(60), async || {
                // As JSON: one of them cannot be read otherwise.
                let conditions = api.get(name).await?.data["status"]["conditions"].clone();
                let says = |kind: &str| {
                    let mut all = conditions.as_array().into_iter().flatten();
                    all.any(|c| {
                        let message = c["message"].as_str().unwrap_or_default();
                        c["type"] == kind && c["status"] == "False" && message.contains(words)
                    })
                };
                Ok(Seen::when(kinds.iter().all(|kind| says(kind)), (), conditions.to_string()))
            })
            .await?;
        }
        let undecodable = api.get("undecodable").await?;
        ensure!(
            undecodable.data.get("status").is_none_or(|s| s["primary"].is_null()),
            "it was acted on: {:?}",
            undecodable.data
        );
        namespace.delete().await
    })
}
