//! The commands of the runbooks ([`FOLDERS`]): how they are read ([`commands`], pure) and run ([`run`], I/O).
//!
//! A block that begins with a line of three backticks and `sh` is for looking only, and is run as it stands; what a person may do stands in blocks without
//! a language.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::cluster::{Cluster, output};
use crate::manifest::folder;

/// Where the pages are, from the root of the repository.
pub const FOLDERS: [&str; 2] = ["operator/docs/runbooks", "ingest/docs/runbooks"];
/// What all blocks are run with.
pub const VARIABLES: [&str; 3] = ["NAMESPACE", "SHARD", "DATASTORE"];
/// How long one block may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a command that only looks may be.
const LOOKS: [&str; 7] =
    ["get", "describe", "logs", "events", "understudy explain", "understudy status", "understudy timeline"];

/// A block of commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The page, from the root of the repository.
    pub page: String,
    /// The line on which its commands begin, from 1.
    pub line: usize,
    /// The commands.
    pub script: String,
}

/// All pages with what they say, each from the root of the repository.
pub fn pages() -> Result<Vec<(String, String)>> {
    let mut pages = Vec::new();
    for within in FOLDERS {
        let folder = folder(within);
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                pages.push((format!("{within}/{name}"), text));
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// The blocks of a page that are to be run.
pub fn commands(page: &str, text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let inside: Vec<_> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        if number + inside.len() + 2 > text.lines().count() {
            bail!("{page}: the block of line {} has no end", number + 1);
        }
        if language == "sh" {
            blocks.push(Block { page: page.to_owned(), line: number + 2, script: inside.join("\n") });
        }
    }
    Ok(blocks)
}

impl Block {
    /// What in it does more than look, or asks for more than is set; None when it may be run.
    pub fn objection(&self) -> Option<String> {
        let verbs = self.script.split("kubectl ").skip(1);
        let mut others = verbs.filter(|verb| !LOOKS.iter().any(|look| is_word(verb, look)));
        if let Some(other) = others.next() {
            let words: Vec<_> = other.split_whitespace().take(2).collect();
            return Some(format!("`kubectl {}` does more than look", words.join(" ")));
        }
        let starts = |c: char| c.is_ascii_uppercase();
        let names = self.script.split('$').skip(1).filter(|rest| rest.starts_with(starts));
        let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
        let unknown = names.map(name).find(|name| !VARIABLES.contains(&name.as_str()))?;
        Some(format!("${unknown} is not set; there are {}", VARIABLES.join(", ")))
    }

    /// Where it stands.
    pub fn place(&self) -> String {
        format!("{}:{}", self.page, self.line)
    }
}

fn is_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
}

/// Runs a block with these values of [`VARIABLES`]; what it printed. It fails with the first command that does, the last of a pipe included.
pub async fn run(cluster: &Cluster, block: &Block, values: [&str; 3]) -> Result<String> {
    let mut command = Command::new("bash");
    command.args(["-euc", &block.script]).env("PATH", path(&cluster.kubectl)?);
    command.envs(VARIABLES.into_iter().zip(values));
    output(command, "", PATIENCE).await.with_context(|| block.place())
}

/// Where kubectl and its plugin are found: `UNDERSTUDY_E2E_PLUGIN_DIR`, then beside the kubectl of the tests, then where programs are.
pub fn path(kubectl: &Path) -> Result<OsString> {
    let plugin = std::env::var_os("UNDERSTUDY_E2E_PLUGIN_DIR").map(PathBuf::from);
    let beside = kubectl.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned);
    let present = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(plugin.into_iter().chain(beside).chain(std::env::split_paths(&present)))
        .context("UNDERSTUDY_E2E_PLUGIN_DIR, UNDERSTUDY_KUBECTL or PATH holds a colon")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(script: &str) -> Block {
        Block { page: "page.md".to_owned(), line: 3, script: script.to_owned() }
    }

    #[test]
    fn only_blocks_for_looking_are_read_each_with_its_place() {
        let page = "# Title\n\n```sh\nkubectl get a\nkubectl get b\n```\n\n```\nkubectl delete c\n```\n\n```sh\nkubectl logs d\n```\n";
        let found = commands("docs/page.md", page).unwrap();
        let told: Vec<_> = found.iter().map(|block| (block.place(), block.script.as_str())).collect();
        assert_eq!(
            told,
            [
                ("docs/page.md:4".to_owned(), "kubectl get a\nkubectl get b"),
                ("docs/page.md:13".to_owned(), "kubectl logs d"),
            ]
        );
        assert!(commands("page.md", "```sh\nkubectl get a\n").is_err(), "a block without an end");
    }

    #[test]
    fn what_does_more_than_look_or_asks_for_more_than_is_set_is_objected_to() {
        for (script, objection) in [
            ("kubectl get shard \"$SHARD\" -n \"$NAMESPACE\"", None),
            ("kubectl understudy explain \"$SHARD\" -n \"$NAMESPACE\" -o json", None),
            ("kubectl get pods | while read -r pod; do kubectl logs \"$pod\"; done", None),
            ("kubectl delete pod a", Some("kubectl delete pod")),
            ("kubectl get pods\nkubectl understudy failover a", Some("kubectl understudy failover")),
            ("kubectl get-contexts", Some("kubectl get-contexts")),
            ("kubectl get replica \"$REPLICA\"", Some("$REPLICA")),
            ("kubectl get shard \"$SHARDS\"", Some("$SHARDS")),
        ] {
            let found = block(script).objection();
            assert_eq!(found.is_some(), objection.is_some(), "{script}: {found:?}");
            assert!(found.is_none_or(|found| found.contains(objection.unwrap())), "{script}");
        }
    }

    #[test]
    fn every_page_has_commands_that_only_look() {
        let pages = pages().unwrap();
        for folder in FOLDERS {
            assert!(pages.iter().any(|(page, _)| page.starts_with(folder)), "no pages in {folder}");
        }
        for (page, text) in &pages {
            let blocks = commands(page, text).unwrap();
            assert!(!blocks.is_empty(), "{page} has no command");
            for block in blocks {
                assert_eq!(block.objection(), None, "{}", block.place());
            }
        }
    }

    #[test]
    fn kubectl_is_found_beside_the_one_of_the_tests_and_on_the_path_without_one() {
        let first = |kubectl: &str| {
            let path = path(Path::new(kubectl)).unwrap();
            std::env::split_paths(&path).any(|folder| folder == Path::new("/opt/kube"))
        };
        assert!(first("/opt/kube/kubectl"));
        assert!(!first("kubectl"));
    }
}
