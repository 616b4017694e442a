//! Objects to begin with: the examples of this repository, or a user's own. Reads files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use understudy_api::v1alpha1::Datastore;

/// The repository's folder of this name.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// The Datastore of the quick start, or of the file that `UNDERSTUDY_E2E_DATASTORE` names: its image, brokers and storage are those
/// of the cluster under test.
pub fn datastore() -> Result<Datastore> {
    let named = std::env::var_os("UNDERSTUDY_E2E_DATASTORE").map(PathBuf::from);
    let mut datastore: Datastore = first(&named.unwrap_or_else(|| folder("examples/quickstart.yaml")), "Datastore")?;
    if let Ok(image) = std::env::var("UNDERSTUDY_MYSQL_IMAGE") {
        datastore.spec.shard_template.mysql.image = image;
    }
    Ok(datastore)
}

/// The first object of this kind in a file of YAML documents.
pub fn first<T: DeserializeOwned>(file: &Path, kind: &str) -> Result<T> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let object = of_kind(&text, kind)?.with_context(|| format!("{} holds no {kind}", file.display()))?;
    serde_json::from_value(object).with_context(|| format!("the {kind} in {} is malformed", file.display()))
}

fn of_kind(text: &str, kind: &str) -> Result<Option<Value>> {
    for document in text.split("\n---") {
        let value: Option<Value> = serde_saphyr::from_str(document).context("not YAML")?;
        let Some(value) = value else { continue };
        if Head::deserialize(&value).is_ok_and(|head| head.kind == kind) {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[derive(Deserialize)]
struct Head {
    kind: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_of_a_kind_is_found_among_others_and_comments() {
        let text = "# about\n---\nkind: Secret\nmetadata: {name: a}\n---\nkind: Datastore\nmetadata: {name: b}\n";
        assert_eq!(of_kind(text, "Datastore").unwrap().unwrap()["metadata"]["name"], "b");
        assert!(of_kind(text, "Shard").unwrap().is_none());
    }
}
