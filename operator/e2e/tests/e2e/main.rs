//! The product from outside, one file a behaviour. Needs a cluster: `cargo lab test --tier e2e`.

mod bootstrap;
mod definitions;
mod deletion;
mod levers;
mod malformed;
mod node_lost;
mod operator_killed;
mod primary_killed;
mod prometheus_read_back;
mod runbooks;
mod scaling;
mod second_view;
mod standby_killed;
mod switchover;
