//! An endpoint: what is configured for one hook path.

pub mod byte_count;
pub mod limit;
pub mod registry;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use self::byte_count::ByteCount;
use self::limit::RateLimit;
use crate::filter::Filter;
use crate::fleet::forward::ForwardPath;
use crate::flux::selection::Selection;
use crate::provider::{ParseContext, Provider};
use crate::verify::key::Key;
use crate::verify::{Authentication, Credentials};

/// An entry of the config, or a Receiver, that can be served. Built once; the one holder of keys.
pub struct Endpoint {
    id: EndpointId,
    /// The name in logs, metrics and pages.
    pub name: Arc<str>,
    pub provider: &'static Provider,
    /// The file that its key was read from.
    pub key_file: PathBuf,
    /// The keys and other requirements that deliveries are verified against.
    pub credentials: Credentials,
    /// The registry's hosts, for providers that do not name theirs.
    pub registry_hosts: Vec<String>,
    /// Other hosts of the Git forge, without ports.
    pub git_hosts: Vec<String>,
    /// The objects that it may request.
    pub selection: Selection,
    /// The events that it accepts.
    pub filter: Filter,
    /// The longest body, in bytes, where it differs from the usual limit.
    pub max_body: Option<usize>,
    /// The limit of deliveries per minute, if there is one.
    pub limit: Option<RateLimit>,
    /// Bytes of its small bodies that are being read or handled.
    pub small_bodies: ByteCount,
    /// The same of its large ones.
    pub large_bodies: ByteCount,
    /// Whether verified deliveries are to be left alone.
    pub suspended: bool,
    /// A path of the user's choice where it is served as well. Anybody may know it.
    pub alias: Option<String>,
    /// Whether a delivery need not be a POST.
    pub takes_any_method: bool,
    /// Whether a delivery counts whatever its body is.
    pub takes_any_body: bool,
    /// The fields that a publisher forwards with its events.
    pub forward: Vec<ForwardPath>,
    /// Where it is configured.
    pub origin: EndpointOrigin,
    /// The last segment of its path. A secret.
    digest: String,
    /// Digests of further hook paths, used where no other endpoint ranks higher: the path in the Receiver's
    /// status, then the path from before the token changed. Secrets.
    more_digests: Vec<String>,
    /// Digests that its other keys make. Not served: a webhook at the provider may still post there. Secrets.
    former_digests: Vec<String>,
}

/// Where an endpoint is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum EndpointOrigin {
    /// An entry of the config.
    #[default]
    Config,
    /// A Receiver. Of two that claim one path, the older one has it.
    Receiver {
        /// The creation timestamp, in RFC 3339.
        created: String,
        /// Its identity over time.
        uid: String,
    },
}

/// Options of an endpoint beside its provider and its keys.
#[derive(Default)]
pub struct EndpointOptions {
    pub registry_hosts: Vec<String>,
    pub git_hosts: Vec<String>,
    pub selection: Selection,
    pub filter: Filter,
    pub max_body: Option<usize>,
    pub max_per_minute: Option<u32>,
    pub suspended: bool,
    pub alias: Option<String>,
    pub takes_any_method: bool,
    pub takes_any_body: bool,
    pub forward: Vec<ForwardPath>,
    pub origin: EndpointOrigin,
    /// The last segments of further paths; earlier ones rank higher.
    pub more_digests: Vec<String>,
    /// The last segments of the paths that its other keys make.
    pub former_digests: Vec<String>,
}

impl EndpointOrigin {
    /// Orders claims to one path: the config, then the older Receiver, then any fixed order.
    fn rank(&self) -> (bool, &str, &str) {
        match self {
            EndpointOrigin::Config => (false, "", ""),
            EndpointOrigin::Receiver { created, uid } => (true, created, uid),
        }
    }
}

/// Tells an endpoint from those that had its name before a reload. No two in a process are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId(u64);

impl EndpointId {
    fn next() -> EndpointId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        EndpointId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The path that load balancers probe at the port for webhooks.
pub const HEALTH_PATH: &str = "/health";

/// The beginning of hook paths.
pub const HOOK_PREFIX: &str = "/hook/";

impl Endpoint {
    /// Creates an endpoint; `digest` makes its path.
    pub fn new(
        name: String,
        provider: &'static Provider,
        key_file: PathBuf,
        credentials: Credentials,
        digest: String,
        options: EndpointOptions,
    ) -> Endpoint {
        let mut more_digests = options.more_digests;
        more_digests.retain(|other| *other != digest);
        Endpoint {
            id: EndpointId::next(),
            name: name.into(),
            provider,
            key_file,
            credentials,
            registry_hosts: options.registry_hosts,
            git_hosts: options.git_hosts,
            selection: options.selection,
            filter: options.filter,
            max_body: options.max_body,
            limit: options.max_per_minute.map(RateLimit::new),
            small_bodies: ByteCount::default(),
            large_bodies: ByteCount::default(),
            suspended: options.suspended,
            alias: options.alias,
            takes_any_method: options.takes_any_method,
            takes_any_body: options.takes_any_body,
            forward: options.forward,
            origin: options.origin,
            digest,
            more_digests,
            former_digests: options.former_digests,
        }
    }

    /// Also serves it at the hook path of its previous key, with the lowest rank.
    pub fn with_former_path(mut self, digest: &str) -> Endpoint {
        if digest != self.digest && !self.more_digests.iter().any(|other| other == digest) {
            self.more_digests.push(digest.to_owned());
        }
        self
    }

    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// Whether this secret, without line breaks at its end, is one of its keys.
    pub fn has_key(&self, secret: &[u8]) -> bool {
        self.credentials.keys.iter().any(|key| key.without_newline() == secret)
    }

    /// Returns the names of its keys: its own, then the accepted ones.
    pub fn key_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.credentials.keys.iter().map(Key::name)
    }

    /// The last segment of its path. A secret.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The path that the provider posts to. A secret: for the startup line and the commands that
    /// print it.
    pub fn path(&self) -> String {
        format!("{HOOK_PREFIX}{}", self.digest)
    }

    /// Whether a digest makes a path that this endpoint has, or had under a key that is still accepted.
    pub fn has_or_had_digest(&self, digest: &str) -> bool {
        let others = self.more_digests.iter().chain(&self.former_digests);
        self.digest == digest || others.into_iter().any(|other| other == digest)
    }

    /// Returns what the payloads of its provider may lack.
    pub fn parse_context(&self) -> ParseContext<'_> {
        ParseContext { registry_hosts: &self.registry_hosts, git_hosts: &self.git_hosts, resume_at: 0 }
    }

    /// Whether knowing the hook path is not enough.
    pub fn is_authenticated(&self) -> bool {
        !matches!(self.provider.authentication, Authentication::PathOnly) && !self.credentials.unsigned
    }

    /// Whether a delivery is authenticated by the key, or by something made with it.
    pub fn is_authenticated_by_key(&self) -> bool {
        self.is_authenticated()
            && !matches!(
                self.provider.authentication,
                Authentication::GoogleIdentity | Authentication::OpenId | Authentication::Sns
            )
    }
}
