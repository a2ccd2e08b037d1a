//! The service from the outside: its binaries as processes, its front doors over sockets.
//!
//! - `auth`: sign-in against an issuer that does what it is told.
//! - `cli`: what the binaries do with arguments and settings.
//! - `service`: every route's contract, over TCP.
//! - `container`: slow clients, floods, both HTTP versions, panics.
//! - `drain`: from SIGTERM to exit, losing nothing.
//! - `load`: CPU burnt on request, and when it stops.
//! - `lambda`: each difference between gateways' events and HTTP requests.
//! - `parity`: one corpus through eight front doors.
//! - `docs`: the README against the code, the OpenAPI document against the routes.
//! - `rie`: the Lambda binary under AWS's own emulator.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "figures that a run reports")]

mod auth;
mod cli;
mod container;
mod docs;
mod drain;
#[path = "../gateway/mod.rs"]
mod gateway;
mod lambda;
mod load;
mod parity;
mod rie;
mod service;
mod support;
