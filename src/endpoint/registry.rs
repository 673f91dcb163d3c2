//! The registry of endpoints: their paths, who has which, and how the set is replaced while serving.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::{Endpoint, HOOK_PREFIX};
use crate::flux::needs::InventoryNeeds;

/// All endpoints, by their paths.
#[derive(Default)]
pub struct Endpoints {
    list: Vec<Arc<Endpoint>>,
    by_digest: HashMap<String, usize>,
    by_name: HashMap<Arc<str>, usize>,
    by_alias: HashMap<String, usize>,
}

/// The endpoint that stands in the way of another.
pub enum Conflict {
    /// It has the same path.
    Path(Arc<Endpoint>),
    /// It has the same name.
    Name(Arc<Endpoint>),
    /// It has the same alias.
    Alias(Arc<Endpoint>),
    /// It has one of the other paths; the endpoint is served at its own.
    OtherPath(Arc<Endpoint>),
}

impl Conflict {
    /// Returns the endpoint that has the path or the name.
    fn holder(&self) -> &Arc<Endpoint> {
        match self {
            Conflict::Path(holder)
            | Conflict::Name(holder)
            | Conflict::Alias(holder)
            | Conflict::OtherPath(holder) => holder,
        }
    }
}

impl Endpoints {
    /// Adds an endpoint.
    ///
    /// # Errors
    /// When another endpoint has this path, this name or this alias.
    pub fn add(&mut self, endpoint: Arc<Endpoint>) -> Result<(), Conflict> {
        if let Some(at) = self.by_digest.get(&endpoint.digest) {
            return Err(Conflict::Path(Arc::clone(&self.list[*at])));
        }
        if let Some(other) = self.named(&endpoint.name) {
            return Err(Conflict::Name(Arc::clone(other)));
        }
        if let Some(alias) = &endpoint.alias {
            if let Some(at) = self.by_alias.get(alias) {
                return Err(Conflict::Alias(Arc::clone(&self.list[*at])));
            }
            self.by_alias.insert(alias.clone(), self.list.len());
        }
        self.by_digest.insert(endpoint.digest.clone(), self.list.len());
        self.by_name.insert(Arc::clone(&endpoint.name), self.list.len());
        self.list.push(endpoint);
        Ok(())
    }

    /// Serves endpoints at their other paths too, where these are free. Called when all are added: a
    /// tenant who may write the status of a Receiver must not be able to take the path of another endpoint.
    /// Returns the endpoints that lost a path, each with the one that has it.
    fn add_more_paths(&mut self) -> Vec<(Arc<Endpoint>, Arc<Endpoint>)> {
        let mut by_age: Vec<usize> = (0..self.list.len()).collect();
        by_age.sort_by(|left, right| self.list[*left].origin.rank().cmp(&self.list[*right].origin.rank()));
        let most = self.list.iter().map(|endpoint| endpoint.more_digests.len()).max().unwrap_or_default();
        let mut gave_way = Vec::new();
        for rank in 0..most {
            for at in &by_age {
                let Some(digest) = self.list[*at].more_digests.get(rank) else { continue };
                let holder = *self.by_digest.entry(digest.clone()).or_insert(*at);
                if holder != *at {
                    gave_way.push((Arc::clone(&self.list[*at]), Arc::clone(&self.list[holder])));
                }
            }
        }
        gave_way
    }

    /// The endpoint at this path, which has to be exact.
    pub fn at_path(&self, path: &str) -> Option<&Arc<Endpoint>> {
        let at = match path.strip_prefix(HOOK_PREFIX) {
            Some(digest) => self.by_digest.get(digest)?,
            None => self.by_alias.get(path)?,
        };
        self.list.get(*at)
    }

    /// The endpoint of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.by_name.get(name).and_then(|at| self.list.get(*at))
    }

    /// Returns what has to be known of a cluster so that their deliveries can be matched.
    pub fn needs(&self) -> InventoryNeeds {
        InventoryNeeds::from_selections(self.iter().map(|endpoint| &endpoint.selection))
    }

    /// Returns the endpoints in the order of the config.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.list.iter()
    }
}

/// The endpoints that are served, and the proxies that are trusted.
#[derive(Default)]
pub struct Serving {
    pub endpoints: Endpoints,
    /// Proxies whose `X-Forwarded-For` header is trusted.
    pub trusted_proxies: Vec<IpNet>,
}

/// Holds the endpoints that are served. They come from the config and from Flux's Receivers; each of the
/// two can be replaced without the other, while deliveries are being taken.
pub struct EndpointRegistry {
    serving: RwLock<Arc<Serving>>,
    parts: Mutex<EndpointParts>,
    /// The Receivers are known, or are not served.
    receivers_known: watch::Sender<bool>,
}

#[derive(Default)]
struct EndpointParts {
    from_config: Vec<Arc<Endpoint>>,
    trusted_proxies: Vec<IpNet>,
    from_receivers: Vec<Arc<Endpoint>>,
    /// The conflicts that were reported, by both names.
    reported: HashSet<(Arc<str>, Arc<str>)>,
}

impl EndpointRegistry {
    /// Serves the endpoints of a config.
    pub fn new(serving: Serving) -> EndpointRegistry {
        let registry = EndpointRegistry {
            serving: RwLock::default(),
            parts: Mutex::default(),
            receivers_known: watch::Sender::new(true),
        };
        registry.replace(serving);
        registry
    }

    /// Returns what is served now; a caller that holds it sees no change.
    pub fn get(&self) -> Arc<Serving> {
        Arc::clone(&self.serving.read())
    }

    /// Serves the endpoints of another config. Returns the Receivers that cannot be served, since another
    /// endpoint has their path or name, each once for as long as that is so.
    pub fn replace(&self, serving: Serving) -> Vec<(Arc<Endpoint>, Conflict)> {
        let mut parts = self.parts.lock();
        parts.from_config = serving.endpoints.list;
        parts.trusted_proxies = serving.trusted_proxies;
        self.put(&mut parts)
    }

    /// Serves other Receivers. Returns those that cannot be served, each once for as long as that is so: a
    /// tenant can change a Receiver as often as they like.
    pub fn replace_receivers(&self, endpoints: Vec<Arc<Endpoint>>) -> Vec<(Arc<Endpoint>, Conflict)> {
        let mut parts = self.parts.lock();
        parts.from_receivers = endpoints;
        let conflicts = self.put(&mut parts);
        self.receivers_known.send_replace(true);
        conflicts
    }

    /// From now on there may be endpoints that are not known yet, until
    /// [`EndpointRegistry::replace_receivers`].
    pub fn expect_receivers(&self) {
        self.receivers_known.send_replace(false);
    }

    /// Whether all endpoints are known.
    pub fn knows_all(&self) -> bool {
        *self.receivers_known.borrow()
    }

    /// Waits until all endpoints are known, but no longer than this; says whether they are.
    pub async fn wait_until_known(&self, limit: Duration) -> bool {
        let mut known = self.receivers_known.subscribe();
        tokio::time::timeout(limit, known.wait_for(|known| *known)).await.is_ok_and(|known| known.is_ok())
    }

    fn put(&self, parts: &mut EndpointParts) -> Vec<(Arc<Endpoint>, Conflict)> {
        let mut endpoints = Endpoints::default();
        let mut conflicts = Vec::new();
        // The config comes first: what it says does not depend on what the cluster holds.
        let mut receivers: Vec<&Arc<Endpoint>> = parts.from_receivers.iter().collect();
        receivers.sort_by(|left, right| left.origin.rank().cmp(&right.origin.rank()));
        for endpoint in parts.from_config.iter().chain(receivers) {
            if let Err(conflict) = endpoints.add(Arc::clone(endpoint)) {
                conflicts.push((Arc::clone(endpoint), conflict));
            }
        }
        for (endpoint, holder) in endpoints.add_more_paths() {
            conflicts.push((endpoint, Conflict::OtherPath(holder)));
        }
        let serving = Serving { endpoints, trusted_proxies: parts.trusted_proxies.clone() };
        *self.serving.write() = Arc::new(serving);
        let names = |(endpoint, conflict): &(Arc<Endpoint>, Conflict)| {
            (Arc::clone(&endpoint.name), Arc::clone(&conflict.holder().name))
        };
        let before = std::mem::replace(&mut parts.reported, conflicts.iter().map(names).collect());
        conflicts.retain(|conflict| !before.contains(&names(conflict)));
        conflicts
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{EndpointOptions, EndpointOrigin};
    use super::*;
    use crate::provider::Provider;
    use crate::verify::{Credentials, Requirement};

    fn made(name: &str, digest: &str, options: EndpointOptions) -> Arc<Endpoint> {
        let provider = Provider::named("GitHub").expect("a provider");
        let credentials = Credentials { keys: Vec::new(), expects: Requirement::KeyAlone, unsigned: false };
        let (name, digest) = (name.to_owned(), digest.to_owned());
        Arc::new(Endpoint::new(name, provider, PathBuf::new(), credentials, digest, options))
    }

    fn endpoint(name: &str, digest: &str) -> Arc<Endpoint> {
        made(name, digest, EndpointOptions::default())
    }

    fn config(endpoints: &[Arc<Endpoint>]) -> Serving {
        let mut serving = Serving::default();
        for endpoint in endpoints {
            assert!(serving.endpoints.add(Arc::clone(endpoint)).is_ok());
        }
        serving
    }

    #[test]
    fn the_config_wins_and_what_is_in_its_way_is_told_of_whichever_came_first() {
        let registry = EndpointRegistry::new(config(&[endpoint("a", "1")]));
        let receivers = vec![endpoint("a", "2"), endpoint("b", "1"), endpoint("c", "3")];
        let conflicts = registry.replace_receivers(receivers);
        assert!(
            matches!(&conflicts[..], [(a, Conflict::Name(_)), (b, Conflict::Path(_))] if &*a.name == "a" && &*b.name == "b")
        );
        assert!(registry.get().endpoints.at_path("/hook/3").is_some());

        let conflicts = registry.replace(config(&[endpoint("d", "3")]));
        assert!(matches!(&conflicts[..], [(c, Conflict::Path(d))] if &*c.name == "c" && &*d.name == "d"));
        let serving = registry.get();
        let at = |path| serving.endpoints.at_path(path).map(|endpoint| endpoint.name.to_string());
        assert_eq!(
            [at("/hook/1"), at("/hook/2"), at("/hook/3")].map(Option::unwrap_or_default),
            ["b", "a", "d"]
        );
    }

    fn receiver(name: &str, digest: &str, created: &str, more: &[&str]) -> Arc<Endpoint> {
        let origin = EndpointOrigin::Receiver { created: created.to_owned(), uid: name.to_owned() };
        let more_digests = more.iter().map(|digest| (*digest).to_owned()).collect();
        made(name, digest, EndpointOptions { origin, more_digests, ..EndpointOptions::default() })
    }

    #[test]
    fn a_second_path_takes_nobody_elses() {
        let forged = receiver("a", "1", "2026-01-01T00:00:00Z", &["2"]);
        let registry = EndpointRegistry::new(Serving::default());
        registry.replace_receivers(vec![forged, receiver("b", "2", "2026-02-02T00:00:00Z", &[])]);
        let serving = registry.get();
        assert_eq!(serving.endpoints.at_path("/hook/2").map(|endpoint| &*endpoint.name), Some("b"));
        assert_eq!(serving.endpoints.at_path("/hook/1").map(|endpoint| &*endpoint.name), Some("a"));
    }

    // The attack: a younger Receiver whose name and namespace make the same digest took the path.
    #[test]
    fn the_older_receiver_has_the_path_whatever_they_are_called() {
        for (older, younger) in [("a", "z"), ("z", "a")] {
            let registry = EndpointRegistry::new(Serving::default());
            let conflicts = registry.replace_receivers(vec![
                receiver(younger, "1", "2026-02-02T00:00:00Z", &[]),
                receiver(older, "1", "2026-01-01T00:00:00Z", &[]),
            ]);
            assert_eq!(&*registry.get().endpoints.at_path("/hook/1").expect("an endpoint").name, older);
            assert!(matches!(&conflicts[..], [(lost, Conflict::Path(_))] if *lost.name == *younger));
            let changed = vec![
                receiver(younger, "1", "2026-02-02T00:00:00Z", &["2"]),
                receiver(older, "1", "2026-01-01T00:00:00Z", &[]),
            ];
            assert!(registry.replace_receivers(changed).is_empty(), "the same conflict is told of once");
        }
    }

    // The attack: a path that a rotation left behind was taken by writing a status.
    #[test]
    fn a_status_takes_no_path_of_an_older_receiver() {
        let registry = EndpointRegistry::new(Serving::default());
        let conflicts = registry.replace_receivers(vec![
            receiver("attacker", "3", "2026-02-02T00:00:00Z", &["old"]),
            receiver("victim", "1", "2026-01-01T00:00:00Z", &["old"]),
            receiver("before", "2", "2025-01-01T00:00:00Z", &["other", "rotated"]),
            receiver("status", "4", "2026-03-03T00:00:00Z", &["rotated"]),
        ]);
        let serving = registry.get();
        let at = |path: &str| serving.endpoints.at_path(path).map(|endpoint| endpoint.name.to_string());
        assert_eq!(at("/hook/old").as_deref(), Some("victim"));
        assert_eq!(at("/hook/rotated").as_deref(), Some("status"), "a status ranks before a rotated token");
        assert!(conflicts.iter().any(|(lost, conflict)| &*lost.name == "attacker"
            && matches!(conflict, Conflict::OtherPath(holder) if &*holder.name == "victim")));
    }
}
