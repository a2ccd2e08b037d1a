//! A token taken apart, and whether its claims hold. Pure: no clock, no network.
//!
//! What a header may ask for is decided here and not by the token: `jwk`, `jku`, `x5c` and `x5u`, which would bring their
//! own key, are never read; `crit`, which would change what the rest means, is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

use super::{
    jwk::{Algorithm, Key},
    scope::Scopes,
};

/// How far the issuer's clock and ours may be apart.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);

/// OpenID Connect Core §2: a subject is no longer than 255 characters.
const MAX_SUBJECT_BYTES: usize = 255;

/// Why a token is refused, for the caller: it repeats nothing of the token.
pub(super) type Refusal = &'static str;

const MALFORMED: Refusal = "the token is malformed";

/// A token in its compact form (RFC 7515 §7.1), not verified yet.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    /// Header and claims as they were signed.
    signed: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(rename = "crit", default, deserialize_with = "is_present")]
    has_critical_extensions: bool,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// When it is no signed token, or its header asks for what is not supported.
    pub(super) fn parse(token: &'a str) -> Result<Self, Refusal> {
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, claims) = signed.split_once('.').ok_or(MALFORMED)?;
        let header: Header = object(header)?;
        let algorithm = Algorithm::named(&header.alg).ok_or("the token's algorithm is not accepted")?;
        if header.has_critical_extensions {
            return Err("the token needs an extension that is not supported");
        }
        if !header.typ.is_none_or(|kind| is_access_token(&kind)) {
            return Err("the token is of another type");
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| MALFORMED)?;
        Ok(Self { algorithm, key_id: header.kid, signed, claims, signature })
    }

    /// Whether `key` signed it.
    pub(super) fn is_signed_by(&self, key: &Key) -> bool {
        key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature)
    }

    /// The subject of a token whose signature was verified, and what the token lets them do.
    ///
    /// # Errors
    /// When the token comes from another issuer, is meant for another audience, or not valid at `now`.
    pub(super) fn subject(
        &self,
        issuer: &str,
        audience: &str,
        now: SystemTime,
    ) -> Result<(String, Scopes), Refusal> {
        let claims: Claims = object(self.claims).map_err(|_| "a claim is missing or malformed")?;
        claims.check(issuer, audience, now)?;
        let scopes = claims.scopes();
        Ok((claims.sub, scopes))
    }
}

/// RFC 8725 §3.11: what was issued for another purpose, such as a logout token, is no access token.
fn is_access_token(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(kind.strip_prefix("application/").unwrap_or(&kind), "jwt" | "at+jwt")
}

/// The claims that decide (RFC 7519 §4.1). One of a wrong type refuses the token.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    /// RFC 9068 §2.2.3: names with spaces between them.
    scope: Option<Granted>,
    /// The same by Microsoft's and Okta's name.
    scp: Option<Granted>,
}

/// What grants nothing refuses nothing: these two may be of any type.
#[derive(Deserialize)]
#[serde(untagged)]
enum Granted {
    Names(String),
    List(Vec<String>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    fn check(&self, issuer: &str, audience: &str, now: SystemTime) -> Result<(), Refusal> {
        // A clock from before 1970 knows nothing: every token has expired then.
        let now = now.duration_since(UNIX_EPOCH).map_or(f64::INFINITY, |now| now.as_secs_f64());
        let leeway = LEEWAY.as_secs_f64();
        let is_ours = match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        };
        let is_a_name =
            (1..=MAX_SUBJECT_BYTES).contains(&self.sub.len()) && !self.sub.contains(char::is_control);
        if self.iss != issuer {
            Err("the token is from another issuer")
        } else if !is_ours {
            Err("the token is for another audience")
        } else if now >= self.exp + leeway {
            Err("the token has expired")
        } else if self.nbf.is_some_and(|start| now + leeway < start) {
            Err("the token is not valid yet")
        } else if !is_a_name {
            Err("the token's subject is not acceptable")
        } else {
            Ok(())
        }
    }
}

impl Claims {
    fn scopes(&self) -> Scopes {
        let granted = [&self.scope, &self.scp].into_iter().flatten();
        Scopes::among(granted.flat_map(|granted| match granted {
            Granted::Names(names) => names.split(' ').collect::<Vec<_>>(),
            Granted::List(names) => names.iter().map(String::as_str).collect(),
            Granted::Other(_) => Vec::new(),
        }))
    }
}

/// A JSON object in base64url. serde would also take an array, member by member.
fn object<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Refusal> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED)?;
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(MALFORMED);
    }
    serde_json::from_slice(&json).map_err(|_| MALFORMED)
}

fn is_present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::jwk::KeySet;

    const PAYLOAD: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    /// Whether the only key of the set signed the token; both as an RFC prints them.
    fn verifies(token: &str, key: &Value) -> bool {
        let keys = KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap();
        let token = Token::parse(token).unwrap_or_else(|refusal| panic!("{token}: {refusal}"));
        let candidates = keys.candidates(token.algorithm, None);
        candidates.into_iter().any(|key| token.is_signed_by(key))
    }

    #[test]
    fn the_signatures_that_the_rfcs_print_are_right_and_one_changed_byte_is_not() {
        let rsa: Value = serde_json::from_str(include_str!("../../tests/data/rfc7515-rsa-key.json")).unwrap();
        let p256 = json!({
            "kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        });
        let ed25519 =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        for (rfc, key, token) in [
            (
                "7515 A.2",
                rsa,
                format!(
                    "eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
                ),
            ),
            (
                "7515 A.3",
                p256,
                format!(
                    "eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
                ),
            ),
            (
                "8037 A.4",
                ed25519,
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg".to_owned(),
            ),
        ] {
            assert!(verifies(&token, &key), "RFC {rfc}");
            let changed = token.replace(".eyJpc3Mi", ".eyJpc3Mj").replace(".RXhh", ".RXhi");
            assert_ne!(changed, token);
            assert!(!verifies(&changed, &key), "RFC {rfc}, changed");
        }
    }

    #[test]
    fn a_header_is_an_object_with_an_accepted_algorithm_and_no_critical_extension() {
        let refusal = |header: &str| {
            let token = format!("{}.e30.AAAA", BASE64_URL_SAFE_NO_PAD.encode(header));
            Token::parse(&token).err()
        };
        assert_eq!(refusal(r#" {"alg":"ES256","typ":"JWT","kid":"1","x5t":"y"}"#), None);
        assert_eq!(refusal(r#"{"alg":"ES256","typ":"application/at+JWT"}"#), None);
        for header in [
            r#"["ES256"]"#,
            "{}",
            "",
            "null",
            r#"{"alg":null}"#,
            r#"{"alg":"ES256","alg":"ES256"}"#,
            "{\"alg\"",
        ] {
            assert_eq!(refusal(header), Some(MALFORMED), "{header}");
        }
        for name in
            ["none", "None", "", "HS256", "HS384", "HS512", "ES256K", "ES512", "RSA1_5", "rs256", "dir"]
        {
            let refused = refusal(&json!({ "alg": name }).to_string());
            assert_eq!(refused, Some("the token's algorithm is not accepted"), "{name}");
        }
        for header in [r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, r#"{"alg":"ES256","crit":null}"#] {
            assert_eq!(
                refusal(header),
                Some("the token needs an extension that is not supported"),
                "{header}"
            );
        }
        for kind in ["logout+jwt", "dpop+jwt", "JOSE+JSON", ""] {
            let refused = refusal(&json!({ "alg": "ES256", "typ": kind }).to_string());
            assert_eq!(refused, Some("the token is of another type"), "{kind}");
        }
        for token in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c.d.e",
            "e30.e30.e30.",
            "eyJhbGciOiJFUzI1NiJ9.e30.A",
            "eyJhbGciOiJFUzI1NiJ9.e30.AA==",
        ] {
            assert_eq!(Token::parse(token).err(), Some(MALFORMED), "{token}");
        }
    }

    #[test]
    fn a_clock_from_before_1970_lets_nobody_in() {
        let claims = Claims {
            iss: "i".to_owned(),
            sub: "s".to_owned(),
            aud: Audience::One("a".to_owned()),
            exp: 4e9,
            nbf: None,
            scope: None,
            scp: None,
        };
        assert_eq!(claims.check("i", "a", UNIX_EPOCH), Ok(()));
        let before = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(claims.check("i", "a", before), Err("the token has expired"));
    }
}
