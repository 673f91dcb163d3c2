//! The Git events that GitHub and the family of Gitea write alike.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{CannotCompose, Change, Parsed, git_event, pushed_ref};
use crate::event::git_ref::GitRef;
use crate::event::{GitChanges, RefChange};
use crate::verify::{Unreadable, Verified};

/// Reads an event by its name; `None` if it is not one of these.
pub(super) fn parse(event: &str, delivery: &Verified<'_>) -> Option<Result<Parsed, Unreadable>> {
    Some(match event {
        "push" => delivery.json().and_then(push),
        "create" => delivery.json().and_then(|event| created_or_deleted(event, false)),
        "delete" => delivery.json().and_then(|event| created_or_deleted(event, true)),
        "release" => delivery.json().and_then(release),
        _ => return None,
    })
}

#[derive(Deserialize)]
struct Repository {
    ssh_url: Option<String>,
    clone_url: Option<String>,
    git_url: Option<String>,
    html_url: Option<String>,
}

impl Repository {
    fn event(&self, change: RefChange) -> Result<Parsed, Unreadable> {
        let urls = [&self.clone_url, &self.ssh_url, &self.git_url, &self.html_url];
        git_event(urls.map(Option::as_deref), self.ssh_url.clone(), GitChanges::Refs(vec![change]))
    }
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    name: String,
    after: Option<String>,
    #[serde(default)]
    deleted: bool,
    head_commit: Option<Commit>,
    commits: Option<Vec<Commit>>,
    repository: Repository,
}

#[derive(Deserialize)]
struct Commit {
    id: Option<String>,
}

fn push(push: Push) -> Result<Parsed, Unreadable> {
    let head = push.head_commit.as_ref().and_then(|commit| commit.id.clone());
    let listed = push.head_commit.into_iter().chain(push.commits.into_iter().flatten());
    let commits = listed.filter_map(|commit| commit.id).collect();
    push.repository.event(pushed_ref(
        &push.name,
        push.after.as_deref(),
        push.deleted,
        head.as_deref(),
        commits,
    )?)
}

/// GitHub sends a push as well; for a deleted branch Gitea sends nothing but this.
#[derive(Deserialize)]
struct CreatedOrDeleted {
    #[serde(rename = "ref")]
    name: Option<String>,
    ref_type: String,
    sha: Option<String>,
    repository: Repository,
}

fn created_or_deleted(event: CreatedOrDeleted, deleted: bool) -> Result<Parsed, Unreadable> {
    let name = event.name.and_then(|name| GitRef::from_name_and_type(&name, &event.ref_type));
    match name {
        Some(name) => event.repository.event(RefChange {
            name,
            deleted,
            commits: event.sha.into_iter().collect(),
            head: None,
        }),
        None => Ok(Parsed::ignored(format!(
            "a {} was created or deleted, neither branch nor tag",
            event.ref_type
        ))),
    }
}

#[derive(Deserialize)]
struct ReleaseEvent {
    action: String,
    release: Release,
    repository: Repository,
}

#[derive(Deserialize)]
struct Release {
    tag_name: String,
}

fn release(event: ReleaseEvent) -> Result<Parsed, Unreadable> {
    if !matches!(event.action.as_str(), "published" | "released") {
        return Ok(Parsed::ignored(format!("release action `{}` moves no tag", event.action)));
    }
    let name = GitRef::tag(&event.release.tag_name);
    event.repository.event(RefChange { name, deleted: false, commits: Vec::new(), head: None })
}

/// The body of a push, as all of them write it.
pub(super) fn push_body(change: &Change) -> Result<Value, CannotCompose> {
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
