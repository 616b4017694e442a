//! Query service.
fn main() {}
