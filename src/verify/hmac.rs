//! Keyed hashes (RFC 2104) over what was sent.

use std::borrow::Cow;
use std::sync::Arc;

use ::hmac::{Hmac as Mac, KeyInit, Mac as _};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::key::Key;
use super::{Credentials, Refusal};
use crate::delivery::{Delivery, Header};

/// A keyed hash in a header.
#[derive(Debug, Clone, Copy)]
pub struct Hmac {
    /// Where it may stand. The first of these headers that is there decides; list the strongest
    /// first.
    pub headers: &'static [&'static str],
    /// How it is written.
    pub encoding: Encoding,
    /// What it is over.
    pub signed: HmacInput,
}

/// The form of a keyed hash in its header.
#[derive(Debug, Clone, Copy)]
pub enum Encoding {
    /// `sha256=<hex>`: the prefix says which hash, whatever the header is called.
    Prefixed,
    /// The bare digest in hex, without a prefix.
    Hex(Hash),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1, as a keyed hash still sound.
    Sha1,
    Sha256,
    Sha512,
}

/// The input of a keyed hash.
#[derive(Debug, Clone, Copy)]
pub enum HmacInput {
    /// The body as received.
    Body,
    /// The JSON text, also when the body is a form that carries it (Gitea and its relatives).
    Payload,
}

/// Checks the signature of a delivery; says which key it is of, if it has one.
pub(super) fn check(
    delivery: &Delivery<'_>,
    scheme: &Hmac,
    credentials: &Credentials,
) -> Result<Option<Arc<str>>, Refusal> {
    if credentials.unsigned && first_present(delivery, scheme.headers)?.is_none() {
        return Ok(None);
    }
    check_keys(delivery, scheme, credentials.keys.iter()).map(Some)
}

/// Checks that the signature of a delivery is of this key.
pub(super) fn check_key(delivery: &Delivery<'_>, scheme: &Hmac, key: &Key) -> Result<(), Refusal> {
    check_keys(delivery, scheme, std::iter::once(key)).map(|_| ())
}

fn check_keys<'k>(
    delivery: &Delivery<'_>,
    scheme: &Hmac,
    mut keys: impl Iterator<Item = &'k Key>,
) -> Result<Arc<str>, Refusal> {
    let (header, value) = first_present(delivery, scheme.headers)?
        .ok_or_else(|| Refusal::unauthenticated(format!("the header {} is missing", scheme.headers[0])))?;
    let malformed = || Refusal::unauthenticated(format!("the header {header} holds no signature"));
    let (hash, signature) = decode(value, scheme.encoding).ok_or_else(malformed)?;
    let message = match scheme.signed {
        HmacInput::Body => Cow::Borrowed(delivery.body),
        HmacInput::Payload => delivery
            .payload()
            .ok_or_else(|| Refusal::unauthenticated("the form has no field `payload` to check"))?,
    };
    let signer = keys.find(|key| is_signature_of(hash, key, &message, &signature));
    signer.map(|key| Arc::clone(key.name())).ok_or_else(|| {
        Refusal::unauthenticated(format!("the signature in {header} is not that of this body under the key"))
    })
}

/// Whether the signature is that of the message under any form of the key.
fn is_signature_of(hash: Hash, key: &Key, message: &[u8], signature: &[u8]) -> bool {
    key.forms().any(|form| mac_equals(hash, form, message, signature))
}

/// Compares in constant time; a signature of another length is none.
pub(super) fn mac_equals(hash: Hash, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    match hash {
        Hash::Sha1 => keyed::<Mac<Sha1>>(key, &[message]).verify_slice(signature).is_ok(),
        Hash::Sha256 => keyed::<Mac<Sha256>>(key, &[message]).verify_slice(signature).is_ok(),
        Hash::Sha512 => keyed::<Mac<Sha512>>(key, &[message]).verify_slice(signature).is_ok(),
    }
}

/// The keyed hash of a message in parts.
pub(super) fn mac(hash: Hash, key: &[u8], message: &[&[u8]]) -> Vec<u8> {
    match hash {
        Hash::Sha1 => keyed::<Mac<Sha1>>(key, message).finalize().into_bytes().to_vec(),
        Hash::Sha256 => keyed::<Mac<Sha256>>(key, message).finalize().into_bytes().to_vec(),
        Hash::Sha512 => keyed::<Mac<Sha512>>(key, message).finalize().into_bytes().to_vec(),
    }
}

/// Compares two keyed hashes in constant time.
pub(super) fn macs_equal(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

fn keyed<M: ::hmac::Mac + KeyInit>(key: &[u8], message: &[&[u8]]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    message.iter().for_each(|part| mac.update(part));
    mac
}

/// The first of the headers that is there. An empty one counts as there: Gitea sends it when no
/// secret is set, and that authenticates nothing.
fn first_present<'a, 'h>(
    delivery: &Delivery<'a>,
    headers: &[&'h str],
) -> Result<Option<(&'h str, &'a [u8])>, Refusal> {
    for header in headers {
        match delivery.header(header) {
            Header::Absent => {}
            Header::Once(value) => return Ok(Some((header, value))),
            Header::Repeated => {
                return Err(Refusal::unauthenticated(format!("the header {header} is there more than once")));
            }
        }
    }
    Ok(None)
}

fn decode(value: &[u8], encoding: Encoding) -> Option<(Hash, Vec<u8>)> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let (hash, digits) = match encoding {
        Encoding::Hex(hash) => (hash, text),
        Encoding::Prefixed => {
            let (prefix, digits) = text.split_once('=')?;
            (Hash::from_prefix(prefix)?, digits)
        }
    };
    // Half the instructions of `hex::decode`, for every delivery.
    let mut signature = vec![0; digits.len() / 2];
    hex::decode_to_slice(digits, &mut signature).ok()?;
    (!signature.is_empty()).then_some((hash, signature))
}

impl Hash {
    fn from_prefix(prefix: &str) -> Option<Hash> {
        match prefix {
            "sha1" => Some(Hash::Sha1),
            "sha256" => Some(Hash::Sha256),
            "sha512" => Some(Hash::Sha512),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB_SIGNATURE: Hmac = Hmac {
        headers: &["X-Hub-Signature-256", "X-Hub-Signature"],
        encoding: Encoding::Prefixed,
        signed: HmacInput::Body,
    };
    const BARE_SIGNATURE: Hmac =
        Hmac { headers: &["X-Signature"], encoding: Encoding::Hex(Hash::Sha1), signed: HmacInput::Payload };

    fn good(scheme: Hmac, unsigned: bool, headers: &[(&str, &str)], body: &str, key: &str) -> bool {
        let headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let key = Key::new("test.key", key.as_bytes().to_vec()).expect("a key");
        let credentials = Credentials { unsigned, ..Credentials::from_key(key) };
        check(&Delivery { headers: &headers, body: body.as_bytes() }, &scheme, &credentials).is_ok()
    }

    fn hex_mac(hash: Hash, key: &str, message: &str) -> String {
        hex::encode(mac(hash, key.as_bytes(), &[message.as_bytes()]))
    }

    /// The example of GitHub's page on validating deliveries.
    #[test]
    fn agrees_with_the_published_vector() {
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(good(
            HUB_SIGNATURE,
            false,
            &[("x-hub-signature-256", signature)],
            "Hello, World!",
            "It's a Secret to Everybody"
        ));
        assert!(!good(
            HUB_SIGNATURE,
            false,
            &[("x-hub-signature-256", signature)],
            "Hello, World?",
            "It's a Secret to Everybody"
        ));
    }

    // Incident 13: the prefix names the algorithm, and the stronger header decides.
    #[test]
    fn the_prefix_decides_and_the_first_header_wins() {
        let key = "test-key";
        let sha1 = format!("sha1={}", hex_mac(Hash::Sha1, key, "body"));
        let sha256 = format!("sha256={}", hex_mac(Hash::Sha256, key, "body"));
        let sha512 = format!("sha512={}", hex_mac(Hash::Sha512, key, "body"));
        for value in [&sha1, &sha256, &sha512] {
            assert!(good(HUB_SIGNATURE, false, &[("X-Hub-Signature", value)], "body", key), "{value}");
            assert!(!good(HUB_SIGNATURE, false, &[("X-Hub-Signature", value)], "body", "other"), "{value}");
        }
        let wrong = format!("sha256={}", hex_mac(Hash::Sha256, "other", "body"));
        assert!(!good(
            HUB_SIGNATURE,
            false,
            &[("X-Hub-Signature-256", &wrong), ("X-Hub-Signature", &sha1)],
            "body",
            key
        ));
        assert!(good(HUB_SIGNATURE, false, &[("X-Hub-Signature-256", &sha256)], "body", key));
    }

    // Incidents 10 and 13.
    #[test]
    fn missing_and_malformed_signatures_are_refused() {
        for value in ["", "sha256=", "sha256", "=", "md5=00", "sha256=zz", "sha256=00", "sha256=0"] {
            assert!(
                !good(HUB_SIGNATURE, false, &[("X-Hub-Signature-256", value)], "body", "test-key"),
                "{value:?}"
            );
            assert!(
                !good(HUB_SIGNATURE, true, &[("X-Hub-Signature-256", value)], "body", "test-key"),
                "{value:?}"
            );
        }
        assert!(!good(HUB_SIGNATURE, false, &[], "body", "test-key"));
        assert!(good(HUB_SIGNATURE, true, &[], "body", "test-key"), "the endpoint says that it is unsigned");
    }

    #[test]
    fn upper_case_digits_are_the_same_number() {
        let value = format!("sha256={}", hex_mac(Hash::Sha256, "test-key", "body").to_uppercase());
        assert!(good(HUB_SIGNATURE, false, &[("X-Hub-Signature-256", &value)], "body", "test-key"));
    }

    // Incident 7.
    #[test]
    fn a_form_is_signed_whole_or_by_its_payload() {
        let form = "payload=%7B%7D";
        let content_type = ("Content-Type", "application/x-www-form-urlencoded");
        let over_form = format!("sha256={}", hex_mac(Hash::Sha256, "test-key", form));
        let over_json = hex_mac(Hash::Sha1, "test-key", "{}");
        assert!(good(
            HUB_SIGNATURE,
            false,
            &[content_type, ("X-Hub-Signature-256", &over_form)],
            form,
            "test-key"
        ));
        assert!(good(BARE_SIGNATURE, false, &[content_type, ("X-Signature", &over_json)], form, "test-key"));
        assert!(!good(
            BARE_SIGNATURE,
            false,
            &[content_type, ("X-Signature", &over_json)],
            "x=%7B%7D",
            "test-key"
        ));
    }
}
