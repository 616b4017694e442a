//! Load, ledger and verification.
fn main() {}
