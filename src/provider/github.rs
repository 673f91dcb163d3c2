//! GitHub and GitHub Enterprise Server, with the container registry that belongs to them.
//! <https://docs.github.com/en/webhooks/webhook-events-and-payloads>

use serde::Deserialize;
use serde_json::json;

use super::shared::{forge, required_header};
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample,
    UnsignedDelivery,
};
use crate::event::image::ImageName;
use crate::event::{Event, ImageEvent, Media, Subject};
use crate::verify::{Authentication, Encoding, Hmac, HmacInput, Unreadable, Verified};
use crate::webhook_api::{
    DeliveryApi, DeliveryPaging, EventChoice, EventPurpose, PastDelivery, UpdateMethod, Webhook, WebhookApi,
    WebhookScope, identifier, owner_and_name, status_code, text, texts,
};

pub(super) const PROVIDER: Provider = Provider {
    name: "GitHub",
    handled_events: "pushes of branches and tags, pull requests, releases, GHCR images",
    authentication: Authentication::Hmac(Hmac {
        headers: &["X-Hub-Signature-256", "X-Hub-Signature"],
        encoding: Encoding::Prefixed,
        signed: HmacInput::Body,
    }),
    delivery_id_header: Some("X-GitHub-Delivery"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["X-GitHub-Event"], usual: "push" }),
    event_types: &[
        "ping",
        "push",
        "create",
        "delete",
        "release",
        "pull_request",
        "package",
        "registry_package",
    ],
    event_fields: &["/action"],
    lists_changed_files: true,
    subjects: &[Subject::Git, Subject::Images],
    settings: ProviderSettings {
        page: "repository or organisation → Settings → Webhooks → Add webhook",
        content_type: Some("application/json (the form works too)"),
        secret: "Secret",
        events: EventSettings::Choices(&[
            EventChoice { label: "Pushes", name: "push", purpose: EventPurpose::Always },
            EventChoice { label: "Packages", name: "package", purpose: EventPurpose::Images },
            EventChoice { label: "Pull requests", name: "pull_request", purpose: EventPurpose::PullRequests },
        ]),
    },
    webhook_api: Some(&WEBHOOK_API),
    ..Provider::BASE
};

/// <https://docs.github.com/en/rest/repos/webhooks> and <https://docs.github.com/en/rest/orgs/webhooks>
const WEBHOOK_API: WebhookApi = WebhookApi {
    service: Some("https://api.github.com"),
    // Enterprise Server has its API below a path, Enterprise Cloud at a host of its own.
    path_at: |host| if host == "api.github.com" || host.ends_with(".ghe.com") { "" } else { "/api/v3" },
    token_variables: &["GITHUB_TOKEN", "GH_TOKEN"],
    authorization: |token| ("Authorization", format!("Bearer {token}")),
    headers: &[("Accept", "application/vnd.github+json"), ("X-GitHub-Api-Version", "2022-11-28")],
    rights: "admin:repo_hook (admin:org_hook for --org), or Webhooks: read and write of a fine-grained token",
    webhooks: |scope| match scope {
        WebhookScope::Repository(name) => {
            let (owner, name) = owner_and_name(name)?;
            Ok(format!("/repos/{owner}/{name}/hooks"))
        }
        WebhookScope::Organization(name) => Ok(format!("/orgs/{name}/hooks")),
        WebhookScope::Instance => Err("global webhooks of GitHub do not send pushes; use --org"),
    },
    page_size: "per_page=100",
    items: None,
    update: UpdateMethod::Patch,
    read: |item| {
        Some(Webhook {
            id: identifier(item, "/id")?,
            url: text(item, "/config/url")?,
            is_active: item["active"].as_bool().unwrap_or(true),
            events: texts(item, "/events"),
            content_type: text(item, "/config/content_type").or(Some("form".to_owned())),
            verifies_tls: Some(identifier(item, "/config/insecure_ssl").is_none_or(|value| value == "0")),
            disabled: None,
            last_code: status_code(item, "/last_response/code"),
            branch_filter: None,
            item: item.clone(),
        })
    },
    write: |form, _| {
        json!({
            "name": "web",
            "active": true,
            "events": form.events,
            "config": {"url": form.url, "content_type": "json", "secret": form.key, "insecure_ssl": "0"},
        })
    },
    test: |_| Ok("/pings"),
    deliveries: Some(&DeliveryApi {
        path: "/deliveries",
        page_size: "per_page=100",
        test_event: "ping",
        paging: DeliveryPaging::Cursor,
        read: |item| {
            let id = identifier(item, "/id")?;
            Some(PastDelivery {
                group: text(item, "/guid").unwrap_or_else(|| id.clone()),
                id,
                event: text(item, "/event")?,
                at: text(item, "/delivered_at").and_then(|at| at.parse().ok()),
                code: status_code(item, "/status_code"),
            })
        },
        resend: "/attempts",
        resent_code: |_| None,
    }),
};

fn parse(delivery: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    match required_header(delivery, "X-GitHub-Event")? {
        "ping" => Ok(Parsed::Ping),
        "package" | "registry_package" => package(delivery.json()?),
        event => forge::parse(event, delivery).unwrap_or_else(|| Ok(Parsed::ignored_event(event))),
    }
}

/// Three shapes of one object are in the wild; each names the image in its own way.
#[derive(Deserialize)]
struct PackageEvent {
    action: String,
    package: Option<Package>,
    registry_package: Option<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    namespace: Option<String>,
    ecosystem: Option<String>,
    package_type: Option<String>,
    owner: Option<Owner>,
    package_version: Option<PackageVersion>,
}

#[derive(Deserialize)]
struct Owner {
    login: String,
}

#[derive(Deserialize)]
struct PackageVersion {
    name: Option<String>,
    version: Option<String>,
    package_url: Option<String>,
    container_metadata: Option<ContainerMetadata>,
}

#[derive(Deserialize)]
struct ContainerMetadata {
    tag: Option<ContainerTag>,
    manifest: Option<Manifest>,
}

#[derive(Deserialize)]
struct ContainerTag {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Option<ManifestConfig>,
}

#[derive(Deserialize)]
struct ManifestConfig {
    media_type: Option<String>,
}

fn package(event: PackageEvent) -> Result<Parsed, Unreadable> {
    let package = event
        .registry_package
        .or(event.package)
        .ok_or_else(|| Unreadable::payload("missing field `package`"))?;
    if !matches!(event.action.as_str(), "published" | "updated") {
        return Ok(Parsed::ignored(format!("package action `{}` pushes nothing", event.action)));
    }
    let types = [&package.ecosystem, &package.package_type];
    let is_container =
        |kind: &str| kind.eq_ignore_ascii_case("container") || kind.eq_ignore_ascii_case("docker");
    if !types.into_iter().flatten().any(|kind| is_container(kind)) {
        return Ok(Parsed::ignored("the package is not a container image"));
    }
    let written = image_name(&package)?;
    let name = ImageName::parse(&written).map_err(Unreadable::payload)?;
    let version = package.package_version;
    let metadata = version.as_ref().and_then(|version| version.container_metadata.as_ref());
    let tag = metadata.and_then(|metadata| metadata.tag.as_ref()?.name.clone()).filter(|tag| !tag.is_empty());
    let media = metadata
        .and_then(|metadata| metadata.manifest.as_ref()?.config.as_ref()?.media_type.as_deref())
        .map_or(Media::Unknown, Media::from_config_media_type);
    let digest = version.and_then(|version| {
        [version.version, version.name].into_iter().flatten().find(|text| text.starts_with("sha256:"))
    });
    let tags = tag.into_iter().collect();
    Ok(Parsed::Events(vec![Event::Image(ImageEvent {
        names: vec![name],
        written,
        tags,
        digest,
        media,
        deleted: false,
    })]))
}

/// Host and path of `package_url` where it is one, else what the owner and the name give on
/// ghcr.io. The URL ends in a colon when the push had no tag.
fn image_name(package: &Package) -> Result<String, Unreadable> {
    let url = package.package_version.as_ref().and_then(|version| version.package_url.as_deref());
    if let Some(url) = url.filter(|url| url.split('/').next().is_some_and(|host| host.contains('.'))) {
        return Ok(super::shared::written_without_tag(url));
    }
    let owner = match (&package.owner, &package.namespace) {
        (Some(owner), _) => owner.login.as_str(),
        (None, Some(namespace)) => namespace.split('/').next().unwrap_or_default(),
        (None, None) => {
            return Err(Unreadable::payload("the package has no owner"));
        }
    };
    Ok(format!("ghcr.io/{owner}/{}", package.name))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    Ok(match change {
        Sample::Ping => UnsignedDelivery::json(
            &[("X-GitHub-Event", "ping")],
            &json!({"zen": "Keep it logically awesome."}),
        ),
        Sample::Push { .. } => {
            UnsignedDelivery::json(&[("X-GitHub-Event", "push")], &forge::push_body(change)?)
        }
        Sample::Image { reference } => UnsignedDelivery::json(
            &[("X-GitHub-Event", "package")],
            &json!({
                "action": "published",
                "package": {
                    "name": reference.name.path(),
                    "package_type": "CONTAINER",
                    "package_version": {
                        "version": reference.digest,
                        "package_url": format!("{}:{}", reference.name, reference.tag.as_deref().unwrap_or_default()),
                        "container_metadata": {"tag": {"name": reference.tag}},
                    },
                },
            }),
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back};
    use super::*;

    const PUSH_EVENT: (&str, &str) = ("X-GitHub-Event", "push");

    fn push_body() -> Value {
        json!({
            "ref": "refs/heads/main",
            "after": "1111111111111111111111111111111111111111",
            "deleted": false,
            "head_commit": {"id": "1111111111111111111111111111111111111111"},
            "repository": {
                "ssh_url": "git@github.com:Org/App.git",
                "clone_url": "https://github.com/Org/App.git",
                "git_url": "git://github.com/Org/App.git",
                "html_url": "https://github.com/Org/App",
            },
        })
    }

    #[test]
    fn pushes_are_read() {
        check(&PROVIDER, &[PUSH_EVENT], &push_body(), "push to github.com/org/app main");
    }

    #[test]
    fn fields_that_only_paths_need_may_be_of_any_type() {
        let strange = json!({"before": 0, "forced": null, "total_commits": -1});
        let mut body = push_body();
        for (field, value) in strange.as_object().expect("fields") {
            body[field] = value.clone();
        }
        check(&PROVIDER, &[PUSH_EVENT], &body, "push to github.com/org/app main");
    }

    #[test]
    fn every_commit_of_a_push_is_brought() {
        let mut body = push_body();
        body["commits"] = json!([{"id": "2222"}, {"id": "3333", "message": "like 4444"}]);
        for (commit, expect) in
            [("1".repeat(40), true), ("2222".into(), true), ("3333".into(), true), ("4444".into(), false)]
        {
            assert_eq!(testing::brings(&PROVIDER, &[PUSH_EVENT], &body, &commit), expect, "{commit}");
        }
    }

    // Incident 24.
    #[test]
    fn a_deleted_branch_is_marked() {
        let mut body = push_body();
        body["deleted"] = json!(true);
        body["after"] = json!("0".repeat(40));
        body["head_commit"] = Value::Null;
        check(&PROVIDER, &[PUSH_EVENT], &body, "push to github.com/org/app main (deleted)");
    }

    // Incident 21.
    #[test]
    fn pings_are_answered_whoever_sends_them() {
        check(&PROVIDER, &[("X-GitHub-Event", "ping")], &json!({"zen": "x", "hook_id": 1}), "ping");
    }

    #[test]
    fn events_without_interest_are_ignored() {
        check(
            &PROVIDER,
            &[("X-GitHub-Event", "issues")],
            &json!({}),
            "ignored: event type `issues` is not handled",
        );
    }

    #[test]
    fn releases_are_tags() {
        let mut body = json!({"action": "published", "release": {"tag_name": "v1"}, "repository": push_body()["repository"]});
        check(&PROVIDER, &[("X-GitHub-Event", "release")], &body, "push to github.com/org/app refs/tags/v1");
        body["action"] = json!("deleted");
        check(
            &PROVIDER,
            &[("X-GitHub-Event", "release")],
            &body,
            "ignored: release action `deleted` moves no tag",
        );
    }

    // Incidents 6 and 26.
    #[test]
    fn packages_of_all_three_shapes_are_images() {
        let event = [("X-GitHub-Event", "package")];
        let by_url = json!({"action": "published", "registry_package": {
            "name": "app", "namespace": "Org/app", "ecosystem": "docker", "package_type": "npm",
            "package_version": {"version": "sha256:ab", "body": {"any": "shape"}, "package_url": "ghcr.io/Org/app:", "container_metadata": {"tag": {"name": ""}}},
        }});
        check(&PROVIDER, &event, &by_url, "push of ghcr.io/org/app@sha256:ab");
        let by_namespace = json!({"action": "updated", "package": {
            "name": "app", "namespace": "Org", "ecosystem": "CONTAINER",
            "package_version": {"name": "sha256:ab", "container_metadata": {"tag": {"name": "3.2.1"}}},
        }});
        check(&PROVIDER, &event, &by_namespace, "push of ghcr.io/org/app:3.2.1");
        let mut deleted = by_namespace.clone();
        deleted["action"] = json!("deleted");
        check(&PROVIDER, &event, &deleted, "ignored: package action `deleted` pushes nothing");
        let mut other = by_namespace;
        other["package"]["ecosystem"] = json!("npm");
        check(&PROVIDER, &event, &other, "ignored: the package is not a container image");
    }

    #[test]
    fn malformed_payloads_are_errors_that_name_the_field() {
        testing::check_malformed(&PROVIDER, &[PUSH_EVENT], &push_body());
        let mut body = push_body();
        body["ref"] = json!(["main"]);
        check(
            &PROVIDER,
            &[PUSH_EVENT],
            &body,
            "unreadable: cannot read the payload: ref: invalid type: sequence, expected a string at line 1 column 138",
        );
    }

    #[test]
    fn pull_requests_move_their_own_refs() {
        let event = [("X-GitHub-Event", "pull_request")];
        let mut body = json!({
            "action": "synchronize", "number": 7, "pull_request": {"head": {"sha": "1111", "ref": "topic"}},
            "repository": push_body()["repository"],
        });
        let moved = "push to github.com/org/app refs/pull/7/head, refs/pull/7/merge";
        check(&PROVIDER, &event, &body, moved);
        assert!(testing::brings(&PROVIDER, &event, &body, "1111"));
        body["action"] = json!("closed");
        check(&PROVIDER, &event, &body, "ignored: pull request action `closed` moves no ref");
        body["action"] = json!("synchronize");
        testing::check_malformed(&PROVIDER, &event, &body);
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
