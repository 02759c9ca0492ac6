//! Warnings about addresses that are valid and yet not written as they should be.

use super::names;
use crate::field::Path;
use std::net::{IpAddr, Ipv6Addr};

const LATER: &str = "will be considered invalid in a future Kubernetes release";

/// An address in a form that other programs may read differently.
#[must_use]
pub fn ip(path: &Path, value: &str) -> Option<String> {
    let ip = names::sloppy_ip(value)?;
    if is_odd(value, ip) {
        let plain = ip.to_canonical();
        return Some(format!("{path}: non-standard IP address {value:?} {LATER}: use \"{plain}\""));
    }
    (ip.is_ipv6() && ip.to_string() != value)
        .then(|| format!("{path}: IPv6 address {value:?} should be in RFC 5952 canonical format (\"{ip}\")"))
}

/// As [`ip`], for a network.
#[must_use]
pub fn cidr(path: &Path, value: &str) -> Vec<String> {
    let Some((text, bits)) = value.split_once('/') else { return vec![] };
    let (Some(ip), Ok(bits)) = (names::sloppy_ip(text), bits.parse::<u32>()) else { return vec![] };
    let width = if ip.is_ipv4() { 32 } else { 128 };
    if bits > width {
        return vec![];
    }
    let network = network(ip, bits);
    let mut warnings = vec![];
    if network != ip {
        warnings.push(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be \"{network}/{bits}\" or \
             \"{ip}/{width}\"?)"
        ));
    }
    let standard = format!("{network}/{bits}");
    if is_odd(text, ip) || value.ends_with(&format!("/0{bits}")) {
        warnings.push(format!("{path}: non-standard CIDR value {value:?} {LATER}: use {standard:?}"));
    }
    if warnings.is_empty() && ip.is_ipv6() && standard != value {
        warnings.push(format!(
            "{path}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format ({standard:?})"
        ));
    }
    warnings
}

/// Whether newer parsers refuse it: zeros before a number, or IPv4 within IPv6.
fn is_odd(value: &str, ip: IpAddr) -> bool {
    value.parse::<IpAddr>().is_err() || matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

fn network(ip: IpAddr, bits: u32) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_addresses_are_told() {
        let path = Path::new("ip");
        assert_eq!(ip(&path, "10.0.0.1"), None);
        assert_eq!(ip(&path, "2001:db8::1"), None);
        assert_eq!(
            ip(&path, "2001:DB8::1").as_deref(),
            Some("ip: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")")
        );
        assert_eq!(
            ip(&path, "010.0.0.1").as_deref(),
            Some(
                "ip: non-standard IP address \"010.0.0.1\" will be considered invalid in a future Kubernetes release: \
                 use \"10.0.0.1\""
            )
        );
    }

    #[test]
    fn networks_with_an_address_of_a_host_are_told() {
        let path = Path::new("cidr");
        assert_eq!(cidr(&path, "10.0.0.0/8"), Vec::<String>::new());
        assert_eq!(
            cidr(&path, "10.0.0.1/8"),
            [
                "cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"
            ]
        );
        assert_eq!(
            cidr(&path, "2001:DB8::/32"),
            [
                "cidr: IPv6 CIDR value \"2001:DB8::/32\" should be in RFC 5952 canonical format (\"2001:db8::/32\")"
            ]
        );
    }
}
