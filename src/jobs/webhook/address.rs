//! Which addresses may be reached: those of the public Internet.
//!
//! What is allowed for IPv6 is a list, because most of it is assigned to nobody: global unicast (2000::/3), without the
//! parts that are for protocols, for documents, or that carry an IPv4 address, which would be reached in its place
//! (IPv4-mapped, IPv4-compatible and NAT64 addresses lie outside of it anyway). Source: IANA's registries of
//! special-purpose addresses (RFC 6890), of which everything that is not globally reachable is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a webhook may be sent there.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    const REFUSED: [([u8; 4], u32); 16] = [
        // "This network", and the unspecified address.
        ([0, 0, 0, 0], 8),
        // Private (RFC 1918).
        ([10, 0, 0, 0], 8),
        // Carrier-grade NAT (RFC 6598); EKS's pods may have these.
        ([100, 64, 0, 0], 10),
        // Loopback.
        ([127, 0, 0, 0], 8),
        // Link-local; the metadata of EC2, ECS and EKS.
        ([169, 254, 0, 0], 16),
        // Private.
        ([172, 16, 0, 0], 12),
        // Protocol assignments.
        ([192, 0, 0, 0], 24),
        // Documents.
        ([192, 0, 2, 0], 24),
        // Relays of 6to4.
        ([192, 88, 99, 0], 24),
        // Private.
        ([192, 168, 0, 0], 16),
        // Benchmarks; some networks use them inside.
        ([198, 18, 0, 0], 15),
        // Documents.
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        // Multicast.
        ([224, 0, 0, 0], 4),
        // Reserved, and broadcast.
        ([240, 0, 0, 0], 4),
        ([255, 255, 255, 255], 32),
    ];
    !REFUSED.iter().any(|(network, length)| {
        let (address, network) = (u32::from(address), u32::from_be_bytes(*network));
        address >> (32 - length) == network >> (32 - length)
    })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let is_in =
        |network: u128, length: u32| u128::from(address) >> (128 - length) == network >> (128 - length);
    let is_global = is_in(0x2000 << 112, 3);
    let is_for_protocols = is_in(0x2001 << 112, 23);
    let is_for_documents = is_in(0x2001_0db8 << 96, 32) || is_in(0x3fff << 112, 20);
    let is_6to4 = is_in(0x2002 << 112, 16);
    is_global && !is_for_protocols && !is_for_documents && !is_6to4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_reached() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2600:1f18::1",
            "2a00:1450:4001::1",
            "2001:4860:4860::8888",
            "2003::1",
            "3ffe::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "169.254.170.23",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            // Unspecified, loopback, compatible and mapped, also of public addresses.
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:8.8.8.8",
            "::ffff:0:127.0.0.1",
            // NAT64, 6to4, Teredo, ISATAP's prefix.
            "64:ff9b::7f00:1",
            "64:ff9b::8.8.8.8",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "2001::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff::1",
            // Unique local (EC2's metadata over IPv6 too), link-local, site-local, multicast, discard, SRv6.
            "fc00::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fe80::1",
            "fe80::5efe:7f00:1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "100::1",
            "5f00::1",
            "4000::1",
            "e000::1",
        ] {
            assert!(!is_public(refused.parse().unwrap()), "{refused}");
        }
    }
}
