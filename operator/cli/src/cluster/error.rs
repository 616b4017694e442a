//! What went wrong between here and the cluster, in words that say what, where and what to do. Pure.

use std::error::Error as StdError;
use std::time::Duration;

use kube::runtime::watcher;

use crate::objects::Kind;

/// No single call takes longer.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);
/// Names that are told when one is not found.
const KNOWN: usize = 10;

/// What went wrong between here and the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No way to a cluster is known.
    #[error("which cluster is not known: give --kubeconfig and --context, or set KUBECONFIG")]
    Config(#[source] Box<dyn StdError + Send + Sync>),
    /// It did not answer, or not in a way that is understood.
    #[error("{what}: no answer of the API server")]
    Unreachable {
        /// What was asked, and where.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// It did not answer in time.
    #[error("{what}: the API server did not answer within {} s{hint}", DEADLINE.as_secs())]
    TooLate {
        /// What was asked, and where.
        what: String,
        /// What that means.
        hint: &'static str,
    },
    /// It refused.
    #[error("{what}: {message}{}", advice(.code))]
    Refused {
        /// What was asked.
        what: String,
        /// As HTTP has it.
        code: u16,
        /// The API server's words.
        message: String,
    },
    /// The definitions are not installed, or are too old.
    #[error(
        "the cluster at {server} knows no {kind} of understudy.dev: look whether it is the right one (`kubectl config get-contexts`); if it is, \
         install the definitions, or a newer version of them: \
         helm upgrade --install understudy-crds charts/understudy-crds --namespace understudy-system --create-namespace"
    )]
    NoKind {
        /// The kind.
        kind: &'static str,
        /// The API server.
        server: String,
    },
    /// There is no such object.
    #[error(
        "there is no {kind} {name} in namespace {namespace} of the cluster at {server}{known}; -n and --context take others"
    )]
    NotFound {
        /// Its kind.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// The API server.
        server: String,
        /// Which there are, as a part of the sentence.
        known: String,
    },
    /// It was deleted while it was waited for.
    #[error("the {kind} {name} was deleted while it was waited for")]
    Deleted {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
}

/// What a person can do about a refusal.
fn advice(code: &u16) -> &'static str {
    match *code {
        401 => "; your login is not valid, or not valid any more: log in again",
        403 => {
            "; Kubernetes' role `view` is enough to look, `edit` to ask for something; `kubectl auth whoami` says who you are"
        }
        _ => "",
    }
}

/// From an answer of the API server at this address, or from none.
pub(super) fn failed(server: &str, what: &str, kind: Kind, error: kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) => {
            // What is not found and has no name is the kind itself.
            let is_of_kind = status.details.as_ref().is_none_or(|details| details.name.is_empty());
            // A group that nobody serves is answered in plain text, of which the client makes a status without that reason.
            if status.code == 404 && is_of_kind {
                ClusterError::NoKind { kind: kind.name(), server: server.to_owned() }
            } else {
                ClusterError::Refused { what: what.to_owned(), code: status.code, message: status.message }
            }
        }
        error => ClusterError::Unreachable { what: format!("{what} at {server}"), source: Box::new(error) },
    }
}

/// Whether the API server knows the kind and has no object of the name.
pub(super) fn is_object_missing(error: &kube::Error, kind: Kind) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let named = status.details.as_ref().filter(|details| !details.name.is_empty() && details.kind == kind.plural());
    status.is_not_found() && named.is_some()
}

/// Whether trying again does not change this answer.
pub(super) fn is_final(error: &watcher::Error) -> bool {
    let (watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404))
}

/// What a person should know of a watch that broke, without what the watcher says around it. That it began too long ago is nothing.
pub(super) fn trouble(error: watcher::Error) -> Option<kube::Error> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            if status.code == 410 =>
        {
            None
        }
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        _ => None,
    }
}

/// The part of a sentence that says which names there are; of many the last ones.
pub(super) fn known(names: &[String]) -> String {
    match names.len() {
        0 => String::new(),
        count if count <= KNOWN => format!("; there are {}", names.join(", ")),
        count => format!("; there are {count}, such as {}", names[count - KNOWN..].join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answer(status: Value) -> kube::Error {
        kube::Error::Api(serde_json::from_value(status).unwrap())
    }

    fn told(kind: Kind, error: kube::Error) -> String {
        format!("{:#}", anyhow::Error::from(failed("https://there:6443", "list", kind, error)))
    }

    #[test]
    fn a_kind_that_is_not_there_is_told_from_an_object_that_is_not() {
        let object = answer(json!({
            "status": "Failure", "reason": "NotFound", "code": 404, "message": "shards.understudy.dev \"m\" not found",
            "details": { "name": "m", "group": "understudy.dev", "kind": "shards" },
        }));
        assert!(is_object_missing(&object, Kind::Shard));
        for (case, status) in [
            (
                "a group that nobody serves",
                json!({ "reason": "Failed to parse error data", "code": 404, "message": "404 page not found" }),
            ),
            (
                "a kind that the group does not have",
                json!({ "reason": "NotFound", "code": 404, "message": "the server could not find the requested resource", "details": {} }),
            ),
        ] {
            let error = answer(status);
            assert!(!is_object_missing(&error, Kind::Drill), "{case}");
            let said = told(Kind::Drill, error);
            for expected in ["https://there:6443 knows no Drill", "helm upgrade --install understudy-crds", "contexts"]
            {
                assert!(said.contains(expected), "{case}: {expected} in {said}");
            }
        }
    }

    #[test]
    fn the_api_servers_words_are_told_once_and_what_can_be_done_about_them() {
        for (status, advised) in [
            (json!({ "reason": "Forbidden", "code": 403, "message": "shards is forbidden" }), "role `view`"),
            (json!({ "reason": "Unauthorized", "code": 401, "message": "Unauthorized" }), "log in again"),
            (
                json!({ "reason": "NotFound", "code": 404, "message": "namespaces \"x\" not found", "details": { "name": "x", "kind": "namespaces" } }),
                "",
            ),
        ] {
            let words = status["message"].as_str().unwrap().to_owned();
            let said = told(Kind::Shard, answer(status));
            assert!(said.starts_with(&format!("list: {words}")) && said.contains(advised), "{said}");
            assert_eq!(said == format!("list: {words}"), advised.is_empty(), "{said}");
        }
    }

    #[test]
    fn a_watch_ends_when_trying_again_is_no_use() {
        let status = |code: u16| answer(json!({ "code": code, "message": "words" }));
        for (code, expected) in [(401, true), (403, true), (404, true), (410, false), (500, false)] {
            let error = watcher::Error::WatchStartFailed(status(code));
            assert_eq!(is_final(&error), expected, "{code}");
            assert_eq!(trouble(error).is_some(), code != 410, "{code}");
        }
        assert!(!is_final(&watcher::Error::NoResourceVersion));
    }

    #[test]
    fn of_many_names_the_last_ones_are_told() {
        let names = |count: usize| (0..count).map(|n| format!("m-{n}")).collect::<Vec<_>>();
        assert_eq!(known(&names(0)), "");
        assert_eq!(known(&names(2)), "; there are m-0, m-1");
        let many = known(&names(40));
        assert!(many.starts_with("; there are 40, such as m-30") && many.ends_with("m-39"), "{many}");
    }
}
