//! Which files a push changes, as GitHub, GitLab, Gitea and its relatives list them with each commit.

use serde::Deserialize;

use crate::event::git_ref::is_zero_object_id;
use crate::verify::Verified;

/// The part of a push that says what has changed.
#[derive(Deserialize)]
struct Push {
    before: Option<String>,
    #[serde(default)]
    forced: bool,
    #[serde(default)]
    commits: Vec<Commit>,
    /// GitLab: how many commits there are, of which it lists twenty.
    total_commits_count: Option<u64>,
    /// Gitea: the same.
    total_commits: Option<u64>,
}

#[derive(Deserialize)]
struct Commit {
    added: Vec<String>,
    modified: Vec<String>,
    removed: Vec<String>,
}

/// GitHub lists no more commits than this.
/// <https://docs.github.com/en/webhooks/webhook-events-and-payloads#push>
const LISTED_BY_GITHUB: usize = 2048;

/// The files that a push changes; none if it does not say, or not all of them: a list that was cut
/// short, a new ref, or one that was forced away from what it was.
pub fn changed_files(delivery: &Verified<'_>) -> Option<Vec<String>> {
    let push: Push = delivery.json().ok()?;
    let is_new = push.before.as_deref().is_none_or(is_zero_object_id);
    let listed = push.commits.len();
    let total = push.total_commits_count.or(push.total_commits);
    let is_cut = listed >= LISTED_BY_GITHUB || total.is_some_and(|total| total != listed as u64);
    if is_new || push.forced || is_cut || listed == 0 {
        return None;
    }
    let files = push.commits.into_iter().flat_map(|commit| [commit.added, commit.modified, commit.removed]);
    Some(files.flatten().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::delivery::Delivery;
    use crate::verify::testing::believe;

    fn files(push: Value) -> Option<Vec<String>> {
        let (headers, body) = (Vec::new(), push.to_string());
        changed_files(&believe(Delivery { headers: &headers, body: body.as_bytes() }))
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
