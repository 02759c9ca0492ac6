//! Ranges of addresses and ports, and which of their members to try next. Pure arithmetic.

use crate::server::{ServiceRanges, StartError};
use krate_base::Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// Addresses beyond this many of a range are not used, as in the original.
const MOST: u128 = 1 << 16;

/// A range of addresses, `10.96.0.0/12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cidr {
    text: String,
    base: u128,
    size: u128,
    v6: bool,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok()?;
        let (value, width, v6) = match address {
            IpAddr::V4(a) => (u128::from(u32::from(a)), 32, false),
            IpAddr::V6(a) => (u128::from(a), 128, true),
        };
        let free = u32::checked_sub(width, bits)?;
        let size = if free >= 127 { u128::MAX } else { 1u128 << free };
        let base = if size == u128::MAX { 0 } else { value & !(size - 1) };
        let usable = if v6 { size.min(MOST) } else { size };
        Some(Self { text: text.to_owned(), base, size: usable, v6 })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_v6(&self) -> bool {
        self.v6
    }

    pub fn family(&self) -> &'static str {
        if self.v6 { "IPv6" } else { "IPv4" }
    }

    pub fn address(&self, offset: u128) -> IpAddr {
        let value = self.base + offset;
        if self.v6 {
            IpAddr::V6(Ipv6Addr::from(value))
        } else {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)))
        }
    }

    /// Whether a Service may have the address: the first of a range is nobody's, and of IPv4 the last.
    pub fn contains(&self, address: IpAddr) -> bool {
        let value = match (address, self.v6) {
            (IpAddr::V4(a), false) => u128::from(u32::from(a)),
            (IpAddr::V6(a), true) => u128::from(a),
            _ => return false,
        };
        (self.base + 1..=self.base + self.last()).contains(&value)
    }

    /// The last offset that may be used.
    fn last(&self) -> u128 {
        if self.v6 { self.size - 1 } else { self.size.saturating_sub(2).max(1) }
    }

    /// Offsets in the order to try: from a random place of the upper band on, then from a random place of
    /// the lower band, which is kept for addresses that users choose.
    pub fn candidates(&self, rng: &Rng) -> impl Iterator<Item = IpAddr> + '_ {
        let last = u64::try_from(self.last()).unwrap_or(u64::MAX);
        let band = (last / 16).clamp(16, 256).min(last);
        bands(1, last, band, rng).map(|offset| self.address(u128::from(offset)))
    }
}

/// The members of `first..=last`, those above the first `band` first.
fn bands(first: u64, last: u64, band: u64, rng: &Rng) -> impl Iterator<Item = u64> + use<> {
    let middle = (first + band).min(last + 1);
    let around = |from: u64, to: u64| {
        let count = to.saturating_sub(from);
        let start = rng.below(count);
        (0..count).map(move |i| from + (start + i) % count)
    };
    let upper = around(middle, last + 1);
    let lower = around(first, middle);
    upper.chain(lower)
}

/// Node ports in the order to try.
pub(crate) fn ports(range: &RangeInclusive<u16>, rng: &Rng) -> impl Iterator<Item = u16> + use<> {
    let (first, last) = (u64::from(*range.start()), u64::from(*range.end()));
    let band = ((last - first + 1) / 32).clamp(16, 128).min(last - first + 1);
    bands(first, last, band, rng).filter_map(|p| u16::try_from(p).ok())
}

/// The configured ranges, primary first.
pub(crate) struct Ranges {
    pub cidrs: Vec<Cidr>,
    pub node_ports: RangeInclusive<u16>,
}

impl Ranges {
    pub fn new(config: &ServiceRanges) -> Result<Self, StartError> {
        let cidrs: Option<Vec<Cidr>> = config.cidrs.iter().map(|text| Cidr::parse(text)).collect();
        match cidrs {
            Some(cidrs) if !cidrs.is_empty() => Ok(Self { cidrs, node_ports: config.node_ports.clone() }),
            _ => Err(StartError::ServiceRange(config.cidrs.join(","))),
        }
    }

    /// The address of the `kubernetes` Service.
    pub fn first_address(&self) -> String {
        self.cidrs[0].address(1).to_string()
    }

    pub fn of_family(&self, family: &str) -> Option<&Cidr> {
        self.cidrs.iter().find(|c| c.family() == family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn candidates_are_every_usable_address_once() {
        let cidr = Cidr::parse("10.0.0.0/24").unwrap();
        let all: Vec<IpAddr> = cidr.candidates(&Rng::from_seed(1)).collect();
        let set: BTreeSet<&IpAddr> = all.iter().collect();
        assert_eq!((all.len(), set.len()), (254, 254));
        assert!(all.iter().all(|a| cidr.contains(*a)));
        assert!(!cidr.contains("10.0.0.0".parse().unwrap()) && !cidr.contains("10.0.0.255".parse().unwrap()));
        let low: BTreeSet<IpAddr> = (1..=16).map(|i| cidr.address(i)).collect();
        assert!(all[..238].iter().all(|a| !low.contains(a)), "the lower band comes last");
    }

    #[test]
    fn ports_and_other_ranges() {
        assert_eq!(ports(&(30_000..=32_767), &Rng::from_seed(2)).count(), 2_768);
        assert!(Cidr::parse("10.96.0.0/33").is_none() && Cidr::parse("x").is_none());
        let six = Cidr::parse("fd00:1::/108").unwrap();
        assert!(six.candidates(&Rng::from_seed(3)).next().unwrap().is_ipv6());
        assert_eq!(Cidr::parse("10.96.0.0/12").unwrap().address(1).to_string(), "10.96.0.1");
    }
}
