//! The service from the outside: its binaries as processes, its front doors over sockets.
//!
//! - `access`: who may call what, how often, and the line that each change leaves.
//! - `auth`: sign-in against an issuer that does what it is told.
//! - `cluster`: the way to the EKS cluster, against one that does what it is told.
//! - `cli`: what the binaries do with arguments and settings.
//! - `service`: every route's contract, over TCP.
//! - `container`: slow clients, floods, both HTTP versions, panics.
//! - `drain`: from SIGTERM to exit, losing nothing.
//! - `load`: CPU burnt on request, and when it stops.
//! - `contract`, `records`: what every store must do, on real databases (`databases`).
//! - `lambda`: each difference between gateways' events and HTTP requests.
//! - `simulation`: the lab's route and page.
//! - `jobs`: the Jobs API before a Kubernetes that does what it is told to.
//! - `fibonacci`: the sequence and the sessions.
//! - `outages`: stores that fail, and come back.
//! - `parity`: one corpus through eight front doors.
//! - `docs`: the README against the code, the OpenAPI document against the routes.
//! - `replicas`: many processes, both targets, one store, and kills.
//! - `rie`: the Lambda binary under AWS's own emulator.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "figures that a run reports")]

mod access;
mod auth;
mod cli;
mod cluster;
mod container;
mod contract;
mod databases;
mod docs;
mod drain;
mod fibonacci;
#[path = "../gateway/mod.rs"]
mod gateway;
mod jobs;
mod lambda;
mod load;
mod outages;
mod parity;
mod records;
mod replicas;
mod rie;
mod service;
mod simulation;
mod support;
