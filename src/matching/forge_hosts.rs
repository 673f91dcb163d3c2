//! Objects whose repository may be known to a provider under another host: a forge inside the cluster
//! has one name for Flux and another one for everybody else.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::repository_url::RepositoryUrl;
use crate::flux::Target;

/// A GitRepository whose repository deliveries may name at another host.
#[derive(Debug, PartialEq, Eq)]
pub struct OtherHost {
    pub target: Target,
    /// The repository's path, in lower case.
    pub path: String,
    /// The host that the object has.
    pub host: String,
    /// Another object with this path at another host; none if the host alone tells, since no provider
    /// outside of the cluster knows it.
    pub other: Option<(Target, String)>,
}

/// Finds the objects whose path other objects have at another host, and those at hosts that only the
/// cluster knows. Hosts that an endpoint lists under `gitHosts` are passed over.
pub fn at_other_hosts(repositories: &[(Target, RepositoryUrl)], listed: &BTreeSet<String>) -> Vec<OtherHost> {
    let mut by_path: BTreeMap<&str, Vec<&(Target, RepositoryUrl)>> = BTreeMap::new();
    for repository in repositories {
        by_path.entry(repository.1.path()).or_default().push(repository);
    }
    let mut found = Vec::new();
    for (path, same_path) in by_path {
        for (target, url) in &same_path {
            let host = url.host();
            if listed.contains(host) {
                continue;
            }
            let other =
                same_path.iter().find(|(_, other)| other.host() != host && !listed.contains(other.host()));
            let other = other.map(|(target, url)| (target.clone(), url.host().to_owned()));
            if other.is_some() || is_inside_a_cluster(host) {
                let (path, host) = (path.to_owned(), host.to_owned());
                found.push(OtherHost { target: target.clone(), path, host, other });
            }
        }
    }
    found
}

/// Names of Services, and names without a dot, are known to the cluster's DNS alone.
/// <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>
fn is_inside_a_cluster(host: &str) -> bool {
    host.ends_with(".svc") || host.contains(".svc.") || !host.contains(['.', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flux::Kind;

    fn repository(name: &str, url: &str) -> (Target, RepositoryUrl) {
        let target =
            Target { kind: Kind::GitRepository, namespace: "apps".to_owned(), name: name.to_owned() };
        (target, RepositoryUrl::parse(url).expect("a URL"))
    }

    #[test]
    fn one_path_at_two_hosts_and_hosts_inside_a_cluster_are_named() {
        let repositories = [
            repository("inside", "http://gitea-http.gitea.svc:3000/o/a"),
            repository("outside", "https://git.example.com/o/a"),
            repository("alone", "http://gitea-http.gitea.svc:3000/o/b"),
            repository("plain", "https://github.com/o/c"),
            repository("plain-too", "git@github.com:o/c.git"),
        ];
        let found = at_other_hosts(&repositories, &BTreeSet::new());
        let names: Vec<(&str, Option<&str>)> = found
            .iter()
            .map(|found| (&*found.target.name, found.other.as_ref().map(|(other, _)| &*other.name)))
            .collect();
        assert_eq!(names, [("inside", Some("outside")), ("outside", Some("inside")), ("alone", None)]);
        let listed = BTreeSet::from(["gitea-http.gitea.svc".to_owned()]);
        assert_eq!(at_other_hosts(&repositories, &listed), []);
    }
}
