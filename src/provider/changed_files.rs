//! Which files a push changes, as GitHub, GitLab, Gitea and its relatives list them with each commit.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::event::git_ref::is_zero_object_id;
use crate::json_items::JsonItems;
use crate::verify::Verified;

/// The part of a push that says what has changed.
#[derive(Deserialize)]
struct Push<'a> {
    before: Option<String>,
    #[serde(default)]
    forced: bool,
    #[serde(borrow)]
    commits: Option<&'a RawValue>,
    /// GitLab: how many commits there are, of which it lists twenty.
    total_commits_count: Option<u64>,
    /// The number of commits at Gitea, which lists only some of them.
    total_commits: Option<u64>,
}

#[derive(Deserialize)]
struct Commit<'a> {
    #[serde(borrow)]
    added: &'a RawValue,
    #[serde(borrow)]
    modified: &'a RawValue,
    #[serde(borrow)]
    removed: &'a RawValue,
}

/// GitHub lists no more commits than this.
/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>
const MAX_GITHUB_COMMITS: usize = 2048;

/// Whether a push changes one of the files that are wanted; none if it does not say, or not all of
/// them: a list that was cut short, a new ref, or one that was forced away from what it was.
pub fn changes_a_file(delivery: &Verified<'_>, is_wanted: impl Fn(&str) -> bool) -> Option<bool> {
    let push: Push<'_> = delivery.json().ok()?;
    let is_new = push.before.as_deref().is_none_or(is_zero_object_id);
    if is_new || push.forced {
        return None;
    }
    let mut listed = 0;
    let mut changes_one = false;
    for commit in JsonItems::new(push.commits?)? {
        listed += 1;
        let Commit { added, modified, removed } = serde_json::from_str(commit.get()).ok()?;
        for list in [added, modified, removed] {
            for file in JsonItems::new(list)? {
                let file: Cow<'_, str> = serde_json::from_str(file.get()).ok()?;
                changes_one = changes_one || is_wanted(&file);
            }
        }
    }
    let total = push.total_commits_count.or(push.total_commits);
    let is_cut = listed >= MAX_GITHUB_COMMITS || total.is_some_and(|total| total != listed as u64);
    (!is_cut && listed > 0).then_some(changes_one)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::delivery::Delivery;
    use crate::verify::testing::believe;

    fn files(push: Value) -> Option<Vec<String>> {
        let (headers, body) = (Vec::new(), push.to_string());
        let seen = std::cell::RefCell::new(Vec::new());
        let delivery = Delivery { headers: &headers, body: body.as_bytes() };
        changes_a_file(&believe(delivery), |file| {
            seen.borrow_mut().push(file.to_owned());
            false
        })?;
        Some(seen.into_inner())
    }

    #[test]
    fn files_are_known_only_where_all_are_listed() {
        let commit = json!({"id": "1", "added": ["a"], "modified": ["b/c"], "removed": []});
        let push = |extra: Value| {
            let mut push = json!({"before": "11", "commits": [commit]});
            push.as_object_mut().expect("a mapping").extend(extra.as_object().expect("a mapping").clone());
            files(push)
        };
        assert_eq!(push(json!({})), Some(vec!["a".to_owned(), "b/c".to_owned()]));
        assert_eq!(
            push(json!({"total_commits_count": 1, "forced": false})).map(|files| files.len()),
            Some(2)
        );
        for open in [
            json!({"total_commits_count": 21}),
            json!({"total_commits": 9}),
            json!({"forced": true}),
            json!({"before": "0000000000"}),
            json!({"before": null}),
            json!({"commits": []}),
            json!({"commits": [{"id": "1"}]}),
            json!({"commits": 7}),
        ] {
            assert_eq!(push(open.clone()), None, "{open}");
        }
        assert_eq!(push(json!({"commits": vec![commit.clone(); 2048]})), None);
    }
}
