//! Harbor 1 and 2, in its default format and as CloudEvents.
//! <https://goharbor.io/docs/latest/working-with-projects/project-configuration/configure-webhooks/>

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::shared::batch;
use super::shared::{add_registry_hosts, image_event};
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::image::{ImageName, ImageReference};
use crate::event::{Event, ImageEvent, Media, Subject};
use crate::verify::{Authentication, Unreadable, Verified, from_json};

pub(super) const PROVIDER: Provider = Provider {
    name: "Harbor",
    handled_events: "image and chart pushes and deletions",
    authentication: Authentication::Token { header: "Authorization" },
    parse,
    compose,
    event_fields: &["/type"],
    subjects: &[Subject::Images],
    settings: ProviderSettings {
        page: "project → Webhooks → New Webhook",
        content_type: Some("Default or CloudEvents"),
        secret: "Auth Header (the key as it is, without Bearer before it)",
        events: EventSettings::Described("Artifact pushed; with semver ranges also Artifact deleted"),
    },
    ..Provider::BASE
};

/// Read first: the data of other events have other shapes.
#[derive(Deserialize)]
struct EventType {
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// The name of the field before Harbor 1.10.
    #[serde(rename = "event_type")]
    first_event_type: Option<String>,
}

#[derive(Deserialize)]
struct Webhook<'a> {
    #[serde(borrow)]
    event_data: Option<EventData<'a>>,
    /// The event's data in CloudEvents format.
    #[serde(borrow)]
    data: Option<EventData<'a>>,
    /// The form before Harbor 1.10, without `event_data`.
    #[serde(borrow)]
    events: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct EventData<'a> {
    #[serde(borrow)]
    resources: Option<&'a RawValue>,
    repository: Option<Repository>,
}

#[derive(Deserialize)]
struct Resource {
    digest: Option<String>,
    tag: Option<String>,
    resource_url: String,
}

#[derive(Deserialize)]
struct Repository {
    repo_full_name: Option<String>,
}

#[derive(Deserialize)]
struct FirstShape {
    full_name: String,
    tag: Option<String>,
}

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let EventType { event_type, first_event_type } = delivery.json()?;
    let event_type =
        event_type.or(first_event_type).ok_or_else(|| Unreadable::payload("missing field `type`"))?;
    let deleted = match event_type.as_str() {
        "PUSH_ARTIFACT" | "pushImage" | "harbor.artifact.pushed" => false,
        "DELETE_ARTIFACT" | "deleteImage" | "harbor.artifact.deleted" => true,
        other => return Ok(Parsed::ignored_event(other)),
    };
    let webhook: Webhook<'_> = delivery.json()?;
    if let Some(events) = webhook.events {
        return batch::read(events, context, |image| first_shape(&from_json(image)?, context, deleted));
    }
    let data = webhook
        .event_data
        .or(webhook.data)
        .ok_or_else(|| Unreadable::payload("missing field `event_data`"))?;
    let full_name = data.repository.and_then(|repository| repository.repo_full_name);
    let Some(resources) = data.resources else {
        return Ok(Parsed::ignored("the event lists no resources"));
    };
    batch::read(resources, context, |resource| {
        let image = from_json::<Resource>(resource)?.event(full_name.as_deref(), context, deleted)?;
        Ok(Parsed::Events(vec![Event::Image(image)]))
    })
}

impl Resource {
    /// An artifact without tag has its digest where the tag should be.
    fn event(
        self,
        full_name: Option<&str>,
        context: &ParseContext<'_>,
        deleted: bool,
    ) -> Result<ImageEvent, Unreadable> {
        let mut event = image_event(&self.resource_url)?;
        if let Some(path) = full_name {
            add_registry_hosts(&mut event.names, context, path);
        }
        event.tags =
            self.tag.filter(|tag| !tag.is_empty() && !tag.starts_with("sha256:")).into_iter().collect();
        event.digest = self.digest.filter(|digest| !digest.is_empty()).or(event.digest);
        event.deleted = deleted;
        Ok(event)
    }
}

fn first_shape(image: &FirstShape, context: &ParseContext<'_>, deleted: bool) -> Result<Parsed, Unreadable> {
    let mut names: Vec<ImageName> = Vec::new();
    add_registry_hosts(&mut names, context, &image.full_name);
    let Some(first) = names.first() else {
        return Ok(Parsed::ignored("this old Harbor names no host; set registryHost on the endpoint"));
    };
    let written = first.to_string();
    let tags = image.tag.iter().filter(|tag| !tag.is_empty()).cloned().collect();
    let event = ImageEvent { names, written, tags, digest: None, media: Media::Unknown, deleted };
    Ok(Parsed::Events(vec![Event::Image(event)]))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let ImageReference { name, tag, digest } = change.only_image()?;
    let url = match (tag, digest) {
        (Some(tag), _) => format!("{name}:{tag}"),
        (None, Some(digest)) => format!("{name}@{digest}"),
        (None, None) => name.to_string(),
    };
    let body = json!({
        "type": "PUSH_ARTIFACT",
        "operator": "flux-recv",
        "event_data": {
            "resources": [{"digest": digest, "tag": tag, "resource_url": url}],
            "repository": {"repo_full_name": name.path()},
        },
    });
    Ok(UnsignedDelivery::json(&[], &body))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back, check_with_hosts};
    use super::*;

    fn body(event_type: &str, tag: &str) -> Value {
        json!({
            "type": event_type,
            "event_data": {
                "resources": [{"digest": "sha256:ab", "tag": tag, "resource_url": format!("harbor.example.com/proj/nested/app:{tag}")}],
                "repository": {"repo_full_name": "proj/nested/app"},
            },
        })
    }

    // Incident 27.
    #[test]
    fn pushes_of_both_generations_are_read() {
        check(&PROVIDER, &[], &body("pushImage", "1.2"), "push of harbor.example.com/proj/nested/app:1.2");
        check(
            &PROVIDER,
            &[],
            &body("PUSH_ARTIFACT", "1.2"),
            "push of harbor.example.com/proj/nested/app:1.2",
        );
        let cloud_event = json!({"specversion": "1.0", "type": "harbor.artifact.pushed", "data": body("", "1.2")["event_data"]});
        check(&PROVIDER, &[], &cloud_event, "push of harbor.example.com/proj/nested/app:1.2");
    }

    #[test]
    fn a_digest_in_place_of_the_tag_is_no_tag() {
        let mut body = body("PUSH_ARTIFACT", "sha256:ab");
        body["event_data"]["resources"][0]["resource_url"] = json!("harbor.example.com/proj/app@sha256:ab");
        check(&PROVIDER, &[], &body, "push of harbor.example.com/proj/app@sha256:ab");
    }

    // Incidents 26 and 27.
    #[test]
    fn other_events_and_empty_lists_are_ignored() {
        check(
            &PROVIDER,
            &[],
            &body("SCANNING_COMPLETED", "1"),
            "ignored: event type `SCANNING_COMPLETED` is not handled",
        );
        let quota = json!({"type": "QUOTA_EXCEED", "event_data": {"resources": [{"custom_attributes": {}}]}});
        check(&PROVIDER, &[], &quota, "ignored: event type `QUOTA_EXCEED` is not handled");
        let empty = json!({"type": "PUSH_ARTIFACT", "event_data": {"resources": []}});
        check(&PROVIDER, &[], &empty, "ignored: the list of events is empty");
        check(
            &PROVIDER,
            &[],
            &body("DELETE_ARTIFACT", "1"),
            "deletion of harbor.example.com/proj/nested/app:1",
        );
        testing::check_malformed(&PROVIDER, &[], &body("PUSH_ARTIFACT", "1"));
    }

    #[test]
    fn the_first_shape_needs_a_host() {
        let body =
            json!({"event_type": "pushImage", "events": [{"full_name": "prj/repo1", "tag": "latest"}]});
        check(
            &PROVIDER,
            &[],
            &body,
            "ignored: this old Harbor names no host; set registryHost on the endpoint",
        );
        check_with_hosts(
            &PROVIDER,
            &[],
            &body,
            &["harbor.example.com"],
            "push of harbor.example.com/prj/repo1:latest",
        );
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
