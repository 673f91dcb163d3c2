//! The options of publishers and subscribers, as a config gives them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use url::Url;
use zeroize::Zeroizing;

use super::signature::{PublicKey, SigningKey};
use crate::expression::VariableName;
use crate::filter::Filter;
use crate::flux::selection::Selection;

/// `publish`: who may subscribe to what.
pub struct PublisherOptions {
    pub retention: Retention,
    /// The first one signs; the others are pinned by subscribers already.
    pub signing_keys: Vec<SigningKey>,
    /// Over how long subscribers spread their requests.
    pub stagger: Duration,
    pub subscribers: Vec<SubscriberOptions>,
    pub autoreconciler: Option<AutoreconcilerOptions>,
    /// Where the event log is, if not in the journal.
    pub nats: Option<NatsOptions>,
}

/// `publish.nats`: the stream that holds the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsOptions {
    pub urls: Vec<String>,
    pub stream: String,
    /// None where the servers want none.
    pub credentials: Option<NatsCredentials>,
    /// The certificates of the authorities that are trusted in place of the system's, a PEM file.
    pub ca: Option<PathBuf>,
    pub replicas: usize,
}

impl NatsOptions {
    /// A number that tells the stream from others, as far as the config does.
    pub fn log_id(&self) -> u64 {
        let mut urls = self.urls.clone();
        urls.sort_unstable();
        let digest = Sha256::digest(format!("{}\n{}", self.stream, urls.join("\n")));
        digest.iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
    }
}

/// How a publisher authenticates to NATS. The files are read anew for each connection.
/// <https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro>
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatsCredentials {
    /// A credentials file: a JWT and the seed of its NKey.
    File(PathBuf),
    /// A file with the seed of an NKey.
    NKey(PathBuf),
}

/// `publish.autoreconciler`: clients of flux-webhook-autoreconciler.
pub struct AutoreconcilerOptions {
    /// What clients have in `authSecret`.
    pub secret: Zeroizing<Vec<u8>>,
    pub endpoints: GrantedEndpoints,
}

impl PublisherOptions {
    /// Returns the endpoints that someone gets, as each entry grants them.
    pub fn granted(&self) -> impl Iterator<Item = &GrantedEndpoints> {
        let clients = self.autoreconciler.iter().map(|clients| &clients.endpoints);
        self.subscribers.iter().map(|subscriber| &subscriber.endpoints).chain(clients)
    }
}

/// Limits of the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub max_entries: u64,
    pub max_bytes: u64,
    pub max_age: Duration,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            max_entries: 100_000,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(14 * 24 * 60 * 60),
        }
    }
}

/// An entry of `publish.subscribers`.
pub struct SubscriberOptions {
    pub name: Arc<str>,
    pub endpoints: GrantedEndpoints,
    pub authentication: SubscriberAuthentication,
}

/// The endpoints that a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantedEndpoints {
    /// `'*'`.
    All,
    Named(Vec<String>),
}

impl GrantedEndpoints {
    pub fn contain(&self, endpoint: &str) -> bool {
        match self {
            GrantedEndpoints::All => true,
            GrantedEndpoints::Named(names) => names.iter().any(|name| name == endpoint),
        }
    }
}

/// How a subscriber authenticates.
pub enum SubscriberAuthentication {
    /// With this bearer key.
    Key(Zeroizing<Vec<u8>>),
    /// With a token of the ServiceAccount of its cluster, or of another OpenID Connect issuer.
    Token(TokenRequirement),
}

/// The token that a subscriber has to have.
pub struct TokenRequirement {
    pub issuer: String,
    pub audience: String,
    /// The claims that it has to have, `sub` among them, with these values.
    pub claims: BTreeMap<String, String>,
    /// The keys of the issuer, a JSON Web Key Set (RFC 7517) as `kubectl get --raw /openid/v1/jwks` prints it.
    pub jwks: Vec<u8>,
}

/// An entry of `subscribe`.
pub struct SubscriptionOptions {
    pub name: Arc<str>,
    /// The publisher; [`super::SUBSCRIBE_PATH`] is added.
    pub url: Url,
    /// The file of the token or key, which is read anew for each connection.
    pub token_file: PathBuf,
    pub public_keys: Vec<PublicKey>,
    /// Certificates of the authorities that are trusted beside those of the system, in PEM.
    pub ca: Option<Vec<u8>>,
    pub endpoints: Vec<Arc<SubscribedEndpoint>>,
    /// A digest of all that was read for it, so that a reload finds out what has changed.
    pub digest: [u8; 32],
}

/// An endpoint of a publisher, as a subscriber narrows it.
pub struct SubscribedEndpoint {
    /// The name of the subscription and its own, as logs, metrics and the consent of objects have it.
    pub name: Arc<str>,
    /// Its name in the config of the publisher.
    pub endpoint: Arc<str>,
    pub selection: Selection,
    pub filter: Filter,
}

impl SubscribedEndpoint {
    /// Returns the fields of the delivery that its filters read, by their paths.
    pub fn read_fields(&self) -> impl Iterator<Item = &str> {
        let variables = [VariableName::Req, VariableName::Headers, VariableName::Claims];
        let filters = self.filter.condition.iter().chain(self.selection.filters());
        filters.flat_map(move |filter| variables.into_iter().flat_map(|name| filter.fields_of(name)))
    }
}
