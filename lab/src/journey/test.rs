//! `cargo lab test`: every test of this repository, in three tiers, each with what it needs. Runs cargo.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::access::Access;
use super::{build, collect, install, prometheus};
use crate::artifacts::{self, HELM};
use crate::cargo;
use crate::paths::Paths;
use crate::product::{self, Profile};
use crate::progress::{Ui, clock};
use crate::topology::kafka_bootstrap;
use crate::up;

/// By what a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// Nothing but cargo and compilers.
    Unit,
    /// A real MySQL, Kafka, Prometheus or API server.
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

/// How the test targets of a tier are named. Plain `cargo test` leaves them out (`test = false`), because they need more
/// than cargo.
const API: &str = "real_*";
const E2E: &str = "e2e";

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

fn unit(options: &Options, paths: &Paths, ui: &Ui, failed: &mut Vec<&'static str>) -> Result<()> {
    ui.say("tier unit: cargo test --workspace --locked");
    let mut command = cargo::command(paths);
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(&options.filter);
    if !command.status().context("cannot run cargo")?.success() {
        failed.push("unit");
    }
    Ok(())
}

fn api_tier(options: &Options, paths: &Paths, ui: &Ui, failed: &mut Vec<&'static str>) -> Result<()> {
    up::up(paths, ui, None)?;
    let mysqld = build::mysql_root(paths, ui)?;
    let programs = build::prometheus_programs(paths, ui)?;
    ui.say(&format!("tier api: cargo test --workspace --test '{API}'"));
    let mut command = cargo_test(paths, API);
    command.env("MYSQLD_ROOT", &mysqld).env("UNDERSTUDY_TEST_PROMETHEUS", programs.join("prometheus"));
    command.env("UNDERSTUDY_TEST_PROMTOOL", programs.join("promtool"));
    command.env("UNDERSTUDY_HELM", paths.binary("helm", HELM, "helm"));
    // Tests that share a server or a cluster go one after the other.
    command.args(&options.filter).args(["--", "--test-threads=1"]);
    if !command.status().context("cannot run cargo")?.success() {
        failed.push("api");
    }
    Ok(())
}

fn e2e(options: &Options, paths: &Paths, ui: &Ui, failed: &mut Vec<&'static str>) -> Result<()> {
    let environment = prepare(paths, ui, Profile::Dev)?;
    ui.say(&format!("tier e2e: cargo test --workspace --test {E2E}"));
    let mut command = end_to_end(paths, &environment);
    command.args(&options.filter).args(["--", "--test-threads=1", "--nocapture"]);
    let access = Access::lab(paths);
    if !command.status().context("cannot run cargo")?.success() {
        failed.push("e2e");
        let dir = collect::everything(&access, paths)?;
        ui.say(&format!("logs and objects of the cluster are in {}", dir.display()));
    }
    collect::delete_test_namespaces(&access)
}

/// The cluster, the images and the charts, and the environment by which the end-to-end tests find them.
pub fn prepare(paths: &Paths, ui: &Ui, profile: Profile) -> Result<Vec<(&'static str, String)>> {
    up::up(paths, ui, None)?;
    prometheus::build_image(paths, ui)?;
    let image = product::build_images(paths, ui, profile)?;
    let view = product::build_view_image(paths, ui, profile)?;
    let load = product::build_load(paths, ui, profile)?;
    let mut plugin_dir = product::build_plugin(paths, ui, profile)?;
    plugin_dir.pop();
    let access = Access::lab(paths);
    install::charts(&access, paths, ui, &image)?;
    let this: PathBuf = std::env::current_exe().context("cannot find this program")?;
    let text = |path: PathBuf| path.display().to_string();
    Ok(vec![
        ("UNDERSTUDY_LAB", text(this)),
        ("UNDERSTUDY_LOAD", text(load)),
        ("UNDERSTUDY_E2E_PLUGIN_DIR", text(plugin_dir)),
        ("UNDERSTUDY_KUBECTL", text(access.kubectl_path().clone())),
        ("UNDERSTUDY_MYSQL_IMAGE", format!("mysql:{}", artifacts::mysql_version(paths)?)),
        ("UNDERSTUDY_VIEW_IMAGE", view),
        ("UNDERSTUDY_PROMETHEUS_IMAGE", prometheus::image_name()),
    ])
}

/// `cargo test` of the end-to-end tests, with what [`prepare`] prepared.
pub fn end_to_end(paths: &Paths, environment: &[(&'static str, String)]) -> Command {
    let mut command = cargo_test(paths, E2E);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command
}

/// `cargo test` of the targets of a name, with the lab in its environment. Always of the whole workspace: cargo would choose
/// other features for one package alone, and compile everything again.
fn cargo_test(paths: &Paths, targets: &str) -> Command {
    let mut command = cargo::command(paths);
    command.args(["test", "--workspace", "--locked", "--no-fail-fast", "--test", targets]);
    command.env("KUBECONFIG", paths.admin_kubeconfig()).env("UNDERSTUDY_TEST_KAFKA", kafka_bootstrap());
    command
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The name of each `[[test]]` in a manifest that has `test = false` or asks for a feature.
    fn left_out(manifest: &str) -> Vec<String> {
        let value = |section: &str, key: &str| {
            let line = section.lines().find_map(|l| l.strip_prefix(&format!("{key} = ")))?;
            Some(line.trim().trim_matches('"').to_owned())
        };
        let section = |text: &str| text.split("\n[").next().unwrap_or_default().to_owned();
        let tests = manifest.split("[[test]]").skip(1).map(section);
        tests
            .filter(|t| value(t, "test").as_deref() == Some("false") || value(t, "required-features").is_some())
            .filter_map(|t| value(&t, "name"))
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
    fn every_target_that_cargo_leaves_out_is_run_by_a_tier() {
        let mut files = Vec::new();
        manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut files);
        let found: Vec<_> = files.iter().flat_map(|f| left_out(&fs::read_to_string(f).unwrap())).collect();
        assert!(found.iter().any(|name| name == E2E), "{found:?}");
        let prefix = API.trim_end_matches('*');
        let lost: Vec<_> = found.iter().filter(|name| *name != E2E && !name.starts_with(prefix)).collect();
        assert!(lost.is_empty(), "no tier runs {lost:?}");
    }

    #[test]
    fn a_target_is_left_out_only_when_its_own_section_says_so() {
        let manifest = "[package]\nname = \"p\"\n\n[[test]]\nname = \"real_a\"\ntest = false\n\n[[test]]\nname = \"b\"\n\n[[test]]\nname = \"c\"\nrequired-features = [\"x\"]\n\n[lib]\ntest = false\n";
        assert_eq!(left_out(manifest), ["real_a", "c"]);
    }
}
