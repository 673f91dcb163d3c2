//! The key itself in a header, and the one comparison of secrets.

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::Refusal;
use super::key::Key;
use crate::delivery::{Delivery, Header};

/// Checks that the header holds the key.
pub(super) fn check(delivery: &Delivery<'_>, header: &str, key: &Key) -> Result<(), Refusal> {
    let token = match delivery.header(header) {
        Header::Once(token) if !token.is_empty() => token,
        Header::Once(_) => return Err(Refusal::unauthenticated(format!("the header {header} is empty"))),
        Header::Absent => return Err(Refusal::unauthenticated(format!("the header {header} is missing"))),
        Header::Repeated => {
            return Err(Refusal::unauthenticated(format!("the header {header} is there more than once")));
        }
    };
    compare(token, key)
        .ok_or_else(|| Refusal::unauthenticated(format!("the header {header} does not hold the key")))
}

/// Whether this is the key, in any of its forms.
pub(super) fn compare(token: &[u8], key: &Key) -> Option<()> {
    let good = key.forms().map(|form| secrets_equal(token, form)).fold(Choice::from(0), |any, one| any | one);
    bool::from(good).then_some(())
}

/// Compares hashes of both sides, so that neither content nor length shows in the time it takes.
fn secrets_equal(left: &[u8], right: &[u8]) -> Choice {
    Sha256::digest(left).as_slice().ct_eq(Sha256::digest(right).as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_token(token: Option<&str>, key: &str) -> bool {
        let headers: Vec<(String, String)> =
            token.map(|token| ("X-Token".to_owned(), token.to_owned())).into_iter().collect();
        let key = Key::new("test.key", key.as_bytes().to_vec()).expect("a key");
        check(&Delivery { headers: &headers, body: b"" }, "x-token", &key).is_ok()
    }

    // Incident 12.
    #[test]
    fn only_the_whole_key_is_good() {
        assert!(check_token(Some("test-key"), "test-key"));
        assert!(check_token(Some("test-key"), "test-key\n"));
        for token in ["test-ke", "test-key2", "TEST-KEY", "", "test-key test-key"] {
            assert!(!check_token(Some(token), "test-key"), "{token:?}");
        }
        assert!(!check_token(None, "test-key"));
    }
}
