//! cargo, as this program starts it. Reads the environment, runs nothing.

use std::ffi::OsStr;
use std::process::Command;

use crate::paths::Paths;
use crate::run;

/// What a cargo tells a program about the package that it runs the program for, and no setting of its own.
const NAMES: [&str; 8] = [
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_RUSTC_CURRENT_DIR",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
];
/// The same, by how the names begin.
const PREFIXES: [&str; 4] = ["CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_"];

/// cargo in the checkout, as a person would start it there.
///
/// `cargo lab` runs under a cargo of its own. Build scripts that say on which of its variables they depend run again when those
/// change, and everything above them is compiled again: by this cargo and by a person's in turns, if it inherited them.
pub fn command(paths: &Paths) -> Command {
    let mut command = run::cmd([std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())]);
    command.current_dir(&paths.checkout);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_a_package(name)) {
        command.env_remove(name);
    }
    command
}

fn is_of_a_package(name: &OsStr) -> bool {
    let name = name.to_str().unwrap_or_default();
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cargo_says_of_its_package_goes_and_what_a_person_sets_stays() {
        for (name, goes) in [
            ("CARGO_MANIFEST_DIR", true),
            ("CARGO_MANIFEST_LINKS", true),
            ("CARGO_MANIFEST_PATH", true),
            ("CARGO_PKG_NAME", true),
            ("CARGO_PKG_VERSION_PRE", true),
            ("CARGO_BIN_NAME", true),
            ("CARGO_BIN_EXE_understudy-lab", true),
            ("CARGO_CRATE_NAME", true),
            ("CARGO_CFG_TARGET_OS", true),
            ("CARGO_FEATURE_DEFAULT", true),
            ("CARGO_PRIMARY_PACKAGE", true),
            ("OUT_DIR", true),
            ("CARGO", false),
            ("CARGO_HOME", false),
            ("CARGO_TARGET_DIR", false),
            ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", false),
            ("CARGO_INCREMENTAL", false),
            ("CARGO_TERM_COLOR", false),
            ("CARGO_NET_OFFLINE", false),
            ("CARGO_HTTP_PROXY", false),
            ("CARGO_BUILD_JOBS", false),
            ("CARGO_PROFILE_DEV_DEBUG", false),
            ("CARGO_REGISTRIES_CRATES_IO_PROTOCOL", false),
            ("RUSTUP_TOOLCHAIN", false),
            ("RUSTFLAGS", false),
            ("PATH", false),
        ] {
            assert_eq!(is_of_a_package(OsStr::new(name)), goes, "{name}");
        }
    }

    #[test]
    fn a_command_has_lost_the_package_that_this_test_runs_for() {
        let paths = Paths { state: "/s".into(), cache: "/c".into(), checkout: "/".into() };
        let command = command(&paths);
        let lost: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert!(lost.contains(&OsStr::new("CARGO_PKG_NAME")), "{lost:?}");
        assert!(!lost.contains(&OsStr::new("CARGO")), "{lost:?}");
    }
}
