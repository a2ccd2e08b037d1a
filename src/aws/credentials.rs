//! Who the process is to AWS: the SDKs' standard chain, which is the environment (Lambda), profiles, web identity
//! (IRSA), the agents of ECS and EKS Pod Identity, and IMDSv2.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use tokio::{sync::OnceCell, task::JoinError};

pub use aws_credential_types::Credentials;

use super::lookup::Lookup;
use crate::auth::Clock;

/// Longest time until the chain has found credentials.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How long before they expire credentials are renewed: long enough for a clock that is wrong.
pub const AHEAD: Duration = Duration::from_secs(300);

/// Credentials without an end are looked up again after this: a profile's file may have changed.
const LASTS: Duration = Duration::from_secs(900);

/// Finds credentials when they are first needed, keeps them, renews them ahead of their end.
#[derive(Clone)]
pub struct Chain {
    region: String,
    clock: Clock,
    provider: Arc<OnceCell<SharedCredentialsProvider>>,
    found: Lookup<Credentials, CredentialsError>,
}

impl Chain {
    /// The standard chain; STS is asked in `region`. Reads nothing and asks nobody yet.
    #[must_use]
    pub fn new(region: String, clock: Clock) -> Self {
        Self { region, found: Lookup::new(clock.clone()), clock, provider: Arc::default() }
    }

    /// Credentials of `provider` alone, for tests.
    #[must_use]
    pub fn of(provider: impl ProvideCredentials + 'static, clock: Clock) -> Self {
        let provider = OnceCell::new_with(Some(SharedCredentialsProvider::new(provider)));
        Self { provider: Arc::new(provider), ..Self::new(String::new(), clock) }
    }

    /// Credentials that are good for some minutes.
    ///
    /// # Errors
    /// When none are found within [`DEADLINE`].
    pub async fn get(&self) -> Result<Credentials, CredentialsError> {
        let soon = (self.clock)() + AHEAD;
        let found = self.look_up(|known| known.expiry().is_none_or(|end| soon < end)).await;
        found.or_else(|error| {
            // Nothing better is to be had, and these are good for a little while.
            let known = self.found.known();
            known.filter(|known| known.expiry().is_some_and(|end| (self.clock)() < end)).ok_or(error)
        })
    }

    /// Credentials other than those which were refused, if there are any.
    ///
    /// # Errors
    /// As [`Chain::get`].
    pub async fn other_than(&self, refused: &Credentials) -> Result<Credentials, CredentialsError> {
        self.look_up(|known| known != refused).await
    }

    async fn look_up(&self, is_good: impl Fn(&Credentials) -> bool) -> Result<Credentials, CredentialsError> {
        let Self { region, clock, provider, .. } = self.clone();
        self.found
            .get(is_good, || async move {
                let asked = async {
                    let provider = provider.get_or_init(|| standard(region)).await;
                    provider.provide_credentials().await.map_err(CredentialsError::new)
                };
                let mut found =
                    tokio::time::timeout(DEADLINE, asked).await.map_err(CredentialsError::new)??;
                found.expiry_mut().get_or_insert_with(|| clock() + AHEAD + LASTS);
                Ok(found)
            })
            .await
    }
}

/// The chain, with ring for its TLS: named, because the SDK's default would be another library.
async fn standard(region: String) -> SharedCredentialsProvider {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region))
        .http_client(http)
        .load()
        .await;
    let provider = config.credentials_provider();
    // The loader always names one; without, nobody is somebody.
    provider.unwrap_or_else(|| SharedCredentialsProvider::new(Nobody))
}

#[derive(Debug)]
struct Nobody;

impl ProvideCredentials for Nobody {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let error = aws_credential_types::provider::error::CredentialsError::not_loaded_no_source();
        aws_credential_types::provider::future::ProvideCredentials::ready(Err(error))
    }
}

/// Why there are no credentials; its sources say more, for the log.
#[derive(Debug, Clone)]
pub struct CredentialsError(Arc<dyn Error + Send + Sync>);

impl CredentialsError {
    fn new(cause: impl Error + Send + Sync + 'static) -> Self {
        Self(Arc::new(cause))
    }
}

impl From<JoinError> for CredentialsError {
    fn from(error: JoinError) -> Self {
        Self::new(error)
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no AWS credentials were found")
    }
}

impl Error for CredentialsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}
