//! JFrog Artifactory.
//! <https://jfrog.com/help/r/jfrog-platform-administration-documentation/webhooks>

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::shared::{add_registry_hosts, artifact_event};
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::image::ImageName;
use crate::event::{ChartEvent, Event, Subject};
use crate::verify::{Authentication, Encoding, Hash, Hmac, HmacInput, Unreadable, Verified, from_json};

pub(super) const PROVIDER: Provider = Provider {
    name: "Artifactory",
    handled_events: "docker and OCI images, helm repositories",
    authentication: Authentication::TokenOrHmac(Hmac {
        headers: &["X-JFrog-Event-Auth"],
        encoding: Encoding::Hex(Hash::Sha256),
        signed: HmacInput::Body,
    }),
    parse,
    compose,
    event_fields: &["/domain", "/event_type"],
    subjects: &[Subject::Images, Subject::Charts],
    settings: ProviderSettings {
        page: "Administration → General → Webhooks → New Webhook",
        content_type: None,
        secret: "Secret token; better with `Use secret for payload signing`",
        events: EventSettings::Described(
            "Docker: Tag was pushed, Tag was deleted, Tag was promoted; for helm repositories Artifact: Deployed, Deleted",
        ),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
struct Webhook<'a> {
    domain: String,
    event_type: String,
    jpd_origin: Option<String>,
    /// Other events have other data.
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Data {
    repo_key: String,
    path: Option<String>,
    name: Option<String>,
    sha256: Option<String>,
    image_name: Option<String>,
    tag: Option<String>,
}

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let Webhook { domain, event_type, jpd_origin, data } = delivery.json()?;
    let image = |deleted| image(&from_json(data.get())?, jpd_origin.as_deref(), deleted, context);
    match (domain.as_str(), event_type.as_str()) {
        ("docker", "pushed" | "promoted") => image(false),
        ("docker", "deleted") => image(true),
        ("artifact", "deployed" | "deleted" | "moved" | "copied") => Ok(chart(from_json(data.get())?)),
        (domain, event_type) => Ok(Parsed::ignored_event(&format!("{domain}.{event_type}"))),
    }
}

/// A registry has several addresses: the repository may stand in the path or before the host, and the
/// host that clients use may be another one. Whatever follows from the payload is a name.
fn image(
    data: &Data,
    origin: Option<&str>,
    deleted: bool,
    context: &ParseContext<'_>,
) -> Result<Parsed, Unreadable> {
    let path = data
        .in_path()
        .or(data.image_name.as_deref())
        .ok_or_else(|| Unreadable::payload("missing field `data.image_name`"))?;
    let in_repository = format!("{}/{path}", data.repo_key);
    let mut names = Vec::new();
    let host = origin.and_then(|origin| url::Url::parse(origin).ok());
    if let Some(host) = host.as_ref().and_then(url::Url::host_str) {
        names.extend(ImageName::in_registry(host, &in_repository));
        names.extend(ImageName::in_registry(&format!("{}.{host}", data.repo_key), path));
    }
    add_registry_hosts(&mut names, context, &in_repository);
    add_registry_hosts(&mut names, context, path);
    let digest = data.sha256.as_deref().filter(|digest| !digest.is_empty());
    let digest = digest.map(|digest| format!("sha256:{digest}"));
    let event = artifact_event(names, data.tag.clone(), digest, deleted);
    let no_host = || Unreadable::payload("jpd_origin: names no host; give the endpoint a `registryHost`");
    Ok(Parsed::Events(vec![event.ok_or_else(no_host)?]))
}

/// Only packages and the index of a helm repository.
fn chart(data: Data) -> Parsed {
    let name = data.name.unwrap_or_default();
    if !name.ends_with(".tgz") && name != "index.yaml" {
        return Parsed::ignored(format!("`{name}` is part of no chart repository"));
    }
    Parsed::Events(vec![Event::Chart(ChartEvent { url_tail: vec![data.repo_key.to_lowercase()] })])
}

impl Data {
    /// `team/app/v1/manifest.json` is the image `team/app`; `image_name` may lack a part of it.
    fn in_path(&self) -> Option<&str> {
        let (rest, file) = self.path.as_deref()?.rsplit_once('/')?;
        let (image, _) = rest.rsplit_once('/')?;
        matches!(file, "manifest.json" | "list.manifest.json").then(|| image.trim_matches('/'))
    }
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = change.only_image()?;
    let path = reference.name.path();
    let (repository, image) = path.split_once('/').unwrap_or(("docker-local", path));
    let tag = reference.tag.as_deref().unwrap_or("latest");
    Ok(UnsignedDelivery::json(
        &[],
        &json!({
            "domain": "docker",
            "event_type": "pushed",
            "jpd_origin": format!("https://{}", reference.name.host()),
            "data": {
                "repo_key": repository,
                "image_name": image,
                "tag": tag,
                "path": format!("{image}/{tag}/manifest.json"),
            },
        }),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back};
    use super::*;
    use crate::delivery::Delivery;
    use crate::verify::testing::assume_verified;

    fn pushed() -> Value {
        json!({
            "domain": "docker", "event_type": "pushed", "jpd_origin": "https://example.jfrog.io",
            "data": {"repo_key": "docker-local", "path": "team/app/v1/list.manifest.json", "image_name": "app",
                     "name": "list.manifest.json", "tag": "v1", "sha256": "1111"},
        })
    }

    #[test]
    fn images_are_known_under_every_address() {
        let body = pushed().to_string();
        let headers: Vec<(String, String)> = Vec::new();
        let verified = assume_verified(Delivery { headers: &headers, body: body.as_bytes() });
        let hosts = ["registry.example.com".to_owned()];
        let Ok(Parsed::Events(events)) =
            parse(&verified, &ParseContext { registry_hosts: &hosts, ..ParseContext::default() })
        else {
            panic!("no events")
        };
        let [Event::Image(image)] = events.as_slice() else { panic!("{events:?}") };
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        let expect = [
            "example.jfrog.io/docker-local/team/app",
            "docker-local.example.jfrog.io/team/app",
            "registry.example.com/docker-local/team/app",
            "registry.example.com/team/app",
        ];
        assert_eq!(names, expect);
        assert_eq!(image.digest.as_deref(), Some("sha256:1111"));
    }

    #[test]
    fn events_are_told_apart() {
        check(&PROVIDER, &[], &pushed(), "push of example.jfrog.io/docker-local/team/app:v1");
        testing::check_malformed(&PROVIDER, &[], &pushed());
        let mut event = pushed();
        event["event_type"] = json!("deleted");
        check(&PROVIDER, &[], &event, "deletion of example.jfrog.io/docker-local/team/app:v1");
        event["event_type"] = json!("scanned");
        check(&PROVIDER, &[], &event, "ignored: event type `docker.scanned` is not handled");
        let deployed = |name: &str| json!({"domain": "artifact", "event_type": "deployed", "data": {"repo_key": "Helm-Local", "name": name}});
        check(&PROVIDER, &[], &deployed("web-1.0.0.tgz"), "change of chart repository …/helm-local");
        check(&PROVIDER, &[], &deployed("x.jar"), "ignored: `x.jar` is part of no chart repository");
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
