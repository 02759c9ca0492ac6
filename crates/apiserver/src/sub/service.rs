//! Addresses and ports of Services.

use crate::server::{ServiceRanges, StartError};

/// The configured ranges.
pub(crate) struct Ranges {
    pub node_ports: std::ops::RangeInclusive<u16>,
}

impl Ranges {
    pub fn new(config: &ServiceRanges) -> Result<Self, StartError> {
        Ok(Self { node_ports: config.node_ports.clone() })
    }
}
