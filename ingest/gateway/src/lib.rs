//! The gateway: Prometheus remote write in, durable frames in Kafka out.
//!
//! A request goes through these steps, each with its limit before it costs anything:
//! token -> headers -> compressed body ([`admission`]) -> snappy, protobuf, rules, frames ([`prepare`], with
//! [`snappy`](mod@snappy), [`wire`] and [`batch`]) -> Kafka -> answer ([`write`]). It is answered 204 only after Kafka has confirmed every record;
//! the whole table of answers is in `ingest/docs/data-path.md`.

pub mod admin;
pub mod admission;
pub mod batch;
pub mod config;
pub mod limits;
pub mod metrics;
pub mod prepare;
pub mod quota;
pub mod snappy;
pub mod wire;
pub mod write;
