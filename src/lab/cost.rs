//! What a run costs: usage counted in whole units, priced exactly.
//!
//! Money is whole trillionths of a dollar, and usage whole milliseconds, bytes and requests, so that no sum depends on
//! the order in which it is added up. A charge is the difference of two running totals: what is charged hour by hour
//! adds up to what is charged at once, whatever the tiers.
//!
//! The prices are dated files in `prices/`; each names its source.

use std::{
    collections::BTreeMap,
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Sub},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// Trillionths in a dollar.
const DOLLAR: i128 = 1_000_000_000_000;
pub(super) const HOUR_MS: u128 = 3_600_000;
/// AWS's own calculator takes a month for 730 hours.
pub const MONTH_SECONDS: u64 = 730 * 3600;
/// MB·ms in a GB·s.
const GB_SECOND: u128 = 1024 * 1000;
/// AWS bills traffic in GB of a thousand million bytes for capacity units, of 2^30 for transfer and the classic balancer.
const GB: u128 = 1 << 30;

/// An amount of US dollars, to the trillionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Usd(i128);

impl Usd {
    /// Reads `0.0000166667`.
    ///
    /// # Errors
    /// That it is no decimal number of at most twelve decimals.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not an amount such as 0.0000166667");
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty()
            || whole.len() > 9
            || decimals.len() > 12
            || !is_number(whole)
            || !is_number(decimals)
        {
            return Err(refused());
        }
        format!("{whole}{decimals:0<12}").parse().map(Self).map_err(|_| refused())
    }

    /// As a number, for ratios and charts.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / DOLLAR as f64
    }

    /// Whole cents, half a cent rounded up.
    #[must_use]
    pub fn cents(self) -> i128 {
        (self.0 + DOLLAR / 200).div_euclid(DOLLAR / 100)
    }

    /// This many times a price for one of `unit`, rounded to the trillionth.
    fn times(self, quantity: u128, unit: u128) -> Self {
        let quantity = i128::try_from(quantity).unwrap_or(i128::MAX);
        let unit = i128::try_from(unit).unwrap_or(i128::MAX).max(1);
        // In two parts, so that the product fits for any usage that a run can have.
        let (whole, rest) = (quantity / unit, quantity % unit);
        Self(self.0.saturating_mul(whole).saturating_add((self.0.saturating_mul(rest) + unit / 2) / unit))
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents = self.cents();
        let sign = if cents < 0 { "-" } else { "" };
        let dollars = grouped((cents.unsigned_abs() / 100).to_string());
        f.pad(&format!("{sign}${dollars}.{:02}", cents.unsigned_abs() % 100))
    }
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(digits: String) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Add for Usd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Usd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_f64(self.cents() as f64 / 100.0)
    }
}

/// A price, and where it is from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// For one unit, whatever the amount …
    usd: Option<Usd>,
    /// … or for one unit in each tier of a month's usage.
    #[serde(default)]
    tiers: Vec<Tier>,
    /// The page that shows it.
    pub source: String,
    /// The line of AWS's price list, or what else it was confirmed with.
    pub offer: Option<String>,
    /// Whether it was.
    #[serde(default = "yes")]
    pub is_confirmed: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tier {
    /// Where it ends, in units a month; the last has no end.
    up_to: Option<u64>,
    usd: Usd,
}

fn yes() -> bool {
    true
}

impl Price {
    /// What is due for a month's first `quantity`, counted in parts of which `unit` make one priced unit.
    fn total(&self, quantity: u128, unit: u128) -> Usd {
        if let Some(usd) = self.usd {
            return usd.times(quantity, unit);
        }
        let (mut sum, mut start) = (Usd::default(), 0);
        for tier in &self.tiers {
            let end = tier.up_to.map_or(quantity, |up_to| (u128::from(up_to) * unit).min(quantity));
            sum = sum + tier.usd.times(end.saturating_sub(start), unit);
            start = end.max(start);
        }
        sum
    }
}

/// A processor that Lambda runs functions on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, Default)]
pub enum Architecture {
    /// Intel or AMD, what a function gets that asks for nothing.
    #[default]
    #[serde(rename = "x86_64")]
    X86,
    /// Graviton.
    #[serde(rename = "arm64")]
    Arm,
}

/// What stands in front of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// An HTTP API.
    #[default]
    Http,
    /// A REST API.
    Rest,
    /// A function URL, which costs nothing by itself.
    Url,
}

/// What stands in front of the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Balancer {
    /// What a Service of type LoadBalancer gets without a controller of AWS's.
    #[default]
    Classic,
    /// What an Ingress gets from the AWS Load Balancer Controller.
    Application,
    /// Nothing that costs.
    None,
}

/// The prices of a region on a day.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// `eu-west-2`.
    pub region: String,
    /// Its name for people.
    pub name: String,
    /// When they were read.
    pub date: String,
    /// Availability zones that eksctl spreads a cluster over: two in us-east-1, else three.
    pub zones: u32,
    cluster_hour: Price,
    cluster_hour_extended: Price,
    nodes: BTreeMap<String, Price>,
    volume_gb_month: Price,
    nat_hour: Price,
    address_hour: Price,
    application_balancer_hour: Price,
    capacity_unit_hour: Price,
    classic_balancer_hour: Price,
    classic_balancer_gb: Price,
    out_gb: Price,
    log_gb: Price,
    lambda_request: Price,
    lambda_gb_second: BTreeMap<Architecture, Price>,
    provisioned_gb_second: BTreeMap<Architecture, Price>,
    provisioned_run_gb_second: BTreeMap<Architecture, Price>,
    http_api_request: Price,
    rest_api_request: Price,
    free: Free,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Free {
    lambda_requests: u64,
    lambda_gb_seconds: u64,
    api_requests: u64,
}

/// The regions that there are prices for.
pub const REGIONS: [(&str, &str); 2] = [
    ("eu-west-2", include_str!("prices/eu-west-2.yaml")),
    ("us-east-1", include_str!("prices/us-east-1.yaml")),
];

impl Prices {
    /// The prices of a region.
    ///
    /// # Errors
    /// That there are none, and which there are.
    pub fn of(region: &str) -> Result<Self, String> {
        let (_, text) = REGIONS.iter().find(|(name, _)| *name == region).ok_or_else(|| {
            let known: Vec<&str> = REGIONS.iter().map(|(name, _)| *name).collect();
            format!(
                "no prices for {region}: there are some for {}; or give a file of your own",
                known.join(" and ")
            )
        })?;
        Self::read(text)
    }

    /// Prices in the form of the files in `src/lab/prices/`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(text: &str) -> Result<Self, String> {
        super::inputs::typed(text)
    }

    /// The price of a node.
    ///
    /// # Errors
    /// That there is none.
    pub fn node(&self, instance: &str) -> Result<&Price, String> {
        self.nodes.get(instance).ok_or_else(|| {
            let known: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
            format!("no price of a {instance} in {}: there are some of {}", self.region, known.join(", "))
        })
    }

    fn lambda(prices: &BTreeMap<Architecture, Price>, architecture: Architecture) -> Option<&Price> {
        prices.get(&architecture)
    }
}

/// What was used, in whole units that add up. Everything is of one region and one month.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// How long there was a cluster.
    pub cluster_ms: u128,
    /// Whether its version is in extended support, which costs six times as much.
    pub is_extended: bool,
    /// How long nodes of a type ran, summed up.
    pub node_ms: BTreeMap<String, u128>,
    /// Disks: bytes of 2^30 times milliseconds.
    pub volume_gb_ms: u128,
    /// NAT gateways.
    pub nat_ms: u128,
    /// Public IPv4 addresses.
    pub address_ms: u128,
    /// Which balancer.
    pub balancer: Balancer,
    /// How long it was there.
    pub balancer_ms: u128,
    /// Millionths of capacity units times hours, for an application balancer.
    pub capacity_micro_hours: u128,
    /// Bytes through the balancer.
    pub balancer_bytes: u128,
    /// Bytes out to the internet.
    pub out_bytes: u128,
    /// The function's processor.
    pub architecture: Architecture,
    /// Invocations, cold ones included.
    pub lambda_requests: u128,
    /// Memory times billed duration of invocations on demand, INIT included.
    pub lambda_mb_ms: u128,
    /// Memory times time of provisioned environments.
    pub provisioned_mb_ms: u128,
    /// Memory times billed duration of invocations in those.
    pub provisioned_run_mb_ms: u128,
    /// Bytes that the function and its gateway log.
    pub log_bytes: u128,
    /// Which gateway.
    pub gateway: Gateway,
    /// Requests that it counted.
    pub api_requests: u128,
}

impl Usage {
    /// As much of it as `seconds` have, when this is what `of` seconds had.
    #[must_use]
    pub fn scaled(&self, seconds: u64, of: u64) -> Self {
        let (seconds, of) = (u128::from(seconds), u128::from(of.max(1)));
        let scale = |quantity: u128| (quantity.saturating_mul(seconds) + of / 2) / of;
        let mut scaled = self.clone();
        for quantity in scaled.quantities_mut() {
            *quantity = scale(*quantity);
        }
        for quantity in scaled.node_ms.values_mut() {
            *quantity = scale(*quantity);
        }
        scaled
    }

    fn quantities_mut(&mut self) -> [&mut u128; 14] {
        [
            &mut self.cluster_ms,
            &mut self.volume_gb_ms,
            &mut self.nat_ms,
            &mut self.address_ms,
            &mut self.balancer_ms,
            &mut self.capacity_micro_hours,
            &mut self.balancer_bytes,
            &mut self.out_bytes,
            &mut self.lambda_requests,
            &mut self.lambda_mb_ms,
            &mut self.provisioned_mb_ms,
            &mut self.provisioned_run_mb_ms,
            &mut self.log_bytes,
            &mut self.api_requests,
        ]
    }
}

impl AddAssign<&Usage> for Usage {
    fn add_assign(&mut self, other: &Usage) {
        let mut other = other.clone();
        for (mine, theirs) in self.quantities_mut().into_iter().zip(other.quantities_mut()) {
            *mine = mine.saturating_add(*theirs);
        }
        for (instance, ms) in other.node_ms {
            *self.node_ms.entry(instance).or_default() += ms;
        }
        // Settings rather than quantities: whoever sums up starts with an empty one.
        self.is_extended = other.is_extended;
        self.balancer = other.balancer;
        self.architecture = other.architecture;
        self.gateway = other.gateway;
    }
}

/// One line of a bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = BillLine)]
pub struct Line {
    /// What for.
    pub item: String,
    /// How much of it, for people.
    pub quantity: String,
    /// What it costs.
    #[schema(value_type = f64)]
    pub usd: Usd,
    /// Whether the price was confirmed.
    pub is_confirmed: bool,
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Bill {
    /// Without those that are zero.
    pub lines: Vec<Line>,
}

impl Bill {
    /// The sum.
    #[must_use]
    pub fn total(&self) -> Usd {
        self.lines.iter().map(|line| line.usd).sum()
    }

    /// What a line costs; nothing where there is none.
    #[must_use]
    pub fn item(&self, item: &str) -> Usd {
        self.lines.iter().filter(|line| line.item == item).map(|line| line.usd).sum()
    }

    fn add(&mut self, item: impl Into<String>, price: &Price, quantity: u128, unit: u128, noun: &str) {
        let usd = price.total(quantity, unit);
        if quantity == 0 || usd == Usd::default() {
            return;
        }
        let amount = quantity as f64 / unit as f64;
        let shown = if unit == 1 || amount >= 1000.0 {
            grouped(format!("{amount:.0}"))
        } else {
            format!("{amount:.2}")
        };
        let quantity = format!("{shown} {noun}");
        self.lines.push(Line { item: item.into(), quantity, usd, is_confirmed: price.is_confirmed });
    }
}

impl Prices {
    /// What a month's usage costs. With `has_free_tier` Lambda's and API Gateway's monthly allowances come off first;
    /// Lambda's does not cover provisioned concurrency.
    ///
    /// # Errors
    /// A node type without a price.
    pub fn bill(&self, usage: &Usage, has_free_tier: bool) -> Result<Bill, String> {
        let mut bill = Bill::default();
        let cluster = if usage.is_extended { &self.cluster_hour_extended } else { &self.cluster_hour };
        bill.add("EKS control plane", cluster, usage.cluster_ms, HOUR_MS, "hours");
        for (instance, ms) in &usage.node_ms {
            bill.add(format!("nodes ({instance})"), self.node(instance)?, *ms, HOUR_MS, "hours");
        }
        let month_ms = u128::from(MONTH_SECONDS) * 1000;
        bill.add("node disks", &self.volume_gb_month, usage.volume_gb_ms, month_ms, "GB-months");
        bill.add("NAT gateway", &self.nat_hour, usage.nat_ms, HOUR_MS, "hours");
        bill.add("public addresses", &self.address_hour, usage.address_ms, HOUR_MS, "hours");
        self.bill_balancer(usage, &mut bill);
        self.bill_lambda(usage, has_free_tier, &mut bill);
        bill.add("data out", &self.out_gb, usage.out_bytes, GB, "GB");
        Ok(bill)
    }

    fn bill_balancer(&self, usage: &Usage, bill: &mut Bill) {
        match usage.balancer {
            Balancer::Classic => {
                bill.add("load balancer", &self.classic_balancer_hour, usage.balancer_ms, HOUR_MS, "hours");
                bill.add("load balancer, data", &self.classic_balancer_gb, usage.balancer_bytes, GB, "GB");
            }
            Balancer::Application => {
                bill.add(
                    "load balancer",
                    &self.application_balancer_hour,
                    usage.balancer_ms,
                    HOUR_MS,
                    "hours",
                );
                let capacity = usage.capacity_micro_hours;
                bill.add(
                    "load balancer, capacity",
                    &self.capacity_unit_hour,
                    capacity,
                    1_000_000,
                    "LCU-hours",
                );
            }
            Balancer::None => {}
        }
    }

    fn bill_lambda(&self, usage: &Usage, has_free_tier: bool, bill: &mut Bill) {
        let beyond = |quantity: u128, free: u64, unit: u128| {
            if has_free_tier { quantity.saturating_sub(u128::from(free) * unit) } else { quantity }
        };
        let requests = beyond(usage.lambda_requests, self.free.lambda_requests, 1);
        bill.add("Lambda requests", &self.lambda_request, requests, 1, "requests");
        let architecture = usage.architecture;
        let mb_ms = beyond(usage.lambda_mb_ms, self.free.lambda_gb_seconds, GB_SECOND);
        for (item, prices, mb_ms) in [
            ("Lambda duration", &self.lambda_gb_second, mb_ms),
            ("provisioned concurrency", &self.provisioned_gb_second, usage.provisioned_mb_ms),
            ("provisioned duration", &self.provisioned_run_gb_second, usage.provisioned_run_mb_ms),
        ] {
            if let Some(price) = Self::lambda(prices, architecture) {
                bill.add(item, price, mb_ms, GB_SECOND, "GB-s");
            }
        }
        bill.add("Lambda logs", &self.log_gb, usage.log_bytes, GB, "GB");
        let calls = beyond(usage.api_requests, self.free.api_requests, 1);
        match usage.gateway {
            Gateway::Http => bill.add("HTTP API", &self.http_api_request, calls, 1, "requests"),
            Gateway::Rest => bill.add("REST API", &self.rest_api_request, calls, 1, "requests"),
            Gateway::Url => {}
        }
    }
}

/// Millionths of the capacity units that an application balancer counts in an hour: the largest of new connections (25
/// a second), open connections (3,000 in a minute), bytes (1 GB an hour) and rules beyond the first ten (1,000 a
/// second).
///
/// Source: <https://aws.amazon.com/elasticloadbalancing/pricing/>.
#[must_use]
pub fn capacity_units(new_per_second: f64, open: f64, bytes_per_hour: f64, rules_per_second: f64) -> u128 {
    let units =
        [new_per_second / 25.0, open / 3000.0, bytes_per_hour / 1e9, rules_per_second / 1000.0].into_iter();
    // A float's conversion saturates, and nothing is zero.
    (units.fold(0.0, f64::max) * 1e6).round() as u128
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOURS_OF_30_DAYS: u128 = 720;

    fn prices(region: &str) -> Prices {
        Prices::of(region).unwrap()
    }

    fn lambda(requests: u128, memory_mb: u128, billed_ms: u128) -> Usage {
        Usage {
            lambda_requests: requests,
            lambda_mb_ms: requests * memory_mb * billed_ms,
            gateway: Gateway::Url,
            ..Usage::default()
        }
    }

    /// The price that AWS's examples of 2020 are worked with, rounded to eight decimals by AWS itself.
    fn prices_of_2020() -> Prices {
        Prices::read(&REGIONS[1].1.replace("0.0000166667", "0.00001667")).unwrap()
    }

    /// AWS rounds each charge to the cent before it adds them up.
    fn charged(bill: &Bill) -> i128 {
        bill.lines.iter().map(|line| line.usd.cents()).sum()
    }

    /// <https://aws.amazon.com/lambda/pricing/>, example 1 as of 2020: 512 MB, 3 million times, 1 s.
    #[test]
    fn lambda_512_mb_3_million_times_a_second_is_18_74() {
        let bill = prices_of_2020().bill(&lambda(3_000_000, 512, 1000), true).unwrap();
        assert_eq!(bill.item("Lambda duration").cents(), 1834);
        assert_eq!(bill.item("Lambda requests").cents(), 40);
        assert_eq!(charged(&bill), 1874);
    }

    /// The same page, example 2: 128 MB, 30 million times, 200 ms.
    #[test]
    fn lambda_128_mb_30_million_times_200_ms_is_11_63() {
        let bill = prices_of_2020().bill(&lambda(30_000_000, 128, 200), true).unwrap();
        assert_eq!(bill.item("Lambda duration").cents(), 583);
        assert_eq!(bill.item("Lambda requests").cents(), 580);
        assert_eq!(charged(&bill), 1163);
    }

    /// <https://aws.amazon.com/blogs/aws/new-for-aws-lambda-1ms-billing-granularity-adds-cost-savings/>: 60 million times
    /// 28 ms with 1 GB are $28 and $12; rounded up to 100 ms, as before, $100 and $12.
    #[test]
    fn lambda_60_million_times_28_ms_is_40_dollars_and_once_was_112() {
        for (billed_ms, duration, total) in [(28, 2800, 4000), (100, 10000, 11200)] {
            let bill = prices("us-east-1").bill(&lambda(60_000_000, 1024, billed_ms), false).unwrap();
            assert_eq!(bill.item("Lambda duration").cents(), duration);
            assert_eq!(bill.item("Lambda requests").cents(), 1200);
            assert_eq!(charged(&bill), total);
        }
    }

    /// <https://aws.amazon.com/blogs/compute/introducing-tiered-pricing-for-aws-lambda/>: 2 GB, 75 million times 60 s are
    /// 9 billion GB-s, 3 billion of them at 10 % less. The post's own sums are to the dollar.
    #[test]
    fn the_second_tier_of_lambda_is_a_tenth_cheaper() {
        let bill = prices("us-east-1").bill(&lambda(75_000_000, 2048, 60_000), false).unwrap();
        assert_eq!(bill.item("Lambda duration").cents(), 14_500_020);
    }

    /// <https://aws.amazon.com/elasticloadbalancing/pricing/>, ALB example 1: one connection a second for two minutes,
    /// five requests a second, 300 KB a second, 60 rules: 1.08 capacity units, $0.03114 an hour, $22.42 a month.
    #[test]
    fn an_application_balancer_with_300_kb_a_second_is_22_42() {
        let micro = capacity_units(1.0, 120.0, 300e3 * 3600.0, 5.0 * (60.0 - 10.0));
        assert_eq!(micro, 1_080_000);
        let usage = Usage {
            balancer: Balancer::Application,
            balancer_ms: HOURS_OF_30_DAYS * HOUR_MS,
            capacity_micro_hours: micro * HOURS_OF_30_DAYS,
            ..Usage::default()
        };
        let bill = prices("us-east-1").bill(&usage, false).unwrap();
        assert_eq!(bill.item("load balancer").cents(), 1620);
        assert_eq!(bill.item("load balancer, capacity").cents(), 622);
        assert_eq!(bill.total().cents(), 2242);
    }

    /// At $0.025 an hour and $0.008 a GB, prices that are not confirmed for this region.
    #[test]
    fn a_classic_balancer_with_100_gb_is_18_80() {
        let usage = Usage {
            balancer: Balancer::Classic,
            balancer_ms: HOURS_OF_30_DAYS * HOUR_MS,
            balancer_bytes: 100 * GB,
            ..Usage::default()
        };
        let bill = prices("us-east-1").bill(&usage, false).unwrap();
        assert_eq!(bill.total().cents(), 1880);
    }

    /// <https://aws.amazon.com/api-gateway/pricing/>, HTTP APIs: of 432 million requests 300 million are at $1.00 and 132
    /// million at $0.90 a million.
    #[test]
    fn an_http_api_with_432_million_requests_is_418_80() {
        let usage = Usage { api_requests: 432_000_000, ..Usage::default() };
        let bill = prices("us-east-1").bill(&usage, false).unwrap();
        assert_eq!(bill.total().cents(), 41880);
    }

    /// The same page, REST APIs: 5 million requests of 3 KB are $17.50 and, rounded to 14.3 GB first, $1.29; to the byte
    /// the transfer is the same.
    #[test]
    fn a_rest_api_with_5_million_requests_is_18_79() {
        let usage = Usage {
            gateway: Gateway::Rest,
            api_requests: 5_000_000,
            out_bytes: 5_000_000 * 3 * 1024,
            ..Usage::default()
        };
        let bill = prices("us-east-1").bill(&usage, false).unwrap();
        assert_eq!(bill.item("REST API").cents(), 1750);
        assert_eq!(bill.item("data out").cents(), 129);
        assert_eq!(charged(&bill), 1879);
    }

    /// <https://aws.amazon.com/blogs/containers/amazon-eks-extended-support-for-kubernetes-versions-pricing/>: $0.10 and
    /// $0.60 an hour.
    #[test]
    fn a_cluster_is_73_dollars_a_month_and_438_in_extended_support() {
        for (is_extended, cents) in [(false, 7300), (true, 43800)] {
            let usage =
                Usage { cluster_ms: u128::from(MONTH_SECONDS) * 1000, is_extended, ..Usage::default() };
            assert_eq!(prices("eu-west-2").bill(&usage, false).unwrap().total().cents(), cents);
        }
    }

    #[test]
    fn parts_of_a_month_add_up_to_the_month_whatever_the_tiers() {
        let prices = prices("eu-west-2");
        let price = &prices.lambda_gb_second[&Architecture::X86];
        let cuts = [0u128, 1, 5_999_999_999, 6_000_000_000, 14_000_000_001, 20_000_000_000];
        let parts: Usd = cuts
            .windows(2)
            .map(|cut| {
                price.total(cut[1] * GB_SECOND + 7, GB_SECOND)
                    - price.total(cut[0] * GB_SECOND + 7, GB_SECOND)
            })
            .sum();
        assert_eq!(parts + price.total(7, GB_SECOND), price.total(cuts[5] * GB_SECOND + 7, GB_SECOND));
    }

    #[test]
    fn amounts_are_read_exactly_and_shown_to_the_cent() {
        assert_eq!(Usd::parse("0.0000166667"), Ok(Usd(16_666_700)));
        assert_eq!(Usd::parse("12"), Ok(Usd(12 * DOLLAR)));
        assert_eq!(Usd(DOLLAR * 1234567 + DOLLAR / 200).to_string(), "$1,234,567.01");
        assert_eq!(Usd(-DOLLAR).to_string(), "-$1.00");
        for wrong in ["", ".", "-1", "1.0000000000001", "1e3", "1,000", "12345678901"] {
            assert!(Usd::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_price_names_its_source() {
        for (region, text) in REGIONS {
            assert_eq!(prices(region).region, region);
            let sources = text.matches("source: ").count();
            assert_eq!(sources, text.matches("https://aws.amazon.com/").count() - 1, "{region}");
        }
        assert!(Prices::of("mars-north-1").unwrap_err().contains("eu-west-2"));
    }
}
