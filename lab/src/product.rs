//! The product's own image: one image with all its programs.

use std::process::Command;

use anyhow::{Context, Result};

use crate::image::Added;
use crate::import::{self, Base};
use crate::lab::Lab;
use crate::run;

/// Packages whose programs are linked dynamically and run on the base image.
const DYNAMIC: [&str; 4] = ["understudy", "understudy-gateway", "understudy-consumer", "understudy-query"];
/// The program that runs inside a stock MySQL image, whatever libraries that has.
const STATIC: &str = "understudy-instance";
/// A target named aloud keeps build scripts and macros apart from the static program.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Name of the product's image.
pub fn image_name() -> String {
    format!("understudy:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds the programs and puts the image into every node.
pub fn build_images(lab: &Lab<'_>) -> Result<()> {
    let nodes = import::need_nodes(lab)?;
    let mut dynamic = cargo(lab);
    dynamic.args(DYNAMIC.iter().flat_map(|p| ["--package", p]));
    build(lab, "build the product (release)", dynamic)?;
    let mut fixed = cargo(lab);
    fixed.args(["--package", STATIC, "--target", TARGET]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    build(lab, "build the instance manager (release, static)", fixed)?;
    let target = target_dir(lab)?;
    let mut files: Vec<_> = DYNAMIC.iter().map(|p| (target.join("release").join(p), *p)).collect();
    files.push((target.join(TARGET).join("release").join(STATIC), STATIC));
    let added =
        files.into_iter().map(|(source, name)| Added { source, target: format!("/usr/local/bin/{name}") }).collect();
    let image = import::image(lab.paths, lab.ui, &image_name(), Base::Debian, added)?.prepare()?;
    if import::import(lab, &image, nodes)? == 0 {
        lab.ui.say(&format!("every node has {} already", image.name()));
    }
    Ok(())
}

fn cargo(lab: &Lab<'_>) -> Command {
    let mut command = run::cmd([std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())]);
    command.args(["build", "--release", "--locked"]).current_dir(&lab.paths.checkout);
    command
}

fn build(lab: &Lab<'_>, what: &str, command: Command) -> Result<()> {
    let step = lab.ui.step(what, None);
    let log = lab.paths.logs().join("cargo-build.log");
    std::fs::create_dir_all(lab.paths.logs())?;
    let mut crates = 0;
    run::watched(&command, &log, |line| {
        if line.trim_start().starts_with("Compiling ") {
            crates += 1;
        }
        step.progress(crates, 0, "crates");
    })?;
    step.done();
    Ok(())
}

fn target_dir(lab: &Lab<'_>) -> Result<std::path::PathBuf> {
    let mut command = run::cmd([std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())]);
    let text =
        run::output(command.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(&lab.paths.checkout))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}
