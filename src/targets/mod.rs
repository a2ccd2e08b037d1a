//! What differs between the two ways to be called, and nothing else.

#[cfg(feature = "listener")]
mod client_stream;
#[cfg(feature = "listener")]
pub mod container;
#[cfg(feature = "lambda")]
pub mod event;
#[cfg(feature = "lambda")]
pub mod lambda;
#[cfg(feature = "lambda")]
pub mod schedule;

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

/// Which target a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// A listener on TCP: Kubernetes, Docker, a plain machine.
    Container,
    /// An AWS Lambda function.
    Lambda,
}

impl Target {
    /// Whether an answer may be sent while it is still being made. Lambda's HTTP APIs wait for its end.
    #[must_use]
    pub fn streams(self) -> bool {
        self == Self::Container
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "container",
            Self::Lambda => "lambda",
        })
    }
}
