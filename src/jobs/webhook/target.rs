//! Which URLs may be named: HTTPS, by a host's name, that an operator has listed.

use std::str::FromStr;

use hyper::Uri;

use crate::jobs::names;

/// Longest URL, in bytes.
const LONGEST: usize = 2048;

/// HTTPS's own.
const PORT: u16 = 443;

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
    host: String,
    port: u16,
}

impl Target {
    /// Reads a URL, strictly: what two readers could understand in two ways is none. A host is a name and never an
    /// address, in whatever notation (`127.1`, `0x7f000001`, `2130706433`, `[::1]`).
    ///
    /// # Errors
    /// What was expected, to be read after the field's name.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "must be an https URL of at most 2048 ASCII characters, with a host's name, without user and fragment";
        let is_plain = url.len() <= LONGEST
            && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#<>\"`{}|^".contains(&byte));
        let authority = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?']).next());
        let (Some(authority), true) = (authority, is_plain) else { return Err(EXPECTED) };
        let (host, port) = authority_of(authority).ok_or(EXPECTED)?;
        let uri = url.parse::<Uri>().map_err(|_| EXPECTED)?;
        // The one that connects reads it as we did.
        let is_read_alike = uri.host() == Some(host) && uri.port_u16().unwrap_or(PORT) == port;
        if !is_read_alike {
            return Err(EXPECTED);
        }
        Ok(Self { host: host.to_owned(), port, uri })
    }

    /// The host's name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The whole URL.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }
}

/// A host's name and a port.
fn authority_of(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port_of(port)?),
        None => (authority, PORT),
    };
    is_host_name(host).then_some((host, port))
}

fn port_of(text: &str) -> Option<u16> {
    let is_plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// Labels in lower case with a dot between them, of which the last begins with a letter: no notation of an address does.
fn is_host_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253
        && host.contains('.')
        && host.split('.').all(names::is_label)
        && last.starts_with(|first: char| first.is_ascii_lowercase())
}

/// The hosts of `JOBS_WEBHOOK_HOSTS`: `hooks.example.com`, all below a domain (`*.example.com`), each with an optional port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// With its dot, where it stands for all below it.
    host: String,
    is_below: bool,
    port: u16,
}

impl Hosts {
    /// Whether messages may go there.
    #[must_use]
    pub fn permit(&self, target: &Target) -> bool {
        self.0.iter().any(|pattern| {
            let is_host = match pattern.is_below {
                true => target.host.strip_suffix(&pattern.host).is_some_and(|below| !below.is_empty()),
                false => target.host == pattern.host,
            };
            is_host && target.port == pattern.port
        })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| pattern(item).ok_or_else(expected)).collect::<Result<_, _>>().map(Self)
    }
}

fn expected() -> String {
    "names of hosts, comma-separated, such as hooks.example.com or *.example.com:8443".to_owned()
}

fn pattern(item: &str) -> Option<Pattern> {
    let (is_below, authority) = item.strip_prefix("*.").map_or((false, item), |domain| (true, domain));
    let (host, port) = authority_of(authority)?;
    let host = if is_below { format!(".{host}") } else { host.to_owned() };
    Some(Pattern { host, is_below, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_https_at_a_hosts_name() {
        for (url, host, port) in [
            ("https://hooks.example.com", "hooks.example.com", 443),
            ("https://hooks.example.com/a/b?c=d%20e", "hooks.example.com", 443),
            ("https://hooks.example.com:8443?x", "hooks.example.com", 8443),
            ("https://10.example.com/", "10.example.com", 443),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host(), target.port), (host, port), "{url}");
        }
    }

    #[test]
    fn no_notation_of_an_address_is_a_hosts_name() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "017700000001",
            "0",
            "0.0.0.0",
            "127.0.0.1.",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "::1",
            "localhost",
            "metadata",
            "a.1",
            "a.0x1",
            "example.com.",
            "example..com",
            ".example.com",
            "-a.example.com",
            "EXAMPLE.com",
            "ex\u{430}mple.com",
            "\u{ff11}27.0.0.1",
            "127.0.0.1%2eexample.com",
            "a_b.example.com",
            "example.com%00",
        ] {
            assert!(Target::parse(&format!("https://{host}/")).is_err(), "{host}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_target() {
        for url in [
            "http://hooks.example.com/",
            "HTTPS://hooks.example.com/",
            "ftp://hooks.example.com/",
            "hooks.example.com",
            "//hooks.example.com",
            "https:hooks.example.com",
            "https:/hooks.example.com",
            "https:///hooks.example.com",
            "https://",
            "https://user@hooks.example.com/",
            "https://hooks.example.com@evil.com/",
            "https://hooks.example.com:@evil.com/",
            "https://evil.com\\@hooks.example.com/",
            "https://evil.com#@hooks.example.com/",
            "https://hooks.example.com#x",
            "https://hooks.example.com:0/",
            "https://hooks.example.com:00443/",
            "https://hooks.example.com:65536/",
            "https://hooks.example.com:/",
            "https://hooks.example.com:443:444/",
            "https://hooks.example.com:+443/",
            "https://hooks.example.com/ a",
            "https://hooks.example.com/\r\nX: y",
            "https://hooks.example.com/\u{fc}",
            " https://hooks.example.com/",
            "https://hooks.example.com\t/",
        ] {
            assert!(Target::parse(url).is_err(), "{url:?}");
        }
        assert!(Target::parse(&format!("https://hooks.example.com/{}", "x".repeat(2048))).is_err());
    }

    #[test]
    fn hosts_are_those_that_are_listed() {
        let hosts: Hosts = "hooks.example.com, *.team.example.com, other.example.com:8443".parse().unwrap();
        let permits =
            |authority: &str| hosts.permit(&Target::parse(&format!("https://{authority}/x")).unwrap());
        for good in [
            "hooks.example.com",
            "hooks.example.com:443",
            "a.team.example.com",
            "a.b.team.example.com",
            "other.example.com:8443",
        ] {
            assert!(permits(good), "{good}");
        }
        for bad in [
            "example.com",
            "a.hooks.example.com",
            "team.example.com",
            "ateam.example.com",
            "hooks.example.com.evil.com",
            "hooks.example.com:8443",
            "other.example.com",
            "hooks-example.com",
        ] {
            assert!(!permits(bad), "{bad}");
        }
        assert!(Hosts::default().is_empty() && "".parse::<Hosts>().unwrap().is_empty());
        for bad in [
            "*",
            "*.",
            "https://hooks.example.com",
            "10.0.0.1",
            "a.*.example.com",
            "hooks.example.com/",
            "localhost",
            "*.com:0",
        ] {
            assert!(bad.parse::<Hosts>().is_err(), "{bad}");
        }
    }
}
