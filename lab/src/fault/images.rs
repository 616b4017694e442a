//! Images that a node has no more: who needs one pulls it, and nobody gives it. What runs goes on. Runs ctr.
//!
//! An image keeps all it has under another name, and gets its own back: nothing is imported anew.

use anyhow::{Context, Result, bail};

use super::Scene;
use super::record::Active;
use crate::node;
use crate::paths::Paths;
use crate::run;

/// The product's, as containerd calls it. No registry has it, so a node that pulls it gets an error and nothing else.
pub const PRODUCT: &str = "docker.io/library/understudy";
/// In place of the registry while an image is hidden. RFC 2606 keeps that name from ever being one.
const HIDDEN: &str = "lab.invalid/hidden";

fn ctr(paths: &Paths, node: &str, arguments: &[&str]) -> Result<String> {
    let mut command = run::sh("ctr --address");
    command.arg(paths.containerd_socket(node)).args(["--namespace", "k8s.io", "images"]).args(arguments);
    run::output(&mut command).with_context(|| format!("cannot change the images of {node}"))
}

/// Every tag of an image that a node has.
pub fn of_node(paths: &Paths, node: &str, repository: &str) -> Result<Vec<String>> {
    let listed = ctr(paths, node, &["ls", "--quiet"])?;
    Ok(listed.lines().filter(|name| is_of(name, repository)).map(str::to_owned).collect())
}

/// Pure.
fn is_of(name: &str, repository: &str) -> bool {
    name.strip_prefix(repository).is_some_and(|rest| rest.starts_with(':'))
}

/// Pure.
fn hidden(image: &str) -> String {
    format!("{HIDDEN}/{image}")
}

/// Hides every tag of an image from the kubelets of all nodes that run.
pub fn hide(scene: &Scene<'_>, repository: &str) -> Result<()> {
    let mut count = 0;
    for node in scene.state.nodes.iter().filter(|node| scene.state.is_alive(&node::process_name(node))) {
        let name = node.name();
        for image in of_node(scene.paths, &name, repository)? {
            scene.record(Active::ShowImage { node: name.clone(), image: image.clone() })?;
            ctr(scene.paths, &name, &["tag", "--force", &image, &hidden(&image)])?;
            ctr(scene.paths, &name, &["rm", &image])?;
            count += 1;
        }
    }
    if count == 0 {
        bail!("no node has an image {repository}: run `cargo lab demo`");
    }
    Ok(())
}

/// Gives one its name back.
pub fn show(paths: &Paths, node: &str, image: &str) -> Result<()> {
    let hidden = hidden(image);
    // It may never have been hidden.
    if ctr(paths, node, &["ls", "--quiet"])?.lines().any(|name| name == hidden) {
        ctr(paths, node, &["tag", "--force", &hidden, image])?;
        ctr(paths, node, &["rm", &hidden])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_of_that_image_are_hidden() {
        for (name, want) in [
            ("docker.io/library/understudy:0.1.0-abc", true),
            ("docker.io/library/understudying:1", false),
            ("lab.invalid/hidden/docker.io/library/understudy:0.1.0-abc", false),
            ("docker.io/library/mysql:9", false),
            ("sha256:0123", false),
        ] {
            assert_eq!(is_of(name, PRODUCT), want, "{name}");
        }
    }
}
