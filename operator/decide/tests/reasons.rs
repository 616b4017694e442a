//! The table of reasons holds none that nothing gives.

use std::path::Path;

use strum::IntoEnumIterator;
use understudy_decide::Reason;

/// The library's own text, without the table.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder of this crate") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.file_name().is_some_and(|name| name != "decision.rs") {
            text += &std::fs::read_to_string(&path).expect("a source file");
        }
    }
    text
}

#[test]
fn every_reason_is_given_somewhere() {
    let text = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    let given = |reason: &Reason| text.split(&format!("Reason::{reason}")).skip(1).any(ends);
    let unused: Vec<_> = Reason::iter().filter(|reason| !given(reason)).collect();
    assert!(unused.is_empty(), "nothing gives {unused:?}: note it where it happens, or take it out of the table");
}
