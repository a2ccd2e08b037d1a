//! The issuer's keys, and the algorithms that they verify: asymmetric ones only.
//!
//! No `none`, and no HMAC: with it, anybody could sign with a published key as the secret.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::Value;

/// The signature algorithms that are accepted (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// The algorithm with this name; `None` for all that are not accepted.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            // The newer name says which curve.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn scheme(self) -> Scheme {
        match self {
            Self::Rs256 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Scheme::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Scheme::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Scheme::Curve(Curve::P256, &signature::ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Scheme::Curve(Curve::P384, &signature::ECDSA_P384_SHA384_FIXED),
            Self::EdDsa => Scheme::Curve(Curve::Ed25519, &signature::ED25519),
        }
    }
}

/// How an algorithm verifies: which kind of key it takes, and what it does with it.
enum Scheme {
    Rsa(&'static RsaParameters),
    Curve(Curve, &'static dyn VerificationAlgorithm),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    Ed25519,
}

/// One public key.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// The one algorithm that the issuer means it for, if it says so.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    Curve(Curve, Vec<u8>),
}

impl Key {
    /// Whether `signature` is this key's, by `algorithm`, over `message`.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let verified = match (&self.material, algorithm.scheme()) {
            _ if !self.is_for(algorithm) => return false,
            (Material::Rsa(key), Scheme::Rsa(scheme)) => key.verify(scheme, message, signature),
            (Material::Curve(_, key), Scheme::Curve(_, scheme)) => {
                UnparsedPublicKey::new(scheme, key).verify(message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        let fits = match (&self.material, algorithm.scheme()) {
            (Material::Rsa(_), Scheme::Rsa(_)) => true,
            (Material::Curve(curve, _), Scheme::Curve(expected, _)) => *curve == expected,
            _ => false,
        };
        fits && self.only.is_none_or(|only| only == algorithm)
    }
}

/// What an issuer publishes (RFC 7517 §5), less the keys that are not for us.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a key set. Keys of unknown kinds, for encryption, or malformed are left out: RFC 7517 §5 asks for that.
    ///
    /// # Errors
    /// When the document as a whole is not a key set.
    pub(super) fn parse(document: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let Document { keys } = serde_json::from_slice(document)?;
        let keys = keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.key());
        Ok(Self(keys.collect()))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys that may have signed a token with this algorithm and key id: usually one, none if the key is unknown.
    ///
    /// Without an id the choice must be clear: one key alone may fit (OpenID Connect Core §10.1).
    pub(super) fn candidates(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<&Key> {
        let fitting = self.0.iter().filter(|key| key.is_for(algorithm));
        let candidates: Vec<_> = fitting.filter(|key| id.is_none() || key.id.as_deref() == id).collect();
        if id.is_none() && candidates.len() > 1 { Vec::new() } else { candidates }
    }
}

/// A key as it is published (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    fn key(self) -> Option<Key> {
        let is_for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "verify"));
        if !is_for_signatures {
            return None;
        }
        let material = self.material()?;
        let only = match &self.alg {
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        Some(Key { id: self.kid, only, material })
    }

    fn material(&self) -> Option<Material> {
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                Some(Material::Rsa(RsaPublicKeyComponents { n: number(&self.n)?, e: number(&self.e)? }))
            }
            ("EC", Some("P-256")) => Some(Material::Curve(Curve::P256, self.point(32)?)),
            ("EC", Some("P-384")) => Some(Material::Curve(Curve::P384, self.point(48)?)),
            ("OKP", Some("Ed25519")) => Some(Material::Curve(Curve::Ed25519, coordinate(&self.x, 32)?)),
            _ => None,
        }
    }

    /// An uncompressed point (SEC 1 §2.3.3): ring checks that it lies on the curve.
    fn point(&self, length: usize) -> Option<Vec<u8>> {
        Some([vec![4], coordinate(&self.x, length)?, coordinate(&self.y, length)?].concat())
    }
}

fn coordinate(text: &Option<String>, length: usize) -> Option<Vec<u8>> {
    BASE64_URL_SAFE_NO_PAD.decode(text.as_ref()?).ok().filter(|bytes| bytes.len() == length)
}

/// A number's bytes. Some issuers put zeros in front, which ring does not take.
fn number(text: &Option<String>) -> Option<Vec<u8>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()?;
    Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn set(keys: Value) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn keys_that_are_not_for_us_are_left_out() {
        for key in [
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "use": "enc" }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "key_ops": ["deriveKey"] }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "alg": "ECDH-ES" }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": "AA" }),
            json!({ "kty": "EC", "crv": "P-256", "x": X }),
            json!({ "kty": "EC", "crv": "secp256k1", "x": X, "y": Y }),
            json!({ "kty": "OKP", "crv": "X25519", "x": X }),
            json!({ "kty": "oct", "k": X }),
            json!({ "kty": "RSA", "n": X, "e": "*" }),
            json!({ "kty": 1 }),
            json!("a key"),
        ] {
            assert_eq!(set(json!([key])).len(), 0, "{key}");
        }
        assert_eq!(
            set(
                json!([{ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "use": "sig", "key_ops": ["verify"] }])
            )
            .len(),
            1
        );
    }

    #[test]
    fn a_key_is_chosen_by_id_and_algorithm_and_without_an_id_only_if_it_is_alone() {
        let key = |id: &str| json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": id });
        let both = set(json!([key("1"), key("2"), { "kty": "OKP", "crv": "Ed25519", "x": X }]));
        let count = |algorithm, id| both.candidates(algorithm, id).len();
        assert_eq!((count(Algorithm::Es256, Some("1")), count(Algorithm::Es256, Some("3"))), (1, 0));
        assert_eq!((count(Algorithm::Es384, Some("1")), count(Algorithm::Rs256, Some("1"))), (0, 0));
        assert_eq!((count(Algorithm::Es256, None), count(Algorithm::EdDsa, None)), (0, 1));
        assert_eq!(count(Algorithm::EdDsa, Some("1")), 0, "a key without id has no id");
        let only = set(json!([{ "kty": "RSA", "n": X, "e": "AQAB", "alg": "RS256" }]));
        assert_eq!(only.candidates(Algorithm::Rs256, None).len(), 1);
        assert_eq!(only.candidates(Algorithm::Ps256, None).len(), 0);
    }

    #[test]
    fn rsa_keys_below_2048_bits_verify_nothing() {
        let weak = set(json!([{ "kty": "RSA", "n": X, "e": "AQAB" }]));
        let key = weak.candidates(Algorithm::Rs256, None)[0];
        assert!(!key.verifies(Algorithm::Rs256, b"", &[0; 32]));
    }
}
