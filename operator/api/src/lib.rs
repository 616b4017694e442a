//! Custom resource types. Pure.
