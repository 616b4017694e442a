//! The product from outside, one file a behaviour. Needs a cluster: `cargo lab test --tier e2e`.

mod bootstrap;
mod control_plane_away;
mod definitions;
mod deletion;
mod drill;
mod drill_faults;
mod kafka_down;
mod levers;
mod malformed;
mod node_lost;
mod operator_killed;
mod out_of_connections;
mod primary_frozen;
mod primary_killed;
mod prometheus_read_back;
mod runbooks;
mod scaling;
mod second_failure;
mod second_view;
mod sick_standby;
mod standby_killed;
mod stutter;
mod switchover;
mod volume_wedged;
mod zombie;
