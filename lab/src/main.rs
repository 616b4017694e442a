//! cargo lab.
fn main() {}
