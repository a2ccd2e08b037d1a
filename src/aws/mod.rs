//! What several parts of the service need of AWS: who the process is, signatures, addresses, a client.
//!
//! Nothing here is loaded, read or asked before the first request that needs it, so the process starts, and
//! whatever needs no AWS runs, when AWS cannot be reached.

pub mod credentials;
pub mod http;
pub mod lookup;
#[cfg(feature = "aws-chain")]
mod sdk;
pub mod signature;

/// The host of a regional service, in whichever partition the region is.
///
/// The suffixes are those of the SDKs' `partitions.json`; partitions are told by the region's prefix there too. The golden
/// tokens in `tests/data/eks-tokens.json` name one of each.
#[must_use]
pub fn host(service: &str, region: &str) -> String {
    let suffix = match region.split_once('-').unwrap_or_default() {
        ("cn", _) => "amazonaws.com.cn",
        ("eusc", _) => "amazonaws.eu",
        ("us", place) if place.starts_with("iso-") => "c2s.ic.gov",
        ("us", place) if place.starts_with("isob-") => "sc2s.sgov.gov",
        ("us", place) if place.starts_with("isof-") => "csp.hci.ic.gov",
        ("eu", place) if place.starts_with("isoe-") => "cloud.adc-e.uk",
        // GovCloud too.
        _ => "amazonaws.com",
    };
    format!("{service}.{region}.{suffix}")
}
