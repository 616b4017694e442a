//! Frames, series, checkpoints. Pure.
