//! Signature Version 4, by AWS's own crate: of requests, and of URLs that are given to others.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        SessionTokenMode, SignableBody, SignableRequest, SignatureLocation, SigningError,
        SigningInstructions, SigningSettings, sign,
    },
    sign::v4,
};
use hyper::{Request, header::HeaderName, http::HeaderValue};

/// Who signs, for which service, and when.
#[derive(Clone, Copy)]
pub struct Signer<'a> {
    /// Whose signature it is.
    pub credentials: &'a Credentials,
    /// The region that the signature is good in.
    pub region: &'a str,
    /// The service as signatures name it, such as `eks`.
    pub service: &'a str,
    /// The moment from which the signature is good.
    pub now: SystemTime,
}

/// Why a request could not be signed: a URI or header that is no text.
pub type Unsigned = Box<dyn std::error::Error + Send + Sync>;

impl Signer<'_> {
    /// Signs a request, which is absolute, with its headers and its body: adds `authorization` and what belongs to it.
    ///
    /// # Errors
    /// When a header is no text.
    pub fn sign<B: AsRef<[u8]>>(&self, mut request: Request<B>) -> Result<Request<B>, Unsigned> {
        let (method, uri) = (request.method().as_str(), request.uri().to_string());
        let headers = text(&request)?;
        let signable = SignableRequest::new(
            method,
            uri,
            headers.into_iter(),
            SignableBody::Bytes(request.body().as_ref()),
        )?;
        let instructions = self.instructions(signable, SigningSettings::default())?;
        for (name, value) in instructions.headers() {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            let name = HeaderName::from_bytes(name.as_bytes())?;
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    /// The query parameters that make a GET of `url` with these headers as good as signed. The signature is the last, as
    /// in URLs that botocore signs.
    ///
    /// # Errors
    /// When `url` is none.
    pub fn presign(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        expires_in: Duration,
    ) -> Result<Vec<(&'static str, String)>, Unsigned> {
        let signable = SignableRequest::new("GET", url, headers.iter().copied(), SignableBody::Bytes(&[]))?;
        let mut settings = SigningSettings::default();
        settings.signature_location = SignatureLocation::QueryParams;
        settings.session_token_mode = SessionTokenMode::Include;
        settings.expires_in = Some(expires_in);
        let (_, parameters) = self.instructions(signable, settings)?.into_parts();
        let mut parameters: Vec<_> =
            parameters.into_iter().map(|(name, value)| (name, value.into_owned())).collect();
        parameters.sort_by_key(|(name, _)| *name == "X-Amz-Signature");
        Ok(parameters)
    }

    fn instructions(
        &self,
        request: SignableRequest<'_>,
        settings: SigningSettings,
    ) -> Result<SigningInstructions, Unsigned> {
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.now)
            .settings(settings)
            .build()?
            .into();
        let signed: Result<_, SigningError> = sign(request, &parameters);
        Ok(signed?.into_parts().0)
    }
}

/// The headers as text; `host` is taken from the URI by whoever signs.
fn text<B>(request: &Request<B>) -> Result<Vec<(&str, &str)>, Unsigned> {
    let headers = request.headers().iter();
    headers.map(|(name, value)| Ok((name.as_str(), value.to_str()?))).collect()
}
