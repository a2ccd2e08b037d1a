//! Who asked for it is told when a Job has ended: an HTTPS POST, signed, to hosts that were allowed.
//!
//! - [`target`]: which URLs may be named at all; [`address`]: which addresses may be reached.
//! - [`signature`]: who it is from (Standard Webhooks); [`message`]: what it says.
//! - [`outbox`]: what waits, how often it is tried, and what was given up.
//! - [`sender`]: one attempt. [`routes`]: what was given up, for callers.
//!
//! A message is written to the outbox together with the transition that it tells of, so none is lost and none is made
//! twice; it is sent at least once, under the same id each time.

pub mod address;
pub mod message;
pub mod outbox;
pub mod routes;
pub mod sender;
pub mod signature;
pub mod target;

use std::borrow::Cow;

use serde_json::Value;

use self::{
    signature::SecretFile,
    target::{Hosts, Target},
};
use crate::problem::FieldError;

/// The annotation that keeps a Job's webhook.
pub const ANNOTATION: &str = "math-service/webhook";

/// What is allowed, and what messages are signed with; by default nothing is.
#[derive(Debug, Clone, Default)]
pub struct Webhooks {
    /// Which hosts.
    pub hosts: Hosts,
    /// The secret; set where `hosts` are.
    pub secret: Option<SecretFile>,
}

impl Webhooks {
    /// A create's body without its webhook, and that.
    ///
    /// # Errors
    /// What is wrong with the webhook.
    pub fn taken<'a>(&self, body: &'a Value) -> Result<(Cow<'a, Value>, Option<Target>), FieldError> {
        let named = body.as_object().and_then(|members| members.get("webhook"));
        let Some(named) = named else { return Ok((Cow::Borrowed(body), None)) };
        let mut body = body.clone();
        if let Some(members) = body.as_object_mut() {
            members.remove("webhook");
        }
        let target = match named {
            Value::Null => None,
            Value::String(url) => {
                Some(self.target(url).map_err(|detail| FieldError::field("webhook", detail))?)
            }
            _ => return Err(FieldError::field("webhook", "must be a string")),
        };
        Ok((Cow::Owned(body), target))
    }

    /// The target that has this URL, if it may be called.
    ///
    /// # Errors
    /// Why not, to be read after the field's name.
    pub fn target(&self, url: &str) -> Result<Target, &'static str> {
        if self.secret.is_none() || self.hosts.is_empty() {
            return Err("is refused: JOBS_WEBHOOK_HOSTS is not set");
        }
        let target = Target::parse(url)?;
        match self.hosts.permit(&target) {
            true => Ok(target),
            false => Err("is at a host that JOBS_WEBHOOK_HOSTS does not allow"),
        }
    }
}
