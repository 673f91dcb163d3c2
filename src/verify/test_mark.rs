//! The mark of a test delivery: `flux-recv send` names a commit that does not exist, so that nobody should wait for
//! it to arrive. A keyed hash over the body under a key of the endpoint, like any other signature.

use super::hmac::{Hash, mac, macs_equal};
use super::key::Key;
use super::{Credentials, Verified};
use crate::delivery::{Delivery, Header};

/// The header that holds the mark, in hex.
pub const TEST_HEADER: &str = "X-Flux-Recv-Test";

/// Sets it apart from every signature over the body itself.
const CONTEXT: &[u8] = b"flux-recv test delivery\n";

/// The header that marks a delivery as a test; none where the endpoint has no key.
pub fn mark(body: &[u8], credentials: &Credentials) -> Option<(String, String)> {
    let key = credentials.own_key()?;
    let mark = mac(Hash::Sha256, key.without_newline(), &[CONTEXT, body]);
    Some((TEST_HEADER.to_owned(), hex::encode(mark)))
}

/// Whether a verified delivery carries a good mark. A wrong one is as if there were none: it opens nothing.
pub fn is_test(verified: &Verified<'_>, credentials: &Credentials) -> bool {
    carries_mark(&verified.delivery, credentials)
}

fn carries_mark(delivery: &Delivery<'_>, credentials: &Credentials) -> bool {
    let Header::Once(value) = delivery.header(TEST_HEADER) else { return false };
    let Ok(given) = hex::decode(value) else { return false };
    let is_mark_of =
        |key: &Key| macs_equal(&mac(Hash::Sha256, key.without_newline(), &[CONTEXT, delivery.body]), &given);
    credentials.keys.iter().any(is_mark_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mark_under_the_key_over_this_body_counts() {
        let credentials = |key: &[u8]| Credentials::from_key(Key::new("a.key", key.to_vec()).expect("a key"));
        let (own, other) = (credentials(b"test-key-number-one\n"), credentials(b"test-key-number-two"));
        let is_marked = |body: &[u8], marked_with: &Credentials, checked_with: &Credentials| {
            let headers = vec![mark(b"{}", marked_with).expect("a key")];
            carries_mark(&Delivery { headers: &headers, body }, checked_with)
        };
        assert!(is_marked(b"{}", &own, &own));
        assert!(!is_marked(b"{ }", &own, &own));
        assert!(!is_marked(b"{}", &other, &own));
        let none: Vec<(String, String)> = Vec::new();
        assert!(!carries_mark(&Delivery { headers: &none, body: b"{}" }, &own));
    }
}
