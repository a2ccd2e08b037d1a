//! Why the cluster could not be asked, or did not answer.

use std::{error::Error, fmt, sync::Arc};

use tokio::task::JoinError;

use crate::aws::credentials::CredentialsError;

/// What lies beneath, for the log.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why there is no answer of the cluster's. Arrives as the source of `kube::Error::Service`; see [`ClusterError::of`].
#[derive(Debug, Clone)]
pub enum ClusterError {
    /// The process has no AWS credentials.
    Credentials(CredentialsError),
    /// AWS does not let these credentials do something.
    Forbidden {
        /// The missing permission, as IAM names it.
        permission: &'static str,
        /// AWS's words.
        cause: Cause,
    },
    /// The account has no cluster of this name in this region.
    NoCluster {
        /// The name asked for.
        name: String,
        /// The region asked in.
        region: String,
    },
    /// EKS could not be asked where the cluster is, or its answer is of no use.
    Eks(Cause),
    /// No connection to the API server: nothing was sent.
    Unreachable(Cause),
    /// The API server is not who EKS says it is, or speaks no TLS: nothing was sent.
    Tls(Cause),
    /// The connection broke: what became of the request is unknown.
    Broken(Cause),
    /// Something took too long. What became of the request is unknown, unless it was not sent.
    TimedOut {
        /// What was waited for.
        what: &'static str,
    },
}

impl ClusterError {
    /// The reason inside an error of the Kubernetes client's, if the cluster gave no answer.
    #[must_use]
    pub fn of(error: &kube::Error) -> Option<&Self> {
        match error {
            kube::Error::Service(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// Whether the request surely never reached the API server because there was no way to it.
    #[must_use]
    pub fn is_before_sending(&self) -> bool {
        !matches!(self, Self::Broken(_) | Self::TimedOut { .. })
    }

    pub(super) fn eks(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Eks(Arc::from(cause.into()))
    }
}

impl From<CredentialsError> for ClusterError {
    fn from(error: CredentialsError) -> Self {
        Self::Credentials(error)
    }
}

impl From<JoinError> for ClusterError {
    fn from(error: JoinError) -> Self {
        Self::eks(error)
    }
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials(_) => f.write_str("the process has no AWS credentials"),
            Self::Forbidden { permission, .. } => write!(f, "AWS does not allow {permission}"),
            Self::NoCluster { name, region } => {
                write!(f, "there is no cluster {name} in this account and the region {region}")
            }
            Self::Eks(_) => f.write_str("EKS did not say where the cluster is"),
            Self::Unreachable(_) => f.write_str("the cluster's API server cannot be reached"),
            Self::Tls(_) => f.write_str("the cluster's API server is not trusted"),
            Self::Broken(_) => f.write_str("the connection to the cluster's API server broke"),
            Self::TimedOut { what } => write!(f, "{what} took too long"),
        }
    }
}

impl Error for ClusterError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Credentials(error) => Some(error),
            Self::Forbidden { cause, .. }
            | Self::Eks(cause)
            | Self::Unreachable(cause)
            | Self::Tls(cause)
            | Self::Broken(cause) => Some(&**cause),
            Self::NoCluster { .. } | Self::TimedOut { .. } => None,
        }
    }
}
