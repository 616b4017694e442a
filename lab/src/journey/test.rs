//! `cargo lab test`: every test of this repository, in three tiers, each with what it needs. Runs cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::access::Access;
use super::{build, collect, install, prometheus};
use crate::artifacts::{self, HELM};
use crate::cargo;
use crate::fault;
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
    /// Leave out the end-to-end tests that take long.
    #[arg(long)]
    quick: bool,
    /// Only tests whose names contain this.
    filter: Option<String>,
}

/// How the test targets of a tier are named. Plain `cargo test` leaves them out (`test = false`), because they need more
/// than cargo.
const API: &str = "real_*";
const E2E: &str = "e2e";

/// The end-to-end tests that `--quick` leaves out, by their files.
const LONG: [&str; 5] = ["control_plane_away", "drill_faults", "second_failure", "sick_standby", "zombie"];

/// Runs the tiers asked for. Every target is run, whatever became of those before it.
pub fn run(options: &Options, paths: &Paths, ui: &Ui) -> Result<ExitCode> {
    let tiers = options.tier.map_or_else(|| vec![Tier::Unit, Tier::Api, Tier::E2e], |tier| vec![tier]);
    let mut failed = Vec::new();
    let mut reasons = Vec::new();
    for tier in tiers {
        let began = Instant::now();
        let before = failed.len();
        match tier {
            Tier::Unit => unit(options, paths, ui, &mut failed)?,
            Tier::Api => api_tier(options, paths, ui, &mut failed)?,
            Tier::E2e => {
                if let Some(why) = e2e(options, paths, ui)? {
                    failed.push("e2e");
                    reasons = why;
                }
            }
        }
        let outcome = if failed.len() == before { "passed" } else { "FAILED" };
        ui.say(&format!("tier {}: {outcome} in {}", tier.name(), clock(began.elapsed())));
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    ui.say(&format!("failed: {}", failed.join(", ")));
    // Last of all, as nobody looks for them between the lines of the tests that came after.
    reasons.iter().for_each(|reason| ui.say(reason));
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

/// Why tests failed, each by its name; None when none did.
fn e2e(options: &Options, paths: &Paths, ui: &Ui) -> Result<Option<Vec<String>>> {
    let environment = prepare(paths, ui, Profile::Dev)?;
    let reasons = paths.dot_lab().join("failed-tests");
    if reasons.exists() {
        fs::remove_dir_all(&reasons).with_context(|| format!("cannot clear {}", reasons.display()))?;
    }
    fs::create_dir_all(&reasons).with_context(|| format!("cannot create {}", reasons.display()))?;
    ui.say(&format!("tier e2e: cargo test --workspace --test {E2E}"));
    let mut command = end_to_end(paths, &environment);
    command.env("UNDERSTUDY_E2E_FAILURES", &reasons);
    command.args(&options.filter).args(["--", "--test-threads=1", "--nocapture"]);
    if options.quick {
        command.args(LONG.iter().flat_map(|file| ["--skip".to_owned(), format!("{file}::")]));
    }
    let access = Access::lab(paths);
    if command.status().context("cannot run cargo")?.success() {
        collect::delete_test_namespaces(&access)?;
        return Ok(None);
    }
    let why = kept(&reasons);
    // What follows may find a cluster that is as broken as the tests left it, and must not hide why they failed.
    if let Err(error) = after_failure(&access, paths, ui, &why) {
        ui.say(&format!("cannot collect everything: {error:#}"));
    }
    Ok(Some(why))
}

/// Takes out the faults that a test did not, and collects what a person needs.
fn after_failure(access: &Access, paths: &Paths, ui: &Ui, why: &[String]) -> Result<()> {
    if !fault::active(paths)?.is_empty() {
        fault::heal(paths, ui)?;
    }
    let dir = collect::everything(access, paths)?;
    ui.say(&format!("logs and objects of the cluster are in {}", dir.display()));
    let file = dir.join("failed-tests.txt");
    fs::write(&file, why.join("\n") + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    collect::delete_test_namespaces(access)
}

/// What tests left in this folder, each in a file of its name.
fn kept(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |file: fs::DirEntry| {
        let text = fs::read_to_string(file.path()).ok()?;
        Some(format!("{}: {}", file.file_name().to_string_lossy(), text.trim_end()))
    };
    let mut all: Vec<_> = files.filter_map(read).collect();
    all.sort();
    all
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
    // A test fails with words that say what and where; a backtrace of its runtime hides them.
    let backtrace = std::env::var("UNDERSTUDY_E2E_BACKTRACE").unwrap_or_else(|_| "0".into());
    command.env("RUST_BACKTRACE", backtrace).env_remove("RUST_LIB_BACKTRACE");
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
    fn every_test_that_is_called_long_exists() {
        let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/e2e/tests/e2e/main.rs");
        let main = fs::read_to_string(main).unwrap();
        for file in LONG {
            assert!(main.lines().any(|line| line == format!("mod {file};")), "{file}");
        }
    }

    #[test]
    fn why_tests_failed_is_told_test_by_test() {
        let dir = tempfile::tempdir().unwrap();
        assert!(kept(&dir.path().join("nothing")).is_empty());
        fs::write(dir.path().join("b::second"), "refused\npanicked\n").unwrap();
        fs::write(dir.path().join("a::first"), "not within 20 s\n").unwrap();
        assert_eq!(kept(dir.path()), ["a::first: not within 20 s", "b::second: refused\npanicked"]);
    }

    #[test]
    fn a_target_is_left_out_only_when_its_own_section_says_so() {
        let manifest = "[package]\nname = \"p\"\n\n[[test]]\nname = \"real_a\"\ntest = false\n\n[[test]]\nname = \"b\"\n\n[[test]]\nname = \"c\"\nrequired-features = [\"x\"]\n\n[lib]\ntest = false\n";
        assert_eq!(left_out(manifest), ["real_a", "c"]);
    }
}
