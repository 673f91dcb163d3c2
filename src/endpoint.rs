//! What a hook path stands for.

pub mod limit;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::IpNet;

use self::limit::RateLimit;

use crate::filter::Filter;
use crate::flux::Kind;
use crate::flux::selection::Selection;
use crate::provider::{Hints, Provider};
use crate::verify::{Credentials, Proof};

/// One entry of the config that cannot be wrong any more. The one place that holds keys.
pub struct Endpoint {
    /// How it is called in logs, metrics and pages.
    pub name: Arc<str>,
    /// Who sends.
    pub provider: &'static Provider,
    /// Where its key was read from.
    pub key_file: PathBuf,
    /// What deliveries are checked against.
    pub credentials: Credentials,
    /// The registry's hosts, for senders that do not name theirs.
    pub registry_hosts: Vec<String>,
    /// Which objects it may ask for.
    pub selection: Selection,
    /// What it wants to hear of.
    pub filter: Filter,
    /// The files of its keys as the config names them: its own, then the accepted ones.
    pub key_names: Vec<Arc<str>>,
    /// The longest body, in bytes, where it differs from the usual limit.
    pub max_body: Option<usize>,
    /// How many deliveries it takes, if there is a limit.
    pub limit: Option<RateLimit>,
    /// The last segment of its path. A secret.
    digest: String,
}

/// What hook paths start with.
pub const HOOK_PREFIX: &str = "/hook/";

impl Endpoint {
    /// Puts an endpoint together; `digest` makes its path.
    pub fn new(
        name: String,
        provider: &'static Provider,
        key_file: PathBuf,
        credentials: Credentials,
        digest: String,
    ) -> Endpoint {
        Endpoint {
            name: name.into(),
            provider,
            key_file,
            credentials,
            registry_hosts: Vec::new(),
            selection: Selection::default(),
            filter: Filter::default(),
            key_names: Vec::new(),
            max_body: None,
            limit: None,
            digest,
        }
    }

    /// The path that the sender posts to. A secret: for the startup line and the commands that
    /// print it.
    pub fn path(&self) -> String {
        format!("{HOOK_PREFIX}{}", self.digest)
    }

    /// What its provider's payloads may not say.
    pub fn hints(&self) -> Hints<'_> {
        Hints { registry_hosts: &self.registry_hosts }
    }

    /// Whether a delivery has to prove more than that it knows the path.
    pub fn proves_the_sender(&self) -> bool {
        !matches!(self.provider.proof, Proof::PathOnly) && !self.credentials.unsigned
    }

    /// Whether a delivery has to hold the key or something made with it.
    pub fn proves_by_key(&self) -> bool {
        self.proves_the_sender()
            && !matches!(self.provider.proof, Proof::GoogleIdentity | Proof::OpenId | Proof::Sns)
    }
}

/// All endpoints, by their paths.
#[derive(Default)]
pub struct Endpoints {
    list: Vec<Arc<Endpoint>>,
    by_digest: HashMap<String, usize>,
}

/// The endpoint that stands in the way of another.
pub enum Conflict {
    /// It has the same path.
    Path(Arc<Endpoint>),
    /// It has the same name.
    Name(Arc<Endpoint>),
}

impl Endpoints {
    /// Adds an endpoint.
    ///
    /// # Errors
    /// When another endpoint has this path or this name.
    pub fn add(&mut self, endpoint: Endpoint) -> Result<(), Conflict> {
        if let Some(at) = self.by_digest.get(&endpoint.digest) {
            return Err(Conflict::Path(Arc::clone(&self.list[*at])));
        }
        if let Some(other) = self.named(&endpoint.name) {
            return Err(Conflict::Name(Arc::clone(other)));
        }
        self.by_digest.insert(endpoint.digest.clone(), self.list.len());
        self.list.push(Arc::new(endpoint));
        Ok(())
    }

    /// The endpoint at this path, which has to be exact.
    pub fn at_path(&self, path: &str) -> Option<&Arc<Endpoint>> {
        let at = self.by_digest.get(path.strip_prefix(HOOK_PREFIX)?)?;
        self.list.get(*at)
    }

    /// The endpoint of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.list.iter().find(|endpoint| &*endpoint.name == name)
    }

    /// The kinds that are to be known: those of payloads, and those that some endpoint names.
    pub fn kinds(&self) -> BTreeSet<Kind> {
        let named = self.iter().flat_map(|endpoint| endpoint.selection.named_kinds());
        Kind::of_payloads().chain(named).collect()
    }

    /// In the order of the config.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.list.iter()
    }
}

/// What the config says about serving, as it is in force.
#[derive(Default)]
pub struct Serving {
    /// The endpoints.
    pub endpoints: Endpoints,
    /// Whose word about the address of a sender is taken.
    pub trusted_proxies: Vec<IpNet>,
}

/// What is in force now; can be replaced while deliveries are being taken.
pub struct InForce {
    serving: RwLock<Arc<Serving>>,
}

impl InForce {
    /// Puts it in force.
    pub fn new(serving: Serving) -> InForce {
        InForce { serving: RwLock::new(Arc::new(serving)) }
    }

    /// What is in force; stays whole for whoever holds it.
    pub fn get(&self) -> Arc<Serving> {
        Arc::clone(&self.serving.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts something else in force.
    pub fn replace(&self, serving: Serving) {
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(serving);
    }
}
