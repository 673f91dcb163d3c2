//! CNCF Distribution, the registry of Docker, and what is built on it.
//! <https://distribution.github.io/distribution/about/notifications/>

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::shared::{add_registry_hosts, artifact_event, batch, host_of};
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::image::ImageName;
use crate::event::{Event, Subject};
use crate::verify::{Authentication, Unreadable, Verified, from_json};

pub(super) const PROVIDER: Provider = Provider {
    name: "distribution",
    handled_events: "pushes and deletions of images, charts and other artifacts",
    authentication: Authentication::Configured,
    parse,
    compose,
    may_come_unsigned: true,
    subjects: &[Subject::Images],
    settings: ProviderSettings {
        page: "the registry's own configuration → notifications → endpoints, with the header under `headers`",
        content_type: None,
        secret: "none: keep the URL secret",
        events: EventSettings::Described("push and delete; `ignore: {actions: [pull]}` spares the rest"),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    events: &'a RawValue,
}

#[derive(Deserialize)]
struct Notification {
    action: String,
    target: Target,
    request: Option<Request>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    media_type: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    host: Option<String>,
}

/// The registry sends again for ever and in order until it is content, so nothing verified may be
/// refused: what cannot be read is ignored, with a reason.
fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let envelope: Envelope<'_> = match delivery.json() {
        Ok(envelope) => envelope,
        Err(err) => return Ok(Parsed::ignored(format!("{err}; sending it again would not help"))),
    };
    let parsed = batch::read(envelope.events, context, |notification| {
        let event = from_json::<Notification>(notification)?.event(context)?;
        Ok(event.map_or_else(
            || Parsed::ignored("no manifest was pushed or deleted"),
            |event| Parsed::Events(vec![event]),
        ))
    });
    Ok(parsed.unwrap_or_else(|err| Parsed::ignored(format!("{err}; sending it again would not help"))))
}

impl Notification {
    /// Pulls, mounts and layers concern no object.
    fn event(self, context: &ParseContext<'_>) -> Result<Option<Event>, Unreadable> {
        let target = self.target;
        let deleted = match self.action.as_str() {
            "push" if target.is_manifest() => false,
            "delete" => true,
            _ => return Ok(None),
        };
        let mut names = Vec::new();
        for host in [self.request.and_then(|request| request.host), target.url.as_deref().and_then(host_of)]
            .into_iter()
            .flatten()
        {
            let name = ImageName::in_registry(&host, &target.repository).map_err(Unreadable::payload)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        add_registry_hosts(&mut names, context, &target.repository);
        let event = artifact_event(names, target.tag, target.digest, deleted);
        event.map(Some).ok_or_else(|| Unreadable::payload("missing field `request.host`"))
    }
}

impl Target {
    fn is_manifest(&self) -> bool {
        let media_type = self.media_type.as_deref().unwrap_or_default();
        media_type.contains("manifest") || media_type.contains("image.index") || self.tag.is_some()
    }
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = change.only_image()?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    Ok(UnsignedDelivery::json(
        &[],
        &json!({"events": [{
            "action": "push",
            "target": {
                "mediaType": media_type,
                "repository": reference.name.path(),
                "tag": reference.tag,
                "digest": reference.digest,
            },
            "request": {"host": reference.name.host()},
        }]}),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{check, check_composed_delivery_comes_back};
    use super::*;

    fn push(media_type: &str, tag: Option<&str>) -> Value {
        json!({
            "action": "push",
            "target": {"mediaType": media_type, "repository": "team/app", "digest": "sha256:11", "tag": tag,
                       "url": "http://registry.internal:5000/v2/team/app/manifests/sha256:11"},
            "request": {"host": "registry.example.com", "method": "PUT"},
        })
    }

    const MANIFEST_MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

    #[test]
    fn an_envelope_of_many_events_is_read() {
        let delete = json!({"action": "delete", "target": {"repository": "team/app", "digest": "sha256:22"}, "request": {"host": "registry.example.com"}});
        let layer = push("application/octet-stream", None);
        let body = json!({"events": [push(MANIFEST_MEDIA_TYPE, Some("v1")), layer, delete]});
        check(
            &PROVIDER,
            &[],
            &body,
            "push of registry.example.com/team/app:v1; deletion of registry.example.com/team/app@sha256:22",
        );
        let index = push("application/vnd.oci.image.index.v1+json", None);
        check(&PROVIDER, &[], &json!({"events": [index]}), "push of registry.example.com/team/app@sha256:11");
        let mut pull = push(MANIFEST_MEDIA_TYPE, Some("v1"));
        pull["action"] = json!("pull");
        check(&PROVIDER, &[], &json!({"events": [pull]}), "ignored: no manifest was pushed or deleted");
    }

    #[test]
    fn both_hosts_are_names_of_the_image() {
        let event =
            from_json::<Notification>(&push(MANIFEST_MEDIA_TYPE, Some("v1")).to_string()).expect("an event");
        let Ok(Some(Event::Image(image))) = event.event(&ParseContext::default()) else { panic!("no image") };
        let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["registry.example.com/team/app", "registry.internal:5000/team/app"]);
    }

    /// Anything but a success would stop all notifications behind it.
    #[test]
    fn nothing_authentic_is_refused() {
        let bad = json!({"action": "push", "target": {"mediaType": MANIFEST_MEDIA_TYPE}});
        check(
            &PROVIDER,
            &[],
            &json!({"events": [bad, push(MANIFEST_MEDIA_TYPE, Some("v1"))]}),
            "push of registry.example.com/team/app:v1",
        );
        for body in [json!({"events": [bad]}), json!({}), json!("x"), json!({"events": [7]})] {
            let parsed = (PROVIDER.parse)(
                &crate::verify::testing::assume_verified(crate::delivery::Delivery {
                    headers: &Vec::<(String, String)>::new(),
                    body: body.to_string().as_bytes(),
                }),
                &ParseContext::default(),
            );
            let Ok(Parsed::Ignored(reason)) = parsed else { panic!("{body}: {parsed:?}") };
            assert!(reason.ends_with("sending it again would not help"), "{reason}");
        }
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
