//! When a drill begins, whom it hits, what keeps it from that, and how it ends.

mod begins;
mod goes_on;
mod properties;
mod scene;
