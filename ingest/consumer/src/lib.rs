//! Consumer core.
