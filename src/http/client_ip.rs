//! Whose request it is.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The nearest address that is not one of the trusted proxies: `peer` itself unless it is one, else
/// the last entry of `X-Forwarded-For` that is not. Entries further left are the caller's own claim.
#[must_use]
pub fn behind(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    // An entry that is no address ends the chain: nobody vouches for what is left of it.
    let mut nearest = peer;
    for entry in forwarded_for(headers) {
        let Some(ip) = entry else { break };
        nearest = ip;
        if !is_trusted(ip, trusted) {
            break;
        }
    }
    nearest
}

/// Whether this peer's headers are believed.
#[must_use]
pub fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&peer.to_canonical()))
}

/// The entries of `X-Forwarded-For`, the last (the nearest) first; `None` for one that is no address.
pub fn forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    headers
        .get_all("x-forwarded-for")
        .iter()
        .rev()
        .flat_map(|value| value.to_str().unwrap_or("invalid").rsplit(','))
        .map(|entry| address(entry.trim()).map(|ip| ip.to_canonical()))
}

/// An address, with the port that load balancers add when asked to preserve it.
fn address(entry: &str) -> Option<IpAddr> {
    entry.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().unwrap()).collect();
        behind(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_header_of_a_stranger_is_not_believed() {
        assert_eq!(client("203.0.113.9", &["1.2.3.4"], &[]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &["1.2.3.4"], &["10.0.0.0/8"]), "203.0.113.9");
    }

    #[test]
    fn the_nearest_entry_that_is_no_trusted_proxy_is_the_client() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4"], &trusted), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], &trusted), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.2.3.4"], &trusted), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &trusted), "10.0.0.3");
        assert_eq!(client("10.0.0.1", &["1.2.3.4, rubbish"], &trusted), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[], &trusted), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["1.2.3.4:5678"], &trusted), "1.2.3.4");
        assert_eq!(client("::ffff:10.0.0.1", &["1.2.3.4"], &trusted), "1.2.3.4");
    }
}
