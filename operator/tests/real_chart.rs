//! The charts as helm renders them: rights held against an allow-list, pods against the restricted Pod Security Standard,
//! values against the schema. Needs helm; `UNDERSTUDY_HELM` names the binary.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use understudy::controllers::shard::build::{INSTANCE_PORT, MYSQL_PORT};

/// Everything the operator may do: (scope, API group, resource, verbs). Scope is `cluster` for what holds in all namespaces,
/// `own` for the operator's namespace. A right that is not here fails the test, and so does one that is here and not rendered.
const ALLOWED: &[(&str, &str, &str, &str)] = &[
    ("cluster", "understudy.dev", "datastores", "get list patch watch"),
    ("cluster", "understudy.dev", "shards", "create get list patch watch"),
    ("cluster", "understudy.dev", "replicas", "create delete get list patch watch"),
    ("cluster", "understudy.dev", "consumers", "create get list patch watch"),
    ("cluster", "understudy.dev", "failovers", "create delete get list watch"),
    ("cluster", "understudy.dev", "drills", "get list patch watch"),
    ("cluster", "understudy.dev", "datastores/status", "patch update"),
    ("cluster", "understudy.dev", "shards/status", "patch update"),
    ("cluster", "understudy.dev", "replicas/status", "patch update"),
    ("cluster", "understudy.dev", "consumers/status", "get patch"),
    ("cluster", "understudy.dev", "failovers/status", "update"),
    ("cluster", "understudy.dev", "drills/status", "patch update"),
    ("cluster", "understudy.dev", "datastores/finalizers", "update"),
    ("cluster", "understudy.dev", "shards/finalizers", "update"),
    ("cluster", "understudy.dev", "replicas/finalizers", "update"),
    ("cluster", "understudy.dev", "consumers/finalizers", "update"),
    ("cluster", "", "pods", "create delete get list patch watch"),
    ("cluster", "", "persistentvolumeclaims", "create delete get list patch watch"),
    ("cluster", "", "services", "create delete get list patch watch"),
    ("cluster", "", "secrets", "create get patch"),
    ("cluster", "", "configmaps", "create get patch"),
    ("cluster", "", "serviceaccounts", "create delete get patch"),
    ("cluster", "", "nodes", "get list watch"),
    ("cluster", "apps", "deployments", "create delete get list patch watch"),
    ("cluster", "policy", "poddisruptionbudgets", "create delete get list patch watch"),
    ("cluster", "rbac.authorization.k8s.io", "roles", "create delete get patch"),
    ("cluster", "rbac.authorization.k8s.io", "rolebindings", "create delete get patch"),
    ("cluster", "events.k8s.io", "events", "create patch"),
    ("own", "coordination.k8s.io", "leases", "create get update"),
    ("own", "", "secrets", "create get"),
];

/// What must not be granted in any form, whatever the allow-list says.
const NEVER: &[(&str, &str)] = &[
    ("datastores", "delete"),
    ("shards", "delete"),
    ("consumers", "delete"),
    ("drills", "delete"),
    ("secrets", "list"),
    ("secrets", "watch"),
    ("secrets", "delete"),
    ("pods/exec", "create"),
    ("nodes", "patch"),
    ("nodes", "update"),
    ("roles", "escalate"),
    ("roles", "bind"),
];

/// Where consumers serve evidence.
const CONSUMER_PORT: i64 = 8450;

fn helm(arguments: &[&str]) -> Output {
    let helm = std::env::var("UNDERSTUDY_HELM")
        .expect("UNDERSTUDY_HELM must name a helm 3 binary; `cargo lab test --tier api` sets it");
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts");
    Command::new(helm).args(arguments).current_dir(charts).output().expect("helm runs")
}

fn rendered(values: &[&str]) -> Vec<Value> {
    of_chart("understudy", values)
}

fn of_chart(chart: &str, values: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["template", "understudy", chart, "--namespace", "there", "--kube-version", "1.34.0"];
    for value in values {
        arguments.extend(["--set", value]);
    }
    let output = helm(&arguments);
    assert!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("YAML is UTF-8");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("helm renders YAML");
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

/// (scope, group, resource, verb) of every rule of every role.
fn granted(objects: &[Value]) -> BTreeSet<(String, String, String, String)> {
    let mut all = BTreeSet::new();
    for object in objects {
        let scope = match object["kind"].as_str() {
            Some("ClusterRole") => "cluster".to_owned(),
            Some("Role") => match object["metadata"]["namespace"].as_str() {
                Some("there") => "own".to_owned(),
                other => other.unwrap_or_default().to_owned(),
            },
            _ => continue,
        };
        for rule in object["rules"].as_array().expect("a role has rules") {
            for group in words(&rule["apiGroups"]) {
                for resource in words(&rule["resources"]) {
                    for verb in words(&rule["verbs"]) {
                        all.insert((scope.clone(), group.to_owned(), resource.to_owned(), verb.to_owned()));
                    }
                }
            }
        }
    }
    all
}

fn allowed() -> BTreeSet<(String, String, String, String)> {
    ALLOWED
        .iter()
        .flat_map(|(scope, group, resource, verbs)| {
            verbs
                .split(' ')
                .map(|verb| ((*scope).to_owned(), (*group).to_owned(), (*resource).to_owned(), verb.to_owned()))
        })
        .collect()
}

#[test]
fn the_operator_is_granted_exactly_what_the_allow_list_holds() {
    assert_eq!(granted(&rendered(&[])), allowed());
}

#[test]
fn no_role_holds_a_wildcard_or_a_right_that_is_never_granted() {
    for values in [&[][..], &["watchNamespace=one"]] {
        let all = granted(&rendered(values));
        assert!(!all.is_empty(), "{values:?}: nothing is granted");
        for (scope, group, resource, verb) in all {
            assert!(group != "*" && resource != "*" && verb != "*", "{scope}: wildcard in {group}/{resource} {verb}");
            assert!(
                !NEVER.contains(&(resource.as_str(), verb.as_str())),
                "{scope}: {verb} of {group}/{resource} is never granted"
            );
        }
    }
}

#[test]
fn secrets_of_the_own_namespace_are_granted_by_name() {
    let mut objects = rendered(&[]);
    objects.retain(|object| object["kind"] == "Role");
    assert!(!objects.is_empty(), "there is no Role");
    for object in objects {
        for rule in object["rules"].as_array().expect("a role has rules") {
            let creates_only = words(&rule["verbs"]) == ["create"];
            assert!(creates_only || !words(&rule["resourceNames"]).is_empty(), "not by name: {rule}");
        }
    }
}

#[test]
fn with_a_watch_namespace_only_nodes_are_granted_in_the_whole_cluster() {
    let all = granted(&rendered(&["watchNamespace=one"]));
    let cluster: BTreeSet<_> =
        all.iter().filter(|(scope, ..)| scope == "cluster").map(|(_, _, resource, _)| resource.as_str()).collect();
    assert_eq!(cluster, BTreeSet::from(["nodes"]));
    assert!(all.iter().any(|(scope, _, resource, _)| scope == "one" && resource == "shards"));
}

#[test]
fn the_lease_is_the_one_that_the_operator_takes() {
    for (values, scope) in [(&[][..], None), (&["watchNamespace=one"], Some("one"))] {
        let objects = rendered(values);
        let rules = objects.iter().filter(|object| object["kind"] == "Role").flat_map(|role| role["rules"].as_array());
        let leases: BTreeSet<_> = rules
            .flatten()
            .filter(|rule| words(&rule["resources"]) == ["leases"])
            .flat_map(|rule| words(&rule["resourceNames"]))
            .collect();
        assert_eq!(leases, BTreeSet::from([understudy::lease::name(scope).as_str()]));
    }
}

#[test]
fn the_operator_s_pods_meet_the_restricted_standard() {
    let mut objects = rendered(&[]);
    objects.retain(|object| object["kind"] == "Deployment");
    assert!(!objects.is_empty(), "there is no Deployment");
    for object in objects {
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null() && pod["hostIPC"].is_null());
        for container in pod["containers"].as_array().expect("a pod has containers") {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(words(&context["capabilities"]["drop"]), ["ALL"]);
        }
        for volume in pod["volumes"].as_array().expect("a pod has volumes") {
            assert!(volume["hostPath"].is_null(), "{volume}");
        }
    }
}

#[test]
fn the_operator_is_rolled_on_as_many_nodes_as_it_has_instances() {
    let objects = rendered(&[]);
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").expect("there is a Deployment");
    // One more at a time would need a node more, which DoNotSchedule over hosts asks for.
    let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } });
    assert_eq!(deployment["spec"]["strategy"], rolling);
    let constraints = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"].as_array();
    for constraint in constraints.expect("instances are spread") {
        assert_eq!(constraint["nodeTaintsPolicy"], "Honor", "a node that takes no pods is no empty one: {constraint}");
    }
}

#[test]
fn the_network_policy_lets_the_operator_reach_whom_it_dials_and_is_off_by_default() {
    let policies = |values: &[&str]| -> Vec<Value> {
        rendered(values).into_iter().filter(|object| object["kind"] == "NetworkPolicy").collect()
    };
    assert!(policies(&[]).is_empty());
    for (case, values, namespaces) in [
        ("all namespaces", &["networkPolicy.enabled=true"][..], json!({})),
        (
            "one namespace",
            &["networkPolicy.enabled=true", "watchNamespace=one"],
            json!({ "matchLabels": { "kubernetes.io/metadata.name": "one" } }),
        ),
    ] {
        let policies = policies(values);
        let [policy] = &policies[..] else { panic!("{case}: {policies:?}") };
        let deployment = rendered(values).into_iter().find(|object| object["kind"] == "Deployment");
        assert_eq!(
            policy["spec"]["podSelector"],
            deployment.expect("there is a Deployment")["spec"]["selector"],
            "{case}"
        );
        let egress = policy["spec"]["egress"].as_array().expect("it says where to");
        assert_eq!(egress[0]["to"][0]["namespaceSelector"], namespaces, "{case}");
        let ports = |rule: &Value| -> Vec<i64> {
            rule["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_i64()).collect()
        };
        assert_eq!(ports(&egress[0]), [i64::from(INSTANCE_PORT), i64::from(MYSQL_PORT), CONSUMER_PORT], "{case}");
        assert_eq!(ports(&egress[2]), [443, 6443, 9092], "{case}");
    }
}

#[test]
fn values_that_cannot_work_are_turned_down_by_the_schema() {
    for (name, value) in [
        ("no instance", "replicas=0"),
        ("fifty instances", "replicas=50"),
        ("no image", "image.repository="),
        ("a pull policy that does not exist", "image.pullPolicy=Sometimes"),
        ("a misspelt key", "replica=2"),
        ("a namespace that cannot exist", "watchNamespace=Not_A_Name"),
        ("a policy that lets nothing reach the API server", "networkPolicy.egressPorts=null"),
        ("runbooks at what is no address", "alerts.runbookBase=docs"),
    ] {
        let output = helm(&["template", "x", "understudy", "--kube-version", "1.34.0", "--set", value]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("schema"), "{name}: {value}: {said}");
    }
}

#[test]
fn the_definitions_outlive_the_release_and_are_complete() {
    let mut objects = of_chart("understudy-crds", &[]);
    objects.retain(|object| object["kind"] == "CustomResourceDefinition");
    let kinds: BTreeSet<_> =
        objects.iter().filter_map(|object| object["spec"]["names"]["kind"].as_str().map(str::to_owned)).collect();
    let wanted: BTreeSet<_> =
        understudy_api::crds::all().into_iter().map(|definition| definition.spec.names.kind).collect();
    assert_eq!(kinds, wanted);
    for object in objects {
        assert_eq!(object["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    }
}

#[test]
fn the_alerts_of_the_chart_are_those_of_the_docs_and_each_leads_to_its_page() {
    assert!(rendered(&[]).iter().all(|object| object["kind"] != "PrometheusRule"), "only where it is asked for");
    for (base, begin) in [
        ("", ""),
        ("https://git.example.org/understudy/blob/v1", "https://git.example.org/understudy/blob/v1/"),
        ("https://git.example.org/understudy/blob/v1/", "https://git.example.org/understudy/blob/v1/"),
    ] {
        let objects = rendered(&["alerts.enabled=true", &format!("alerts.runbookBase={base}")]);
        let rules = objects.iter().find(|object| object["kind"] == "PrometheusRule").expect("a PrometheusRule");
        let groups = rules["spec"]["groups"].as_array().expect("groups").iter();
        let of_group = |group: &Value| group["rules"].as_array().cloned().unwrap_or_default();
        let mut alerts = BTreeSet::new();
        for rule in groups.flat_map(of_group) {
            let (alert, url) = (&rule["alert"], rule["annotations"]["runbook_url"].as_str().unwrap_or_default());
            let page = url.strip_prefix(begin).unwrap_or_else(|| panic!("{alert}: {url}"));
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            assert!(page.ends_with(".md") && root.join(page).exists(), "{alert}: {url}");
            assert!(rule["expr"].is_string(), "{alert}");
            alerts.insert(alert.to_string());
        }
        for alert in ["UnderstudyPrimaryNotReplaced", "UnderstudyGatewayGone", "UnderstudyPartitionStands"] {
            assert!(alerts.contains(&format!("{alert:?}")), "{base:?}: {alerts:?}");
        }
    }
}

/// The ClusterRoles of the definitions' chart that Kubernetes adds to its own role of this name.
fn added_to(role: &str, values: &[&str]) -> Vec<Value> {
    let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
    let mut objects = of_chart("understudy-crds", values);
    objects.retain(|object| object["kind"] == "ClusterRole" && object["metadata"]["labels"][&label] == "true");
    objects
}

#[test]
fn who_may_view_or_edit_a_namespace_may_view_or_edit_every_kind_of_ours_in_it() {
    for (role, verbs) in [
        ("view", &["get", "list", "watch"][..]),
        ("edit", &["create", "delete", "deletecollection", "patch", "update"]),
    ] {
        let mut wanted = BTreeSet::new();
        for definition in understudy_api::crds::all() {
            for verb in verbs {
                let (group, plural) = (definition.spec.group.clone(), definition.spec.names.plural.clone());
                wanted.insert(("cluster".to_owned(), group, plural, (*verb).to_owned()));
            }
        }
        assert_eq!(granted(&added_to(role, &[])), wanted, "{role}");
        assert!(added_to(role, &["aggregateRoles=false"]).is_empty(), "{role}");
    }
    // `edit` gets what `view` has, and `admin` what `edit` has, from Kubernetes itself.
    assert!(added_to("admin", &[]).is_empty());
}

#[test]
fn both_charts_are_lint_clean() {
    let output = helm(&["lint", "--strict", "understudy", "understudy-crds"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
