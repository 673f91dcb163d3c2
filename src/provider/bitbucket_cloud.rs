//! Bitbucket Cloud.
//! <https://support.atlassian.com/bitbucket-cloud/docs/event-payloads/#Push>

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::shared::batch::BoundedList;
use super::shared::{git_event, required_header};
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample,
    UnsignedDelivery,
};
use crate::event::git_ref::GitRef;
use crate::event::{GitChanges, RefChange, Subject};
use crate::verify::{Authentication, Encoding, Hmac, HmacInput, Unreadable, Verified};
use crate::webhook_api::{
    EventChoice, EventPurpose, UpdateMethod, Webhook, WebhookApi, WebhookScope, identifier, owner_and_name,
    text, texts,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "BitbucketCloud",
    handled_events: "pushes of branches and tags",
    authentication: Authentication::Hmac(Hmac {
        headers: &["X-Hub-Signature"],
        encoding: Encoding::Prefixed,
        signed: HmacInput::Body,
    }),
    delivery_id_header: Some("X-Request-UUID"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["X-Event-Key"], usual: "repo:push" }),
    event_types: &["repo:push"],
    may_come_unsigned: true,
    subjects: &[Subject::Git],
    settings: ProviderSettings {
        page: "repository → Repository settings → Webhooks → Add webhook",
        content_type: None,
        secret: "Secret",
        events: EventSettings::Choices(&[EventChoice {
            label: "Repository push",
            name: "repo:push",
            purpose: EventPurpose::Always,
        }]),
    },
    webhook_api: Some(&WEBHOOK_API),
    ..Provider::BASE
};

/// <https://developer.atlassian.com/cloud/bitbucket/rest/api-group-webhooks/>
const WEBHOOK_API: WebhookApi = WebhookApi {
    service: Some("https://api.bitbucket.org"),
    path_at: |_| "/2.0",
    token_variables: &["BITBUCKET_TOKEN"],
    // An access token of a repository or workspace stands alone; an API token needs the account's email address.
    authorization: |token| match token.contains(':') {
        true => ("Authorization", format!("Basic {}", STANDARD.encode(token))),
        false => ("Authorization", format!("Bearer {token}")),
    },
    headers: &[],
    rights: "scope webhook of an access token, or the scopes read, write and delete:webhook:bitbucket of an API token, written EMAIL:TOKEN",
    webhooks: |scope| match scope {
        WebhookScope::Repository(name) => {
            let (owner, name) = owner_and_name(name)?;
            Ok(format!("/repositories/{owner}/{name}/hooks"))
        }
        WebhookScope::Organization(name) => Ok(format!("/workspaces/{name}/hooks")),
        WebhookScope::Instance => Err("Bitbucket Cloud has no webhooks for all workspaces; use --org"),
    },
    page_size: "pagelen=100",
    items: Some("values"),
    update: UpdateMethod::Put,
    read: |item| {
        Some(Webhook {
            id: identifier(item, "/uuid")?,
            url: text(item, "/url")?,
            is_active: item["active"].as_bool().unwrap_or(true),
            events: texts(item, "/events"),
            content_type: None,
            verifies_tls: Some(!item["skip_cert_verification"].as_bool().unwrap_or(false)),
            disabled: None,
            last_code: None,
            branch_filter: None,
            item: item.clone(),
        })
    },
    // `null` takes the secret away, which is what an endpoint without signatures needs.
    write: |form, existing| {
        let description = existing.and_then(|item| item["description"].as_str()).unwrap_or("flux-recv");
        json!({
            "description": description,
            "url": form.url,
            "active": true,
            "skip_cert_verification": false,
            "secret": form.key,
            "events": form.events,
        })
    },
    test: |_| Err("its API cannot send a test; push, or use `flux-recv send`"),
    deliveries: None,
};

fn parse(delivery: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    match required_header(delivery, "X-Event-Key")? {
        "repo:push" => push(&delivery.json()?),
        event => Ok(Parsed::ignored_event(event)),
    }
}

#[derive(Deserialize)]
struct Push {
    push: Changes,
    repository: Repository,
}

#[derive(Deserialize)]
struct Changes {
    changes: BoundedList<RefPair>,
}

/// `new` is null when the ref was deleted, `old` when it was created.
#[derive(Deserialize)]
struct RefPair {
    old: Option<Ref>,
    new: Option<Ref>,
    commits: Option<BoundedList<Commit>>,
}

#[derive(Deserialize)]
struct Ref {
    #[serde(rename = "type")]
    ref_type: String,
    name: String,
    target: Option<Commit>,
}

#[derive(Deserialize)]
struct Commit {
    hash: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

/// The payload holds no clone URL, but every repository has the same three.
fn push(push: &Push) -> Result<Parsed, Unreadable> {
    let changes = &push.push.changes;
    let refs: Vec<RefChange> = changes.items.iter().filter_map(RefPair::change).collect();
    if refs.is_empty() && !changes.is_cut {
        return Ok(Parsed::ignored("the push changes not a branch or tag"));
    }
    let full_name = &push.repository.full_name;
    let https = format!("https://bitbucket.org/{full_name}.git");
    let ssh = format!("git@bitbucket.org:{full_name}.git");
    let changes = if changes.is_cut { GitChanges::Unknown } else { GitChanges::Refs(refs) };
    git_event([Some(https.as_str())], Some(&ssh), changes)
}

impl RefPair {
    fn change(&self) -> Option<RefChange> {
        let (moved, deleted) = match (&self.new, &self.old) {
            (Some(new), _) => (new, false),
            (None, Some(old)) => (old, true),
            (None, None) => return None,
        };
        let name = GitRef::from_name_and_type(&moved.name, &moved.ref_type)?;
        let target = moved.target.iter().filter(|_| !deleted);
        let head = target.clone().find_map(|target| target.hash.clone());
        let listed = target.chain(self.commits.iter().flat_map(|commits| &commits.items));
        let commits = listed.filter_map(|commit| commit.hash.as_deref()).collect();
        Some(RefChange { deleted, commits, head, ..RefChange::new(name) })
    }
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let (repository, name, commit) = change.only_push()?;
    let (ref_type, short) = match name.as_tag() {
        Some(tag) => ("tag", tag),
        None => ("branch", name.short()),
    };
    let body = json!({
        "push": {"changes": [{
            "old": null,
            "new": {"type": ref_type, "name": short, "target": {"hash": commit}},
            "closed": false,
        }]},
        "repository": {"full_name": repository.path()},
    });
    Ok(UnsignedDelivery::json(&[("X-Event-Key", "repo:push")], &body))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back};
    use super::*;

    const PUSH_EVENT: (&str, &str) = ("X-Event-Key", "repo:push");

    fn push_body() -> Value {
        json!({
            "push": {"changes": [
                {"old": null, "new": {"type": "branch", "name": "feature/x", "target": {"hash": "1111"}}, "commits": [{"hash": "1111"}]},
                {"old": {"type": "branch", "name": "old"}, "new": null},
                {"old": null, "new": {"type": "tag", "name": "v1", "target": {"hash": "1111"}}},
            ]},
            "repository": {"full_name": "Org/App"},
        })
    }

    // Incidents 5 and 24.
    #[test]
    fn one_push_can_change_many_refs() {
        check(
            &PROVIDER,
            &[PUSH_EVENT],
            &push_body(),
            "push to bitbucket.org/org/app feature/x, old (deleted), refs/tags/v1",
        );
    }

    #[test]
    fn pushes_and_events_without_interest_are_ignored() {
        let body = json!({"push": {"changes": []}, "repository": {"full_name": "org/app"}});
        check(&PROVIDER, &[PUSH_EVENT], &body, "ignored: the push changes not a branch or tag");
        check(
            &PROVIDER,
            &[("X-Event-Key", "repo:fork")],
            &json!({}),
            "ignored: event type `repo:fork` is not handled",
        );
    }

    #[test]
    fn malformed_payloads_are_errors() {
        testing::check_malformed(&PROVIDER, &[PUSH_EVENT], &push_body());
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
