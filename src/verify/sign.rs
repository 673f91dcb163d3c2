//! The provider's side of each authentication, for `flux-recv send`, `flux-recv demo` and the tests.

use std::time::{SystemTime, UNIX_EPOCH};

use super::hmac::{Encoding, Hash, Hmac, HmacInput, mac};
use super::{Authentication, Credentials, standard_webhooks};
use crate::delivery::Delivery;

/// A delivery cannot be signed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotSign {
    /// Only Google holds the private key.
    #[error("deliveries of this endpoint are signed by Google, nobody else can")]
    OnlyGoogle,
    /// Only an issuer of tokens holds the private key.
    #[error("deliveries of this endpoint carry a token of its issuer, nobody else can make one")]
    OnlyIssuer,
    /// Only Amazon holds the private key.
    #[error("messages of this endpoint are signed by Amazon SNS, nobody else can")]
    OnlyAmazon,
    /// Nothing rests on a key.
    #[error("the endpoint has no key to sign with")]
    NoKey,
    /// A header cannot hold the key.
    #[error("the key is not text, so a header cannot carry it")]
    KeyIsNotText,
}

/// The headers that prove a delivery, as its provider would add them.
///
/// # Errors
/// See [`CannotSign`].
pub fn sign(
    delivery: &Delivery<'_>,
    authentication: Authentication,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<Vec<(String, String)>, CannotSign> {
    let own_key = credentials.own_key().ok_or(CannotSign::NoKey)?;
    let key = own_key.without_newline();
    let key_text = || std::str::from_utf8(key).map(str::to_owned).map_err(|_| CannotSign::KeyIsNotText);
    Ok(match authentication {
        Authentication::PathOnly => Vec::new(),
        Authentication::Configured => match credentials.header() {
            Some(auth) => vec![auth.header(&key_text()?)],
            None => Vec::new(),
        },
        Authentication::TokenOrHmac(scheme) => vec![hmac_header(delivery, &scheme, key)],
        Authentication::StandardWebhooks => {
            let signing_key = standard_webhooks::signing_key(own_key);
            standard_webhook_headers(delivery, signing_key.as_deref().unwrap_or(key), now)
        }
        Authentication::GoogleIdentity => return Err(CannotSign::OnlyGoogle),
        Authentication::OpenId => return Err(CannotSign::OnlyIssuer),
        Authentication::Sns => return Err(CannotSign::OnlyAmazon),
        Authentication::Token { header } => vec![(header.to_owned(), key_text()?)],
        Authentication::Hmac(scheme) => vec![hmac_header(delivery, &scheme, key)],
        Authentication::GitLab => match standard_webhooks::signing_key(own_key) {
            None => vec![("X-Gitlab-Token".to_owned(), key_text()?)],
            Some(signing_key) => standard_webhook_headers(delivery, &signing_key, now),
        },
    })
}

fn standard_webhook_headers(
    delivery: &Delivery<'_>,
    signing_key: &[u8],
    now: SystemTime,
) -> Vec<(String, String)> {
    let id = format!("msg_{:016x}", fastrand::u64(..));
    let timestamp = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()).to_string();
    let signature = standard_webhooks::signature(signing_key, &id, &timestamp, delivery.body);
    vec![
        ("webhook-id".to_owned(), id),
        ("webhook-timestamp".to_owned(), timestamp),
        ("webhook-signature".to_owned(), signature),
    ]
}

fn hmac_header(delivery: &Delivery<'_>, scheme: &Hmac, key: &[u8]) -> (String, String) {
    let payload = match scheme.signed {
        HmacInput::Body => None,
        HmacInput::Payload => delivery.payload(),
    };
    let message = payload.as_deref().unwrap_or(delivery.body);
    let value = match scheme.encoding {
        Encoding::Prefixed => format!("sha256={}", hex::encode(mac(Hash::Sha256, key, &[message]))),
        Encoding::Hex(hash) => hex::encode(mac(hash, key, &[message])),
    };
    (scheme.headers[0].to_owned(), value)
}
