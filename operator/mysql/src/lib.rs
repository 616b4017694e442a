//! The only crate of the operator that speaks MySQL. I/O.
