//! The commit IDs that a push brings.
//!
//! A push can have thousands, and hardly any object is pinned to one: where the sender lists commits
//! as most do, the list stays as it is written until somebody asks.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Commit IDs, as far as the sender lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitIds {
    /// With a space behind each.
    named: String,
    /// A JSON list of commits, each with its ID in the field `id`.
    listed: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Commit<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
}

impl CommitIds {
    /// These as well: a JSON list of objects, each with the ID in its field `id`, as GitHub, Gitea and
    /// GitLab write it. A list that is written in another way holds no ID.
    pub fn with_list(self, list: &str) -> CommitIds {
        CommitIds { listed: Some(list.into()), ..self }
    }

    /// Whether this ID is one of them.
    pub fn contains(&self, id: &str) -> bool {
        let is_listed = |list: &str| {
            let commits: Vec<Commit<'_>> = serde_json::from_str(list).unwrap_or_default();
            commits.iter().any(|commit| commit.id == id)
        };
        self.named().any(|other| other == id) || self.listed.as_deref().is_some_and(is_listed)
    }

    fn named(&self) -> impl Iterator<Item = &str> {
        self.named.split_terminator(' ')
    }
}

/// Leaves out what cannot be an ID: the empty text, and text with a space in it. The same ID twice
/// in a row is taken once.
impl<'a> FromIterator<&'a str> for CommitIds {
    fn from_iter<I: IntoIterator<Item = &'a str>>(ids: I) -> CommitIds {
        let mut named = String::new();
        let mut last = "";
        for id in ids.into_iter().filter(|id| !id.is_empty() && !id.contains(' ')) {
            if id == last {
                continue;
            }
            named.push_str(id);
            named.push(' ');
            last = id;
        }
        CommitIds { named, listed: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_apart() {
        let ids: CommitIds = ["abc", "abc", "", "de f", "12"].into_iter().collect();
        assert_eq!(ids.named().collect::<Vec<_>>(), ["abc", "12"]);
        assert!(ids.contains("12") && !ids.contains("ab") && !ids.contains("abc 12") && !ids.contains(""));
        assert_eq!(CommitIds::default().named().count(), 0);
    }

    #[test]
    fn a_list_is_read_when_somebody_asks() {
        let list = r#"[{"id": "abc", "message": "reverts 123"}, {"url": "x", "id": "def"}]"#;
        let ids = CommitIds::from_iter(["9"]).with_list(list);
        assert!(ids.contains("9") && ids.contains("abc") && ids.contains("def"));
        assert!(!ids.contains("123") && !ids.contains("x") && !ids.contains("reverts 123"));
        for nonsense in ["null", "{}", "[1]", "[{}]", ""] {
            assert!(!CommitIds::default().with_list(nonsense).contains("abc"), "{nonsense}");
        }
    }
}
