//! What every request passes, and the routes about the service itself.
//!
//! A request meets, in this order: [`path::normalise`] (before routing), the router, and
//! [`edge::Edge`] around the matched handler.

pub mod client_ip;
pub mod docs;
pub mod edge;
pub mod health;
pub mod home;
pub mod host;
pub mod json;
pub mod path;
