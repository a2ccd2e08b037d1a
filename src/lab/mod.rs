//! The scaling lab: what an autoscaler will do, before it does it, and what that costs on either target.
//!
//! - [`hpa`]: the HorizontalPodAutoscaler's own rules.
//! - [`traffic`]: how many requests arrive in each second.
//! - [`service`]: what a request costs, and what becomes of it in a process.
//! - [`cluster`]: nodes; [`container`]: a run on EKS.
//! - [`lambda`]: environments, and a run on Lambda.
//! - [`cost`]: prices, and what a run's usage comes to.
//! - [`measure`]: what a running endpoint says of itself, as a profile.
//! - [`locust`]: two recorded runs, and whether they differ.
//! - [`run`]: what a run leaves behind; [`verdict`]: which target, and why.
//! - [`report`]: runs as text, as JSON, as a page; [`chart`]: their charts.
//! - [`inputs`]: manifests, cluster configuration and template, read as they are.
//!
//! The lab takes its inputs as values: it does no I/O and has no clock. `src/bin/math-lab/` is its command, one file a
//! subcommand; `src/simulation/` is its route and its page.

pub mod chart;
pub mod cluster;
pub mod container;
pub mod cost;
pub mod hpa;
pub mod inputs;
pub mod lambda;
pub mod locust;
pub mod measure;
pub mod report;
pub mod run;
pub mod service;
pub mod traffic;
pub mod verdict;

#[cfg(test)]
mod tests;
