//! GitLab.
//! <https://docs.gitlab.com/user/project/integrations/webhook_events/>

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::shared::{git_event, lenient, pull_request_refs, pushed_ref, required_header};
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample,
    UnsignedDelivery,
};
use crate::event::git_ref::GitRef;
use crate::event::{ChangedFiles, GitChanges, RefChange, Subject};
use crate::verify::{Authentication, Unreadable, Verified};
use crate::webhook_api::{
    DeliveryApi, DeliveryPaging, EventChoice, EventPurpose, PastDelivery, UpdateMethod, Webhook, WebhookApi,
    WebhookScope, identifier, status_code, text,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "GitLab",
    handled_events: "pushes of branches and tags, merge requests, releases, system hooks",
    authentication: Authentication::GitLab,
    delivery_id_header: Some("X-Gitlab-Event-UUID"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["X-Gitlab-Event"], usual: "Push Hook" }),
    event_types: &["Push Hook", "Tag Push Hook", "Release Hook", "Merge Request Hook", "System Hook"],
    event_fields: &["/event_name"],
    lists_changed_files: true,
    subjects: &[Subject::Git],
    settings: ProviderSettings {
        page: "project or group → Settings → Webhooks → Add new webhook",
        content_type: None,
        secret: "Secret token; a signing token (`whsec_…`) works too, put it into the key file as shown",
        events: EventSettings::Choices(&[
            EventChoice { label: "Push events", name: "push_events", purpose: EventPurpose::Always },
            EventChoice { label: "Tag push events", name: "tag_push_events", purpose: EventPurpose::Always },
            EventChoice {
                label: "Merge request events",
                name: "merge_requests_events",
                purpose: EventPurpose::PullRequests,
            },
        ]),
    },
    webhook_api: Some(&WEBHOOK_API),
    ..Provider::BASE
};

/// <https://docs.gitlab.com/api/project_webhooks/>, <https://docs.gitlab.com/api/group_webhooks/> and
/// <https://docs.gitlab.com/api/system_hooks/>
const WEBHOOK_API: WebhookApi = WebhookApi {
    service: Some("https://gitlab.com"),
    path_at: |_| "/api/v4",
    token_variables: &["GITLAB_TOKEN"],
    authorization: |token| ("PRIVATE-TOKEN", token.to_owned()),
    headers: &[],
    rights: "scope api, as Maintainer of the project or Owner of the group, whose webhooks need Premium (administrator for --instance)",
    webhooks: |scope| {
        Ok(match scope {
            WebhookScope::Repository(path) => format!("/projects/{}/hooks", path.replace('/', "%2F")),
            WebhookScope::Organization(path) => format!("/groups/{}/hooks", path.replace('/', "%2F")),
            WebhookScope::Instance => "/hooks".to_owned(),
        })
    },
    page_size: "per_page=100",
    items: None,
    update: UpdateMethod::Put,
    read: |item| {
        let flags = item
            .as_object()?
            .iter()
            .filter(|(name, value)| name.ends_with("_events") && **value == Value::Bool(true));
        let is_restricted = text(item, "/branch_filter_strategy").is_none_or(|how| how != "all_branches");
        Some(Webhook {
            id: identifier(item, "/id")?,
            url: text(item, "/url")?,
            is_active: true,
            events: flags.map(|(name, _)| name.clone()).collect(),
            content_type: None,
            verifies_tls: Some(item["enable_ssl_verification"].as_bool().unwrap_or(true)),
            disabled: text(item, "/alert_status").filter(|status| status.contains("disabled")).map(
                |status| match text(item, "/disabled_until") {
                    Some(until) => format!("{status} until {until}"),
                    None => status,
                },
            ),
            last_code: None,
            branch_filter: text(item, "/push_events_branch_filter")
                .filter(|filter| is_restricted && !filter.is_empty()),
            item: item.clone(),
        })
    },
    write: |form, _| {
        let mut body = json!({"url": form.url, "enable_ssl_verification": true});
        // What the form leaves out stays as it is, and a system hook begins with events of repositories.
        if *form.scope == WebhookScope::Instance {
            body["repository_update_events"] = Value::Bool(false);
        }
        for event in form.events {
            body[event] = Value::Bool(true);
        }
        if let Some(key) = form.key {
            let field = if key.starts_with("whsec_") { "signing_token" } else { "token" };
            body[field] = Value::from(key);
        }
        body
    },
    test: |scope| match scope {
        WebhookScope::Instance => Ok(""),
        _ => Ok("/test/push_events"),
    },
    deliveries: Some(&DeliveryApi {
        path: "/events",
        page_size: "per_page=20",
        test_event: "push_hooks",
        paging: DeliveryPaging::Number,
        read: |item| {
            let id = identifier(item, "/id")?;
            // Older versions tell no time, but the answer's headers do.
            let answered = text(item, "/response_headers/Date");
            let answered = answered.and_then(|date| jiff::fmt::rfc2822::parse(&date).ok());
            Some(PastDelivery {
                group: text(item, "/request_headers/Idempotency-Key").unwrap_or_else(|| id.clone()),
                id,
                event: text(item, "/trigger")?,
                at: text(item, "/created_at")
                    .and_then(|at| at.parse().ok())
                    .or(answered.map(|date| date.timestamp())),
                code: status_code(item, "/response_status"),
            })
        },
        resend: "/resend",
        resent_code: |answer| status_code(answer, "/response_status"),
    }),
};

fn parse(delivery: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    match required_header(delivery, "X-Gitlab-Event")? {
        "Push Hook" | "Tag Push Hook" => push(&delivery.json()?),
        "Release Hook" => release(&delivery.json()?),
        "Merge Request Hook" => merge_request(&delivery.json()?),
        "System Hook" => {
            let kind: SystemEvent = delivery.json()?;
            match kind.event_name.or(kind.object_kind).as_deref() {
                Some("push" | "tag_push") => push(&delivery.json()?),
                Some("merge_request") => merge_request(&delivery.json()?),
                Some(other) => Ok(Parsed::ignored_event(other)),
                None => Err(Unreadable::payload("missing field `event_name`")),
            }
        }
        event => Ok(Parsed::ignored_event(event)),
    }
}

/// The body of a system hook names its event; the header never does.
#[derive(Deserialize)]
struct SystemEvent {
    event_name: Option<String>,
    object_kind: Option<String>,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(rename = "ref")]
    name: String,
    after: Option<String>,
    checkout_sha: Option<String>,
    #[serde(borrow)]
    commits: Option<&'a RawValue>,
    before: Option<String>,
    /// The number of commits, of which it lists twenty. Of another type it counts as absent: only `paths`
    /// need it.
    #[serde(default, deserialize_with = "lenient")]
    total_commits_count: Option<u64>,
    project: Project,
}

#[derive(Deserialize)]
struct Project {
    git_ssh_url: Option<String>,
    git_http_url: Option<String>,
    web_url: Option<String>,
}

impl Project {
    fn event(&self, change: RefChange) -> Result<Parsed, Unreadable> {
        self.events(vec![change])
    }

    fn events(&self, changes: Vec<RefChange>) -> Result<Parsed, Unreadable> {
        let urls = [&self.git_http_url, &self.git_ssh_url, &self.web_url];
        git_event(urls.map(Option::as_deref), self.git_ssh_url.as_deref(), GitChanges::Refs(changes))
    }
}

/// `after` of an annotated tag is the tag object, `checkout_sha` the commit.
fn push(push: &Push<'_>) -> Result<Parsed, Unreadable> {
    let (after, head) = (push.after.as_deref(), push.checkout_sha.as_deref());
    let files = ChangedFiles::from_push(push.before.as_deref(), false, push.total_commits_count);
    let change = pushed_ref(&push.name, after, false, head, push.commits)?;
    push.project.event(RefChange { files, ..change })
}

#[derive(Deserialize)]
struct Release {
    action: Option<String>,
    tag: String,
    project: Project,
}

fn release(release: &Release) -> Result<Parsed, Unreadable> {
    match release.action.as_deref() {
        None | Some("create") => release.project.event(RefChange::new(GitRef::tag(&release.tag))),
        Some(action) => Ok(Parsed::ignored(format!("release action `{action}` moves no tag"))),
    }
}

#[derive(Deserialize)]
struct MergeRequestEvent {
    object_attributes: MergeRequest,
    project: Project,
}

#[derive(Deserialize)]
struct MergeRequest {
    iid: u64,
    action: Option<String>,
    /// The head before, only where an update has moved it.
    oldrev: Option<String>,
    last_commit: Option<Commit>,
}

#[derive(Deserialize)]
struct Commit {
    id: Option<String>,
}

/// Source: <https://docs.gitlab.com/user/project/integrations/webhook_events/#merge-request-events>
fn merge_request(event: &MergeRequestEvent) -> Result<Parsed, Unreadable> {
    let MergeRequest { iid, action, oldrev, last_commit } = &event.object_attributes;
    // Some system hooks name no action, so that the ref may have moved.
    if let Some(action) = action
        && !matches!(action.as_str(), "open" | "reopen")
        && !(action == "update" && oldrev.is_some())
    {
        return Ok(Parsed::ignored(format!("merge request action `{action}` moves no ref")));
    }
    let head = last_commit.as_ref().and_then(|commit| commit.id.as_deref());
    event.project.events(pull_request_refs(&format!("refs/merge-requests/{iid}"), head))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let (repository, name, commit) = change.only_push()?;
    let (header, kind) = match name.as_tag() {
        Some(_) => ("Tag Push Hook", "tag_push"),
        None => ("Push Hook", "push"),
    };
    let body = json!({
        "object_kind": kind,
        "ref": name.as_str(),
        "after": commit,
        "checkout_sha": commit,
        "project": {
            "path_with_namespace": repository.path(),
            "git_http_url": repository.to_string(),
            "git_ssh_url": format!("git@{}:{}.git", repository.host(), repository.path()),
        },
    });
    Ok(UnsignedDelivery::json(&[("X-Gitlab-Event", header)], &body))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back};
    use super::*;

    const PUSH_EVENT: (&str, &str) = ("X-Gitlab-Event", "Push Hook");

    fn push_body() -> Value {
        json!({
            "object_kind": "push",
            "ref": "refs/heads/main",
            "after": "1111111111111111111111111111111111111111",
            "checkout_sha": "1111111111111111111111111111111111111111",
            "commits": [{"id": "1111111111111111111111111111111111111111"}],
            "project": {
                "git_ssh_url": "git@gitlab.example.com:Group/Sub/App.git",
                "git_http_url": "https://gitlab.example.com/gitlab/Group/Sub/App.git",
                "web_url": "https://gitlab.example.com/gitlab/Group/Sub/App",
            },
        })
    }

    #[test]
    fn every_commit_of_a_push_is_brought() {
        let project = json!({"git_http_url": "https://gitlab.example.com/org/app.git"});
        let body = json!({"ref": "refs/heads/main", "after": "1111", "checkout_sha": "2222",
                          "commits": [{"id": "3333"}], "project": project});
        let headers = [("X-Gitlab-Event", "Push Hook")];
        for (commit, expect) in [("1111", true), ("2222", true), ("3333", true), ("4444", false)] {
            assert_eq!(testing::brings(&PROVIDER, &headers, &body, commit), expect, "{commit}");
        }
    }

    #[test]
    fn pushes_of_branches_and_tags_are_read() {
        check(&PROVIDER, &[PUSH_EVENT], &push_body(), "push to gitlab.example.com/gitlab/group/sub/app main");
        let mut body = push_body();
        body["ref"] = json!("refs/tags/v1");
        check(
            &PROVIDER,
            &[("X-Gitlab-Event", "Tag Push Hook")],
            &body,
            "push to gitlab.example.com/gitlab/group/sub/app refs/tags/v1",
        );
    }

    #[test]
    fn a_deleted_branch_has_no_checkout_and_zeros_after() {
        let mut body = push_body();
        body["after"] = json!("0".repeat(40));
        body["checkout_sha"] = Value::Null;
        check(
            &PROVIDER,
            &[PUSH_EVENT],
            &body,
            "push to gitlab.example.com/gitlab/group/sub/app main (deleted)",
        );
    }

    #[test]
    fn system_hooks_name_their_event_in_the_body() {
        let system = [("X-Gitlab-Event", "System Hook")];
        let mut body = push_body();
        body["object_kind"] = Value::Null;
        body["event_name"] = json!("push");
        check(&PROVIDER, &system, &body, "push to gitlab.example.com/gitlab/group/sub/app main");
        check(
            &PROVIDER,
            &system,
            &json!({"event_name": "project_create"}),
            "ignored: event type `project_create` is not handled",
        );
        check(
            &PROVIDER,
            &system,
            &json!({}),
            "unreadable: cannot read the payload: missing field `event_name`",
        );
    }

    // Incident 20.
    #[test]
    fn other_events_are_ignored() {
        check(
            &PROVIDER,
            &[("X-Gitlab-Event", "Issue Hook")],
            &json!({}),
            "ignored: event type `Issue Hook` is not handled",
        );
        let release = json!({"tag": "v1", "action": "update", "project": push_body()["project"]});
        check(
            &PROVIDER,
            &[("X-Gitlab-Event", "Release Hook")],
            &release,
            "ignored: release action `update` moves no tag",
        );
    }

    #[test]
    fn malformed_payloads_are_errors() {
        testing::check_malformed(&PROVIDER, &[PUSH_EVENT], &push_body());
    }

    #[test]
    fn merge_requests_move_their_own_refs() {
        let hook = [("X-Gitlab-Event", "Merge Request Hook")];
        let mut body = json!({
            "object_kind": "merge_request", "project": push_body()["project"],
            "object_attributes": {"iid": 7, "action": "open", "last_commit": {"id": "1111"}},
        });
        let moved = "push to gitlab.example.com/gitlab/group/sub/app refs/merge-requests/7/head, refs/merge-requests/7/merge";
        check(&PROVIDER, &hook, &body, moved);
        check(&PROVIDER, &[("X-Gitlab-Event", "System Hook")], &body, moved);
        testing::check_malformed(&PROVIDER, &hook, &body);
        body["object_attributes"]["action"] = json!("update");
        check(&PROVIDER, &hook, &body, "ignored: merge request action `update` moves no ref");
        body["object_attributes"]["oldrev"] = json!("0000");
        check(&PROVIDER, &hook, &body, moved);
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
