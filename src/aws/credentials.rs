//! Who the process is to AWS: the SDKs' standard chain, which is the environment, profiles, web identity (IRSA), the agents
//! of ECS and EKS Pod Identity, and IMDSv2; without the feature `aws-chain`, which the function lacks, the environment.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use aws_credential_types::provider::{
    ProvideCredentials, SharedCredentialsProvider, error::CredentialsError as Missing,
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

#[cfg(feature = "aws-chain")]
async fn standard(region: String) -> Result<SharedCredentialsProvider, CredentialsError> {
    let none = || CredentialsError::new(Missing::not_loaded_no_source());
    super::sdk::chain(region).await.ok_or_else(none)
}

#[cfg(not(feature = "aws-chain"))]
async fn standard(_: String) -> Result<SharedCredentialsProvider, CredentialsError> {
    environment(crate::config::process_env).map(SharedCredentialsProvider::new)
}

/// Credentials from the environment alone, where Lambda puts those of a function's role.
///
/// # Errors
/// When a variable is missing or empty, which is named.
pub fn environment(get: impl Fn(&str) -> Option<String>) -> Result<Credentials, CredentialsError> {
    let get = |name| get(name).filter(|value| !value.is_empty());
    let need = |name| {
        let missing = || format!("{name} is not set, and this program looks in the environment alone");
        get(name).ok_or_else(|| CredentialsError::new(Missing::not_loaded(missing())))
    };
    let (id, secret) = (need("AWS_ACCESS_KEY_ID")?, need("AWS_SECRET_ACCESS_KEY")?);
    Ok(Credentials::new(id, secret, get("AWS_SESSION_TOKEN"), None, "environment"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::log;

    fn among(set: &[(&str, &str)]) -> Result<Credentials, CredentialsError> {
        environment(|name| set.iter().find(|(is, _)| *is == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn a_functions_environment_holds_its_credentials() {
        let keys = [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let with_token = [keys[0], keys[1], ("AWS_SESSION_TOKEN", "token")];
        for (set, token) in [(&with_token[..], Some("token")), (&keys, None)] {
            let found = among(set).unwrap();
            assert_eq!((found.access_key_id(), found.secret_access_key()), ("AKID", "secret"));
            assert_eq!(found.session_token(), token);
        }
    }

    #[test]
    fn the_variable_that_is_missing_is_named() {
        for (set, missing) in [
            (&[][..], "AWS_ACCESS_KEY_ID"),
            (&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "secret")], "AWS_ACCESS_KEY_ID"),
            (&[("AWS_ACCESS_KEY_ID", "AKID")], "AWS_SECRET_ACCESS_KEY"),
        ] {
            let told = log::chain(&among(set).unwrap_err());
            assert!(told.starts_with("no AWS credentials were found"), "{told}");
            assert!(told.contains(&format!("{missing} is not set")), "{told}");
        }
    }
}
