//! What keeps a Drill from doing anything, and who may allow it harm. What it does where it may is in `drill_faults`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use understudy_api::v1alpha1::{Datastore, Drill, DrillFault, DrillResult, VerdictState};
use understudy_e2e::calm::Calm;
use understudy_e2e::fault::{Fault, heal};
use understudy_e2e::manifest::folder;
use understudy_e2e::stage::Stage;
use understudy_e2e::wait::{Seen, until};
use understudy_e2e::{rehearsal, run, see, stage};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_fault_that_the_datastore_does_not_allow_is_refused_and_the_drill_says_what_to_set() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let calm = Calm::of(&stage).await?;
        rehearsal::ask(&stage, "not-allowed", DrillFault::Kill, json!({})).await?;
        let run = rehearsal::ended(&stage, "not-allowed", SOON).await?;
        ensure!(run.result == Some(DrillResult::Skipped), "{run:?}");
        ensure!(run.reason.as_deref() == Some("NotAllowed") && run.victims.is_empty(), "{run:?}");
        let says = run.message.unwrap_or_default();
        ensure!(
            says.contains("put Kill into spec.drills.faults of Datastore e2e"),
            "it does not say what to do: {says}"
        );
        let status = rehearsal::status(&stage, "not-allowed").await?;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        ensure!(ready.is_some_and(|ready| ready.status == "False" && ready.reason == "NotAllowed"), "{ready:?}");
        event(&stage, "DrillRefused").await?;
        let broken = calm.broken(&stage).await?;
        ensure!(broken.is_none(), "{broken:?}");
        delete(&stage, "not-allowed").await
    })
}

#[test]
fn no_run_begins_while_a_shard_is_not_healthy() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        // Otherwise it would be replaced before anybody could ask.
        stage.change(json!({"shardTemplate": {"failover": {"mode": "Manual"}}})).await?;
        stage.settled().await?;
        let calm = Calm::of(&stage).await?;
        Fault::Freeze.inject(stage.cluster, &stage.namespace, calm.primary()).await?;
        let outcome = refused_for_its_health(&stage).await;
        heal(stage.cluster).await?;
        outcome?;
        healthy(&stage).await?;
        let broken = calm.broken(&stage).await?;
        ensure!(broken.is_none(), "{broken:?}");
        delete(&stage, "unwell").await?;
        stage.change(json!({"shardTemplate": {"failover": {"mode": "Automatic"}}})).await?;
        stage.settled().await
    })
}

async fn refused_for_its_health(stage: &Stage) -> Result<()> {
    until("the primary is not Healthy", SOON, async || {
        let shard = stage.shard().await?;
        Ok(Seen::when(see::verdict(&shard) != Some(VerdictState::Healthy), (), see::shard(&shard)))
    })
    .await?;
    rehearsal::ask(stage, "unwell", DrillFault::Switchover, json!({})).await?;
    let run = rehearsal::ended(stage, "unwell", SOON).await?;
    ensure!(run.result == Some(DrillResult::Skipped) && run.reason.as_deref() == Some("Unhealthy"), "{run:?}");
    ensure!(run.message.as_ref().is_some_and(|says| says.contains(&stage.shard_name(0))), "{run:?}");
    event(stage, "DrillSkipped").await
}

#[test]
fn with_the_example_policy_only_who_may_permit_drills_allows_a_fault() -> Result<()> {
    run(async {
        let stage = stage::shared().await?;
        let objects = policy(&stage, &folder("examples/drill-permission.yaml"))?;
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        stage.cluster.kubectl(&["apply", "-f", "-"], &list).await?;
        let outcome = permitted(&stage).await;
        stage.cluster.kubectl(&["delete", "--ignore-not-found", "-f", "-"], &list).await?;
        outcome
    })
}

/// The objects of the example, under other names, for the stage's namespace only, with a user who may edit and one who may permit drills too.
fn policy(stage: &Stage, example: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(example).with_context(|| format!("cannot read {}", example.display()))?;
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).context("the example is not YAML")?;
    let name = "e2e-drill-permission";
    let namespace = stage.namespace.name();
    for object in &mut objects {
        object["metadata"]["name"] = json!(name);
        match object["kind"].as_str() {
            Some("ValidatingAdmissionPolicyBinding") => {
                object["spec"]["policyName"] = json!(name);
                let only_here = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
                object["spec"]["matchResources"] = json!({"namespaceSelector": only_here});
            }
            Some("ClusterRoleBinding") => object["roleRef"]["name"] = json!(name),
            _ => {}
        }
    }
    for (binding, role, users) in [("e2e-edit", "edit", &["dev", "oncall"][..]), (name, name, &["oncall"][..])] {
        let user = |user: &&str| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user});
        objects.push(json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": binding, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": users.iter().map(user).collect::<Vec<_>>(),
        }));
    }
    Ok(objects)
}

async fn permitted(stage: &Stage) -> Result<()> {
    let allows = r#"{"spec":{"drills":{"faults":["Kill"]}}}"#;
    let datastore = ["datastore", stage.datastore.as_str()];
    // The API server takes up a policy in its own time.
    until("a user who may only edit is refused", SOON, async || {
        Ok(match change(stage, "dev", datastore, allows).await {
            Ok(_) => Seen::NotYet("it was accepted".to_owned()),
            Err(error) => {
                let words = format!("{error:#}");
                Seen::when(words.contains("needs the verb permit-drills"), (), words)
            }
        })
    })
    .await?;
    change(stage, "dev", datastore, r#"{"metadata":{"labels":{"changed":"otherwise"}}}"#).await?;
    change(stage, "oncall", datastore, allows).await?;
    let shard = stage.shard_name(0);
    let operator = "system:serviceaccount:understudy-system:understudy";
    change(stage, operator, ["shard", shard.as_str()], allows).await?;
    let now = stage.namespace.api::<Datastore>().get(&stage.datastore).await?;
    ensure!(now.spec.drills.is_none(), "a dry run changed something: {:?}", now.spec.drills);
    Ok(())
}

/// Asks for a change as somebody, and changes nothing.
async fn change(stage: &Stage, user: &str, object: [&str; 2], patch: &str) -> Result<String> {
    let who = ["--as", user, "-n", stage.namespace.name(), "patch"];
    let how = ["--type", "merge", "--dry-run=server", "-p", patch];
    stage.cluster.kubectl(&[&who[..], &object[..], &how[..]].concat(), "").await
}

async fn healthy(stage: &Stage) -> Result<()> {
    until("the primary is Healthy again", SOON, async || {
        let shard = stage.shard().await?;
        Ok(Seen::when(see::verdict(&shard) == Some(VerdictState::Healthy), (), see::shard(&shard)))
    })
    .await
}

async fn event(stage: &Stage, reason: &str) -> Result<()> {
    until(format!("there is an event {reason}"), SOON, async || {
        let events = stage.namespace.list::<Event>("").await?;
        let reasons: Vec<_> = events.values().filter_map(|event| event.reason.clone()).collect();
        Ok(Seen::when(reasons.iter().any(|said| said == reason), (), format!("{reasons:?}")))
    })
    .await
}

async fn delete(stage: &Stage, drill: &str) -> Result<()> {
    stage.namespace.api::<Drill>().delete(drill, &DeleteParams::default()).await?;
    Ok(())
}
