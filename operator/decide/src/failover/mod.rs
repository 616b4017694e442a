//! Who is primary: from evidence to a change of primary and its record. Pure. `operator/docs/failover.md` has the terms,
//! states and rules under the same names.
//!
//! - [`snapshot`]: everything that is known of one shard at one moment; [`memory`]: what of it
//!   only this process knows; [`course`]: how it went from pass to pass; [`thresholds`]: how soon what follows
//! - [`testimony`], [`signature`], [`assess`]: from evidence to a verdict; [`testimony_view`]: what each observer sees, for a person
//! - [`candidate`]: who may become primary; [`retention`]: what Kafka must hold for it;
//!   [`last_resort`]: who may when nobody should
//! - [`plan`], [`transition`], [`next_target`], [`bootstrap`]: what to do about it, one irreversible step at a time
//! - [`request`]: a change that a person asked for; [`relief`]: a primary that works and had better hand over,
//!   [`cut_off`]: because no consumer reaches it;
//!   [`cooldown`]: how soon after a change the next may follow
//! - [`record`]: what the record says, [`exhibit`]: with which facts

pub mod assess;
pub(crate) mod bootstrap;
pub mod candidate;
pub(crate) mod cooldown;
pub mod course;
pub(crate) mod cut_off;
pub mod exhibit;
pub(crate) mod last_resort;
pub mod memory;
pub(crate) mod next_target;
pub(crate) mod plan;
pub mod record;
pub(crate) mod relief;
pub(crate) mod request;
pub mod retention;
pub mod signature;
pub mod snapshot;
pub mod testimony;
pub mod testimony_view;
pub mod thresholds;
pub(crate) mod transition;
