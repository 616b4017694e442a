//! Reads the time-series store for people and for Prometheus: remote read, and the names of series and labels.
//!
//! A tenant's data may be on every shard of the Datastore, so each request asks the shards that can hold some of it, at
//! once, and merges. Which server of a shard answers, under which epoch, and how fresh it is, stands in the headers of
//! each answer. What this promises: `ingest/docs/query.md`.
//!
//! - [`remote`], [`grammar`], [`selector`], [`params`]: what a request says (pure)
//! - [`topology`]: shards, routes, placements (pure); [`follow`] keeps it current (I/O)
//! - [`work`]: what one server is asked and what it found (pure); [`server`]: asking it (I/O); [`idle`]: connections that
//!   are kept for that (pure)
//! - [`ask`]: primary or standby, under which epoch; [`gather`]: all shards of a request (I/O through a trait)
//! - [`merge`], [`freshness`]: many answers to one (pure)
//! - [`api`]: HTTP; [`admin`]: the admin port (I/O)
//! - [`budget`], [`limits`], [`metrics`], [`config`]

pub mod admin;
pub mod api;
pub mod ask;
pub mod budget;
pub mod config;
pub mod follow;
pub mod freshness;
pub mod gather;
pub mod grammar;
pub mod idle;
pub mod limits;
pub mod merge;
pub mod metrics;
pub mod params;
pub mod remote;
pub mod selector;
pub mod server;
pub mod topology;
pub mod work;
