//! The full name of a Git ref.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A ref by its full name, such as `refs/heads/main`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GitRef(String);

/// Bytes of a full name. Git keeps refs as files, whose paths Linux limits to as many.
const MAX_REF_BYTES: usize = 4096;

const BRANCH_PREFIX: &str = "refs/heads/";
const TAG_PREFIX: &str = "refs/tags/";

/// The prefixes of the refs of pull requests and merge requests.
const PULL_REQUEST_PREFIXES: [&str; 2] = ["refs/pull/", "refs/merge-requests/"];

impl GitRef {
    /// Reads a full name; `None` for anything that does not start with `refs/`.
    ///
    /// Flux accepts a trailing `^{}` in `spec.ref.name` (the commit behind a tag), which no
    /// webhook sends, so it is dropped here.
    pub fn from_full_name(name: &str) -> Option<GitRef> {
        let name = name.strip_suffix("^{}").unwrap_or(name);
        let rest = name.strip_prefix("refs/")?;
        let is_name = !rest.is_empty() && !rest.ends_with('/') && name.len() <= MAX_REF_BYTES;
        is_name.then(|| GitRef(name.to_owned()))
    }

    /// Reads what providers call `ref` and `ref_type` (`branch` or `tag`): some write the short name,
    /// some the full one.
    pub fn from_name_and_type(name: &str, ref_type: &str) -> Option<GitRef> {
        match (GitRef::from_full_name(name), ref_type) {
            (Some(full), _) => Some(full),
            (None, _) if name.is_empty() => None,
            (None, "branch") => Some(GitRef::branch(name)),
            (None, "tag") => Some(GitRef::tag(name)),
            (None, _) => None,
        }
    }

    /// The branch of this short name.
    pub fn branch(short: &str) -> GitRef {
        GitRef(format!("{BRANCH_PREFIX}{short}"))
    }

    /// The tag of this short name.
    pub fn tag(short: &str) -> GitRef {
        GitRef(format!("{TAG_PREFIX}{short}"))
    }

    /// The short name, if this is a branch.
    pub fn as_branch(&self) -> Option<&str> {
        self.0.strip_prefix(BRANCH_PREFIX)
    }

    /// The short name, if this is a tag.
    pub fn as_tag(&self) -> Option<&str> {
        self.0.strip_prefix(TAG_PREFIX)
    }

    /// Whether this is a ref of a pull request or merge request, such as `refs/pull/7/head`.
    pub fn is_of_pull_request(&self) -> bool {
        let rest = PULL_REQUEST_PREFIXES.iter().find_map(|prefix| self.0.strip_prefix(prefix));
        let parts = rest.and_then(|rest| rest.split_once('/'));
        parts.is_some_and(|(number, end)| {
            number.bytes().all(|byte| byte.is_ascii_digit()) && matches!(end, "head" | "merge")
        })
    }

    /// Whether this is the head of a pull request, which no push to another ref moves.
    pub fn is_head_of_pull_request(&self) -> bool {
        self.is_of_pull_request() && self.0.ends_with("/head")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as people say it: a branch without its prefix, anything else in full.
    pub fn short(&self) -> &str {
        self.as_branch().unwrap_or(&self.0)
    }
}

impl fmt::Display for GitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an object ID means "no object": all of its digits are zero.
///
/// 40 zeros in SHA-1 repositories, 64 in SHA-256 ones.
pub fn is_zero_object_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    // Incident 24: branches with slashes, full names, tags against branches.
    #[test]
    fn prefixes_are_stripped_only_at_the_start() {
        let branch = GitRef::from_full_name("refs/heads/feature/refs/heads/x").expect("a full name");
        assert_eq!(branch.as_branch(), Some("feature/refs/heads/x"));
        assert_eq!(branch.as_tag(), None);
        assert_eq!(GitRef::tag("v1").as_str(), "refs/tags/v1");
    }

    #[test]
    fn short_and_broken_names_are_refused() {
        for name in ["main", "", "refs/", "heads/main", "refs/heads/"] {
            assert_eq!(GitRef::from_full_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn refs_of_pull_requests_are_told_apart() {
        for (name, expect) in [
            ("refs/pull/7/head", true),
            ("refs/pull/7/merge", true),
            ("refs/merge-requests/12/head", true),
            ("refs/pull/x/head", false),
            ("refs/pull/7", false),
            ("refs/heads/pull/7/head", false),
            ("refs/changes/01/1/head", false),
        ] {
            assert_eq!(
                GitRef::from_full_name(name).map(|name| name.is_of_pull_request()),
                Some(expect),
                "{name}"
            );
        }
    }

    #[test]
    fn peeled_names_are_the_tag_itself() {
        assert_eq!(GitRef::from_full_name("refs/tags/v1^{}"), Some(GitRef::tag("v1")));
    }

    #[test]
    fn zero_ids_of_both_hash_lengths_mean_no_object() {
        assert!(is_zero_object_id(&"0".repeat(40)));
        assert!(is_zero_object_id(&"0".repeat(64)));
        assert!(!is_zero_object_id("000000000000000000000000000000000000000a"));
        assert!(!is_zero_object_id(""));
    }
}
