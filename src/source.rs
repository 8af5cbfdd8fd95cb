//! Where a stranger comes from, as far as limits and counts go.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one source: an IPv4 address, or an IPv6 /64, which is the least that anybody gets.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}
