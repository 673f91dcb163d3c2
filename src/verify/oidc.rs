//! Google identity tokens, as Pub/Sub push subscriptions send them.
//! <https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions>

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::fetch::Fetch;
use super::{Refusal, Tools, auth, jwt};
use crate::delivery::Delivery;

/// Whom an endpoint believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleAccount {
    /// The audience of the subscription's token; by default the push endpoint's URL.
    pub audience: String,
    /// The service account that the subscription pushes as.
    pub email: String,
}

/// Google's signing keys, fetched when they are needed and kept.
pub struct GoogleKeys {
    fetch: Arc<dyn Fetch>,
    cache: Arc<Mutex<Cache>>,
    /// One fetch at a time: the second waiter finds what the first one brought.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Cache {
    keys: Option<Arc<JwkSet>>,
    fetched: Option<Instant>,
    last_try: Option<Instant>,
    /// Why the last try brought nothing.
    failure: Option<String>,
}

/// Where Google publishes its keys (the `jwks_uri` of its discovery document).
const KEYS_URL: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// Google rotates its keys every few days and publishes new ones well before they sign.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// Strangers can make up key IDs; each would be a request to Google without this pause.
const PAUSE_BETWEEN_FETCHES: Duration = Duration::from_secs(30);

/// How far the clocks may be apart.
const LEEWAY_SECONDS: u64 = 60;

#[derive(Deserialize)]
struct Claims {
    email: Option<String>,
    email_verified: Option<bool>,
}

/// Checks the bearer token: signature, issuer, audience, expiry, and the account behind it.
pub(super) async fn check(
    delivery: &Delivery<'_>,
    account: Option<&GoogleAccount>,
    tools: &Tools,
) -> Result<(), Refusal> {
    let account = account.ok_or_else(|| Refusal::unproved("the endpoint names no account"))?;
    let token = auth::credentials(delivery, "Bearer")?;
    // Two reasons that tell the operator nothing useful are not worth the risk of a token in a log:
    // errors of the token itself are named by kind, never quoted.
    let header = decode_header(token).map_err(|_| Refusal::unproved("the token's header cannot be read"))?;
    if header.alg != Algorithm::RS256 {
        return Err(Refusal::unproved("the token is not signed with RS256"));
    }
    let key_id = header.kid.ok_or_else(|| Refusal::unproved("the token names no key"))?;
    let key = tools.google_keys.find(&key_id).await?;
    let key = DecodingKey::from_jwk(&key)
        .map_err(|_| Refusal::CannotCheck("Google's key cannot be read".to_owned()))?;

    jwt::install();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[&account.audience]);
    validation.set_issuer(&["accounts.google.com", "https://accounts.google.com"]);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY_SECONDS;
    let claims = decode::<Claims>(token, &key, &validation)
        .map_err(|err| Refusal::unproved(format!("the token is not good: {:?}", err.kind())))?
        .claims;
    if claims.email_verified != Some(true) {
        return Err(Refusal::unproved("the token's email is not verified"));
    }
    if claims.email.as_deref() != Some(account.email.as_str()) {
        return Err(Refusal::unproved("the token is another account's than gcr.email"));
    }
    Ok(())
}

impl GoogleKeys {
    /// Keys that will be fetched with this transport.
    pub fn new(fetch: Arc<dyn Fetch>) -> GoogleKeys {
        GoogleKeys { fetch, cache: Arc::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// The key of this ID. Fetches the set if it is old or does not hold the key, but not more
    /// often than every [`PAUSE_BETWEEN_FETCHES`].
    async fn find(&self, key_id: &str) -> Result<Jwk, Refusal> {
        if let Some(key) = self.cached(key_id) {
            return Ok(key);
        }
        let _one_at_a_time = self.fetching.lock().await;
        if let Some(key) = self.cached(key_id) {
            return Ok(key);
        }
        let refreshed = self.refresh().await;
        let cache = self.cache();
        match (cache.keys.as_ref().and_then(|keys| keys.find(key_id)), refreshed) {
            (Some(key), _) => Ok(key.clone()),
            (None, Ok(())) => Err(Refusal::unproved("the token is signed with a key that is not Google's")),
            (None, Err(why)) => Err(Refusal::CannotCheck(format!("Google's keys cannot be had: {why}"))),
        }
    }

    fn cached(&self, key_id: &str) -> Option<Jwk> {
        let cache = self.cache();
        let fresh = cache.fetched.is_some_and(|fetched| fetched.elapsed() < FRESH);
        cache.keys.as_ref().filter(|_| fresh)?.find(key_id).cloned()
    }

    /// Fetches the set, unless that was tried a moment ago; then the last try's result stands. What
    /// was there stays on failure.
    async fn refresh(&self) -> Result<(), String> {
        {
            let mut cache = self.cache();
            if cache.last_try.is_some_and(|last| last.elapsed() < PAUSE_BETWEEN_FETCHES) {
                return cache.failure.clone().map_or(Ok(()), Err);
            }
            cache.last_try = Some(Instant::now());
            cache.failure = Some("they are being fetched".to_owned());
        }
        // On its own: a sender that hangs up takes the future of its delivery with it.
        let (fetch, cache) = (Arc::clone(&self.fetch), Arc::clone(&self.cache));
        let fetched = tokio::spawn(async move {
            let fetched = fetch_keys(&*fetch).await;
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.failure = fetched.as_ref().err().cloned();
            cache.keys = Some(Arc::new(fetched?));
            cache.fetched = Some(Instant::now());
            Ok(())
        });
        fetched.await.unwrap_or_else(|err| Err(err.to_string()))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch_keys(fetch: &dyn Fetch) -> Result<JwkSet, String> {
    let body = fetch.get(KEYS_URL).await.map_err(|err| err.to_string())?;
    serde_json::from_slice(&body).map_err(|_| format!("{KEYS_URL} does not answer with a key set"))
}
