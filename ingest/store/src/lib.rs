//! The time-series store in MySQL. I/O.
