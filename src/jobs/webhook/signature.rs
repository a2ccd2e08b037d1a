//! Who a message is from: Standard Webhooks 1.0.0, "Webhook signatures" (<https://www.standardwebhooks.com>).
//!
//! Three headers: `webhook-id`, the same for each attempt; `webhook-timestamp`, seconds since 1970, of the attempt, so that
//! an old message cannot be sent again by somebody else; `webhook-signature`, HMAC-SHA256 over `id.timestamp.body` in Base64
//! behind `v1,`, one for each secret. Two secrets, an old and a new one, let receivers change over one by one.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::hmac;

/// Most secrets at once.
const MOST: usize = 4;

/// Bytes of a secret, as the standard asks.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// A file with a secret a line (`whsec_` and Base64). It is read for every attempt: a changed one counts at once.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile(PathBuf);

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretFile").field(&self.0).finish()
    }
}

impl SecretFile {
    /// A file that can be used now.
    ///
    /// # Errors
    /// One line that names the setting, the file, and what is wrong. The secret is not in it.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file = Self(path.to_owned());
        file.secrets().map(|_| file)
    }

    /// The secrets that are in it at present.
    ///
    /// # Errors
    /// As above.
    pub fn secrets(&self) -> Result<Secrets, String> {
        let wrong = |detail: String| format!("JOBS_WEBHOOK_SECRET_FILE: {}: {detail}", self.0.display());
        let text = fs::read_to_string(&self.0).map_err(|error| wrong(error.to_string()))?;
        Secrets::read(&text).map_err(wrong)
    }
}

/// What messages are signed with.
pub struct Secrets(Vec<hmac::Key>);

impl Secrets {
    fn read(text: &str) -> Result<Self, String> {
        let lines =
            text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let secrets: Vec<_> =
            lines.map(|(number, line)| secret(number + 1, line.trim())).collect::<Result<_, _>>()?;
        match secrets.len() {
            0 => Err("has no secret".to_owned()),
            1..=MOST => Ok(Self(secrets)),
            _ => Err(format!("has more than {MOST} secrets")),
        }
    }

    /// The `webhook-signature` header of a message.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let signed = format!("{id}.{timestamp}.{body}");
        let signatures = self.0.iter().map(|secret| {
            let signature = hmac::sign(secret, signed.as_bytes());
            format!("v1,{}", BASE64_STANDARD.encode(signature))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

fn secret(number: usize, line: &str) -> Result<hmac::Key, String> {
    let bytes = line.strip_prefix("whsec_").and_then(|text| BASE64_STANDARD.decode(text).ok());
    let bytes = bytes.filter(|bytes| LENGTH.contains(&bytes.len()));
    let expected = || format!("line {number}: expected whsec_ and 24 to 64 bytes in Base64");
    bytes.map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes)).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_standards_own_example_is_signed_alike() {
        let secrets = Secrets::read(SECRET).unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        assert_eq!(
            secrets.sign(id, 1_614_265_330, r#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        let two = Secrets::read(&format!("# old\n{SECRET}\n\n whsec_{}\n", BASE64_STANDARD.encode([7; 32])))
            .unwrap();
        let signatures = two.sign(id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert!(
            signatures.starts_with("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,"),
            "{signatures}"
        );
    }

    #[test]
    fn a_file_that_holds_no_secret_is_told_without_it() {
        for (text, expected) in [
            ("", "has no secret"),
            ("# only\n", "has no secret"),
            ("topsecret", "line 1: expected"),
            (&format!("{SECRET}\nwhsec_c2hvcnQ="), "line 2: expected"),
            (&format!("{SECRET}\n").repeat(5), "more than 4"),
        ] {
            let wrong = Secrets::read(text).err().unwrap();
            assert!(wrong.contains(expected) && !wrong.contains("topsecret"), "{wrong}");
        }
        assert!(SecretFile::open(Path::new("/nowhere/at/all")).unwrap_err().contains("/nowhere/at/all"));
    }
}
