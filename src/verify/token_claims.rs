//! Signed tokens (JWT, RFC 7519): signature, issuer, audience and times. The meaning of the
//! subject is up to the caller.

use jsonwebtoken::{DecodingKey, Header, Validation, decode, decode_header};
use serde_json::Value;

use super::key_sets::{KeySetSource, KeySets};
use super::{Refusal, jwt};

/// The issuer and the audience of the tokens that are accepted.
pub(super) struct ExpectedClaims<'w> {
    /// Where the issuer's keys are.
    pub(super) keys: KeySetSource<'w>,
    /// How the issuer may call itself.
    pub(super) issuers: &'w [&'w str],
    /// Whom the token has to be for.
    pub(super) audience: &'w str,
}

/// The seconds that the clocks may differ.
pub(super) const LEEWAY_SECONDS: u64 = 60;

/// Checks a token; gives its claims. Errors name what is wrong by its kind and never quote the token.
pub(super) async fn check(token: &str, wanted: ExpectedClaims<'_>, keys: &KeySets) -> Result<Value, Refusal> {
    let header =
        decode_header(token).map_err(|_| Refusal::unauthenticated("the token's header cannot be read"))?;
    if !jwt::is_asymmetric(header.alg) {
        return Err(Refusal::unauthenticated("the token is not signed with a private key"));
    }
    let key = keys.find(wanted.keys, header.kid.as_deref()).await?;
    let key = DecodingKey::from_jwk(&key)
        .map_err(|_| Refusal::CannotCheck("the issuer's key cannot be read".to_owned()))?;
    claims(token, &header, &key, &wanted)
}

fn claims(
    token: &str,
    header: &Header,
    key: &DecodingKey,
    wanted: &ExpectedClaims<'_>,
) -> Result<Value, Refusal> {
    jwt::install();
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[wanted.audience]);
    validation.set_issuer(wanted.issuers);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY_SECONDS;
    let decoded = decode::<Value>(token, key, &validation);
    decoded
        .map(|token| token.claims)
        .map_err(|err| Refusal::unauthenticated(format!("the token is not good: {:?}", err.kind())))
}

/// Returns the issuer that a token names, before it is verified: only good to find the issuer's keys.
pub(super) fn unverified_issuer(token: &str) -> Option<String> {
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token).ok()?.claims;
    claims.get("iss")?.as_str().map(str::to_owned)
}
