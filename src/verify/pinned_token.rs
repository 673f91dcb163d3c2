//! Tokens of issuers whose keys are in the config: nothing is fetched for a token that somebody made up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::jwt;
use super::token_claims::{LEEWAY_SECONDS, unverified_issuer};

/// The public keys of an issuer, ready to be used.
pub struct PinnedKeys(Vec<(Option<String>, DecodingKey)>);

/// A token that a key of its issuer has signed; nothing else is known of it.
pub struct SignedClaims(Value);

#[derive(Deserialize)]
struct KeySetDocument {
    keys: Vec<Value>,
}

/// A text is not a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a JSON Web Key Set")]
pub struct NotAKeySet;

/// A token whose signature is good is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinnedTokenError {
    #[error("the token has expired; if it is new, compare the clocks of both sides")]
    Expired,
    #[error("the token is not valid yet; compare the clocks of both sides")]
    NotYetValid,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token does not say when it expires")]
    WithoutExpiry,
}

impl PinnedKeys {
    /// Reads a JSON Web Key Set. Keys of kinds that are not known here are passed over.
    ///
    /// # Errors
    /// When it is not one, or has no key that is known.
    pub fn from_json(json: &[u8]) -> Result<PinnedKeys, NotAKeySet> {
        let set: KeySetDocument = serde_json::from_slice(json).map_err(|_| NotAKeySet)?;
        let keys: Vec<Jwk> =
            set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect();
        let keys =
            keys.iter().filter_map(|key| Some((key.common.key_id.clone(), DecodingKey::from_jwk(key).ok()?)));
        let keys: Vec<(Option<String>, DecodingKey)> = keys.collect();
        if keys.is_empty() { Err(NotAKeySet) } else { Ok(PinnedKeys(keys)) }
    }

    /// Returns the IDs of the keys; none for a key without one.
    pub fn ids(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.iter().map(|(id, _)| id.as_deref())
    }

    /// Checks the signature of a token, with one key; returns its claims, if the key has signed it.
    pub fn signed_claims(&self, token: &str) -> Option<SignedClaims> {
        let header = decode_header(token).ok()?;
        if !jwt::is_asymmetric(header.alg) {
            return None;
        }
        let (_, key) = self.0.iter().find(|(id, _)| *id == header.kid)?;
        jwt::install();
        let mut validation = Validation::new(header.alg);
        // What the claims say is told apart below: the answer to a token that was signed may give a reason.
        validation.validate_aud = false;
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        decode::<Value>(token, key, &validation).ok().map(|token| SignedClaims(token.claims))
    }
}

impl SignedClaims {
    /// Returns a claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Whether the token is for this audience, which is a text or one of a list.
    pub fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(list)) => list.iter().any(|one| one == audience),
            _ => false,
        }
    }

    /// Returns how long the token is valid from now on.
    ///
    /// # Errors
    /// When it has expired, is not valid yet, or says nothing of it.
    pub fn time_left(&self, now: SystemTime) -> Result<Duration, PinnedTokenError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let seconds = |name: &str| self.0.get(name).and_then(Value::as_f64);
        if seconds("nbf").is_some_and(|begins| begins > now + LEEWAY_SECONDS as f64) {
            return Err(PinnedTokenError::NotYetValid);
        }
        let left = seconds("exp").ok_or(PinnedTokenError::WithoutExpiry)? - now;
        if left <= 0.0 {
            return Err(PinnedTokenError::Expired);
        }
        Ok(Duration::from_secs_f64(left.min(MAX_TIME_LEFT_SECONDS)))
    }
}

/// A token that is valid for longer is looked at again then.
const MAX_TIME_LEFT_SECONDS: f64 = 366.0 * 24.0 * 3600.0;

/// Returns issuer and key ID as a token names them, before it is verified: only good to find the key.
pub fn unverified_names(token: &str) -> Option<(String, Option<String>)> {
    let key_id = decode_header(token).ok()?.kid;
    Some((unverified_issuer(token)?, key_id))
}
