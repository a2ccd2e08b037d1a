//! Who the process is to AWS: the SDKs' standard chain, which is the environment (Lambda), profiles, web identity
//! (IRSA), the agents of ECS and EKS Pod Identity, and IMDSv2.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{
    ProvideCredentials, SharedCredentialsProvider, error::CredentialsError as Missing,
};
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
        self.look_up(|known| !are_same(known, refused)).await
    }

    async fn look_up(&self, is_good: impl Fn(&Credentials) -> bool) -> Result<Credentials, CredentialsError> {
        let Self { region, clock, provider, .. } = self.clone();
        self.found
            .get(is_good, || async move {
                let asked = async {
                    let provider = provider.get_or_try_init(|| standard(region)).await?;
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

/// Whether they are the same keys: they may have been found at different times.
#[must_use]
pub fn are_same(one: &Credentials, other: &Credentials) -> bool {
    one.access_key_id() == other.access_key_id()
        && one.secret_access_key() == other.secret_access_key()
        && one.session_token() == other.session_token()
}

/// The chain, with ring for its TLS: named, because the SDK's default would be another library.
async fn standard(region: String) -> Result<SharedCredentialsProvider, CredentialsError> {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region))
        .http_client(http)
        .load()
        .await;
    let none = || CredentialsError::new(Missing::not_loaded_no_source());
    config.credentials_provider().ok_or_else(none)
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
