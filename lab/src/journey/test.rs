//! `cargo lab test`: every test of this repository, in three tiers, each with what it needs. Runs cargo.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::access::Access;
use super::{build, collect, install, prometheus};
use crate::artifacts::{self, HELM};
use crate::paths::Paths;
use crate::progress::{Ui, clock};
use crate::topology::kafka_bootstrap;
use crate::{product, up};

/// By what a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// Nothing but cargo.
    Unit,
    /// A real MySQL, Kafka or API server.
    Api,
    /// The product, installed in the cluster.
    E2e,
}

/// What `cargo lab test` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// Only this tier; by default all three.
    #[arg(long, value_enum)]
    tier: Option<Tier>,
    /// Only tests whose names contain this.
    filter: Option<String>,
}

/// A test target that plain `cargo test` leaves out, because it needs more than cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    tier: Tier,
    package: &'static str,
    name: &'static str,
    feature: Option<&'static str>,
}

/// All of them. A test below fails when one of the workspace is missing here.
const TARGETS: [Target; 11] = [
    api("understudy", "real_chart", None),
    api("understudy-consumer", "real_kafka", Some("timeseries")),
    api("understudy-consumer", "real_mysql", None),
    api("understudy-example-json-events", "real_failover", None),
    api("understudy-gateway", "real_prometheus", Some("real-prometheus")),
    api("understudy-instance", "real_trio", None),
    api("understudy-kafka", "real_kafka", Some("real-kafka")),
    api("understudy-mysql", "real_mysql", None),
    api("understudy-query", "real_mysql", None),
    api("understudy-store", "real_mysql", None),
    Target { tier: Tier::E2e, package: "understudy-e2e", name: "e2e", feature: None },
];

const fn api(package: &'static str, name: &'static str, feature: Option<&'static str>) -> Target {
    Target { tier: Tier::Api, package, name, feature }
}

/// Runs the tiers asked for. Every target is run, whatever became of those before it.
pub fn run(options: &Options, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let tiers = options.tier.map_or_else(|| vec![Tier::Unit, Tier::Api, Tier::E2e], |tier| vec![tier]);
    let mut failed = Vec::new();
    for tier in tiers {
        let began = Instant::now();
        let before = failed.len();
        match tier {
            Tier::Unit => unit(options, paths, ui, &mut failed)?,
            Tier::Api => api_tier(options, paths, ui, &mut failed)?,
            Tier::E2e => e2e(options, paths, ui, &mut failed)?,
        }
        let outcome = if failed.len() == before { "passed" } else { "FAILED" };
        ui.say(&format!("tier {}: {outcome} in {}", tier.name(), clock(began.elapsed())));
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    ui.say(&format!("failed: {}", failed.join(", ")));
    Ok(ExitCode::FAILURE)
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Api => "api",
            Self::E2e => "e2e",
        }
    }
}

fn unit(options: &Options, paths: &Paths, ui: &Ui, failed: &mut Vec<String>) -> Result<()> {
    ui.say("tier unit: cargo test --workspace --locked");
    let mut command = build::cargo(paths);
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(&options.filter);
    if !command.status().context("cannot run cargo")?.success() {
        failed.push("unit".into());
    }
    Ok(())
}

fn api_tier(options: &Options, paths: &Paths, ui: &Ui, failed: &mut Vec<String>) -> Result<()> {
    up::up(paths, ui, None)?;
    let mysqld = build::mysql_root(paths, ui)?;
    let prometheus = build::prometheus_program(paths, ui)?;
    for target in TARGETS.iter().filter(|t| t.tier == Tier::Api) {
        let mut command = of_target(paths, ui, *target);
        command.env("MYSQLD_ROOT", &mysqld).env("UNDERSTUDY_TEST_PROMETHEUS", &prometheus);
        command.env("UNDERSTUDY_HELM", paths.binary("helm", HELM, "helm"));
        run_target(&mut command, options, *target, failed)?;
    }
    Ok(())
}

fn e2e(options: &Options, paths: &Paths, ui: &Ui, failed: &mut Vec<String>) -> Result<()> {
    let environment = prepare(paths, ui)?;
    for target in TARGETS.iter().filter(|t| t.tier == Tier::E2e) {
        let mut command = of_target(paths, ui, *target);
        for (name, value) in &environment {
            command.env(name, value);
        }
        run_target(&mut command, options, *target, failed)?;
    }
    let access = Access::lab(paths);
    if failed.iter().any(|f| f.starts_with("understudy-e2e")) {
        let dir = collect::everything(&access, paths)?;
        ui.say(&format!("logs and objects of the cluster are in {}", dir.display()));
    }
    collect::delete_test_namespaces(&access)
}

/// The cluster, the images and the charts, and the environment by which the end-to-end tests find them.
pub fn prepare(paths: &Paths, ui: &Ui) -> Result<Vec<(&'static str, String)>> {
    up::up(paths, ui, None)?;
    prometheus::build_image(paths, ui)?;
    let image = product::build_images(paths, ui)?;
    let view = product::build_view_image(paths, ui)?;
    let load = product::build_load(paths, ui)?;
    let access = Access::lab(paths);
    install::charts(&access, paths, ui, &image)?;
    let this: PathBuf = std::env::current_exe().context("cannot find this program")?;
    let text = |path: PathBuf| path.display().to_string();
    Ok(vec![
        ("UNDERSTUDY_LAB", text(this)),
        ("UNDERSTUDY_LOAD", text(load)),
        ("UNDERSTUDY_KUBECTL", text(access.kubectl_path().clone())),
        ("UNDERSTUDY_MYSQL_IMAGE", format!("mysql:{}", artifacts::mysql_version(paths)?)),
        ("UNDERSTUDY_VIEW_IMAGE", view),
        ("UNDERSTUDY_PROMETHEUS_IMAGE", prometheus::image_name()),
    ])
}

/// `cargo test` of one target, with the lab in its environment.
pub fn cargo_test(paths: &Paths, package: &str, target: &str) -> Command {
    let mut command = build::cargo(paths);
    command.args(["test", "--locked", "--package", package, "--test", target]);
    command.env("KUBECONFIG", paths.admin_kubeconfig()).env("UNDERSTUDY_TEST_KAFKA", kafka_bootstrap());
    command
}

fn of_target(paths: &Paths, ui: &Ui, target: Target) -> Command {
    ui.say(&format!("tier {}: cargo test --package {} --test {}", target.tier.name(), target.package, target.name));
    let mut command = cargo_test(paths, target.package, target.name);
    command.args(target.feature.iter().flat_map(|f| ["--features", *f]));
    command
}

/// The runner's own output is left as it is. Tests that share a server or a cluster go one after the other.
fn run_target(command: &mut Command, options: &Options, target: Target, failed: &mut Vec<String>) -> Result<()> {
    command.args(&options.filter).args(["--", "--test-threads=1"]);
    if target.tier == Tier::E2e {
        command.arg("--nocapture");
    }
    if !command.status().context("cannot run cargo")?.success() {
        failed.push(format!("{} {}", target.package, target.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Package and name of each `[[test]]` in a manifest that has `test = false` or asks for a feature.
    fn left_out(manifest: &str) -> Vec<(String, String)> {
        let value = |section: &str, key: &str| {
            let line = section.lines().find_map(|l| l.strip_prefix(&format!("{key} = ")))?;
            Some(line.trim().trim_matches('"').to_owned())
        };
        let section = |text: &str| text.split("\n[").next().unwrap_or_default().to_owned();
        let Some(package) = manifest.split("[package]").nth(1).and_then(|p| value(&section(p), "name")) else {
            return Vec::new();
        };
        let tests = manifest.split("[[test]]").skip(1).map(section);
        tests
            .filter(|t| value(t, "test").as_deref() == Some("false") || value(t, "required-features").is_some())
            .filter_map(|t| Some((package.clone(), value(&t, "name")?)))
            .collect()
    }

    fn manifests(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                manifests(&path, into);
            } else if name == "Cargo.toml" {
                into.push(path);
            }
        }
    }

    #[test]
    fn every_target_that_cargo_leaves_out_is_in_the_table_and_the_table_names_no_other() {
        let mut files = Vec::new();
        manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut files);
        let mut found: Vec<_> = files.iter().flat_map(|f| left_out(&fs::read_to_string(f).unwrap())).collect();
        let mut table: Vec<_> = TARGETS.iter().map(|t| (t.package.to_owned(), t.name.to_owned())).collect();
        found.sort();
        table.sort();
        assert_eq!(table, found);
    }

    #[test]
    fn a_target_is_left_out_only_when_its_own_section_says_so() {
        let manifest = "[package]\nname = \"p\"\n\n[[test]]\nname = \"real_a\"\ntest = false\n\n[[test]]\nname = \"b\"\n\n[[test]]\nname = \"c\"\nrequired-features = [\"x\"]\n\n[lib]\ntest = false\n";
        assert_eq!(left_out(manifest), [("p".to_owned(), "real_a".to_owned()), ("p".to_owned(), "c".to_owned())]);
    }
}
