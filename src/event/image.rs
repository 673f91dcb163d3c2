//! Image names and references in a form that can be compared.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bounded_text::BoundedText;

/// A repository in a registry, without tag and digest: the registry's host and the path in it.
///
/// Host and path are lower-case, the names of Docker Hub are one, default ports are dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageName {
    host: String,
    path: String,
}

/// An image name with the tag and digest that were written with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    pub name: ImageName,
    /// The tag, if one is written.
    pub tag: Option<String>,
    /// The digest (`sha256:…`), if one is written.
    pub digest: Option<String>,
}

/// A text is not an image reference.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an image reference: `{0}`")]
pub struct NotAnImageReference(String);

/// Bytes of a reference. The grammar of CNCF distribution allows 255 for the name and 128 for the tag.
const MAX_REFERENCE_BYTES: usize = 1024;

/// The host of Docker Hub in image names.
const DOCKER_HUB_HOST: &str = "docker.io";

impl ImageReference {
    /// Reads `[scheme://][host[:port]/]path[:tag][@digest]`.
    ///
    /// The first segment is a host if there is a slash behind it and it is `localhost` or holds a
    /// dot or a colon, as in the reference grammar of CNCF distribution; else the image is Docker
    /// Hub's.
    pub fn parse(text: &str) -> Result<ImageReference, NotAnImageReference> {
        let refuse = || NotAnImageReference(BoundedText::from(text).to_string());
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(refuse());
        }
        let reference = without_scheme(text.trim()).trim_end_matches('/');
        let (reference, digest) = match reference.split_once('@') {
            Some((reference, digest)) => (reference, Some(digest)),
            None => (reference, None),
        };
        let last_segment = reference.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match reference[last_segment..].find(':') {
            Some(colon) => {
                let (name, tag) = reference.split_at(last_segment + colon);
                (name, Some(&tag[1..]))
            }
            None => (reference, None),
        };
        let name = ImageName::from_parts(name).ok_or_else(refuse)?;
        let present = |part: Option<&str>| part.filter(|part| !part.is_empty()).map(str::to_owned);
        Ok(ImageReference { name, tag: present(tag), digest: present(digest) })
    }
}

impl ImageName {
    /// Reads a name; a tag or digest behind it is dropped.
    pub fn parse(text: &str) -> Result<ImageName, NotAnImageReference> {
        ImageReference::parse(text).map(|reference| reference.name)
    }

    /// The repository `path` in the registry `host` (which may carry a path of its own).
    pub fn in_registry(host: &str, path: &str) -> Result<ImageName, NotAnImageReference> {
        ImageName::parse(&format!("{}/{}", host.trim_end_matches('/'), path.trim_start_matches('/')))
    }

    fn from_parts(name: &str) -> Option<ImageName> {
        let lower = name.to_ascii_lowercase();
        let (host, path) = match lower.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest),
            _ => (DOCKER_HUB_HOST, lower.as_str()),
        };
        let segments_hold = path.split('/').all(|segment| {
            !segment.is_empty()
                && segment.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        });
        if !segments_hold || !can_be_host(host) {
            return None;
        }
        let host = normal_host(host);
        let path = match host == DOCKER_HUB_HOST && !path.contains('/') {
            true => format!("library/{path}"),
            false => path.to_owned(),
        };
        Some(ImageName { host: host.to_owned(), path })
    }

    /// The registry's host, with its port unless that is 443 or 80.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path of the repository in the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The name cut before each of its slashes, longest first, with what was cut off:
    /// `h/a/b/c` gives (`h/a/b`, `c`) and (`h/a`, `b/c`).
    pub fn prefixes(&self) -> impl Iterator<Item = (ImageName, &str)> {
        self.path.rmatch_indices('/').map(|(slash, _)| {
            let prefix = ImageName { host: self.host.clone(), path: self.path[..slash].to_owned() };
            (prefix, &self.path[slash + 1..])
        })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

fn without_scheme(text: &str) -> &str {
    ["oci://", "https://", "http://", "docker://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .unwrap_or(text)
}

fn is_host(segment: &str) -> bool {
    segment == "localhost" || segment.contains(['.', ':'])
}

/// A name or a bracketed address, with at most one port.
fn can_be_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.contains(':') => (address, port),
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_bracketed = host.starts_with('[');
    let is_in_name = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') || (is_bracketed && matches!(c, ':' | '%'))
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    !name.is_empty()
        && name.chars().all(is_in_name)
        && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// Without the usual ports, unless it is the port that makes it a host: `registry:443`.
fn normal_host(host: &str) -> &str {
    let without_port = host.strip_suffix(":443").or_else(|| host.strip_suffix(":80"));
    let host = without_port.filter(|host| is_host(host)).unwrap_or(host);
    match host {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => DOCKER_HUB_HOST,
        other => other,
    }
}

/// Returns the digest, in hex, of the manifest that a tag signs: `sha256-<digest>.sig` as cosign writes it, or
/// `sha256-<digest>` for registries that list no referrers.
/// <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md#tag-based-discovery>
/// <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#referrers-tag-schema>
pub fn signed_digest(tag: &str) -> Option<&str> {
    let rest = tag.strip_prefix("sha256-")?;
    let digest = rest.strip_suffix(".sig").unwrap_or(rest);
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then_some(digest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, name: &str, tag: Option<&str>, digest: Option<&str>) {
        let reference = ImageReference::parse(text).unwrap_or_else(|err| panic!("{err}"));
        assert_eq!(reference.name.to_string(), name, "{text}");
        assert_eq!(reference.tag.as_deref(), tag, "{text}");
        assert_eq!(reference.digest.as_deref(), digest, "{text}");
    }

    #[test]
    fn references_are_taken_apart() {
        check("ghcr.io/Org/App:1.2", "ghcr.io/org/app", Some("1.2"), None);
        check("oci://ghcr.io/org/app", "ghcr.io/org/app", None, None);
        check("localhost:5000/a/b@sha256:ab", "localhost:5000/a/b", None, Some("sha256:ab"));
        check("h.example:443/a:t@sha256:ab", "h.example/a", Some("t"), Some("sha256:ab"));
        check("registry:443/o/app", "registry:443/o/app", None, None);
        check("localhost:80/app", "localhost/app", None, None);
        check("[::1]:443/app:t", "[::1]/app", Some("t"), None);
        check("ghcr.io/org/name:", "ghcr.io/org/name", None, None);
        check("https://h.example/a/", "h.example/a", None, None);
    }

    #[test]
    fn docker_hub_has_one_name() {
        for text in [
            "redis",
            "library/redis",
            "docker.io/redis",
            "docker.io/library/redis",
            "index.docker.io/library/redis",
            "registry-1.docker.io/library/redis",
        ] {
            check(text, "docker.io/library/redis", None, None);
        }
        check("fluxcd/flux", "docker.io/fluxcd/flux", None, None);
    }

    #[test]
    fn prefixes_are_cut_from_the_right() {
        let name = ImageName::parse("h.example/a/b/c").expect("a name");
        let cut: Vec<_> = name.prefixes().map(|(prefix, rest)| format!("{prefix} {rest}")).collect();
        assert_eq!(cut, ["h.example/a/b c", "h.example/a b/c"]);
    }

    #[test]
    fn texts_that_name_no_repository_are_refused() {
        for text in [
            "",
            "/",
            "ghcr.io//a",
            "a b",
            "ghcr.io/a/:tag",
            "@sha256:ab",
            "🐙/a",
            "a.b:443:443/c",
            "[a:443/c",
            ":5000/a",
            "a\tb.c/d",
        ] {
            assert!(ImageReference::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC*") {
            let _ = ImageReference::parse(&text);
        }

        #[test]
        fn normalisation_is_idempotent(text in "(oci://|)([a-zA-Z.:0-9\\[\\]]{1,12}(:443|:80)?/)?[a-zA-Z/._-]{1,20}(:[a-z0-9.]{0,5})?") {
            if let Ok(name) = ImageName::parse(&text) {
                prop_assert_eq!(ImageName::parse(&name.to_string()), Ok(name));
            }
        }
    }
}
