//! Gitea, and what Forgejo and Gogs share with it.
//! <https://docs.gitea.com/usage/webhooks>

use serde::Deserialize;
use serde_json::{Value, json};

use super::shared::{add_registry_hosts, forge};
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings,
    SENDS_NO_IMAGES, Sample, UnsignedDelivery,
};
use crate::event::image::ImageName;
use crate::event::{Event, ImageEvent, Media, Subject};
use crate::verify::{Authentication, Encoding, Hash, Hmac, HmacInput, Unreadable, Verified};
use crate::webhook_api::{
    EventChoice, EventPurpose, UpdateMethod, Webhook, WebhookApi, WebhookForm, WebhookScope, identifier,
    owner_and_name, text, texts,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "Gitea",
    handled_events: "pushes of branches and tags, pull requests, releases, container packages",
    authentication: Authentication::Hmac(Hmac {
        headers: &["X-Gitea-Signature"],
        encoding: Encoding::Hex(Hash::Sha256),
        signed: HmacInput::Payload,
    }),
    delivery_id_header: Some("X-Gitea-Delivery"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["X-Gitea-Event", "X-Gitea-Event-Type"], usual: "push" }),
    event_types: EVENT_TYPES,
    event_fields: &["/action"],
    lists_changed_files: true,
    subjects: &[Subject::Git, Subject::Images],
    settings: ProviderSettings {
        page: "repository or organisation → Settings → Webhooks → Add webhook → Gitea",
        content_type: Some("application/json (the form works too)"),
        secret: "Secret",
        events: EventSettings::Choices(EVENT_CHOICES),
    },
    webhook_api: Some(&WEBHOOK_API),
    ..Provider::BASE
};

/// The event types that Gitea and Forgejo send.
pub(super) const EVENT_TYPES: &[&str] =
    &["push", "create", "delete", "release", "pull_request", "pull_request_sync", "package"];

/// The events of Gitea and Forgejo, as webhooks choose them.
pub(super) const EVENT_CHOICES: &[EventChoice] = &[
    EventChoice { label: "Push", name: "push", purpose: EventPurpose::Always },
    EventChoice { label: "Create", name: "create", purpose: EventPurpose::Always },
    EventChoice { label: "Delete", name: "delete", purpose: EventPurpose::Always },
    EventChoice { label: "Package", name: "package", purpose: EventPurpose::Images },
    EventChoice { label: "Pull Request", name: "pull_request_only", purpose: EventPurpose::PullRequests },
    EventChoice {
        label: "Pull Request Synchronized",
        name: "pull_request_sync",
        purpose: EventPurpose::PullRequests,
    },
];

/// <https://docs.gitea.com/api/1.25/>
pub(super) const WEBHOOK_API: WebhookApi = WebhookApi {
    service: None,
    path_at: |_| "/api/v1",
    token_variables: &["GITEA_TOKEN"],
    authorization: |token| ("Authorization", format!("token {token}")),
    headers: &[],
    rights: "write:repository (write:organization for --org; write:admin of an administrator for --instance)",
    webhooks: |scope| match scope {
        WebhookScope::Repository(name) => {
            let (owner, name) = owner_and_name(name)?;
            Ok(format!("/repos/{owner}/{name}/hooks"))
        }
        WebhookScope::Organization(name) => Ok(format!("/orgs/{name}/hooks")),
        WebhookScope::Instance => Ok("/admin/hooks".to_owned()),
    },
    page_size: "limit=50",
    items: None,
    // A change drops the secret, as `editHook` of 1.25 shows.
    update: UpdateMethod::Replace,
    read: |item| {
        Some(Webhook {
            id: identifier(item, "/id")?,
            url: text(item, "/config/url")?,
            is_active: item["active"].as_bool().unwrap_or(true),
            events: texts(item, "/events").into_iter().map(form_name).collect(),
            content_type: text(item, "/config/content_type"),
            verifies_tls: None,
            disabled: None,
            last_code: None,
            branch_filter: text(item, "/branch_filter").filter(|filter| !matches!(filter.as_str(), "" | "*")),
            item: item.clone(),
        })
    },
    write: |form, existing| write_webhook("gitea", form, existing),
    test: |scope| match scope {
        WebhookScope::Repository(_) => Ok("/tests"),
        _ => {
            Err("only webhooks of repositories can be tested through its API; push, or use `flux-recv send`")
        }
    },
    deliveries: None,
};

/// Some events are listed by names that stand for several others in a form.
fn form_name(listed: String) -> String {
    match listed.as_str() {
        "pull_request" | "issues" => format!("{listed}_only"),
        name if name.starts_with("pull_request_review_") && name != "pull_request_review_request" => {
            "pull_request_review".to_owned()
        }
        _ => listed,
    }
}

/// The new one repeats what people have set on the old one.
pub(super) fn write_webhook(kind: &str, form: &WebhookForm<'_>, existing: Option<&Value>) -> Value {
    let kept = |field: &str| existing.and_then(|item| item[field].as_str()).unwrap_or_default();
    let branch_filter = Some(kept("branch_filter")).filter(|filter| !filter.is_empty()).unwrap_or("*");
    let mut body = json!({
        "type": kind,
        "active": true,
        "events": form.events,
        "branch_filter": branch_filter,
        "authorization_header": kept("authorization_header"),
        "config": {"url": form.url, "content_type": "json", "secret": form.key},
    });
    // A default webhook would be copied into new repositories instead of serving all.
    if *form.scope == WebhookScope::Instance {
        body["config"]["is_system_webhook"] = Value::from("true");
    }
    body
}

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    parse_named(delivery, context, &PROVIDER)
}

/// Reads a delivery of a forge that sends what Gitea does under headers of its own.
pub(super) fn parse_named(
    delivery: &Verified<'_>,
    context: &ParseContext<'_>,
    forge: &Provider,
) -> Result<Parsed, Unreadable> {
    let Some(header) = forge.event_header else { return Err(Unreadable::payload("the event has no name")) };
    match header
        .value(delivery)
        .ok_or_else(|| Unreadable(format!("the header {} is missing", header.names[0])))?
    {
        "package" => package(&delivery.json()?, context),
        event => forge::parse(event, delivery).unwrap_or_else(|| Ok(Parsed::ignored_event(event))),
    }
}

#[derive(Deserialize)]
struct PackageEvent {
    action: String,
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    #[serde(rename = "type")]
    package_type: String,
    name: String,
    version: Option<String>,
    owner: PackageOwner,
    html_url: Option<String>,
}

/// Both names are sent, and mean the same.
#[derive(Deserialize)]
struct PackageOwner {
    login: Option<String>,
    username: Option<String>,
}

/// The registry is the Git host itself, whose name stands only in the package's page.
fn package(event: &PackageEvent, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let package = &event.package;
    if package.package_type != "container" {
        return Ok(Parsed::ignored(format!(
            "the package is of type `{}`, not a container image",
            package.package_type
        )));
    }
    if event.action != "created" {
        return Ok(Parsed::ignored(format!("package action `{}` pushes nothing", event.action)));
    }
    let owner = package.owner.login.as_ref().or(package.owner.username.as_ref());
    let owner = owner.ok_or_else(|| Unreadable::payload("the package has no owner"))?;
    let path = format!("{owner}/{}", package.name);
    let page_host = package.html_url.as_deref().and_then(|page| page.split("://").nth(1)?.split('/').next());
    let mut names: Vec<ImageName> =
        page_host.and_then(|host| ImageName::in_registry(host, &path).ok()).into_iter().collect();
    add_registry_hosts(&mut names, context, &path);
    let Some(first) = names.first() else {
        return Ok(Parsed::ignored("the package names no host; set registryHost on the endpoint"));
    };
    let written = first.to_string();
    let version = package.version.clone().filter(|version| !version.is_empty());
    let is_digest = version.as_deref().is_some_and(|version| version.starts_with("sha256:"));
    let (tags, digest) =
        if is_digest { (Vec::new(), version) } else { (version.into_iter().collect(), None) };
    Ok(Parsed::Events(vec![Event::Image(ImageEvent {
        names,
        written,
        tags,
        digest,
        media: Media::Unknown,
        deleted: false,
    })]))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    if let Sample::Image { reference } = change {
        let (owner, name) = reference.name.path().split_once('/').ok_or(SENDS_NO_IMAGES)?;
        let body = json!({
            "action": "created",
            "package": {
                "type": "container",
                "name": name,
                "version": reference.tag.as_ref().or(reference.digest.as_ref()),
                "owner": {"login": owner},
                "html_url": format!("https://{}/{owner}/-/packages/container/{name}", reference.name.host()),
            },
        });
        return Ok(UnsignedDelivery::json(&[("X-Gitea-Event", "package")], &body));
    }
    Ok(UnsignedDelivery::json(&[("X-Gitea-Event", "push")], &forge::push_body(change)?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back, check_with_hosts};
    use super::*;

    const PUSH_EVENT: (&str, &str) = ("X-Gitea-Event", "push");

    fn push_body() -> Value {
        json!({
            "ref": "refs/heads/main",
            "before": "0".repeat(40),
            "after": "1111111111111111111111111111111111111111",
            "commits": [{"id": "1111111111111111111111111111111111111111"}],
            "repository": {
                "ssh_url": "ssh://git@gitea.example.com:2222/Org/App.git",
                "clone_url": "https://gitea.example.com/Org/App.git",
                "html_url": "https://gitea.example.com/Org/App",
            },
        })
    }

    #[test]
    fn pushes_are_read() {
        check(&PROVIDER, &[PUSH_EVENT], &push_body(), "push to gitea.example.com/org/app main");
        check(
            &PROVIDER,
            &[("X-Gitea-Event", ""), ("X-Gitea-Event-Type", "push")],
            &push_body(),
            "push to gitea.example.com/org/app main",
        );
    }

    #[test]
    fn created_and_deleted_refs_have_short_names() {
        let body =
            json!({"ref": "v1", "ref_type": "tag", "sha": "1111", "repository": push_body()["repository"]});
        check(
            &PROVIDER,
            &[("X-Gitea-Event", "create")],
            &body,
            "push to gitea.example.com/org/app refs/tags/v1",
        );
        check(
            &PROVIDER,
            &[("X-Gitea-Event", "delete")],
            &body,
            "push to gitea.example.com/org/app refs/tags/v1 (deleted)",
        );
    }

    #[test]
    fn container_packages_are_images() {
        let body = json!({"action": "created", "package": {
            "type": "container", "name": "app", "version": "1.2", "owner": {"login": "Org", "username": "Org"},
            "html_url": "https://gitea.example.com/Org/-/packages/container/app/1.2",
        }});
        let event = [("X-Gitea-Event-Type", "package")];
        check(&PROVIDER, &event, &body, "push of gitea.example.com/org/app:1.2");
        let mut hostless = body.clone();
        hostless["package"]["html_url"] = Value::Null;
        check(
            &PROVIDER,
            &event,
            &hostless,
            "ignored: the package names no host; set registryHost on the endpoint",
        );
        check_with_hosts(
            &PROVIDER,
            &event,
            &hostless,
            &["registry.example.com"],
            "push of registry.example.com/org/app:1.2",
        );
        let mut npm = body;
        npm["package"]["type"] = json!("npm");
        check(&PROVIDER, &event, &npm, "ignored: the package is of type `npm`, not a container image");
    }

    #[test]
    fn malformed_payloads_are_errors() {
        testing::check_malformed(&PROVIDER, &[PUSH_EVENT], &push_body());
    }

    #[test]
    fn pull_requests_move_their_own_refs() {
        let event = [("X-Gitea-Event", "pull_request")];
        let mut body = json!({
            "action": "synchronized", "number": 7, "pull_request": {"head": {"sha": "1111", "ref": "topic"}},
            "repository": push_body()["repository"],
        });
        let moved = "push to gitea.example.com/org/app refs/pull/7/head, refs/pull/7/merge";
        check(&PROVIDER, &event, &body, moved);
        assert!(testing::brings(&PROVIDER, &event, &body, "1111"));
        body["action"] = json!("closed");
        check(&PROVIDER, &event, &body, "ignored: pull request action `closed` moves no ref");
        body["action"] = json!("synchronized");
        testing::check_malformed(&PROVIDER, &event, &body);
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
