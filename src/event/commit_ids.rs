//! The commit IDs that a push brings.
//!
//! A push can have thousands, and hardly any object is pinned to one: where the provider lists commits
//! as most do, the list stays as it is written until it is read.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json_items::JsonItems;

/// Commit IDs, as far as the provider lists them. Kept elsewhere as a list of IDs and nothing else: what
/// people write into commits stays out of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitIds {
    /// With a space behind each.
    named: String,
    /// A JSON list of commits, each with its ID in the field `id`.
    listed: Option<Box<str>>,
}

#[derive(Deserialize)]
struct CommitEntry<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
}

impl CommitIds {
    /// Adds a JSON list of objects, each with the ID in its field `id`, as GitHub, Gitea and
    /// GitLab write it.
    pub fn with_list(self, list: &str) -> CommitIds {
        CommitIds { listed: Some(list.into()), ..self }
    }

    /// Whether this ID is one of them. Where the list is written in another way, whether it stands
    /// there at all: one request too many is cheap.
    pub fn contains(&self, id: &str) -> bool {
        let is_listed = |list: &str| {
            // Most lists are not read even now.
            list.contains(id) && read(list).is_none_or(|mut ids| ids.any(|other| other == id))
        };
        !id.is_empty()
            && (self.named().any(|other| other == id) || self.listed.as_deref().is_some_and(is_listed))
    }

    /// Returns the IDs, each once for each time that it is listed.
    pub fn to_list(&self) -> Vec<String> {
        let listed = self.listed.as_deref().and_then(read).into_iter().flatten();
        self.named().map(Cow::Borrowed).chain(listed).map(Cow::into_owned).collect()
    }

    /// The list of commits as the provider writes it, if it lists them.
    pub(super) fn listed(&self) -> Option<&str> {
        self.listed.as_deref()
    }

    fn named(&self) -> impl Iterator<Item = &str> {
        self.named.split_terminator(' ')
    }
}

/// The IDs of a list of commits; none if it is written in another way.
fn read(list: &str) -> Option<impl Iterator<Item = Cow<'_, str>>> {
    let list: &RawValue = serde_json::from_str(list).ok()?;
    let commits = JsonItems::new(list)?;
    let is_readable = commits.clone().all(|commit| id_of(commit).is_ok());
    is_readable.then(|| commits.filter_map(|commit| id_of(commit).ok()?))
}

fn id_of(commit: &RawValue) -> serde_json::Result<Option<Cow<'_, str>>> {
    serde_json::from_str::<CommitEntry<'_>>(commit.get()).map(|commit| commit.id)
}

impl Serialize for CommitIds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.to_list())
    }
}

impl<'de> Deserialize<'de> for CommitIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CommitIds, D::Error> {
        let ids = Vec::<String>::deserialize(deserializer)?;
        Ok(ids.iter().map(String::as_str).collect())
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
        let odd = CommitIds::default().with_list(r#"[{"id": null}, {}, {"id": "abc"}]"#);
        assert!(odd.contains("abc") && !odd.contains("null"));
        for unreadable in [r#"[{"id": 7}, {"id": "abc"}]"#, r#"{"0": "abc"}"#, r#"["abc"]"#] {
            assert!(CommitIds::default().with_list(unreadable).contains("abc"), "{unreadable}");
            assert!(!CommitIds::default().with_list(unreadable).contains("def"), "{unreadable}");
        }
    }

    #[test]
    fn only_ids_are_written_down() {
        let list = r#"[{"id": "abc", "message": "a secret"}, {"id": "def"}]"#;
        let ids = CommitIds::from_iter(["9"]).with_list(list);
        let written = serde_json::to_string(&ids).expect("JSON");
        assert_eq!(written, r#"["9","abc","def"]"#);
        let again: CommitIds = serde_json::from_str(&written).expect("IDs");
        assert!(again.contains("9") && again.contains("abc") && again.contains("def"));
    }
}
