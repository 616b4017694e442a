//! Instance manager.
fn main() {}
