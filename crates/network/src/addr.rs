//! Addresses and ranges of addresses, of both families, as the kernel and the API write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses: `10.244.1.0/24`. Host bits are always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    base: IpAddr,
    len: u8,
}

/// The text is no address range.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidCidr(String);

impl Cidr {
    /// The range of `len` leading bits that contains `addr`; `None` if there are not that many bits.
    #[must_use]
    pub fn new(addr: IpAddr, len: u8) -> Option<Self> {
        (len <= bits(addr)).then(|| Self { base: from_number(addr, number(addr) & mask(addr, len)), len })
    }

    /// The range of this one address.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self { base: addr, len: bits(addr) }
    }

    /// The first address of the range.
    #[must_use]
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// How many leading bits are fixed.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.base.is_ipv4() && number(addr) & mask(addr, self.len) == number(self.base)
    }

    /// How many addresses the range has.
    #[must_use]
    pub fn size(&self) -> u128 {
        1u128.checked_shl(u32::from(bits(self.base) - self.len)).unwrap_or(u128::MAX)
    }

    /// The address at `index`, counted from the base; `None` beyond the end.
    #[must_use]
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        (index < self.size()).then(|| from_number(self.base, number(self.base) + index))
    }

    /// The position of `addr` in the range.
    #[must_use]
    pub fn index_of(&self, addr: IpAddr) -> Option<u128> {
        self.contains(addr).then(|| number(addr) - number(self.base))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.len)
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (addr, len) = text.split_once('/').ok_or_else(invalid)?;
        let (addr, len) = (addr.parse().map_err(|_| invalid())?, len.parse().map_err(|_| invalid())?);
        Self::new(addr, len).ok_or_else(invalid)
    }
}

/// How many bits an address of this family has.
#[must_use]
pub fn bits(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

/// The bytes of an address in the order of the wire.
#[must_use]
pub fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The address with these bytes, if there are 4 or 16 of them.
#[must_use]
pub fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn from_number(family: IpAddr, n: u128) -> IpAddr {
    match family {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
    }
}

fn mask(family: IpAddr, len: u8) -> u128 {
    let host = u32::from(bits(family) - len);
    let all = if family.is_ipv4() { u128::from(u32::MAX) } else { u128::MAX };
    all.checked_shr(host).and_then(|m| m.checked_shl(host)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_writes_ranges() {
        let cidr: Cidr = "10.244.1.77/24".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.244.1.0/24");
        assert!(cidr.contains("10.244.1.255".parse().unwrap()));
        assert!(!cidr.contains("10.244.2.0".parse().unwrap()));
        assert!(!cidr.contains("::1".parse().unwrap()));
        assert_eq!(cidr.nth(1), Some("10.244.1.1".parse().unwrap()));
        assert_eq!(cidr.nth(256), None);
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().size(), 1 << 32);
        assert!("::/0".parse::<Cidr>().unwrap().contains("fd00::1".parse().unwrap()));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/-1"] {
            assert_eq!(bad.parse::<Cidr>().unwrap_err().to_string(), format!("invalid CIDR address: {bad}"));
        }
    }

    proptest! {
        #[test]
        fn nth_and_index_are_inverse(base: u32, len in 8u8..=32, index: u32) {
            let cidr = Cidr::new(IpAddr::V4(base.into()), len).unwrap();
            let index = u128::from(index) % cidr.size();
            let addr = cidr.nth(index).unwrap();
            prop_assert_eq!(cidr.index_of(addr), Some(index));
        }
    }
}
