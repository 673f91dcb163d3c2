//! The addresses that may be fetched from for someone who can only write a Receiver: not the
//! Pod's own, its node's, or the metadata services that hand out credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services outside of the link-local networks: Amazon's over IPv6, Alibaba's and Oracle's.
const METADATA_ADDRESSES: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Whether nothing at the address is meant for this host alone.
pub(super) fn is_allowed(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || is_link_local
        || METADATA_ADDRESSES.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_host_and_of_metadata_services_are_not() {
        for address in ["203.0.113.9", "10.0.0.7", "192.168.1.1", "2001:db8::1", "fd00::1"] {
            assert!(is_allowed(address.parse().expect("an address")), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "169.254.1.1",
            "255.255.255.255",
            "224.0.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
        ] {
            assert!(!is_allowed(address.parse().expect("an address")), "{address}");
        }
    }
}
