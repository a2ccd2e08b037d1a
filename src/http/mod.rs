//! What every request passes, and the routes about the service itself.
//!
//! A request meets, in this order: [`path::normalise`]; the [`table::Table`], which says what it is counted under;
//! [`edge::Edge::answer`]; axum's router. One for a [`shortcut::Shortcut`] meets that in place of table and router.

pub mod accept;
pub mod client_ip;
pub mod docs;
pub mod edge;
pub mod health;
pub mod home;
pub mod host;
pub mod idempotency;
pub mod json;
pub mod pages;
pub mod path;
pub(crate) mod query;
pub mod scheme;
pub mod shortcut;
pub(crate) mod slots;
pub mod stream;
pub mod table;

use axum::routing::MethodRouter;

/// A workload's routes: paths in axum's syntax, and what answers there.
pub type Routes = Vec<(&'static str, MethodRouter)>;
