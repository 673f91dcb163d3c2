//! Bitbucket Server and Data Center.
//! <https://confluence.atlassian.com/bitbucketserver/event-payload-938025882.html>

use serde::Deserialize;
use serde_json::json;

use super::shared::batch::BoundedList;
use super::shared::{git_event, pushed_ref, required_header};
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings,
    SENDS_NO_IMAGES, Sample, UnsignedDelivery,
};
use crate::event::GitChanges;
use crate::event::Subject;
use crate::verify::{Authentication, Encoding, Hmac, HmacInput, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "BitbucketServer",
    handled_events: "pushes of branches and tags, mirror synchronisation",
    authentication: Authentication::Hmac(Hmac {
        headers: &["X-Hub-Signature-256", "X-Hub-Signature"],
        encoding: Encoding::Prefixed,
        signed: HmacInput::Body,
    }),
    delivery_id_header: Some("X-Request-Id"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["X-Event-Key"], usual: "repo:refs_changed" }),
    subjects: &[Subject::Git],
    settings: ProviderSettings {
        page: "repository → Repository settings → Webhooks → Create webhook",
        content_type: None,
        secret: "Secret",
        events: EventSettings::Described("Repository: Push; on a mirror: Mirror synchronized"),
    },
    ..Provider::BASE
};

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    match required_header(delivery, "X-Event-Key")? {
        "diagnostics:ping" => Ok(Parsed::Ping),
        "repo:refs_changed" | "mirror:repo_synchronized" => refs_changed(&delivery.json()?, context),
        event => Ok(Parsed::ignored_event(event)),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefsChanged {
    changes: BoundedList<RefUpdate>,
    /// The list of changes was cut.
    #[serde(default)]
    ref_limit_exceeded: bool,
    repository: Repository,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefUpdate {
    #[serde(rename = "ref")]
    reference: Ref,
    to_hash: Option<String>,
    #[serde(rename = "type")]
    update_type: Option<String>,
}

#[derive(Deserialize)]
struct Ref {
    id: String,
}

#[derive(Deserialize)]
struct Repository {
    links: Option<Links>,
    slug: Option<String>,
    project: Option<Project>,
}

#[derive(Deserialize)]
struct Project {
    key: Option<String>,
}

#[derive(Deserialize)]
struct Links {
    clone: Option<BoundedList<Link>>,
}

#[derive(Deserialize)]
struct Link {
    href: String,
    name: Option<String>,
}

/// SSH and HTTP URLs have different paths here, so only the payload's own list tells that they
/// are one repository.
fn refs_changed(event: &RefsChanged, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let links = event.repository.links.as_ref().and_then(|links| links.clone.as_ref());
    let links = links.map_or(&[][..], |links| &links.items);
    let from_name = if links.is_empty() { urls_by_name(&event.repository, context)? } else { Vec::new() };
    let mut refs = Vec::with_capacity(event.changes.items.len());
    for change in &event.changes.items {
        let deleted = change.update_type.as_deref() == Some("DELETE");
        let (name, after) = (&change.reference.id, change.to_hash.as_deref());
        refs.push(pushed_ref(name, after, deleted, None, None)?);
    }
    let changes = match (event.ref_limit_exceeded || event.changes.is_cut, refs.is_empty()) {
        (true, _) => GitChanges::Unknown,
        (false, true) => return Ok(Parsed::ignored("no ref has changed")),
        (false, false) => GitChanges::Refs(refs),
    };
    let ssh = links.iter().find(|link| link.name.as_deref() == Some("ssh")).map(|link| link.href.as_str());
    let urls = links.iter().map(|link| link.href.as_str()).chain(from_name.iter().map(String::as_str));
    git_event(urls.map(Some), ssh, changes)
}

/// The clone URLs that follow from project and name, at the hosts of the endpoint: before version 6 the
/// payload has none.
/// <https://confluence.atlassian.com/bitbucketserver0516/event-payload-966061436.html>
fn urls_by_name(repository: &Repository, context: &ParseContext<'_>) -> Result<Vec<String>, Unreadable> {
    let key = repository.project.as_ref().and_then(|project| project.key.as_deref());
    let (Some(key), Some(slug)) = (key, repository.slug.as_deref()) else {
        return Err(Unreadable::payload(
            "the repository has neither clone URLs nor a project key and a slug",
        ));
    };
    if context.git_hosts.is_empty() {
        return Err(Unreadable::payload(
            "the repository has no clone URL, as before Bitbucket Server 6; list the server's host under `gitHosts` of the \
             endpoint",
        ));
    }
    let urls =
        |host: &String| [format!("https://{host}/scm/{key}/{slug}"), format!("ssh://{host}/{key}/{slug}")];
    Ok(context.git_hosts.iter().flat_map(urls).collect())
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let (repository, name, commit) = match change {
        Sample::Push { repository, name, commit } => (repository, name, commit),
        Sample::Image { .. } => return Err(SENDS_NO_IMAGES),
        Sample::Ping => {
            return Ok(UnsignedDelivery::json(
                &[("X-Event-Key", "diagnostics:ping")],
                &json!({"test": true}),
            ));
        }
    };
    let ref_type = if name.as_tag().is_some() { "TAG" } else { "BRANCH" };
    let body = json!({
        "eventKey": "repo:refs_changed",
        "changes": [{"ref": {"id": name.as_str(), "type": ref_type}, "toHash": commit, "type": "UPDATE"}],
        "repository": {"links": {"clone": [{"href": repository.to_string(), "name": "http"}]}},
    });
    Ok(UnsignedDelivery::json(&[("X-Event-Key", "repo:refs_changed")], &body))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back, check_with_hosts};
    use super::*;

    const REFS_CHANGED_EVENT: (&str, &str) = ("X-Event-Key", "repo:refs_changed");

    fn body() -> Value {
        json!({
            "changes": [
                {"ref": {"id": "refs/heads/main", "type": "BRANCH"}, "toHash": "1111", "type": "UPDATE"},
                {"ref": {"id": "refs/heads/old", "type": "BRANCH"}, "toHash": "0".repeat(40), "type": "DELETE"},
            ],
            "repository": {"slug": "app", "links": {"clone": [
                {"href": "ssh://git@bitbucket.example.com:7999/prj/app.git", "name": "ssh"},
                {"href": "https://bitbucket.example.com/scm/prj/app.git", "name": "http"},
            ]}},
        })
    }

    #[test]
    fn changed_refs_are_read() {
        check(
            &PROVIDER,
            &[REFS_CHANGED_EVENT],
            &body(),
            "push to bitbucket.example.com/prj/app main, old (deleted)",
        );
    }

    #[test]
    fn a_cut_list_of_refs_means_any_ref() {
        let mut body = body();
        body["refLimitExceeded"] = json!(true);
        body["changes"] = json!([]);
        check(
            &PROVIDER,
            &[("X-Event-Key", "mirror:repo_synchronized")],
            &body,
            "push to bitbucket.example.com/prj/app",
        );
    }

    // Incident 21.
    #[test]
    fn the_connection_test_is_a_ping() {
        check(&PROVIDER, &[("X-Event-Key", "diagnostics:ping")], &json!({"test": true}), "ping");
    }

    // Incident 5: payloads of before version 6.
    #[test]
    fn payloads_without_clone_urls_are_matched_by_name_at_the_hosts_of_the_endpoint() {
        let mut body = body();
        body["repository"] = json!({"slug": "app", "project": {"key": "PRJ"}});
        let hosts = ["bitbucket.example.com"];
        check_with_hosts(
            &PROVIDER,
            &[REFS_CHANGED_EVENT],
            &body,
            &hosts,
            "push to bitbucket.example.com/scm/prj/app main, old (deleted)",
        );
        check(
            &PROVIDER,
            &[REFS_CHANGED_EVENT],
            &body,
            "unreadable: cannot read the payload: the repository has no clone URL, as before Bitbucket Server 6; list the \
             server's host under `gitHosts` of the endpoint",
        );
        // Ports are not compared at these hosts.
        let hosts: Vec<String> = hosts.map(str::to_owned).to_vec();
        let urls = testing::repositories(&PROVIDER, &[REFS_CHANGED_EVENT], &body, &hosts);
        for url in [
            "ssh://git@bitbucket.example.com:7999/prj/app.git",
            "https://bitbucket.example.com:8443/scm/PRJ/app.git",
        ] {
            let url = crate::event::repository_url::RepositoryUrl::parse(url).expect("a URL");
            assert!(urls.iter().any(|known| known.same_repository(&url)), "{url}");
        }
        body["repository"]["slug"] = Value::Null;
        check(
            &PROVIDER,
            &[REFS_CHANGED_EVENT],
            &body,
            "unreadable: cannot read the payload: the repository has neither clone URLs nor a project key and a slug",
        );
    }

    #[test]
    fn malformed_payloads_are_errors() {
        testing::check_malformed(&PROVIDER, &[REFS_CHANGED_EVENT], &body());
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
