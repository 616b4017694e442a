//! What the chart lets the operator do, read from the chart itself: what it does not grant is refused in tests as it would be in a
//! cluster. Pure.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

/// It has no value in it, so that without its first and its last line it is the list of rules as helm renders it.
const TEMPLATE: &str = include_str!("../../../charts/understudy/templates/_rules.tpl");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// Group, resource and verb.
type Right = (String, String, String);

static GRANTED: LazyLock<BTreeSet<Right>> = LazyLock::new(|| {
    let lines: Vec<_> = TEMPLATE.lines().filter(|line| !line.starts_with("{{")).collect();
    let rules: Vec<Rule> = serde_saphyr::from_str(&lines.join("\n")).expect("the template is a list of rules");
    let mut all = BTreeSet::new();
    // Nodes are in no namespace, so that their rule is elsewhere in the chart.
    for verb in ["get", "list", "watch"] {
        all.insert((String::new(), "nodes".to_owned(), verb.to_owned()));
    }
    all.extend(rules.iter().flat_map(rights));
    all
});

fn rights(rule: &Rule) -> Vec<Right> {
    let mut all = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            all.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
        }
    }
    all
}

/// A request, in the words of rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The API group.
    pub group: String,
    /// The kind, in the plural.
    pub plural: String,
    /// The same, with the subresource if there is one.
    pub resource: String,
    /// What is to be done.
    pub verb: &'static str,
}

impl Asked {
    /// Of a request to an object or a collection.
    pub fn of(method: &Method, path: &str, query: &str) -> Self {
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        let (group, rest) = match parts[0] {
            "api" => ("", &parts[2..]),
            _ => (parts[1], &parts[3..]),
        };
        let rest = if rest[0] == "namespaces" { &rest[2..] } else { rest };
        let watches = query.split('&').any(|part| part == "watch=true");
        let verb = match (method.as_str(), rest.len()) {
            ("GET", 1) if watches => "watch",
            ("GET", 1) => "list",
            ("GET", _) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            (other, _) => panic!("{other} {path} is not served here"),
        };
        let resource = rest.get(2).map_or_else(|| rest[0].to_owned(), |part| format!("{}/{part}", rest[0]));
        Self { group: group.to_owned(), plural: rest[0].to_owned(), resource, verb }
    }

    /// Why it is refused, if it is: the chart does not grant it, or it would grant others what the chart does not grant.
    pub fn refusal(&self, body: &Value) -> Option<String> {
        if !GRANTED.contains(&(self.group.clone(), self.resource.clone(), self.verb.to_owned())) {
            let Self { group, resource, verb, .. } = self;
            return Some(format!("the chart does not let the operator {verb} {resource} of {group:?}"));
        }
        let rules = body["rules"].as_array().filter(|_| self.plural == "roles");
        let rules = rules.into_iter().flatten().map(|rule| serde_json::from_value(rule.clone()).expect("a rule"));
        let lacking = rules.flat_map(|rule: Rule| rights(&rule)).find(|right| !GRANTED.contains(right));
        lacking.map(|(_, resource, verb)| format!("the operator may not {verb} {resource} itself"))
    }

    /// Why an object is not made by being applied, if it is not.
    pub fn refusal_to_create(&self) -> Option<String> {
        Self { verb: "create", ..self.clone() }.refusal(&Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(method: Method, path: &str) -> Asked {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Asked::of(&method, path, query)
    }

    #[test]
    fn a_request_is_granted_or_not_by_its_verb_its_kind_and_its_subresource() {
        let ours = "/apis/understudy.dev/v1alpha1/namespaces/prod";
        for (method, path, verb, granted) in [
            (Method::GET, format!("{ours}/shards?limit=500"), "list", true),
            (Method::GET, format!("{ours}/shards?&watch=true"), "watch", true),
            (Method::PUT, format!("{ours}/shards/m/status"), "update", true),
            (Method::PUT, format!("{ours}/shards/m"), "update", false),
            (Method::DELETE, format!("{ours}/shards/m"), "delete", false),
            (Method::DELETE, "/api/v1/namespaces/prod/pods/m-a".to_owned(), "delete", true),
            (Method::GET, "/api/v1/namespaces/prod/secrets?limit=500".to_owned(), "list", false),
            (Method::GET, "/api/v1/nodes".to_owned(), "list", true),
        ] {
            let asked = asked(method, &path);
            assert_eq!(asked.verb, verb, "{path}");
            assert_eq!(asked.refusal(&Value::Null).is_none(), granted, "{path}: {asked:?}");
        }
    }

    #[test]
    fn nobody_is_granted_what_the_operator_may_not_do() {
        let asked = asked(Method::POST, "/apis/rbac.authorization.k8s.io/v1/namespaces/prod/roles");
        let role = |verb: &str| json!({ "rules": [{ "apiGroups": ["understudy.dev"], "resources": ["shards"], "verbs": ["get", verb] }] });
        assert_eq!(asked.refusal(&role("watch")), None);
        assert!(asked.refusal(&role("delete")).unwrap().contains("may not delete shards itself"));
    }
}
