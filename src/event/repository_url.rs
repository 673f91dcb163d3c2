//! Git repository URLs in a form that can be compared.
//!
//! A payload and a `GitRepository` rarely spell one repository alike: https against ssh, an
//! scp-like address, a default port, a trailing `.git`, another host for ssh. Parsing brings them
//! to one normal form; [`RepositoryUrl::same_repository`] compares what is left.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded_text::BoundedText;

/// The host and path of a repository, without scheme-specific spelling, user and query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryUrl {
    key: RepositoryKey,
    transport: Transport,
}

/// The part of a [`RepositoryUrl`] that an index can look up: host and path, both lower-case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RepositoryKey {
    host: Box<str>,
    path: Box<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Transport {
    /// A scheme and its port, the default one if none is written.
    Port(Scheme, u16),
    /// An scp-like address or an alias host: the port is whatever the client's settings say.
    Unspecified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Scheme {
    Http,
    Https,
    Ssh,
    Git,
}

/// A text is not the URL of a repository.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a Git URL with a host and a path: `{0}`")]
pub struct NotARepositoryUrl(String);

/// Bytes of a URL; what Git hosts and proxies take is shorter.
const MAX_URL_BYTES: usize = 4096;

impl RepositoryUrl {
    /// Reads `scheme://[user@]host[:port]/path` or the scp-like `[user@]host:path`.
    ///
    /// Follows the grammar of git-clone(1): without `://`, a colon before the first slash
    /// separates host and path and is never a port.
    pub fn parse(text: &str) -> Result<RepositoryUrl, NotARepositoryUrl> {
        let refuse = || NotARepositoryUrl(BoundedText::from(without_user(text)).to_string());
        if text.len() > MAX_URL_BYTES {
            return Err(refuse());
        }
        let trimmed = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
        let url = match trimmed.split_once("://") {
            Some((scheme, rest)) => parse_url(scheme, rest),
            None => parse_scp_like(trimmed),
        };
        url.map(with_aliases_resolved).ok_or_else(refuse)
    }

    /// The part to look up in an index.
    pub fn key(&self) -> &RepositoryKey {
        &self.key
    }

    /// Whether both mean one repository.
    ///
    /// The scheme is ignored. Ports count only between two URLs of one scheme: a web server's port
    /// says nothing about the SSH server beside it.
    pub fn same_repository(&self, other: &RepositoryUrl) -> bool {
        let ports_agree = match (self.transport, other.transport) {
            (Transport::Port(scheme, port), Transport::Port(other_scheme, other_port)) => {
                scheme != other_scheme || port == other_port
            }
            _ => true,
        };
        self.key == other.key && ports_agree
    }

    /// Reads `host` or `host:port`; returns the host as URLs have it here, without its port.
    pub fn parse_host(text: &str) -> Option<String> {
        let url = RepositoryUrl::parse(&format!("https://{text}/x")).ok()?;
        (url.path() == "x").then(|| url.key.host.into())
    }

    /// The repository of the same path at another host, whatever the scheme and the port.
    pub fn at_host(&self, host: &str) -> RepositoryUrl {
        let key = RepositoryKey { host: host.into(), path: self.key.path.clone() };
        RepositoryUrl { key, transport: Transport::Unspecified }
    }

    /// Host and path, as people say it.
    pub fn short(&self) -> String {
        format!("{}/{}", self.key.host, self.key.path)
    }

    /// The host in lower case, without port.
    pub fn host(&self) -> &str {
        &self.key.host
    }

    /// The path in lower case, without leading slash and `.git`.
    pub fn path(&self) -> &str {
        &self.key.path
    }
}

/// The canonical spelling: parsing it gives the same value again.
impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RepositoryKey { host, path } = &self.key;
        match self.transport {
            Transport::Unspecified => write!(f, "{host}:{path}.git"),
            Transport::Port(scheme, port) => {
                write!(f, "{}://{host}", scheme.name())?;
                if port != scheme.default_port() {
                    write!(f, ":{port}")?;
                }
                write!(f, "/{}.git", percent_encode(path))
            }
        }
    }
}

impl Scheme {
    fn parse(name: &str) -> Option<Scheme> {
        match name.to_ascii_lowercase().as_str() {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            "ssh" | "git+ssh" | "ssh+git" => Some(Scheme::Ssh),
            "git" => Some(Scheme::Git),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ssh => "ssh",
            Scheme::Git => "git",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
            Scheme::Ssh => 22,
            Scheme::Git => 9418,
        }
    }
}

fn parse_url(scheme: &str, rest: &str) -> Option<RepositoryUrl> {
    let scheme = Scheme::parse(scheme)?;
    let rest = rest.split(['?', '#']).next()?;
    let (authority, path) = rest.split_once('/')?;
    let (host, port) = split_port(without_user(authority))?;
    let key =
        RepositoryKey { host: normal_host(host)?.into(), path: normal_path(&percent_decode(path))?.into() };
    let port = match port {
        "" => scheme.default_port(),
        digits => digits.parse().ok()?,
    };
    Some(RepositoryUrl { key, transport: Transport::Port(scheme, port) })
}

fn parse_scp_like(text: &str) -> Option<RepositoryUrl> {
    let address = without_user(text);
    let host_end = match address.starts_with('[') {
        true => address.find(']')? + 1,
        false => address.find([':', '/'])?,
    };
    let path = address[host_end..].strip_prefix(':')?;
    let key =
        RepositoryKey { host: normal_host(&address[..host_end])?.into(), path: normal_path(path)?.into() };
    // Written without its slash, what is before the `@` would be a user and a password.
    if reads_as_user(&key.path) {
        return None;
    }
    Some(RepositoryUrl { key, transport: Transport::Unspecified })
}

fn reads_as_user(path: &str) -> bool {
    path.split('/').next().is_some_and(|first| first.contains('@'))
}

/// Drops `user@` and `user:password@`, which stand before the first slash.
fn without_user(text: &str) -> &str {
    let end = text.find('/').unwrap_or(text.len());
    match text[..end].rfind('@') {
        Some(at) => &text[at + 1..],
        None => text,
    }
}

fn split_port(authority: &str) -> Option<(&str, &str)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest {
            "" => Some((host, "")),
            _ => Some((host, rest.strip_prefix(':')?)),
        };
    }
    Some(authority.split_once(':').unwrap_or((authority, "")))
}

fn normal_host(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let valid = |c: char| {
        c.is_alphanumeric() || matches!(c, '.' | '-' | '_') || (bracketed && matches!(c, ':' | '[' | ']'))
    };
    (!host.is_empty() && !host.ends_with('.') && host.chars().all(valid)).then_some(host)
}

/// Lower-case, no empty segments, no `.git`. Hosts treat paths as case-insensitive; where one does
/// not, the cost is one reconcile request too many.
fn normal_path(path: &str) -> Option<String> {
    let mut joined = String::with_capacity(path.len());
    for segment in path.split('/').map(str::trim).filter(|segment| !segment.is_empty()) {
        if !joined.is_empty() {
            joined.push('/');
        }
        joined.push_str(segment);
    }
    joined.make_ascii_lowercase();
    let length = joined.strip_suffix(".git").unwrap_or(&joined).trim_end_matches('/').trim_end().len();
    joined.truncate(length);
    (!joined.is_empty() && !joined.chars().any(char::is_control)).then_some(joined)
}

/// Decodes once; bytes that are no UTF-8 become the replacement character.
fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| byte == b'%');
        let value = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(value.unwrap_or(byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// Encodes what [`percent_decode`] or the URL grammar would take for something else.
fn percent_encode(path: &str) -> Cow<'_, str> {
    if !path.contains(['%', '?', '#']) {
        return Cow::Borrowed(path);
    }
    let encoded = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    Cow::Owned(encoded)
}

/// Brings the other hosts and paths of one repository to one spelling.
///
/// GitHub, GitLab.com and Bitbucket Cloud offer SSH on port 443 of a host of its own; Azure DevOps
/// has four address forms for (organisation, project, repository).
fn with_aliases_resolved(url: RepositoryUrl) -> RepositoryUrl {
    let RepositoryKey { host, path } = &url.key;
    // The canonical spelling of an alias is scp-like, and no such repository exists.
    if reads_as_user(path) {
        return url;
    }
    let alias = match &**host {
        "www.github.com" | "ssh.github.com" => Some("github.com"),
        "altssh.gitlab.com" => Some("gitlab.com"),
        "altssh.bitbucket.org" => Some("bitbucket.org"),
        _ => None,
    };
    if let Some(host) = alias {
        let key = RepositoryKey { host: host.into(), path: path.clone() };
        return RepositoryUrl { key, transport: Transport::Unspecified };
    }
    match azure_devops_path(host, path) {
        Some(path) => RepositoryUrl {
            key: RepositoryKey { host: "dev.azure.com".into(), path: path.into() },
            transport: Transport::Unspecified,
        },
        None => url,
    }
}

/// `organisation/project/repository`, for the address forms that Azure DevOps documents.
fn azure_devops_path(host: &str, path: &str) -> Option<String> {
    if !host.ends_with("dev.azure.com") && !host.ends_with(".visualstudio.com") {
        return None;
    }
    let segments: Vec<&str> = path.split('/').collect();
    let (organisation, project, repository) = match (host, segments.as_slice()) {
        (
            "dev.azure.com",
            [organisation, "defaultcollection", "_git", repository] | [organisation, "_git", repository],
        ) => (*organisation, *repository, *repository),
        (
            "dev.azure.com",
            [organisation, "defaultcollection", project, "_git", repository]
            | [organisation, project, "_git", repository],
        )
        | ("ssh.dev.azure.com" | "vs-ssh.visualstudio.com", ["v3", organisation, project, repository]) => {
            (*organisation, *project, *repository)
        }
        (_, ["defaultcollection", "_git", repository] | ["_git", repository]) => {
            (host.strip_suffix(".visualstudio.com")?, *repository, *repository)
        }
        (_, ["defaultcollection", project, "_git", repository] | [project, "_git", repository]) => {
            (host.strip_suffix(".visualstudio.com")?, *project, *repository)
        }
        _ => return None,
    };
    // Names there begin with no underscore, so these segments stand elsewhere in another address.
    let are_names = [organisation, project, repository].iter().all(|name| !name.starts_with('_'));
    are_names.then(|| format!("{organisation}/{project}/{repository}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> RepositoryUrl {
        RepositoryUrl::parse(text).unwrap_or_else(|err| panic!("{err}"))
    }

    #[test]
    fn another_host_of_the_same_forge_has_the_same_path() {
        let outside = parse("https://git.example.com/Org/App.git");
        let inside = parse("http://gitea-http.gitea.svc:3000/org/app");
        assert!(!outside.same_repository(&inside));
        let host = RepositoryUrl::parse_host("Gitea-HTTP.gitea.svc:3000").expect("a host");
        assert!(outside.at_host(&host).same_repository(&inside));
        for text in ["", "https://git.example.com", "git.example.com/org", "a b"] {
            assert_eq!(RepositoryUrl::parse_host(text), None, "{text}");
        }
    }

    fn check_same(left: &str, right: &str, expect: bool) {
        let (left_url, right_url) = (parse(left), parse(right));
        assert_eq!(left_url.same_repository(&right_url), expect, "{left} and {right}");
        assert_eq!(right_url.same_repository(&left_url), expect, "{right} and {left}");
    }

    // Incident 25.
    #[test]
    fn spellings_of_one_repository_are_the_same() {
        for spelling in [
            "https://github.com/Org/App",
            "https://github.com/org/app.git",
            "https://github.com/org/app.git/",
            "https://github.com:443/org//app",
            "https://user:token@github.com/org/app?ref=x#y",
            "http://www.github.com/org/app",
            "git://github.com/org/app.git",
            "ssh://git@github.com/org/app.git",
            "ssh://git@ssh.github.com:443/org/app.git",
            "git+ssh://other@github.com:22/org/app",
            "git@github.com:org/app.git",
            "git@github.com:/org/app.git",
            "github.com:org/app",
            "  https://GITHUB.com./org/%61pp.git \n",
        ] {
            check_same("https://github.com/org/app.git", spelling, true);
        }
    }

    #[test]
    fn other_repositories_are_not_the_same() {
        for other in [
            "https://github.com/org/app2",
            "https://github.com/org/ap",
            "https://github.com/organisation/app",
            "https://github.com/x/org/app",
            "https://github.example.com/org/app",
            "git@github.com:22/org/app.git",
            "https://github.com:8443/org/app",
        ] {
            check_same("https://github.com/org/app", other, false);
        }
    }

    #[test]
    fn ports_count_only_within_one_scheme() {
        check_same("https://git.example.com:8443/o/r", "ssh://git@git.example.com:2222/o/r", true);
        check_same("https://git.example.com:8443/o/r", "https://git.example.com/o/r", false);
        check_same("https://git.example.com:8443/o/r", "http://git.example.com:3000/o/r", true);
        check_same("ssh://git@git.example.com:2222/o/r", "git@git.example.com:o/r", true);
        check_same("ssh://git@git.example.com:2222/o/r", "ssh://git@git.example.com/o/r", false);
        check_same("ssh://git@[::1]:2222/o/r", "git@[::1]:o/r", true);
    }

    #[test]
    fn azure_devops_addresses_are_one_repository() {
        for spelling in [
            "https://org@dev.azure.com/org/My%20Project/_git/app",
            "https://org.visualstudio.com/My%20Project/_git/app",
            "https://org.visualstudio.com/DefaultCollection/My%20Project/_git/app",
            "ssh://git@ssh.dev.azure.com/v3/org/My%20Project/app",
            "git@ssh.dev.azure.com:v3/org/My Project/app",
            "org@vs-ssh.visualstudio.com:v3/org/My Project/app",
        ] {
            check_same("https://dev.azure.com/org/my project/_git/app", spelling, true);
        }
        check_same("https://dev.azure.com/org/_git/app", "https://org.visualstudio.com/_git/app", true);
        check_same(
            "https://dev.azure.com/org/DefaultCollection/_git/app",
            "https://org.visualstudio.com/DefaultCollection/_git/app",
            true,
        );
        check_same("https://dev.azure.com/org/app/_git/app", "https://dev.azure.com/org/_git/app", true);
        check_same("https://dev.azure.com/org/one/_git/app", "https://dev.azure.com/org/two/_git/app", false);
    }

    #[test]
    fn codecommit_addresses_are_one_repository() {
        check_same(
            "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/app",
            "ssh://APKAEXAMPLE@git-codecommit.eu-west-1.amazonaws.com/v1/repos/app",
            true,
        );
    }

    #[test]
    fn texts_without_host_or_path_are_refused() {
        for text in [
            "",
            "org/app",
            "/srv/git/app",
            "https://",
            "https:///org/app",
            "https://github.com",
            "https://github.com/",
            "file:///srv/app",
            "https://h:port/o/r",
            "h:",
            "./a:b",
            "https://h/.git",
        ] {
            assert!(RepositoryUrl::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_password() {
        let err = RepositoryUrl::parse("user:hunter2@").expect_err("no host");
        assert!(!err.to_string().contains("hunter2"), "{err}");
    }

    #[test]
    fn an_at_sign_at_the_beginning_of_an_scp_path_is_refused() {
        assert!(RepositoryUrl::parse("ssh:/l@igta/x").is_err());
        for text in [
            "https://dev.azure.com/p@s/_git/r",
            "https://dev.azure.com/o/_git/_git/r",
            "https://www.github.com/a@b/c",
        ] {
            let url = RepositoryUrl::parse(text).expect("a URL");
            assert_eq!(RepositoryUrl::parse(&url.to_string()), Ok(url));
        }
        let url = RepositoryUrl::parse("host.example.com:a/b@c").expect("a URL");
        assert_eq!(RepositoryUrl::parse(&url.to_string()), Ok(url));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = RepositoryUrl::parse(&text);
        }

        #[test]
        fn normalisation_is_idempotent(text in "(https?://|ssh://|git://|)([a-z]{0,3}@)?[A-Za-z.\\[\\]:]{1,12}[:/]{1,2}(([a-zA-Z.%?# ~]|%2[0-9A-F]|\\.git|/){0,20})") {
            if let Ok(url) = RepositoryUrl::parse(&text) {
                let again = RepositoryUrl::parse(&url.to_string());
                prop_assert_eq!(again, Ok(url.clone()), "{}", url);
            }
        }
    }
}
