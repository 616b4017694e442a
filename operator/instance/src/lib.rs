//! Instance manager: PID 1 beside one mysqld. I/O, except [`mycnf`] and the pure halves of [`datadir`], [`logs`] and [`contact`].
//!
//! One static binary in a stock MySQL image. It fills an empty volume when ordered to, runs mysqld as its child and never a
//! second time, tells what it sees, and makes its server follow, serve or stop serving. Whatever mysqld or the volume does,
//! it goes on answering: nothing that answers waits for either.
//!
//! - [`config`]: what the pod says; [`facts`]: what is known now, and the report made of it
//! - [`child`]: processes and their reaping; [`host`]: one mysqld from start to end; [`life`]: from the volume to mysqld; [`logs`]: its words; [`mycnf`]: what it is told;
//!   [`certificate`]: with which certificate it serves
//! - [`volume`]: the threads that touch the volume; [`datadir`]: what lies on it; [`build`]: filling it
//! - [`orders`]: the queue and its worker; [`promote`], [`follow`], [`fence`]: what they do
//! - [`drill`]: faults by order, for rehearsals
//! - [`observe`]: readings of the own server; [`probes`]: probes of it and of the primary; [`locks`]: what its commits wait for;
//!   [`proc`], [`stopped`], [`pressure`]: what the kernel says
//! - [`contact`]: who still answers this pod; [`api`]: the instance API; [`admin`]: health and metrics; [`stop`]: the end
//! - [`manager`]: everything wired together

pub mod admin;
pub mod api;
pub mod build;
pub mod certificate;
pub mod child;
pub mod config;
pub mod contact;
pub mod datadir;
pub mod drill;
pub mod facts;
pub mod fence;
pub mod follow;
pub mod host;
pub mod install;
pub mod life;
pub mod locks;
pub mod logs;
pub mod manager;
pub mod mycnf;
pub mod observe;
pub mod orders;
pub mod pressure;
pub mod probes;
pub mod proc;
pub mod promote;
pub mod stop;
pub mod stopped;
pub mod telemetry;
pub mod volume;
