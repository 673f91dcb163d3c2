//! zot, an OCI registry: its events extension.
//! <https://zotregistry.dev/latest/articles/events/>

use serde::Deserialize;
use serde_json::json;

use super::shared::{add_registry_hosts, artifact_event, cloud_event};
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample,
    UnsignedDelivery,
};
use crate::event::image::ImageName;
use crate::event::{Event, Subject};
use crate::verify::{Authentication, Unreadable, Verified, from_json};

pub(super) const PROVIDER: Provider = Provider {
    name: "zot",
    handled_events: "pushes and deletions of images, charts and other artifacts",
    authentication: Authentication::Configured,
    delivery_id_header: Some("ce-id"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["ce-type"], usual: UPDATED_TYPE }),
    event_fields: &["/type"],
    takes_cloud_events: true,
    needs_registry_host: true,
    may_come_unsigned: true,
    subjects: &[Subject::Images],
    settings: ProviderSettings {
        page: "the registry's own configuration → extensions → events → sinks, type `http`, with `credentials` or `headers`",
        content_type: None,
        secret: "none: keep the URL secret",
        events: EventSettings::Described("all are sent; flux-recv acts on image.updated and image.deleted"),
    },
    ..Provider::BASE
};

const UPDATED_TYPE: &str = "zotregistry.image.updated";
const DELETED_TYPE: &str = "zotregistry.image.deleted";

#[derive(Deserialize)]
struct Image {
    name: String,
    reference: Option<String>,
    digest: Option<String>,
}

/// The payload does not say under which host the registry is reached.
fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    cloud_event::read(delivery, context, |event| {
        let deleted = match &*event.kind {
            UPDATED_TYPE => false,
            DELETED_TYPE => true,
            other => return Ok(Parsed::ignored_event(other)),
        };
        Ok(Parsed::Events(vec![image(from_json(&event.data)?, deleted, context)?]))
    })
}

fn image(image: Image, deleted: bool, context: &ParseContext<'_>) -> Result<Event, Unreadable> {
    let mut names = Vec::new();
    add_registry_hosts(&mut names, context, &image.name);
    if names.is_empty() {
        names.push(ImageName::parse(&image.name).map_err(Unreadable::payload)?);
    }
    let (digest, tag) = match image.reference {
        Some(reference) if reference.contains(':') => (Some(reference), None),
        reference => (None, reference),
    };
    let event = artifact_event(names, tag, image.digest.or(digest), deleted);
    event.ok_or_else(|| Unreadable::payload("missing field `name`"))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = change.only_image()?;
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "zotregistry.dev"),
        ("ce-type", UPDATED_TYPE),
    ];
    let image =
        json!({"name": reference.name.path(), "reference": reference.tag, "digest": reference.digest});
    Ok(UnsignedDelivery::json(&headers, &image))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back, check_with_hosts};
    use super::*;

    #[test]
    fn images_are_read_in_both_modes() {
        let data = json!({"name": "team/app", "reference": "v1", "digest": "sha256:11", "mediaType": "x"});
        let (host, updated) = (["registry.example.com"], [("ce-type", UPDATED_TYPE)]);
        let expect = "push of registry.example.com/team/app:v1";
        check_with_hosts(&PROVIDER, &updated, &data, &host, expect);
        testing::check_malformed(&PROVIDER, &updated, &data);
        let structured = [("Content-Type", "application/cloudevents+json")];
        let event = json!({"specversion": "1.0", "type": UPDATED_TYPE, "data": data});
        check_with_hosts(&PROVIDER, &structured, &event, &host, expect);
        testing::check_malformed(&PROVIDER, &structured, &event);
        let deleted = json!({"name": "team/app", "reference": "sha256:11"});
        let expect = "deletion of registry.example.com/team/app@sha256:11";
        check_with_hosts(&PROVIDER, &[("ce-type", DELETED_TYPE)], &deleted, &host, expect);
        let scanned = [("ce-type", "zotregistry.image.scanned")];
        check(&PROVIDER, &scanned, &data, "ignored: event type `zotregistry.image.scanned` is not handled");
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
