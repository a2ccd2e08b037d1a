//! One axum router, two targets: a container on Kubernetes/EKS and an AWS Lambda function.
//!
//! The map of this tree, from the outside in:
//!
//! - [`config`]: every setting, its variable, unit and default; the only reader of the environment.
//! - [`targets`]: what differs between a TCP listener and a Lambda event, and nothing else.
//! - [`app`]: the only wiring, from a [`config::Config`] to a router.
//! - [`http`]: what every request passes, and the routes about the service itself.
//! - [`addition`], [`load`], [`fibonacci`], `jobs`, `simulation`: the workloads. They know neither each other nor the
//!   target.
//! - `lab`: what autoscalers will do, for `simulation` and for the command `math-lab`.
//! - [`auth`]: who is calling, and what they may do.
//! - [`store`]: the state that replicas share.
//! - `aws`: credentials and signatures, for what needs AWS.
//! - [`problem`]: the one error type that reaches clients.
//! - [`telemetry`]: log lines, metrics, trace context.
//! - [`lifecycle`]: from starting to drained.

pub mod addition;
pub mod app;
pub mod auth;
#[cfg(feature = "aws")]
pub mod aws;
pub mod config;
pub mod fibonacci;
pub mod http;
#[cfg(feature = "jobs")]
pub mod jobs;
#[cfg(feature = "lab")]
pub mod lab;
pub mod lifecycle;
pub mod load;
pub mod problem;
#[cfg(feature = "lab")]
pub mod simulation;
pub mod store;
pub mod targets;
pub mod telemetry;

/// The version of this build, from `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
