//! The files that a push changes, as GitHub, GitLab, Gitea and its relatives list them with each commit.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::git_ref::is_zero_object_id;
use crate::json_items::JsonItems;

/// The place where a push lists the files that it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ChangedFiles {
    /// It does not say, or not all: a new ref, or one that was forced away from what it was.
    #[default]
    Unknown,
    /// With each of its commits.
    ByCommit {
        /// The number of commits, where the provider lists only some of them.
        total: Option<u64>,
    },
    /// These and no others, as a publisher has read them.
    Listed(Box<[String]>),
}

/// GitHub lists no more commits than this.
/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>
const MAX_GITHUB_COMMITS: usize = 2048;

#[derive(Deserialize)]
struct CommitFiles<'a> {
    #[serde(borrow)]
    added: &'a RawValue,
    #[serde(borrow)]
    modified: &'a RawValue,
    #[serde(borrow)]
    removed: &'a RawValue,
}

impl ChangedFiles {
    /// Derives it from the fields of a push: the commit before, whether it was forced, and its number of commits.
    pub fn from_push(before: Option<&str>, is_forced: bool, total: Option<u64>) -> ChangedFiles {
        let is_new = before.is_none_or(is_zero_object_id);
        match is_new || is_forced {
            true => ChangedFiles::Unknown,
            false => ChangedFiles::ByCommit { total },
        }
    }

    /// Whether one of the files that the commits change is wanted; none if it cannot be known. `commits` is
    /// a JSON list.
    pub(super) fn change_one(&self, commits: Option<&str>, is_wanted: impl Fn(&str) -> bool) -> Option<bool> {
        let (total, commits) = match self {
            ChangedFiles::Unknown => return None,
            ChangedFiles::Listed(files) => return Some(files.iter().any(|file| is_wanted(file))),
            ChangedFiles::ByCommit { total } => (*total, commits?),
        };
        let mut listed = 0;
        let mut changes_one = false;
        for commit in JsonItems::new(serde_json::from_str(commits).ok()?)? {
            listed += 1;
            let CommitFiles { added, modified, removed } = serde_json::from_str(commit.get()).ok()?;
            for list in [added, modified, removed] {
                for file in JsonItems::new(list)? {
                    let file: Cow<'_, str> = serde_json::from_str(file.get()).ok()?;
                    changes_one = changes_one || is_wanted(&file);
                }
            }
        }
        let is_cut = listed >= MAX_GITHUB_COMMITS || total.is_some_and(|total| total != listed as u64);
        (!is_cut && listed > 0).then_some(changes_one)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn files(files: ChangedFiles, commits: &Value) -> Option<Vec<String>> {
        let seen = std::cell::RefCell::new(Vec::new());
        files.change_one(Some(&commits.to_string()), |file| {
            seen.borrow_mut().push(file.to_owned());
            false
        })?;
        Some(seen.into_inner())
    }

    #[test]
    fn files_are_known_only_where_all_are_listed() {
        let commit = json!({"id": "1", "added": ["a"], "modified": ["b/c"], "removed": []});
        let one = json!([commit]);
        let push = |before, is_forced, total| files(ChangedFiles::from_push(before, is_forced, total), &one);
        let both = Some(vec!["a".to_owned(), "b/c".to_owned()]);
        assert_eq!(push(Some("11"), false, None), both);
        assert_eq!(push(Some("11"), false, Some(1)), both);
        assert_eq!(push(Some("11"), false, Some(21)), None, "the list is cut");
        assert_eq!(push(Some("11"), true, None), None, "forced");
        assert_eq!(push(Some("0000000000"), false, None), None, "a new ref");
        assert_eq!(push(None, false, None), None);
        let known = ChangedFiles::ByCommit { total: None };
        for open in [json!([]), json!([{"id": "1"}]), json!(7), json!(vec![commit.clone(); 2048])] {
            assert_eq!(files(known.clone(), &open), None);
        }
    }
}
