//! The Datastore of the quick start: its token, its manifest, and waiting until it has everything. Runs kubectl.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::access::{Access, Reached, holds};
use crate::progress::Ui;

/// A Datastore that exists or is about to.
#[derive(Debug, Clone)]
pub struct Store<'a> {
    /// Its cluster.
    pub access: &'a Access,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The Secret with the plain token, which Prometheus mounts. The gateway's own Secret holds only its hash.
pub const TOKEN_SECRET: &str = "prometheus-token";
/// Its key in the gateway's own Secret.
pub const TOKEN_ID: &str = "lab";
const TENANT: &str = "default";

impl Store<'_> {
    /// Applies the file as it is, or as the lab runs it where the lab's MySQL image is given.
    pub fn apply(&self, file: &Path, mysql: Option<&str>) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let text = match mysql {
            Some(image) => passing(&with_mysql(&text, image)),
            None => text,
        };
        self.access.apply(&self.namespace, &text)
    }

    /// The plain token; made, with the gateway's Secret, when there is none yet.
    pub fn token(&self) -> Result<String> {
        if let Some(token) = self.known_token()? {
            return Ok(token);
        }
        let mut random = [0_u8; 24];
        fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
        let token = format!("{TOKEN_ID}.{}", hex(&random));
        let entry = format!("{TENANT} sha256:{}", hex(&Sha256::digest(&token)));
        let hashes = secret(&format!("{}-tokens", self.name), &json!({ TOKEN_ID: entry }));
        let plain = secret(TOKEN_SECRET, &json!({ "token": token }));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [hashes, plain]});
        self.access.apply(&self.namespace, &list.to_string())?;
        Ok(token)
    }

    /// The plain token, if this lab made one.
    pub fn known_token(&self) -> Result<Option<String>> {
        let template = "{{if .data}}{{.data.token | base64decode}}{{end}}";
        let format = format!("go-template={template}");
        let text =
            self.access.get(&["-n", &self.namespace, "secret", TOKEN_SECRET, "--ignore-not-found", "-o", &format])?;
        Ok(Some(text).filter(|t| !t.is_empty()))
    }

    /// How this machine reaches the gateway or the query service.
    pub fn reach(&self, component: &str, port: u16) -> Result<Reached> {
        let selector = format!("understudy.dev/datastore={},understudy.dev/component={component}", self.name);
        self.access.reach(&self.namespace, &format!("{}-{component}", self.name), &selector, port)
    }

    /// Its shards.
    pub fn shards(&self) -> Result<Vec<Value>> {
        let selector = format!("understudy.dev/datastore={}", self.name);
        self.access.items(&["-n", &self.namespace, "shards", "-l", &selector])
    }

    /// Waits until the Datastore says Ready and every shard is redundant, with a line for each change.
    pub fn wait_ready(&self, ui: &Ui, limit: Duration) -> Result<()> {
        let step = ui.step(&format!("wait until the Datastore {} is ready", self.name), None);
        let end = Instant::now() + limit;
        let mut said = BTreeMap::new();
        loop {
            let datastore = self.access.find(&self.namespace, "datastore", &self.name)?;
            let datastore = datastore.with_context(|| format!("there is no Datastore {}", self.name))?;
            let shards = self.shards()?;
            for object in shards.iter().chain([&datastore]) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let line = summary(object);
                if said.get(name) != Some(&line) {
                    step.note(&format!("{name}: {line}"));
                    said.insert(name.to_owned(), line);
                }
            }
            let wanted = datastore["spec"]["shards"].as_u64().unwrap_or(1) as usize;
            if is_current(&datastore) && shards.len() == wanted && shards.iter().all(is_whole) {
                break;
            }
            if Instant::now() > end {
                bail!(
                    "the Datastore {} is not ready after {} s; `kubectl describe datastore {0}` tells more",
                    self.name,
                    limit.as_secs()
                );
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        step.done();
        Ok(())
    }
}

/// Ready, for the spec as it is now.
fn is_current(object: &Value) -> bool {
    holds(object, "Ready") && object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

/// Whether a shard has all replicas, a Healthy primary, and nothing under way.
pub fn is_whole(shard: &Value) -> bool {
    let (spec, status) = (&shard["spec"], &shard["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(3);
    status["observedGeneration"] == shard["metadata"]["generation"]
        && status["readyReplicas"].as_i64() == Some(wanted)
        && status["promotable"].as_i64() == Some(wanted - 1)
        && status["verdict"]["state"] == "Healthy"
        && status["transition"].is_null()
        && status["primary"].is_string()
}

/// What a shard or a Datastore lacks, in a line.
fn summary(object: &Value) -> String {
    let status = &object["status"];
    let text = |field: &str| status[field].as_str().unwrap_or("-").to_owned();
    if object["kind"] == "Shard" {
        let replicas = status["replicas"].as_array().into_iter().flatten();
        let each: Vec<_> = replicas
            .map(|r| {
                format!(
                    "{} {} {}",
                    short(&r["name"]),
                    r["role"].as_str().unwrap_or("-"),
                    r["phase"].as_str().unwrap_or("-")
                )
            })
            .collect();
        return format!(
            "{} replicas ready; {}",
            text("ready"),
            if each.is_empty() { "none yet".into() } else { each.join(", ") }
        );
    }
    let workload = |field: &str| status[field]["ready"].as_str().unwrap_or("-").to_owned();
    let message = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let message = message.and_then(|c| c["message"].as_str()).unwrap_or("no status yet");
    format!(
        "shards {}, gateway {}, consumer {}, query {}: {message}",
        text("shardsReady"),
        workload("gateway"),
        workload("consumer"),
        workload("query")
    )
}

/// The suffix that tells the replicas of a shard apart.
fn short(name: &Value) -> &str {
    let name = name.as_str().unwrap_or("-");
    name.rsplit_once('-').map_or(name, |(_, suffix)| suffix)
}

/// The image of every `image: mysql:...` line replaced.
fn with_mysql(text: &str, image: &str) -> String {
    let line = |line: &str| match line.split_once("image: mysql:") {
        Some((indent, _)) => format!("{indent}image: {image}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Every Datastore that does not say what becomes of its volumes gives them away when it is deleted: the next one begins anew, and
/// the machine's disk does not fill up.
fn passing(text: &str) -> String {
    let document = |document: &str| {
        let is_open = document.lines().any(|line| line == "kind: Datastore")
            && !document.lines().any(|line| line.starts_with("  deletionPolicy:"));
        if is_open {
            document.replacen("\nspec:\n", "\nspec:\n  deletionPolicy: Delete\n", 1)
        } else {
            document.to_owned()
        }
    };
    text.split("\n---").map(document).collect::<Vec<_>>().join("\n---")
}

fn secret(name: &str, texts: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": texts})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The name of the Datastore in a file.
pub fn name_in(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let document = text.split("\n---").find(|d| d.lines().any(|l| l == "kind: Datastore"));
    let document = document.with_context(|| format!("{} holds no Datastore", file.display()))?;
    let name = document.lines().skip_while(|l| *l != "metadata:").find_map(|l| l.strip_prefix("  name: "));
    let name = name.map(str::trim).unwrap_or_default();
    ensure!(!name.is_empty(), "the Datastore in {} has no name", file.display());
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mysql_image_is_replaced() {
        let text = "a:\n  image: mysql:9.7.4\nb:\n  image: other:1\n";
        assert_eq!(with_mysql(text, "mysql:10"), "a:\n  image: mysql:10\nb:\n  image: other:1\n");
    }

    #[test]
    fn volumes_pass_with_the_datastores_of_the_lab_unless_their_file_says_otherwise() {
        let open = "# about\nkind: Datastore\nmetadata:\n  name: a\nspec:\n  shards: 2\n";
        let given = "# about\nkind: Datastore\nmetadata:\n  name: a\nspec:\n  deletionPolicy: Delete\n  shards: 2\n";
        let kept = "kind: Datastore\nspec:\n  shards: 2\n  deletionPolicy: Retain\n";
        let shard = "kind: Shard\nspec:\n  replicas: 1\n";
        for (case, text, want) in [
            ("does not say", open.to_owned(), given.to_owned()),
            ("says", kept.to_owned(), kept.to_owned()),
            ("another kind", shard.to_owned(), shard.to_owned()),
            ("one among others", format!("{shard}---\n{open}---\n{kept}"), format!("{shard}---\n{given}---\n{kept}")),
        ] {
            assert_eq!(passing(&text), want, "{case}");
        }
    }

    #[test]
    fn a_shard_is_whole_when_nothing_is_left_to_do() {
        let whole = json!({
            "metadata": {"generation": 1}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 1, "readyReplicas": 3, "promotable": 2, "verdict": {"state": "Healthy"},
                "epoch": 1, "transition": null, "primary": "a"},
        });
        assert!(is_whole(&whole));
        for (path, value) in [
            ("/status/readyReplicas", json!(2)),
            ("/status/promotable", json!(1)),
            ("/status/transition", json!({"epoch": 2})),
            ("/status/verdict/state", json!("Gone")),
        ] {
            let mut shard = whole.clone();
            *shard.pointer_mut(path).unwrap() = value;
            assert!(!is_whole(&shard), "{path}");
        }
    }

    #[test]
    fn the_quick_start_holds_a_datastore_with_a_name() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart.yaml");
        assert_eq!(name_in(&file).unwrap(), "metrics");
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("deletionPolicy"), "whoever copies it keeps the volumes");
        assert!(passing(&text).contains("\n  deletionPolicy: Delete\n"));
    }
}
