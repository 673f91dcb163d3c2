//! Authentication of deliveries.
//!
//! It is data: a provider names one of the schemes of this module, and each scheme is
//! written once, over the raw bytes as received. [`verify`] is the only maker of [`Verified`], and
//! only a [`Verified`] can be parsed.

pub mod auth;
pub mod fetch;
mod google;
mod hmac;
mod jwt;
pub mod key;
mod key_sets;
pub mod oidc;
pub mod pinned_token;
mod public_address;
pub mod sign;
mod sns;
pub mod sns_address;
mod standard_webhooks;
pub mod test_mark;
mod token;
mod token_claims;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde::de::IgnoredAny;

use self::auth::Auth;
use self::fetch::Fetch;
pub use self::google::GoogleAccount;
pub use self::hmac::{Encoding, Hash, Hmac, HmacInput};
use self::key::Key;
use self::key_sets::KeySets;
use self::oidc::Issuer;
use self::sns::Certificates;
use crate::bounded_text::BoundedText;
use crate::delivery::Delivery;
use crate::trace_parent::TraceParent;

/// A way to prove oneself.
#[derive(Debug, Clone, Copy)]
pub enum Authentication {
    /// A keyed hash over what was sent.
    Hmac(Hmac),
    /// The key itself, in this header.
    Token {
        /// The header that carries it.
        header: &'static str,
    },
    /// GitLab: a Standard Webhooks signature if the key is a signing token (`whsec_…`), else the
    /// key itself in `X-Gitlab-Token`.
    GitLab,
    /// A Google identity token for the configured audience and service account.
    GoogleIdentity,
    /// A token of a configured OpenID Connect issuer that says what the endpoint expects.
    OpenId,
    /// The signature in a message of Amazon SNS, of a configured topic.
    Sns,
    /// The key itself or a keyed hash under it, in one header, as the provider is set (Artifactory).
    TokenOrHmac(Hmac),
    /// A Standard Webhooks signature.
    StandardWebhooks,
    /// What the endpoint says: the provider signs nothing of its own, but may add a header.
    Configured,
    /// Nothing: knowing the path is enough.
    PathOnly,
}

/// The keys and requirements that a delivery to an endpoint is verified against.
pub struct Credentials {
    /// The endpoint's keys: its own, which also makes its path, then those that are as good while a
    /// key is being changed at the provider. None where nothing rests on a key.
    pub keys: Vec<Key>,
    /// What the delivery has to show beside a key, or in place of one.
    pub expects: Requirement,
    /// Whether a delivery without any signature is good enough (a wrong one never is).
    pub unsigned: bool,
}

/// The part of authentication that the scheme leaves to the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing but the hook path and the key.
    KeyAlone,
    /// The key in this header, for [`Authentication::Configured`].
    Header(Auth),
    /// A token of this account, for [`Authentication::GoogleIdentity`].
    Google(GoogleAccount),
    /// A token of one of these issuers, for [`Authentication::OpenId`].
    Issuers(Vec<Issuer>),
    /// A message of one of these topics, for [`Authentication::Sns`].
    Topics(Vec<String>),
}

impl Credentials {
    /// Nothing but a key.
    pub fn from_key(key: Key) -> Credentials {
        Credentials { keys: vec![key], expects: Requirement::KeyAlone, unsigned: false }
    }

    /// The endpoint's own key.
    pub fn own_key(&self) -> Option<&Key> {
        self.keys.first()
    }

    /// The header that holds the key, if the endpoint has chosen one.
    pub fn header(&self) -> Option<&Auth> {
        match &self.expects {
            Requirement::Header(auth) => Some(auth),
            _ => None,
        }
    }

    /// The issuers whose tokens are accepted.
    pub fn issuers(&self) -> &[Issuer] {
        match &self.expects {
            Requirement::Issuers(issuers) => issuers,
            _ => &[],
        }
    }

    /// The topics whose messages are accepted.
    pub fn topics(&self) -> &[String] {
        match &self.expects {
            Requirement::Topics(topics) => topics,
            _ => &[],
        }
    }

    /// The account whose tokens are accepted.
    pub fn google_account(&self) -> Option<&GoogleAccount> {
        match &self.expects {
            Requirement::Google(account) => Some(account),
            _ => None,
        }
    }
}

/// The parts of verification from outside: the network and the clock.
pub struct VerifyContext {
    /// Fetches what proofs and handshakes need from the network.
    pub fetch: Arc<dyn Fetch>,
    keys: KeySets,
    certificates: Certificates,
    /// The time of day, for signatures that grow old.
    now: fn() -> SystemTime,
}

impl VerifyContext {
    /// Creates it with this transport and this clock.
    pub fn new(fetch: Arc<dyn Fetch>, now: fn() -> SystemTime) -> VerifyContext {
        let (keys, certificates) = (KeySets::new(Arc::clone(&fetch)), Certificates::new(Arc::clone(&fetch)));
        VerifyContext { fetch, keys, certificates, now }
    }

    /// Drops what was fetched from issuers that no endpoint names any more.
    pub fn retain_issuers(&self, is_named: impl Fn(&str) -> bool) {
        self.keys.retain(is_named);
    }
}

/// A delivery that passed authentication.
pub struct Verified<'a> {
    delivery: Delivery<'a>,
    payload: Option<Cow<'a, str>>,
    /// The name of the key that verified it; none where something else than a key did.
    pub key: Option<Arc<str>>,
    /// The claims of the token that has proved it, if one has.
    pub claims: Option<serde_json::Value>,
}

/// The reason why a delivery is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no authentication, or it is not for this delivery. The reason is for the log only.
    Unauthenticated(String),
    /// Whether the authentication is good cannot be found out just now.
    CannotCheck(String),
}

impl Refusal {
    fn unauthenticated(why: impl Into<String>) -> Refusal {
        Refusal::Unauthenticated(why.into())
    }
}

/// Checks that the delivery comes from who holds the endpoint's key.
///
/// # Errors
/// See [`Refusal`]; a missing, empty, repeated or malformed authentication is a refusal.
pub async fn verify<'a>(
    delivery: Delivery<'a>,
    authentication: Authentication,
    credentials: &Credentials,
    tools: &VerifyContext,
) -> Result<Verified<'a>, Refusal> {
    let key = match authentication {
        Authentication::Hmac(scheme) => hmac::check(&delivery, &scheme, credentials)?,
        Authentication::Token { header } => {
            Some(first_matching_key(credentials, |key| token::check(&delivery, header, key))?)
        }
        Authentication::GitLab => {
            let now = (tools.now)();
            Some(first_matching_key(credentials, |key| {
                standard_webhooks::check_or_token(&delivery, key, now)
            })?)
        }
        Authentication::GoogleIdentity => {
            google::check(&delivery, credentials.google_account(), tools).await?;
            None
        }
        Authentication::OpenId => {
            let claims = oidc::check(&delivery, credentials.issuers(), tools).await?;
            return Ok(Verified { claims: Some(claims), ..Verified::new(delivery, None) });
        }
        Authentication::Sns => {
            sns::check(&delivery, credentials.topics(), tools).await?;
            None
        }
        Authentication::TokenOrHmac(scheme) => Some(first_matching_key(credentials, |key| {
            token::check(&delivery, scheme.headers[0], key)
                .or_else(|_| hmac::check_key(&delivery, &scheme, key))
        })?),
        Authentication::StandardWebhooks => {
            let now = (tools.now)();
            Some(first_matching_key(credentials, |key| standard_webhooks::check(&delivery, key, now))?)
        }
        Authentication::Configured => match credentials.header() {
            Some(auth) => Some(first_matching_key(credentials, |key| auth::check(&delivery, auth, key))?),
            None if credentials.unsigned => None,
            None => {
                return Err(Refusal::unauthenticated(
                    "the endpoint needs authentication and does not say which",
                ));
            }
        },
        Authentication::PathOnly => None,
    };
    Ok(Verified::new(delivery, key))
}

/// Returns the name of the first key that passes; if none does, what is wrong for the endpoint's own.
fn first_matching_key(
    credentials: &Credentials,
    check: impl Fn(&Key) -> Result<(), Refusal>,
) -> Result<Arc<str>, Refusal> {
    let mut why = None;
    for key in &credentials.keys {
        match check(key) {
            Ok(()) => return Ok(Arc::clone(key.name())),
            Err(refusal) => why = why.or(Some(refusal)),
        }
    }
    Err(why.unwrap_or_else(|| Refusal::unauthenticated("the endpoint has no key")))
}

/// A verified payload cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

impl Unreadable {
    /// The payload is at fault, for this reason.
    pub fn payload(why: impl fmt::Display) -> Unreadable {
        Unreadable(BoundedText::from_display(format_args!("cannot read the payload: {why}")).to_string())
    }
}

impl<'a> Verified<'a> {
    /// Bytes that are no UTF-8 become the replacement character: they mostly stand in fields that
    /// nobody reads.
    fn new(delivery: Delivery<'a>, key: Option<Arc<str>>) -> Verified<'a> {
        let payload = delivery.payload().map(|payload| match payload {
            Cow::Borrowed(bytes) => text(bytes),
            Cow::Owned(bytes) => Cow::Owned(text(&bytes).into_owned()),
        });
        Verified { delivery, payload, key, claims: None }
    }

    /// The value of a header that is there once.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.delivery.text(name)
    }

    /// The trace that it belongs to, if its header is valid.
    pub fn trace(&self) -> Option<TraceParent> {
        TraceParent::parse(self.header("traceparent")?).ok()
    }

    /// The headers by their names in lower case, several values joined by commas; without those that
    /// prove something or could, but for `known_good`.
    pub fn plain_headers(&self, known_good: &[&str], secret: Option<&str>) -> BTreeMap<String, String> {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        self.delivery.headers.visit_all(&mut |name, value| {
            let name = name.to_ascii_lowercase();
            let is_known_good = known_good.iter().any(|known| name.eq_ignore_ascii_case(known));
            let is_secret = secret.is_some_and(|secret| name.eq_ignore_ascii_case(secret))
                || SECRET_HEADERS.iter().any(|part| name.contains(part));
            if is_secret && !is_known_good {
                return;
            }
            let value = String::from_utf8_lossy(value);
            headers
                .entry(name)
                .and_modify(|all| *all = format!("{all}, {value}"))
                .or_insert(value.into_owned());
        });
        headers
    }

    /// The length of the body, in bytes.
    pub fn body_length(&self) -> usize {
        self.delivery.body.len()
    }

    /// Whether the payload is JSON, also out of a form.
    pub fn is_json(&self) -> bool {
        self.json::<IgnoredAny>().is_ok()
    }

    /// Reads the payload, also out of a form. Fields that `T` does not name are passed over; bytes
    /// behind the JSON value are an error.
    ///
    /// # Errors
    /// Names the field that could not be read.
    pub fn json<'v, T: Deserialize<'v>>(&'v self) -> Result<T, Unreadable> {
        let payload = self.payload.as_deref();
        from_json(payload.ok_or_else(|| Unreadable("the form has no field `payload`".to_owned()))?)
    }
}

/// Parts of the names of headers that may hold a secret.
const SECRET_HEADERS: [&str; 9] =
    ["auth", "token", "signature", "secret", "cookie", "key", "password", "credential", "x-flux-recv-test"];

/// The bytes as text, which is never longer: a sign for each piece that is not UTF-8. (The usual replacement
/// would make three bytes of one.)
fn text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push('?');
        }
    }
    Cow::Owned(text)
}

/// Reads JSON; on failure reads it again, slower, to find out which field is at fault.
///
/// # Errors
/// Names the field that could not be read.
pub fn from_json<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, Unreadable> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let deserializer = &mut serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(deserializer) {
        Err(err) => Err(Unreadable::payload(err)),
        Ok(_) => Err(Unreadable::payload("more text behind the JSON value")),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{Delivery, Verified};

    /// Verifies any delivery, for tests of what comes after.
    pub(crate) fn assume_verified(delivery: Delivery<'_>) -> Verified<'_> {
        Verified::new(delivery, None)
    }
}
