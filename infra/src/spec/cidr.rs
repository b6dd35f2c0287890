//! IPv4 networks.

use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    first: u32,
    bits: u8,
}

impl Cidr {
    /// `10.0.0.0/16`; `None` when it is no network, or has bits beyond its mask.
    pub fn parse(text: &str) -> Option<Cidr> {
        Self::parse_loosely(text)
            .filter(|(cidr, first)| cidr.first == *first)
            .map(|(cidr, _)| cidr)
    }

    /// The network that an address with a mask lies in, and that address: `10.0.3.1/16` lies in `10.0.0.0/16`.
    pub(super) fn parse_loosely(text: &str) -> Option<(Cidr, u32)> {
        let (address, bits) = text.split_once('/')?;
        let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
        let bits: u8 = bits.parse().ok().filter(|bits| (1..=32).contains(bits))?;
        let cidr = Cidr {
            first: address & Self::mask(bits),
            bits,
        };
        Some((cidr, address))
    }

    /// The number behind the slash.
    pub fn bits(self) -> u8 {
        self.bits
    }

    fn mask(bits: u8) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
    }

    /// Its first and its last address.
    pub fn range(self) -> (u32, u32) {
        (self.first, self.first | !Self::mask(self.bits))
    }

    /// Whether they share an address.
    pub fn overlaps(self, other: Cidr) -> bool {
        let bits = self.bits.min(other.bits);
        self.first & Self::mask(bits) == other.first & Self::mask(bits)
    }

    /// Whether every address of it is in `other`.
    pub fn within(self, other: Cidr) -> bool {
        self.bits >= other.bits && self.overlaps(other)
    }

    /// The `index`th /24 in it.
    pub fn slash_24(self, index: u8) -> String {
        format!("{}/24", Ipv4Addr::from(self.first + (u32::from(index) << 8)))
    }

    /// A network of this size in 10.0.0.0/8 that does not overlap `other`.
    pub(super) fn beside(bits: u8, other: Cidr) -> Cidr {
        let in_ten = |second: u32| Cidr {
            first: (10 << 24) | (second << 16),
            bits,
        };
        (0..=255)
            .map(in_ten)
            .find(|cidr| !cidr.overlaps(other))
            .unwrap_or_else(|| in_ten(0))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.bits)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn subnets_lie_in_their_network() {
        let cidr = Cidr::parse("10.1.0.0/16").unwrap();
        assert_eq!(
            [cidr.slash_24(0), cidr.slash_24(5)],
            ["10.1.0.0/24", "10.1.5.0/24"]
        );
    }

    #[test]
    fn an_address_with_a_mask_is_no_network_but_says_which_it_lies_in() {
        assert_eq!(Cidr::parse("10.0.3.1/16"), None);
        let (cidr, _) = Cidr::parse_loosely("10.0.3.1/16").unwrap();
        assert_eq!(cidr.to_string(), "10.0.0.0/16");
        for text in ["10.0.0.0", "10.0.0/16", "10.0.0.0/33", "10.0.0.0/0", "x/16"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_network_beside_another_does_not_overlap_it() {
        for text in ["10.0.0.0/16", "10.1.0.0/16", "10.0.0.0/9", "192.168.0.0/16"] {
            let other = Cidr::parse(text).unwrap();
            assert!(!Cidr::beside(16, other).overlaps(other), "{text}");
        }
    }
}
