//! The Git events that GitHub and the family of Gitea write alike.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{CannotCompose, Parsed, Sample, git_event, lenient, pull_request_refs, pushed_ref};
use crate::event::git_ref::GitRef;
use crate::event::{ChangedFiles, GitChanges, RefChange};
use crate::verify::{Unreadable, Verified};

/// Reads an event by its name; `None` if it is not one of these.
pub(in crate::provider) fn parse(event: &str, delivery: &Verified<'_>) -> Option<Result<Parsed, Unreadable>> {
    Some(match event {
        "push" => delivery.json().and_then(push),
        "create" => delivery.json().and_then(|event| created_or_deleted(event, false)),
        "delete" => delivery.json().and_then(|event| created_or_deleted(event, true)),
        "release" => delivery.json().and_then(release),
        // Gitea names the type of the event `pull_request_sync` where a push has moved the head.
        "pull_request" | "pull_request_sync" => delivery.json().and_then(pull_request),
        _ => return None,
    })
}

/// A string that stays where the body has it. (An `Option<Cow>` would always be copied.)
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Repository<'a> {
    #[serde(borrow)]
    ssh_url: Option<Text<'a>>,
    #[serde(borrow)]
    clone_url: Option<Text<'a>>,
    #[serde(borrow)]
    git_url: Option<Text<'a>>,
    #[serde(borrow)]
    html_url: Option<Text<'a>>,
}

impl Text<'_> {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl Repository<'_> {
    fn event(&self, change: RefChange) -> Result<Parsed, Unreadable> {
        self.events(vec![change])
    }

    fn events(&self, changes: Vec<RefChange>) -> Result<Parsed, Unreadable> {
        let urls = [&self.clone_url, &self.ssh_url, &self.git_url, &self.html_url];
        let urls = urls.map(|url| url.as_ref().map(Text::as_str));
        git_event(urls, self.ssh_url.as_ref().map(Text::as_str), GitChanges::Refs(changes))
    }
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(rename = "ref", borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    after: Option<Text<'a>>,
    #[serde(default)]
    deleted: bool,
    #[serde(borrow)]
    head_commit: Option<Commit<'a>>,
    #[serde(borrow)]
    commits: Option<&'a RawValue>,
    // Only `paths` need these three, and not every fork of a forge writes them alike.
    #[serde(borrow, default, deserialize_with = "lenient")]
    before: Option<Text<'a>>,
    #[serde(default, deserialize_with = "lenient")]
    forced: Option<bool>,
    /// The number of commits at Gitea, which lists only some of them.
    #[serde(default, deserialize_with = "lenient")]
    total_commits: Option<u64>,
    #[serde(borrow)]
    repository: Repository<'a>,
}

#[derive(Deserialize)]
struct Commit<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

impl Commit<'_> {
    fn id(&self) -> Option<&str> {
        self.id.as_ref().map(Text::as_str)
    }
}

fn push(push: Push<'_>) -> Result<Parsed, Unreadable> {
    let after = push.after.as_ref().map(Text::as_str);
    let head = push.head_commit.as_ref().and_then(Commit::id);
    let before = push.before.as_ref().map(Text::as_str);
    let files = ChangedFiles::from_push(before, push.forced.unwrap_or_default(), push.total_commits);
    let change = pushed_ref(&push.name, after, push.deleted, head, push.commits)?;
    push.repository.event(RefChange { files, ..change })
}

/// GitHub sends a push as well; for a deleted branch Gitea sends nothing but this.
#[derive(Deserialize)]
struct CreatedOrDeleted<'a> {
    #[serde(rename = "ref")]
    name: Option<String>,
    ref_type: String,
    sha: Option<String>,
    #[serde(borrow)]
    repository: Repository<'a>,
}

fn created_or_deleted(event: CreatedOrDeleted<'_>, deleted: bool) -> Result<Parsed, Unreadable> {
    let name = event.name.and_then(|name| GitRef::from_name_and_type(&name, &event.ref_type));
    match name {
        Some(name) => event.repository.event(RefChange {
            deleted,
            commits: event.sha.iter().map(String::as_str).collect(),
            ..RefChange::new(name)
        }),
        None => {
            Ok(Parsed::ignored(format!("a {} was created or deleted, not a branch or tag", event.ref_type)))
        }
    }
}

#[derive(Deserialize)]
struct ReleaseEvent<'a> {
    action: String,
    release: Release,
    #[serde(borrow)]
    repository: Repository<'a>,
}

#[derive(Deserialize)]
struct Release {
    tag_name: String,
}

fn release(event: ReleaseEvent<'_>) -> Result<Parsed, Unreadable> {
    if !matches!(event.action.as_str(), "published" | "released") {
        return Ok(Parsed::ignored(format!("release action `{}` moves no tag", event.action)));
    }
    let name = GitRef::tag(&event.release.tag_name);
    event.repository.event(RefChange::new(name))
}

#[derive(Deserialize)]
struct PullRequestEvent<'a> {
    action: String,
    number: u64,
    #[serde(borrow)]
    pull_request: PullRequest<'a>,
    #[serde(borrow)]
    repository: Repository<'a>,
}

#[derive(Deserialize)]
struct PullRequest<'a> {
    #[serde(borrow)]
    head: Option<PullRequestHead<'a>>,
}

#[derive(Deserialize)]
struct PullRequestHead<'a> {
    #[serde(borrow)]
    sha: Option<Text<'a>>,
}

fn pull_request(event: PullRequestEvent<'_>) -> Result<Parsed, Unreadable> {
    // GitHub writes `synchronize`, Gitea and its relatives `synchronized`.
    if !matches!(event.action.as_str(), "opened" | "synchronize" | "synchronized" | "reopened") {
        return Ok(Parsed::ignored(format!("pull request action `{}` moves no ref", event.action)));
    }
    let head = event.pull_request.head.as_ref().and_then(|head| head.sha.as_ref());
    let refs = pull_request_refs(&format!("refs/pull/{}", event.number), head.map(Text::as_str));
    event.repository.events(refs)
}

/// The body of a push, as all of them write it.
pub(in crate::provider) fn push_body(change: &Sample) -> Result<Value, CannotCompose> {
    let (repository, name, commit) = change.only_push()?;
    Ok(json!({
        "ref": name.as_str(),
        "after": commit,
        "head_commit": {"id": commit},
        "repository": {
            "full_name": repository.path(),
            "clone_url": repository.to_string(),
            "ssh_url": format!("git@{}:{}.git", repository.host(), repository.path()),
        },
    }))
}
