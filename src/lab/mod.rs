//! The scaling lab: what an autoscaler will do, before it does it.
//!
//! - [`hpa`]: the HorizontalPodAutoscaler's own rules.
//!
//! The lab takes its inputs as values: it does no I/O, has no clock, and neither service nor function carries it.
//! `src/bin/math-lab/` is its command, one file a subcommand.

pub mod cluster;
pub mod container;
pub mod cost;
pub mod hpa;
pub mod lambda;
pub mod run;
pub mod service;
pub mod traffic;
