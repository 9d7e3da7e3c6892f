//! Networks of addresses.

use std::{net::IpAddr, str::FromStr};

/// Addresses that begin with the same bits, such as `10.0.0.0/8`; one alone without the slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// The text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither an address nor a network such as 10.0.0.0/8 or fd00::/8")]
pub struct InvalidNetwork;

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| InvalidNetwork)?;
        if bits > most { Err(InvalidNetwork) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    /// Whether an address is one of it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(its)) => {
                (u32::from(ours) ^ u32::from(its)).leading_zeros()
            }
            (IpAddr::V6(ours), IpAddr::V6(its)) => {
                (u128::from(ours) ^ u128::from(its)).leading_zeros()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differ >= u32::from(self.bits)
    }

    /// Whether it is so large that nobody knows who is in it: more than a /8, or for IPv6 more than a /16.
    #[must_use]
    pub fn is_vast(&self) -> bool {
        self.bits < if self.address.is_ipv4() { 8 } else { 16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_its_first_bits() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.6"));
        assert!(contains("0.0.0.0/0", "203.0.113.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/33", "2001:db8:7fff::1"));
        assert!(!contains("2001:db8::/33", "2001:db8:8000::1"));
        for (network, vast) in [
            ("0.0.0.0/0", true),
            ("128.0.0.0/1", true),
            ("10.0.0.0/8", false),
            ("::/0", true),
            ("fd00::/16", false),
            ("::1", false),
        ] {
            assert_eq!(network.parse::<Network>().unwrap().is_vast(), vast, "{network}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "proxy", "10.0.0.1/-1"] {
            assert_eq!(bad.parse::<Network>(), Err(InvalidNetwork), "{bad:?}");
        }
    }
}
