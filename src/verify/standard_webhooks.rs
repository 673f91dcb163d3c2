//! Standard Webhooks signatures; GitLab sends them beside its older token.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::hmac::{Hash, mac, macs_equal};
use super::key::Key;
use super::{Refusal, token};
use crate::delivery::{Delivery, Header};

/// The maximum difference between a delivery's timestamp and the clock; the specification's figure.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// The prefix of a signing token.
const SIGNING_TOKEN_PREFIX: &str = "whsec_";

/// Signatures of a delivery that are looked at: more than one while a key is being changed.
const MAX_SIGNATURES: usize = 10;

/// The length of the 32 bytes of HMAC-SHA256 in Base64.
const ENCODED_MAC_BYTES: usize = 44;

/// The header of GitLab's older secret token.
const GITLAB_TOKEN_HEADER: &str = "X-Gitlab-Token";

/// Checks the signature if the key is a signing token and there is one, else the token.
///
/// GitLab sends `webhook-id` and `webhook-timestamp` with every delivery, signed or not, so only
/// `webhook-signature` says that there is a signature. With a key that is not a signing token the
/// signature cannot be ours to check, and the older token keeps working.
pub(super) fn check_or_token(delivery: &Delivery<'_>, key: &Key, now: SystemTime) -> Result<(), Refusal> {
    match signing_key(key) {
        Some(signing_key) if delivery.header("webhook-signature") != Header::Absent => {
            check_signature(delivery, "webhook", &signing_key, now)
        }
        _ => token::check(delivery, GITLAB_TOKEN_HEADER, key),
    }
}

/// Checks the signature, in the headers of the specification or in those of Svix. A key that is no
/// signing token is taken for the bytes themselves.
pub(super) fn check(delivery: &Delivery<'_>, key: &Key, now: SystemTime) -> Result<(), Refusal> {
    let is_svix = delivery.header("webhook-signature") == Header::Absent
        && delivery.header("svix-signature") != Header::Absent;
    let signing_key = signing_key(key).unwrap_or_else(|| key.without_newline().to_vec());
    check_signature(delivery, if is_svix { "svix" } else { "webhook" }, &signing_key, now)
}

fn check_signature(
    delivery: &Delivery<'_>,
    prefix: &str,
    signing_key: &[u8],
    now: SystemTime,
) -> Result<(), Refusal> {
    let part = |part: &str| {
        let name = format!("{prefix}-{part}");
        delivery.text(&name).ok_or_else(|| Refusal::unauthenticated(format!("the header {name} is missing")))
    };
    let (id, timestamp, signatures) = (part("id")?, part("timestamp")?, part("signature")?);
    check_age(timestamp, now)?;
    // One hash over the body, however many signatures are listed.
    let expected = mac(Hash::Sha256, signing_key, &signed_parts(id, timestamp, delivery.body));
    let good = signatures
        .split_ascii_whitespace()
        .take(MAX_SIGNATURES)
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter(|encoded| encoded.len() == ENCODED_MAC_BYTES)
        .filter_map(|encoded| STANDARD.decode(encoded).ok())
        .any(|signature| macs_equal(&signature, &expected));
    match good {
        true => Ok(()),
        false => Err(Refusal::unauthenticated(format!(
            "no signature in {prefix}-signature is that of this body under the key"
        ))),
    }
}

/// The value of `webhook-signature` for a delivery.
pub(super) fn signature(signing_key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    format!("v1,{}", STANDARD.encode(mac(Hash::Sha256, signing_key, &signed_parts(id, timestamp, body))))
}

/// The key's bytes, if it is a signing token.
pub(super) fn signing_key(key: &Key) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(key.without_newline()).ok()?;
    let bytes = STANDARD.decode(text.strip_prefix(SIGNING_TOKEN_PREFIX)?).ok()?;
    (!bytes.is_empty()).then_some(bytes)
}

fn signed_parts<'m>(id: &'m str, timestamp: &'m str, body: &'m [u8]) -> [&'m [u8]; 5] {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body]
}

fn check_age(timestamp: &str, now: SystemTime) -> Result<(), Refusal> {
    let sent = timestamp
        .parse()
        .ok()
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| Refusal::unauthenticated("the timestamp is not a time in seconds"))?;
    let off = now.duration_since(sent).unwrap_or_else(|err| err.duration());
    if off > MAX_CLOCK_SKEW {
        return Err(Refusal::unauthenticated(format!(
            "webhook-timestamp is {} s off; do both clocks run right?",
            off.as_secs()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SENT: u64 = 1_614_265_330;

    struct Case {
        key: &'static str,
        headers: Vec<(&'static str, &'static str)>,
        body: &'static str,
        now: u64,
    }

    /// The vector of the specification's Go library.
    fn vector() -> Case {
        Case {
            key: KEY,
            headers: vec![
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ],
            body: "{\"test\": 2432232314}",
            now: SENT,
        }
    }

    fn good(case: Case) -> bool {
        let headers: Vec<(String, String)> =
            case.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let key = Key::new("test.key", case.key.as_bytes().to_vec()).expect("a key");
        let delivery = Delivery { headers: &headers, body: case.body.as_bytes() };
        check_or_token(&delivery, &key, UNIX_EPOCH + Duration::from_secs(case.now)).is_ok()
    }

    #[test]
    fn agrees_with_the_published_vector() {
        assert!(good(vector()));
        assert!(!good(Case { body: "{\"test\": 2432232315}", ..vector() }));
        assert!(!good(Case { key: "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", ..vector() }));
    }

    // Incident 14.
    #[test]
    fn one_good_signature_of_several_is_enough() {
        let mut case = vector();
        case.headers[2].1 = "v9,AAAA v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert!(good(case));
        let mut case = vector();
        case.headers[2].1 = "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert!(!good(case));
    }

    // The attack: 30,000 signatures over a body of 8 MiB, each with a hash of its own.
    #[test]
    fn only_the_first_few_signatures_are_looked_at() {
        let good_one = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let signatures = |others: usize| format!("{}{good_one}", "v1,AAAA ".repeat(others)).leak();
        for (others, expect) in [(9, true), (10, false)] {
            let mut case = vector();
            case.headers[2].1 = signatures(others);
            assert_eq!(good(case), expect, "{others}");
        }
    }

    #[test]
    fn old_and_future_deliveries_are_refused() {
        assert!(good(Case { now: SENT + 300, ..vector() }));
        assert!(!good(Case { now: SENT + 301, ..vector() }));
        assert!(good(Case { now: SENT - 300, ..vector() }));
        assert!(!good(Case { now: SENT - 301, ..vector() }));
    }

    // Incident 14: the id and the timestamp come on every delivery.
    #[test]
    fn the_older_token_keeps_working() {
        let headers = vec![("webhook-id", "a"), ("webhook-timestamp", "1"), ("X-Gitlab-Token", "test-token")];
        assert!(good(Case { key: "test-token", headers: headers.clone(), ..vector() }));
        assert!(!good(Case { key: "other-token", headers, ..vector() }));
    }

    #[test]
    fn a_signature_that_is_there_has_to_be_good() {
        let mut case = vector();
        case.headers[2].1 = "v1,AAAA";
        case.headers.push(("X-Gitlab-Token", KEY));
        assert!(!good(case));
        let mut case = vector();
        case.headers.remove(2);
        assert!(!good(case));
    }
}
