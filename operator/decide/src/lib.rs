//! Decisions. Pure.
