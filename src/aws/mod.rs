//! What several parts of the service need of AWS: who the process is, signatures, addresses, a client.
//!
//! Nothing here is loaded, read or asked before the first request that needs it, so the process starts, and
//! whatever needs no AWS runs, when AWS cannot be reached.

pub mod credentials;
pub mod http;
pub mod lookup;
pub mod signature;

/// The host of a regional service, in whichever partition the region is.
///
/// The suffixes are those of the SDKs' `partitions.json`; partitions are told by the region's prefix there too.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_a_domain_of_its_own() {
        for (region, expected) in [
            ("us-east-1", "sts.us-east-1.amazonaws.com"),
            ("ap-southeast-7", "sts.ap-southeast-7.amazonaws.com"),
            ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
            ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
            ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
            ("us-isof-south-1", "sts.us-isof-south-1.csp.hci.ic.gov"),
            ("eu-isoe-west-1", "sts.eu-isoe-west-1.cloud.adc-e.uk"),
        ] {
            assert_eq!(host("sts", region), expected);
        }
    }
}
