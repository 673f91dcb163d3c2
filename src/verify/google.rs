//! Google identity tokens, as Pub/Sub push subscriptions send them.
//! <https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions>

use super::key_sets::KeySetSource;
use super::token_claims::{self, ExpectedClaims};
use super::{Refusal, VerifyContext, auth};
use crate::delivery::Delivery;

/// The Google account that an endpoint accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleAccount {
    /// The audience of the subscription's token; by default the push endpoint's URL.
    pub audience: String,
    /// The service account that the subscription pushes as.
    pub email: String,
}

/// The URL of Google's keys (the `jwks_uri` of its discovery document).
const GOOGLE_KEYS_URL: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// Checks the bearer token: signature, issuer, audience, expiry, and the account behind it.
pub(super) async fn check(
    delivery: &Delivery<'_>,
    account: Option<&GoogleAccount>,
    tools: &VerifyContext,
) -> Result<(), Refusal> {
    let account = account.ok_or_else(|| Refusal::unauthenticated("the endpoint names no account"))?;
    let token = auth::credentials(delivery, "Bearer")?;
    let wanted = ExpectedClaims {
        keys: KeySetSource::At(GOOGLE_KEYS_URL),
        issuers: &["accounts.google.com", "https://accounts.google.com"],
        audience: &account.audience,
    };
    let claims = token_claims::check(token, wanted, &tools.keys).await?;
    if claims["email_verified"] != true {
        return Err(Refusal::unauthenticated("the token's email is not verified"));
    }
    if claims["email"].as_str() != Some(account.email.as_str()) {
        return Err(Refusal::unauthenticated("the token is another account's than gcr.email"));
    }
    Ok(())
}
