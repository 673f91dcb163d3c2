//! Who a request for the stream comes from. A stranger costs a hash, and a few checks of a signature if the token
//! names a key of the config; nothing is fetched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use super::autoreconciler::ClientGrant;
use crate::fleet::options::{
    GrantedEndpoints, PublisherOptions, SubscriberAuthentication, SubscriberOptions, TokenRequirement,
};
use crate::fleet::signature::{PublicKey, SigningKey};
use crate::verify::pinned_token::{PinnedKeys, PinnedTokenError, SignedClaims, unverified_names};

/// The subscribers of a config, ready to be looked up.
pub(super) struct SubscriberTable {
    /// Tells the table from those before it.
    pub(super) generation: u64,
    signing_keys: Vec<SigningKey>,
    pub(super) stagger: Duration,
    by_name: HashMap<Arc<str>, Arc<GrantedSubscriber>>,
    /// Hashed together with the salt, so that the time of a look-up tells nothing.
    by_key: HashMap<[u8; 32], Arc<GrantedSubscriber>>,
    /// By issuer and key ID; issuers of private clusters often share one name.
    by_token_key: HashMap<(String, Option<String>), Vec<TokenIssuer>>,
    /// Clients of flux-webhook-autoreconciler, with the hash of their secret.
    clients: Option<([u8; 32], Arc<ClientGrant>)>,
    salt: [u8; 16],
}

/// A subscriber of the config.
pub(super) struct GrantedSubscriber {
    pub(super) name: Arc<str>,
    pub(super) endpoints: GrantedEndpoints,
    /// Changes with all that a stream depends on.
    fingerprint: [u8; 32],
}

/// A key set, and the subscribers whose tokens it signs.
struct TokenIssuer {
    jwks: Vec<u8>,
    keys: Arc<PinnedKeys>,
    subscribers: Vec<TokenSubscriber>,
}

struct TokenSubscriber {
    subscriber: Arc<GrantedSubscriber>,
    requirement: Arc<TokenRequirement>,
}

/// A subscriber that has authenticated.
pub(super) struct Authenticated {
    pub(super) subscriber: Arc<GrantedSubscriber>,
    /// When its token expires.
    pub(super) until: Option<Instant>,
}

/// A request is refused.
pub(super) enum Refused {
    /// Nobody knows who it is; the answer says nothing.
    Stranger,
    /// A key of the config has signed the token, so the answer may say what is wrong with it.
    Known { name: Arc<str>, reason: String },
}

impl SubscriberTable {
    pub(super) fn new(options: PublisherOptions, generation: u64) -> SubscriberTable {
        let PublisherOptions { signing_keys, stagger, subscribers, autoreconciler, .. } = options;
        let mut salt = [0; 16];
        salt.iter_mut().for_each(|byte| *byte = fastrand::u8(..));
        let mut table = SubscriberTable {
            generation,
            signing_keys,
            stagger,
            by_name: HashMap::new(),
            by_key: HashMap::new(),
            by_token_key: HashMap::new(),
            clients: None,
            salt,
        };
        subscribers.into_iter().for_each(|subscriber| table.add(subscriber));
        table.clients = autoreconciler.map(|clients| {
            let fingerprint = fingerprint(&clients.endpoints, |add| add(&clients.secret));
            (
                table.digest(&clients.secret),
                Arc::new(ClientGrant { endpoints: clients.endpoints, fingerprint }),
            )
        });
        table
    }

    fn add(&mut self, options: SubscriberOptions) {
        let fingerprint =
            fingerprint(&options.endpoints, |add| add_authentication(&options.authentication, add));
        let SubscriberOptions { name, endpoints, authentication } = options;
        let subscriber = Arc::new(GrantedSubscriber { name: Arc::clone(&name), endpoints, fingerprint });
        match authentication {
            SubscriberAuthentication::Key(key) => {
                self.by_key.insert(self.digest(&key), Arc::clone(&subscriber));
            }
            SubscriberAuthentication::Token(requirement) => {
                // The config was read with these keys.
                let Ok(keys) = PinnedKeys::from_json(&requirement.jwks) else { return };
                let (requirement, keys) = (Arc::new(requirement), Arc::new(keys));
                for id in keys.ids() {
                    let place = (requirement.issuer.clone(), id.map(str::to_owned));
                    let issuers = self.by_token_key.entry(place).or_default();
                    let (subscriber, requirement) = (Arc::clone(&subscriber), Arc::clone(&requirement));
                    let one = TokenSubscriber { subscriber, requirement };
                    match issuers.iter_mut().find(|issuer| issuer.jwks == one.requirement.jwks) {
                        Some(issuer) => issuer.subscribers.push(one),
                        None => issuers.push(TokenIssuer {
                            jwks: one.requirement.jwks.clone(),
                            keys: Arc::clone(&keys),
                            subscribers: vec![one],
                        }),
                    }
                }
            }
        }
        self.by_name.insert(name, subscriber);
    }

    fn digest(&self, key: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.salt).chain_update(key).finalize().into()
    }

    /// Returns the key that signs; a config without one is refused.
    pub(super) fn signing_key(&self) -> Option<&SigningKey> {
        self.signing_keys.first()
    }

    pub(super) fn public_keys(&self) -> Vec<PublicKey> {
        self.signing_keys.iter().map(SigningKey::public_key).collect()
    }

    /// Whether a stream that was opened for this subscriber may go on.
    pub(super) fn still_grants(&self, subscriber: &GrantedSubscriber) -> bool {
        self.by_name.get(&subscriber.name).is_some_and(|now| now.fingerprint == subscriber.fingerprint)
    }

    /// Returns what clients of flux-webhook-autoreconciler with this secret get.
    pub(super) fn client_grant(&self, secret: &str) -> Option<Arc<ClientGrant>> {
        let (expected, grant) = self.clients.as_ref()?;
        // Hashes with a salt that nobody knows: where they differ tells nothing.
        (self.digest(secret.as_bytes()) == *expected).then(|| Arc::clone(grant))
    }

    pub(super) fn subscribers(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn has_clients(&self) -> bool {
        self.clients.is_some()
    }

    /// Whether clients that were granted this may go on.
    pub(super) fn still_grants_clients(&self, fingerprint: [u8; 32]) -> bool {
        self.clients.as_ref().is_some_and(|(_, grant)| grant.fingerprint == fingerprint)
    }

    /// Finds out who has this bearer key or token.
    pub(super) fn authenticate(&self, bearer: &str) -> Result<Authenticated, Refused> {
        if let Some(subscriber) = self.by_key.get(&self.digest(bearer.as_bytes())) {
            return Ok(Authenticated { subscriber: Arc::clone(subscriber), until: None });
        }
        let issuers = unverified_names(bearer).and_then(|names| self.by_token_key.get(&names));
        // More than one where clusters have chosen one key ID, which is a hash of the key in Kubernetes.
        let mut refused = Refused::Stranger;
        for issuer in issuers.into_iter().flatten().take(MAX_CHECKED_KEYS) {
            let Some(claims) = issuer.keys.signed_claims(bearer) else { continue };
            // Another file may hold the same key, and be for the subscriber that is meant.
            match issuer.choose(&claims) {
                Ok(authenticated) => return Ok(authenticated),
                Err(known) => refused = known,
            }
        }
        Err(refused)
    }
}

/// Keys with one ID that a token is checked against: each takes some 50 µs, and a stranger can cause it.
const MAX_CHECKED_KEYS: usize = 4;

impl TokenIssuer {
    /// Finds the subscriber that these claims are for.
    fn choose(&self, claims: &SignedClaims) -> Result<Authenticated, Refused> {
        let mut refused = None;
        for TokenSubscriber { subscriber, requirement } in &self.subscribers {
            let TokenRequirement { audience, claims: required, .. } = &**requirement;
            let other = required.iter().find(|(name, value)| claims.text(name) != Some(value.as_str()));
            let reason = match (claims.is_for(audience), other) {
                (true, None) => match claims.time_left(SystemTime::now()) {
                    Ok(left) => {
                        let until = Instant::now().checked_add(left);
                        return Ok(Authenticated { subscriber: Arc::clone(subscriber), until });
                    }
                    Err(err) => err.to_string(),
                },
                (false, None) => format!("{}; it has to be for {audience}", PinnedTokenError::Audience),
                (_, Some((name, _))) => {
                    format!("the claim `{name}` of the token is another than the config requires")
                }
            };
            // The one that differs least is the one that was meant.
            if refused.is_none() || other.is_none() {
                refused = Some(Refused::Known { name: Arc::clone(&subscriber.name), reason });
            }
        }
        Err(refused.unwrap_or(Refused::Stranger))
    }
}

/// Hashes the endpoints and what `authentication` adds.
fn fingerprint(endpoints: &GrantedEndpoints, authentication: impl FnOnce(&mut dyn FnMut(&[u8]))) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    match endpoints {
        GrantedEndpoints::All => add(b"*"),
        GrantedEndpoints::Named(names) => names.iter().for_each(|name| add(name.as_bytes())),
    }
    authentication(&mut add);
    digest.finalize().into()
}

fn add_authentication(authentication: &SubscriberAuthentication, add: &mut dyn FnMut(&[u8])) {
    match authentication {
        SubscriberAuthentication::Key(key) => add(key),
        SubscriberAuthentication::Token(TokenRequirement { issuer, audience, claims, jwks }) => {
            [issuer.as_bytes(), audience.as_bytes(), jwks].into_iter().for_each(&mut *add);
            claims.iter().flat_map(|(name, value)| [name, value]).for_each(|text| add(text.as_bytes()));
        }
    }
}
