//! Finds the address of the client of a request, for the log.

use std::net::IpAddr;

use actix_web::HttpRequest;
use ipnet::IpNet;

/// Returns the address of the client: the peer, or what trusted proxies say about theirs. The last address
/// of `X-Forwarded-For` was added by the peer, the one before it by the one before, and so on; what
/// a proxy that is not trusted says is anyone's word.
pub(super) fn resolve(request: &HttpRequest, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let values = request.headers().get_all("x-forwarded-for").filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
    Some(before_proxies(peer, &hops, trusted))
}

fn before_proxies(peer: IpAddr, hops: &[&str], trusted: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        if !trusted.iter().any(|network| network.contains(&client)) {
            break;
        }
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, hops: &[&str], trusted: &[&str]) -> String {
        let trusted: Vec<IpNet> = trusted.iter().map(|network| network.parse().expect("a network")).collect();
        before_proxies(peer.parse().expect("an address"), hops, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_set_the_address() {
        let hops = ["6.6.6.6", " 1.2.3.4", "10.0.0.7"];
        assert_eq!(client("10.0.0.1", &hops, &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &hops, &["10.0.0.0/8"]), "1.2.3.4");
        assert_eq!(client("9.9.9.9", &hops, &["10.0.0.0/8"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["unknown"], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["10.0.0.2"], &["10.0.0.0/8"]), "10.0.0.2");
    }
}
