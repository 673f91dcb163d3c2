//! The public keys of token issuers, fetched when they are needed and kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::Refusal;
use super::fetch::{Fetch, FetchError, Trust};

/// The key sets of all issuers that endpoints name.
pub struct KeySets {
    fetch: Arc<dyn Fetch>,
    /// Those of issuers that no endpoint names any more are dropped.
    sets: Mutex<HashMap<(bool, Trust, String), Arc<KeySet>>>,
    waiters: Semaphore,
}

/// The location of a key set.
#[derive(Debug, Clone, Copy)]
pub(super) enum KeySetSource<'s> {
    /// The document at this URL.
    At(&'s str),
    /// Where this issuer's discovery document says.
    /// <https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig>
    IssuedBy(&'s str, Trust),
}

struct KeySet {
    cache: Arc<Mutex<Cache>>,
    /// One fetch at a time: the second waiter finds what the first one brought.
    fetching: tokio::sync::Mutex<()>,
    waiters: Semaphore,
}

/// Deliveries that wait for the keys of one issuer, and of all. Each holds a connection for as long as the
/// issuer does not answer, and issuers of Receivers are chosen by tenants.
const MAX_WAITERS_OF_ISSUER: usize = 16;
const MAX_WAITERS: usize = 128;

impl Default for KeySet {
    fn default() -> KeySet {
        let waiters = Semaphore::new(MAX_WAITERS_OF_ISSUER);
        KeySet { cache: Arc::default(), fetching: tokio::sync::Mutex::default(), waiters }
    }
}

#[derive(Default)]
struct Cache {
    keys: Option<Arc<JwkSet>>,
    fetched: Option<Instant>,
    last_try: Option<Instant>,
    /// Why the last try brought nothing.
    failure: Option<KeySetError>,
}

/// The keys of an issuer cannot be fetched.
#[derive(Debug, Clone, thiserror::Error)]
enum KeySetError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0} is the document of another issuer")]
    OtherIssuer(String),
    #[error("{0} names keys that are not served over TLS")]
    KeysWithoutTls(String),
    #[error("{0} answers with more than {MAX_KEY_SET_BYTES} bytes")]
    TooLong(String),
    #[error("{0} answers with something else")]
    Unreadable(String),
    #[error("the issuer has more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("they are being fetched")]
    InProgress,
    #[error("fetching them was aborted")]
    Aborted,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Issuers rotate their keys every few days or weeks and publish new ones well before they sign.
const KEY_SET_REFRESH_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Keys that are older are not used, whether newer ones can be fetched or not: one that its issuer has
/// withdrawn is good for no longer than this.
const MAX_KEY_SET_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Strangers can make up key IDs; each would be a request to the issuer without this pause.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(30);

impl KeySets {
    /// Key sets that will be fetched with this transport.
    pub fn new(fetch: Arc<dyn Fetch>) -> KeySets {
        KeySets { fetch, sets: Mutex::default(), waiters: Semaphore::new(MAX_WAITERS) }
    }

    /// The key of this ID, or the only one if a token names none. Fetches the set if it is old or does
    /// not hold the key, but not more often than every [`MIN_FETCH_INTERVAL`].
    pub(super) async fn find(&self, source: KeySetSource<'_>, key_id: Option<&str>) -> Result<Jwk, Refusal> {
        let set = self.set(source);
        if let Some(key) = set.cached(key_id) {
            return Ok(key);
        }
        let waits = || Some((self.waiters.try_acquire().ok()?, set.waiters.try_acquire().ok()?));
        let Some(_waits) = waits() else {
            return Err(Refusal::CannotCheck("too many deliveries wait for the issuer's keys".to_owned()));
        };
        let _one_at_a_time = set.fetching.lock().await;
        if let Some(key) = set.cached(key_id) {
            return Ok(key);
        }
        let refreshed = set.refresh(&self.fetch, source).await;
        let mut cache = set.cache.lock();
        if cache.fetched.is_some_and(|fetched| fetched.elapsed() >= MAX_KEY_SET_AGE) {
            cache.keys = None;
        }
        match (cache.keys.as_ref().and_then(|keys| pick(keys, key_id)), refreshed) {
            (Some(key), _) => Ok(key.clone()),
            (None, Ok(())) => {
                Err(Refusal::unauthenticated("the token is signed with a key that is not its issuer's"))
            }
            (None, Err(why)) => Err(Refusal::CannotCheck(format!("the issuer's keys cannot be had: {why}"))),
        }
    }

    fn set(&self, source: KeySetSource<'_>) -> Arc<KeySet> {
        // An issuer may call itself by the address of another one's keys.
        let (is_issuer, trust, address) = match source {
            KeySetSource::At(address) => (false, Trust::Operator, address),
            KeySetSource::IssuedBy(address, trust) => (true, trust, address),
        };
        let mut sets = self.sets.lock();
        Arc::clone(sets.entry((is_issuer, trust, address.to_owned())).or_default())
    }

    /// Drops the keys of issuers that are not named any more.
    pub(super) fn retain(&self, is_named: impl Fn(&str) -> bool) {
        let mut sets = self.sets.lock();
        sets.retain(|(is_issuer, _, address), _| !is_issuer || is_named(address));
    }
}

impl KeySet {
    fn cached(&self, key_id: Option<&str>) -> Option<Jwk> {
        let cache = self.cache.lock();
        let fresh = cache.fetched.is_some_and(|fetched| fetched.elapsed() < KEY_SET_REFRESH_INTERVAL);
        pick(cache.keys.as_ref().filter(|_| fresh)?, key_id).cloned()
    }

    /// Fetches the set, unless that was tried a moment ago; then the last try's result stands. What
    /// was there stays on failure.
    async fn refresh(&self, fetch: &Arc<dyn Fetch>, source: KeySetSource<'_>) -> Result<(), KeySetError> {
        {
            let mut cache = self.cache.lock();
            if cache.last_try.is_some_and(|last| last.elapsed() < MIN_FETCH_INTERVAL) {
                return cache.failure.clone().map_or(Ok(()), Err);
            }
            cache.last_try = Some(Instant::now());
            cache.failure = Some(KeySetError::InProgress);
        }
        // On its own: a provider that hangs up takes the future of its delivery with it.
        let (fetch, cache) = (Arc::clone(fetch), Arc::clone(&self.cache));
        let (trust, address) = match source {
            KeySetSource::At(address) => (None, address.to_owned()),
            KeySetSource::IssuedBy(issuer, trust) => (Some(trust), issuer.to_owned()),
        };
        let fetched = tokio::spawn(async move {
            let fetched = match trust {
                None => get(&*fetch, &address, Trust::Operator).await.and_then(bounded),
                Some(trust) => discover(&*fetch, &address, trust).await.and_then(bounded),
            };
            let mut cache = cache.lock();
            cache.failure = fetched.as_ref().err().cloned();
            cache.keys = Some(Arc::new(fetched?));
            cache.fetched = Some(Instant::now());
            Ok(())
        });
        fetched.await.unwrap_or(Err(KeySetError::Aborted))
    }
}

fn pick<'k>(keys: &'k JwkSet, key_id: Option<&str>) -> Option<&'k Jwk> {
    match key_id {
        Some(key_id) => keys.find(key_id),
        None if keys.keys.len() == 1 => keys.keys.first(),
        None => None,
    }
}

/// An issuer that is reached over TLS has its keys there as well.
async fn discover(fetch: &dyn Fetch, issuer: &str, trust: Trust) -> Result<JwkSet, KeySetError> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let document: Discovery = get(fetch, &url, trust).await?;
    if document.issuer != issuer {
        return Err(KeySetError::OtherIssuer(url));
    }
    if issuer.starts_with("https://") && !document.jwks_uri.starts_with("https://") {
        return Err(KeySetError::KeysWithoutTls(url));
    }
    get(fetch, &document.jwks_uri, trust).await
}

/// Keys of an issuer; those in use and those to come.
const MAX_KEYS: usize = 100;

/// Bytes of a key set or a discovery document.
const MAX_KEY_SET_BYTES: usize = 64 << 10;

fn bounded(keys: JwkSet) -> Result<JwkSet, KeySetError> {
    match keys.keys.len() <= MAX_KEYS {
        true => Ok(keys),
        false => Err(KeySetError::TooManyKeys),
    }
}

async fn get<T: DeserializeOwned>(fetch: &dyn Fetch, url: &str, trust: Trust) -> Result<T, KeySetError> {
    let body = fetch.get_as(url, trust).await?;
    if body.len() > MAX_KEY_SET_BYTES {
        return Err(KeySetError::TooLong(url.to_owned()));
    }
    serde_json::from_slice(&body).map_err(|_| KeySetError::Unreadable(url.to_owned()))
}

#[cfg(test)]
mod tests {
    use futures::future::{BoxFuture, join_all};

    use super::*;

    /// Issuers that accept connections and never answer.
    struct SilentIssuers;

    impl Fetch for SilentIssuers {
        fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
            Box::pin(std::future::pending())
        }
    }

    // The attack: deliveries with tokens of silent issuers held all connections.
    #[tokio::test]
    async fn few_deliveries_wait_for_an_issuer_that_does_not_answer() {
        let keys = KeySets::new(Arc::new(SilentIssuers));
        for (issuers, deliveries, waiting) in [(1, 40, MAX_WAITERS_OF_ISSUER), (20, 40, MAX_WAITERS)] {
            let urls: Vec<String> =
                (0..issuers).map(|at| format!("https://issuer-{at}-of-{issuers}.example.com")).collect();
            let find = async |url: &str| {
                let found = keys.find(KeySetSource::IssuedBy(url, Trust::Tenant), None);
                let found = tokio::time::timeout(Duration::from_millis(200), found).await;
                matches!(found, Ok(Err(Refusal::CannotCheck(why))) if why.starts_with("too many"))
            };
            let all = urls.iter().flat_map(|url| std::iter::repeat_n(url, deliveries)).map(|url| find(url));
            let refused = join_all(all).await.into_iter().filter(|is_refused| *is_refused).count();
            assert_eq!(refused, issuers * deliveries - waiting, "{issuers} issuers");
        }
    }
}
