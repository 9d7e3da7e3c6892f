//! From which address a request comes.
//!
//! Behind a proxy all requests come from the proxy. It says in a header where each came from, and so can anybody
//! else: the header is believed as far as proxies wrote it that are trusted, from its end on.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, X_FORWARDED_FOR};

use crate::model::Network;

/// Where a proxy says for whom it asks. One of the two: what a proxy does not set it passes on as its client
/// wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`: addresses.
    XForwardedFor,
    /// `Forwarded` (RFC 7239): elements with `for=`.
    Forwarded,
}

impl ForwardedHeader {
    fn name(self) -> HeaderName {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => FORWARDED,
        }
    }

    /// The address of one element. `None`: it has none, or hides it.
    fn address(self, element: &str) -> Option<IpAddr> {
        let node = match self {
            Self::XForwardedFor => element,
            Self::Forwarded => element.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case("for").then_some(value)
            })?,
        };
        let node = node.trim().trim_matches('"');
        let alone = || node.trim_start_matches('[').trim_end_matches(']').parse().ok();
        node.parse::<SocketAddr>().map(|socket| socket.ip()).ok().or_else(alone)
    }
}

/// Who asks: the last address that no trusted proxy has. `peer` is the other end of the connection.
///
/// What cannot be read ends the search at the proxy that passed it on: its client is answerable for it.
pub(super) fn client(
    peer: IpAddr,
    headers: &HeaderMap,
    header: ForwardedHeader,
    trusted: &[Network],
) -> IpAddr {
    let mut found = peer.to_canonical();
    let believed = |address| trusted.iter().any(|network| network.contains(address));
    if !believed(found) {
        return found;
    }
    let values: Vec<_> = headers.get_all(header.name()).collect();
    let elements = values.iter().rev().flat_map(|value| {
        // What is not text names no address, and nothing before it counts.
        value.to_str().unwrap_or("-").rsplit(',')
    });
    for element in elements {
        let Some(address) = header.address(element) else { break };
        found = address.to_canonical();
        if !believed(found) {
            break;
        }
    }
    found
}

/// What an address is counted as: an IPv6 host has as many addresses as it likes in its /64.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn who(peer: &str, header: ForwardedHeader, lines: &[&str]) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8", "192.0.2.7"].map(|text| text.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header.name(), HeaderValue::from_str(line).unwrap());
        }
        client(ip(peer), &headers, header, &trusted).to_string()
    }

    #[test]
    fn a_header_is_believed_from_its_end_and_as_far_as_proxies_are_trusted() {
        let list = ForwardedHeader::XForwardedFor;
        for (peer, lines, expected) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"), // nobody trusts it
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"), // forged by its client
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.9.9.9"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1,192.0.2.7"], "198.51.100.1"),
            ("10.0.0.1", &["10.2.2.2, 10.3.3.3"], "10.2.2.2"), // all inside
            ("10.0.0.1", &["198.51.100.1, unknown, 10.9.9.9"], "10.9.9.9"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &["198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(who(peer, list, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_header_of_the_standard_is_read_as_well() {
        let standard = ForwardedHeader::Forwarded;
        for (line, expected) in [
            ("for=198.51.100.1;proto=https", "198.51.100.1"),
            ("For=1.1.1.1, proto=http; FOR=198.51.100.1 ; by=10.0.0.1", "198.51.100.1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=198.51.100.1, for=_hidden", "10.0.0.1"),
            ("for=198.51.100.1, proto=https", "10.0.0.1"),
        ] {
            assert_eq!(who("10.0.0.1", standard, &[line]), expected, "{line}");
        }
    }

    #[test]
    fn a_host_of_ipv6_is_its_network() {
        assert_eq!(counted_as(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_eq!(counted_as(ip("198.51.100.1")), ip("198.51.100.1"));
    }
}
