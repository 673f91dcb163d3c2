//! Tokens of issuers whose keys are in the config: nothing is fetched for a token that somebody made up.

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::jwt;
use super::token_claims::{LEEWAY_SECONDS, unverified_issuer};

/// The public keys of an issuer.
pub struct PinnedKeys(JwkSet);

#[derive(Deserialize)]
struct KeySetDocument {
    keys: Vec<Value>,
}

/// A text is not a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a JSON Web Key Set")]
pub struct NotAKeySet;

/// A token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinnedTokenError {
    /// No key of the issuer has signed it. Whoever sent it is a stranger.
    #[error("no key of its issuer has signed the token")]
    Signature,
    #[error("the token has expired; if it is new, compare the clocks of both sides")]
    Expired,
    #[error("the token is not valid yet; compare the clocks of both sides")]
    NotYetValid,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token lacks a claim that it has to have")]
    Incomplete,
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
        if keys.is_empty() { Err(NotAKeySet) } else { Ok(PinnedKeys(JwkSet { keys })) }
    }

    /// Returns the IDs of the keys; none for a key without one.
    pub fn ids(&self) -> impl Iterator<Item = Option<&str>> {
        self.0.keys.iter().map(|key| key.common.key_id.as_deref())
    }

    /// Checks a token; gives its claims.
    ///
    /// # Errors
    /// What is wrong with it. Only for [`PinnedTokenError::Signature`] its sender is unknown.
    pub fn check(&self, token: &str, issuer: &str, audience: &str) -> Result<Value, PinnedTokenError> {
        let header = decode_header(token).map_err(|_| PinnedTokenError::Signature)?;
        if !jwt::is_asymmetric(header.alg) {
            return Err(PinnedTokenError::Signature);
        }
        let key = match &header.kid {
            Some(id) => self.0.find(id),
            None if self.0.keys.len() == 1 => self.0.keys.first(),
            None => None,
        };
        let key = key.and_then(|key| DecodingKey::from_jwk(key).ok()).ok_or(PinnedTokenError::Signature)?;
        jwt::install();
        let mut validation = Validation::new(header.alg);
        validation.set_audience(&[audience]);
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let decoded = decode::<Value>(token, &key, &validation).map(|token| token.claims);
        decoded.map_err(|err| match err.kind() {
            ErrorKind::ExpiredSignature => PinnedTokenError::Expired,
            ErrorKind::ImmatureSignature => PinnedTokenError::NotYetValid,
            ErrorKind::InvalidAudience => PinnedTokenError::Audience,
            ErrorKind::MissingRequiredClaim(_) => PinnedTokenError::Incomplete,
            _ => PinnedTokenError::Signature,
        })
    }
}

/// Returns issuer and key ID as a token names them, before it is verified: only good to find the key.
pub fn unverified_names(token: &str) -> Option<(String, Option<String>)> {
    let key_id = decode_header(token).ok()?.kid;
    Some((unverified_issuer(token)?, key_id))
}
