//! The product's own image: one image with all its programs.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cargo;
use crate::image::{Added, Image, Prepared};
use crate::import::{self, Base};
use crate::paths::Paths;
use crate::progress::Ui;
use crate::run;

/// Packages whose programs are linked dynamically and run on the base image.
const DYNAMIC: [&str; 4] = ["understudy", "understudy-gateway", "understudy-consumer", "understudy-query"];
/// The lab's own heavy program. Built with the product, so that what they share is compiled once.
const LOAD: &str = "understudy-lab-load";
/// The plugin for kubectl and its program, for people and tests on this machine.
const PLUGIN: (&str, &str) = ("understudy-cli", "kubectl-understudy");
/// The example of a view of one's own, an image by itself that only tests need.
const VIEW: &str = "understudy-example-json-events";
/// The program that runs inside a stock MySQL image, whatever libraries that has.
const STATIC: &str = "understudy-instance";
/// A target named aloud keeps build scripts and macros apart from the static program.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How cargo compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Quickly, and with checks of arithmetic: for tests.
    Dev,
    /// As users get it.
    Release,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    /// Where cargo puts what it made, in its target directory.
    fn dir(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds the programs and puts the image into every node; its name.
pub fn build_images(paths: &Paths, ui: &Ui, profile: Profile) -> Result<String> {
    put(paths, ui, &build_image(paths, ui, profile)?)
}

/// Builds the programs and says what [`build_images`] would call their image; puts it nowhere.
pub fn image_name(paths: &Paths, ui: &Ui, profile: Profile) -> Result<String> {
    Ok(tagged(&build_image(paths, ui, profile)?)?.name().to_owned())
}

fn build_image(paths: &Paths, ui: &Ui, profile: Profile) -> Result<Image> {
    let added = build_programs(paths, ui, profile)?
        .into_iter()
        .map(|(source, name)| Added { source, target: format!("/usr/local/bin/{name}") })
        .collect();
    import::image(paths, ui, "understudy", Base::Debian, added)
}

/// Builds the programs of the product's image; needs no cluster. Where each is, and its name.
pub fn build_programs(paths: &Paths, ui: &Ui, profile: Profile) -> Result<Vec<(PathBuf, &'static str)>> {
    let target = build_dynamic(paths, ui, profile, &[])?;
    let mut fixed = cargo_build(paths, profile, &[STATIC]);
    fixed.args(["--target", TARGET]).env("RUSTFLAGS", "-C target-feature=+crt-static");
    let total = crates(paths, &[STATIC]);
    build(paths, ui, &format!("build the instance manager ({}, static)", profile.name()), fixed, total)?;
    let mut files: Vec<_> = DYNAMIC.iter().map(|p| (target.join(profile.dir()).join(p), *p)).collect();
    files.push((target.join(TARGET).join(profile.dir()).join(STATIC), STATIC));
    Ok(files)
}

/// Builds the example of a view of one's own and puts its image into every node; its name.
pub fn build_view_image(paths: &Paths, ui: &Ui, profile: Profile) -> Result<String> {
    let program = build_dynamic(paths, ui, profile, &[VIEW])?.join(profile.dir()).join(VIEW);
    let target = format!("/usr/local/bin/{VIEW}");
    let added = vec![Added { source: program, target: target.clone() }];
    let mut image = import::image(paths, ui, "json-events", Base::Debian, added)?;
    image.entrypoint = vec![target];
    put(paths, ui, &image)
}

fn put(paths: &Paths, ui: &Ui, image: &Image) -> Result<String> {
    let nodes = import::need_nodes(paths)?;
    let prepared = tagged(image)?;
    let name = prepared.name().to_owned();
    if import::import(paths, ui, &prepared, &nodes)? == 0 {
        ui.say(&format!("every node has {name} already"));
    }
    Ok(name)
}

/// The tag changes with what is in the image: so a rebuilt product is rolled out, and an equal one is not.
fn tagged(image: &Image) -> Result<Prepared> {
    let prepared = image.prepare()?;
    let name = format!("{}:{}-{}", image.name, env!("CARGO_PKG_VERSION"), &prepared.id()[..12]);
    Ok(prepared.named(&name))
}

/// Path of the program behind `cargo lab load` and `cargo lab verify`, built if need be.
pub fn build_load(paths: &Paths, ui: &Ui, profile: Profile) -> Result<PathBuf> {
    Ok(build_dynamic(paths, ui, profile, &[])?.join(profile.dir()).join(LOAD))
}

/// Path of the plugin for kubectl, built if need be, and put beside the lab's own kubectl: `. .lab/env` has it on the PATH.
pub fn build_plugin(paths: &Paths, ui: &Ui, profile: Profile) -> Result<PathBuf> {
    let (_, name) = PLUGIN;
    let program = build_dynamic(paths, ui, profile, &[])?.join(profile.dir()).join(name);
    let dir = paths.dot_lab().join("bin");
    std::fs::create_dir_all(&dir)?;
    let link = dir.join(name);
    if std::fs::read_link(&link).ok().as_ref() != Some(&program) {
        std::fs::remove_file(&link).ok();
        symlink(&program, &link).with_context(|| format!("link {}", link.display()))?;
    }
    Ok(program)
}

/// Builds what runs on the base image, and `more`; cargo's target directory.
fn build_dynamic(paths: &Paths, ui: &Ui, profile: Profile, more: &[&'static str]) -> Result<PathBuf> {
    let packages = selected(more);
    let (what, total) = (format!("build the product ({})", profile.name()), crates(paths, &packages));
    let mut command = cargo_build(paths, profile, &packages);
    command.args(beside_tests(profile));
    build(paths, ui, &what, command, total)?;
    target_dir(paths)
}

/// The packages of one call of cargo. It gives each the features that all of them ask for, so no call leaves one of these out.
fn selected(more: &[&'static str]) -> Vec<&'static str> {
    DYNAMIC.into_iter().chain([LOAD, PLUGIN.0]).chain(more.iter().copied()).collect()
}

fn cargo_build(paths: &Paths, profile: Profile, packages: &[&str]) -> Command {
    let mut command = cargo_locked(paths, "build");
    command.args(["--profile", profile.name()]).args(named(packages));
    command
}

/// The programs for users have what they ask for. Those for tests are built beside one small test: tests ask for more of some crates (of
/// tokio, say), and with that a hundred crates that `cargo test` has compiled already need not be compiled again.
fn beside_tests(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::Dev => &["--bins", "--package", "understudy-api", "--test", "names"],
        Profile::Release => &[],
    }
}

fn cargo_locked(paths: &Paths, verb: &str) -> Command {
    let mut command = cargo::command(paths);
    command.args([verb, "--locked"]);
    command
}

fn named<'a>(packages: &'a [&str]) -> impl Iterator<Item = &'a str> {
    packages.iter().flat_map(|package| ["--package", package])
}

/// How many crates a build takes when none is there yet; zero, which is unknown, when cargo does not say.
fn crates(paths: &Paths, packages: &[&str]) -> usize {
    let mut command = cargo_locked(paths, "tree");
    command.args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"]).args(named(packages));
    let listed = run::output(&mut command).unwrap_or_default();
    listed
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty())
        .collect::<BTreeSet<_>>()
        .len()
}

fn build(paths: &Paths, ui: &Ui, what: &str, command: Command, total: usize) -> Result<()> {
    let step = ui.step(what, None);
    let log = paths.logs().join("cargo-build.log");
    std::fs::create_dir_all(paths.logs())?;
    let mut crates = 0;
    run::watched(&command, &log, |line| {
        if line.trim_start().starts_with("Compiling ") {
            crates += 1;
        }
        step.progress(crates, total, "crates");
    })?;
    step.done();
    Ok(())
}

fn target_dir(paths: &Paths) -> Result<PathBuf> {
    let text = run::output(cargo::command(paths).args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target directory")?.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::artifacts::DEBIAN;

    #[test]
    fn only_who_asks_for_the_example_builds_it() {
        assert!(!selected(&[]).contains(&VIEW));
        assert!(selected(&[]).iter().all(|package| selected(&[VIEW]).contains(package)));
        assert_eq!(selected(&[VIEW]).last(), Some(&VIEW));
    }

    /// Else builds with it and builds without it would compile what they share in turns.
    #[test]
    fn the_example_asks_for_no_feature_that_the_product_is_not_built_with() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/json-events/Cargo.toml");
        let manifest = fs::read_to_string(file).unwrap();
        let dependencies = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]")).unwrap();
        let lines: Vec<_> = dependencies.lines().filter(|line| line.contains('=')).collect();
        assert!(!lines.is_empty(), "{manifest}");
        let asking: Vec<_> =
            lines.iter().filter(|line| line.replace("default-features", "").contains("features")).collect();
        assert!(asking.is_empty(), "{asking:?}");
    }

    #[test]
    fn the_plugin_is_a_program_of_its_package_and_is_built_with_the_product() {
        let (package, program) = PLUGIN;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/cli/Cargo.toml");
        let manifest = fs::read_to_string(file).unwrap();
        for name in [package, program] {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}: {manifest}");
        }
        assert!(selected(&[]).contains(&package));
    }

    #[test]
    fn the_test_that_programs_are_built_beside_is_there_and_only_tests_get_such_programs() {
        let [.., package, "--test", test] = beside_tests(Profile::Dev) else { panic!("no test is named") };
        let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/api");
        let manifest = fs::read_to_string(api.join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"{package}\"")), "{manifest}");
        assert!(api.join("tests").join(test).with_extension("rs").exists());
        assert!(beside_tests(Profile::Release).is_empty());
    }

    #[test]
    fn the_containerfile_makes_the_same_programs_in_the_same_way_and_puts_them_in_the_same_place() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Containerfile");
        let text = fs::read_to_string(file).unwrap().replace("\\\n", " ");
        let runs: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("RUN ")).collect();
        let built = |run: &str| -> BTreeSet<String> {
            let words: Vec<_> = run.split_whitespace().collect();
            words.windows(2).filter(|pair| pair[0] == "--package").map(|pair| pair[1].to_owned()).collect()
        };
        let builds: Vec<_> = runs.iter().filter(|run| run.contains("cargo build --release --locked")).collect();
        let [dynamic, fixed] = builds[..] else { panic!("two builds: {builds:?}") };
        // The plugin is in it to be copied out; people in the lab have it on their PATH.
        let packages: BTreeSet<_> = DYNAMIC.into_iter().chain([PLUGIN.0]).map(str::to_owned).collect();
        assert_eq!(built(dynamic), packages);
        assert_eq!(built(fixed), [STATIC.to_owned()].into());
        assert!(fixed.contains("-C target-feature=+crt-static") && fixed.contains("--target"), "{fixed}");
        let copies = runs.iter().find(|run| run.starts_with("mkdir /out")).unwrap();
        for program in DYNAMIC.into_iter().chain([PLUGIN.1]) {
            assert!(copies.contains(&format!("target/release/{program} ")), "{program}: {copies}");
        }
        assert!(copies.contains(&format!("/release/{STATIC} /out/")), "{copies}");
        let base = format!("FROM docker.io/library/debian:{DEBIAN}-slim");
        for line in [base.as_str(), "COPY --from=build /out/ /usr/local/bin/"] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }
}
