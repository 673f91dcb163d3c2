//! CDEvents 0.3 to 0.5: what CI and CD systems tell each other, as CloudEvents.
//! <https://github.com/cdevents/spec/blob/main/cloudevents-binding.md>

use std::str::FromStr;

use cdevents_sdk::CDEvent;
use packageurl::PackageUrl;
use serde::Deserialize;
use serde_json::json;

use super::shared::{artifact_event, cloud_event};
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample,
    UnsignedDelivery,
};
use crate::event::git_ref::GitRef;
use crate::event::image::ImageName;
use crate::event::repository_url::RepositoryUrl;
use crate::event::{Event, GitChanges, GitEvent, ImageEvent, Media, RefChange, Subject};
use crate::json_items::has_too_many_values;
use crate::verify::{Authentication, Unreadable, Verified, from_json};

pub(super) const PROVIDER: Provider = Provider {
    name: "CDEvents",
    handled_events: "merged changes, branches, repositories, artifacts with a package URL",
    authentication: Authentication::Configured,
    delivery_id_header: Some("ce-id"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["ce-type"], usual: "dev.cdevents.change.merged.0.3.0" }),
    event_fields: &["/type"],
    takes_cloud_events: true,
    may_come_unsigned: true,
    subjects: &[Subject::Git, Subject::Images],
    settings: ProviderSettings {
        page: "wherever the system takes a sink for CloudEvents over HTTP; binary, structured and batch mode are read",
        content_type: None,
        secret: "none: keep the URL secret",
        events: EventSettings::Described(
            "change.merged, branch.created, repository.modified, artifact.published and what else there is",
        ),
    },
    ..Provider::BASE
};

/// The part of an event that is read once the SDK has found it valid.
#[derive(Deserialize)]
struct Read {
    context: Context,
    subject: EventSubject,
}

#[derive(Deserialize)]
struct Context {
    id: String,
    /// Its name up to 0.4, and since.
    version: Option<String>,
    specversion: Option<String>,
}

#[derive(Deserialize)]
struct EventSubject {
    id: String,
    /// Absent since CDEvents 0.5.
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    content: Content,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    repository: Option<Repository>,
    /// Of a repository; `uri` since 0.5.
    url: Option<String>,
    uri: Option<String>,
    view_url: Option<String>,
}

#[derive(Deserialize)]
struct Repository {
    id: String,
    source: Option<String>,
}

/// The context, before anything is said about the rest.
#[derive(Deserialize)]
struct Peek {
    context: PeekedContext,
}

#[derive(Deserialize)]
struct PeekedContext {
    #[serde(rename = "type")]
    kind: String,
}

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    cloud_event::read(delivery, context, |event| one(&event.data))
}

fn one(data: &str) -> Result<Parsed, Unreadable> {
    let kind = from_json::<Peek>(data)?.context.kind;
    let Some((subject, predicate)) = subject_and_predicate(&kind) else {
        return Ok(Parsed::ignored_event(&kind));
    };
    let is_of_interest = matches!(
        (subject, predicate),
        ("change", "merged")
            | ("branch", "created" | "deleted")
            | ("repository", "created" | "modified")
            | ("artifact", "packaged" | "published" | "signed" | "deleted")
    );
    if !is_of_interest {
        return Ok(Parsed::ignored_event(&kind));
    }
    let event = validated(data, subject)?;
    let EventSubject { id, content, .. } = event.subject;
    Ok(match subject {
        "artifact" => artifact(&id, predicate == "deleted"),
        "branch" => {
            let change = RefChange { deleted: predicate == "deleted", ..RefChange::new(GitRef::branch(&id)) };
            push(content, GitChanges::Refs(vec![change]))
        }
        // Neither says which branch it was.
        _ => push(content, GitChanges::Unknown),
    })
}

/// Splits `dev.cdevents.<subject>.<predicate>.<version>`.
fn subject_and_predicate(kind: &str) -> Option<(&str, &str)> {
    let mut parts = kind.strip_prefix("dev.cdevents.")?.splitn(3, '.');
    Some((parts.next()?, parts.next()?))
}

/// Checks what the SDK leaves unchecked.
fn validated(data: &str, subject: &str) -> Result<Read, Unreadable> {
    // The SDK builds a tree of all values; what is read here is checked below all the same.
    if !has_too_many_values(data) {
        from_json::<CDEvent>(data)?;
    }
    let event: Read = from_json(data)?;
    let version =
        event.context.specversion.as_deref().or(event.context.version.as_deref()).unwrap_or_default();
    if !["0.3.", "0.4.", "0.5."].iter().any(|known| version.starts_with(known)) {
        return Err(Unreadable::payload("context: is of a version of CDEvents that is not known"));
    }
    if event.context.id.is_empty() {
        return Err(Unreadable::payload("context.id: is empty"));
    }
    if event.subject.kind.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case(subject)) {
        return Err(Unreadable::payload("subject.type: contradicts context.type"));
    }
    Ok(event)
}

fn push(content: Content, changes: GitChanges) -> Parsed {
    let mut repository: Vec<RepositoryUrl> = Vec::new();
    let named = content.repository.map(|repository| repository.spellings()).unwrap_or_default();
    for url in named.into_iter().chain(content.url).chain(content.uri).chain(content.view_url) {
        if let Ok(url) = RepositoryUrl::parse(&url)
            && !repository.contains(&url)
        {
            repository.push(url);
        }
    }
    match repository.is_empty() {
        true => Parsed::ignored("the event names no repository with an address"),
        false => Parsed::Events(vec![Event::Git(GitEvent { repository, ssh_url: None, changes })]),
    }
}

impl Repository {
    /// The ID is mostly `org/repo`, the source a host with or without scheme; but some write the whole
    /// address into either.
    fn spellings(self) -> Vec<String> {
        let Repository { id, source } = self;
        let Some(source) = source.filter(|source| !source.is_empty()) else { return vec![id] };
        let source = source.trim_end_matches('/').to_owned();
        let joined = format!("{source}/{}", id.trim_start_matches('/'));
        let with_scheme =
            |url: &str| if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let mut all = vec![with_scheme(&joined), id.clone()];
        if source.trim_end_matches(".git").ends_with(id.trim_end_matches(".git")) {
            all.insert(0, with_scheme(&source));
        }
        all
    }
}

/// An artifact by its package URL; of other packages nothing in Flux is made.
/// <https://github.com/package-url/purl-spec/blob/main/types-doc/oci-definition.md>
fn artifact(id: &str, deleted: bool) -> Parsed {
    let Ok(package) = PackageUrl::from_str(id) else {
        return Parsed::ignored("the artifact has no package URL");
    };
    let media = match package.ty() {
        "oci" => Media::Unknown,
        "docker" => Media::Image,
        "helm" => Media::Chart,
        other => {
            return Parsed::ignored(format!("packages of type `{other}` are not fetched by Flux"));
        }
    };
    let qualifier = |name: &str| package.qualifiers().get(name).map(|value| value.to_string());
    let own_path = match package.namespace() {
        Some(namespace) => format!("{namespace}/{}", package.name()),
        None => package.name().to_owned(),
    };
    let mut names: Vec<ImageName> = Vec::new();
    let spellings = match qualifier("repository_url") {
        // It should hold the name, but some leave it off.
        Some(url) => vec![url.clone(), format!("{}/{own_path}", url.trim_end_matches('/'))],
        None => vec![own_path],
    };
    for name in spellings.iter().filter_map(|name| ImageName::parse(name).ok()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let version = package.version().map(|version| version.to_string());
    let (digest, of_version) = match version {
        Some(version) if version.contains(':') => (Some(version), None),
        version => (None, version),
    };
    match artifact_event(names, qualifier("tag").or(of_version), digest, deleted) {
        Some(Event::Image(image)) => Parsed::Events(vec![Event::Image(ImageEvent { media, ..image })]),
        _ => Parsed::ignored("the artifact's package URL names no registry"),
    }
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let (kind, subject) = match change {
        Sample::Push { repository, name, .. } => {
            let content = json!({"repository": {"id": repository.path(), "source": format!("https://{}", repository.host())}});
            // A merged change does not say where to.
            match name.as_branch() {
                Some(branch) => {
                    ("dev.cdevents.branch.created.0.3.0", json!({"id": branch, "content": content}))
                }
                None => ("dev.cdevents.change.merged.0.3.0", json!({"id": "1", "content": content})),
            }
        }
        Sample::Image { reference } => {
            let name = reference.name.path().rsplit('/').next().unwrap_or_default();
            let version =
                reference.digest.as_deref().map(|digest| format!("@{}", digest.replace(':', "%3A")));
            let tag = reference.tag.as_deref().map(|tag| format!("&tag={tag}"));
            let repository = reference.name.to_string().replace('/', "%2F").replace(':', "%3A");
            let id = format!(
                "pkg:oci/{name}{}?repository_url={repository}{}",
                version.unwrap_or_default(),
                tag.unwrap_or_default()
            );
            ("dev.cdevents.artifact.published.0.3.0", json!({"id": id, "content": {}}))
        }
        Sample::Ping => return Err(super::SENDS_NO_PING),
    };
    let context = json!({"specversion": "0.5.1", "id": "1", "source": "/flux-recv/send", "type": kind, "timestamp": "2026-01-01T00:00:00Z"});
    let headers =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/flux-recv/send"), ("ce-type", kind)];
    Ok(UnsignedDelivery::json(&headers, &json!({"context": context, "subject": subject})))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::shared::testing::{self, check};
    use super::*;

    fn event(kind: &str, version: &str, subject: Value) -> Value {
        let mut context = json!({"id": "a", "source": "/ci", "type": format!("dev.cdevents.{kind}"), "timestamp": "2026-01-01T00:00:00Z"});
        context[if version.starts_with("0.5") { "specversion" } else { "version" }] = json!(version);
        json!({"context": context, "subject": subject})
    }

    const BINARY_MODE_EVENT: [(&str, &str); 1] = [("Ce-Type", "dev.cdevents.change.merged.0.2.0")];

    #[track_caller]
    fn check_event(event: &Value, expect: &str) {
        check(&PROVIDER, &BINARY_MODE_EVENT, event, expect);
        let wrapped = json!({"specversion": "1.0", "type": event["context"]["type"], "id": "a", "source": "/ci", "data": event});
        check(&PROVIDER, &[("Content-Type", "application/cloudevents+json")], &wrapped, expect);
    }

    fn repository(id: &str, source: &str) -> Value {
        json!({"id": "7", "type": "change", "content": {"repository": {"id": id, "source": source}}})
    }

    #[test]
    fn merged_changes_are_pushes_of_any_ref_in_all_versions() {
        let subject = repository("org/app", "https://git.example.com");
        check_event(
            &event("change.merged.0.1.2", "0.3.0", subject.clone()),
            "push to git.example.com/org/app",
        );
        check_event(
            &event("change.merged.0.2.0", "0.4.1", subject.clone()),
            "push to git.example.com/org/app",
        );
        let mut newer = subject.clone();
        newer.as_object_mut().expect("a mapping").remove("type");
        check_event(&event("change.merged.0.3.0", "0.5.1", newer), "push to git.example.com/org/app");
        testing::check_malformed(
            &PROVIDER,
            &BINARY_MODE_EVENT,
            &event("change.merged.0.2.0", "0.4.1", subject),
        );
    }

    #[test]
    fn one_bad_event_costs_its_batch_nothing() {
        let wrapped = |event: Value| json!({"specversion": "1.0", "type": event["context"]["type"], "id": "a", "source": "/ci", "data": event});
        let good =
            wrapped(event("change.merged.0.2.0", "0.4.1", repository("org/app", "https://git.example.com")));
        let bad = wrapped(event("change.merged.0.2.0", "0.4.1", json!({"id": 7})));
        let header = [("Content-Type", "application/cloudevents-batch+json")];
        check(&PROVIDER, &header, &json!([bad, good]), "push to git.example.com/org/app");
    }

    #[test]
    fn repositories_are_found_however_they_are_written() {
        for (id, source) in [
            ("org/app", "git.example.com"),
            ("org/app", "https://git.example.com/org/app"),
            ("org/app.git", "https://git.example.com/org/app.git"),
            ("/org/app", "https://git.example.com/"),
        ] {
            let merged = event("change.merged.0.2.0", "0.4.1", repository(id, source));
            check_event(&merged, "push to git.example.com/org/app");
        }
        let nowhere =
            event("change.merged.0.2.0", "0.4.1", json!({"id": "7", "type": "change", "content": {}}));
        check_event(&nowhere, "ignored: the event names no repository with an address");
    }

    #[test]
    fn branches_and_repositories_are_read() {
        let mut subject = repository("org/app", "https://git.example.com");
        subject["type"] = json!("branch");
        subject["id"] = json!("release/1");
        check_event(
            &event("branch.created.0.2.0", "0.4.1", subject.clone()),
            "push to git.example.com/org/app release/1",
        );
        check_event(
            &event("branch.deleted.0.2.0", "0.4.1", subject),
            "push to git.example.com/org/app release/1 (deleted)",
        );
        let modified = json!({"id": "org/app", "type": "repository", "content": {"name": "app", "url": "https://git.example.com/org/app"}});
        check_event(
            &event("repository.modified.0.2.0", "0.4.1", modified),
            "push to git.example.com/org/app",
        );
    }

    #[test]
    fn artifacts_are_images_by_their_package_url() {
        let artifact = |id: &str| {
            event("artifact.published.0.2.0", "0.4.1", json!({"id": id, "type": "artifact", "content": {}}))
        };
        for id in [
            "pkg:oci/app@sha256%3A11?repository_url=ghcr.io%2Forg%2Fapp&tag=v1",
            "pkg:docker/org/app@v1?repository_url=ghcr.io",
        ] {
            let Ok(Parsed::Events(events)) = one(&artifact(id).to_string()) else { panic!("{id}") };
            let Some(Event::Image(image)) = events.first() else { panic!("{id}: {events:?}") };
            assert!(
                image.names.iter().any(|name| name.to_string() == "ghcr.io/org/app"),
                "{id}: {:?}",
                image.names
            );
            assert_eq!(image.tags, ["v1"], "{id}");
        }
        check_event(
            &artifact("pkg:golang/example.com/app@v1"),
            "ignored: packages of type `golang` are not fetched by Flux",
        );
        check_event(&artifact("app-1.2"), "ignored: the artifact has no package URL");
        let deleted = event(
            "artifact.deleted.0.1.0",
            "0.4.1",
            json!({"id": "pkg:oci/app?repository_url=ghcr.io%2Forg%2Fapp&tag=v1", "type": "artifact", "content": {}}),
        );
        check_event(&deleted, "deletion of ghcr.io/org/app:v1");
    }

    #[test]
    fn what_is_not_valid_is_unreadable_and_what_is_not_known_ignored() {
        let subject = repository("org/app", "https://git.example.com");
        let mut empty = event("change.merged.0.2.0", "0.4.1", subject.clone());
        empty["context"]["id"] = json!("");
        check_event(&empty, "unreadable: cannot read the payload: context.id: is empty");
        let mut other = subject.clone();
        other["type"] = json!("artifact");
        check_event(
            &event("change.merged.0.2.0", "0.4.1", other),
            "unreadable: cannot read the payload: subject.type: contradicts context.type",
        );
        let mut newer =
            event("change.merged.0.3.0", "0.5.1", repository("org/app", "https://git.example.com"));
        newer["context"]["specversion"] = json!("0.6.0");
        check_event(
            &newer,
            "unreadable: cannot read the payload: context: is of a version of CDEvents that is not known",
        );
        check_event(
            &event("build.finished.0.2.0", "0.4.1", subject.clone()),
            "ignored: event type `dev.cdevents.build.finished.0.2.0` is not handled",
        );
        let mut custom = event("change.merged.0.2.0", "0.4.1", subject);
        custom["context"]["type"] = json!("com.example.thing");
        check_event(&custom, "ignored: event type `com.example.thing` is not handled");
    }

    #[test]
    fn composed_deliveries_come_back() {
        testing::check_composed_delivery_comes_back(&PROVIDER);
    }
}
