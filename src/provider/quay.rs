//! Quay.io and Red Hat Quay.
//! <https://docs.quay.io/guides/notifications.html>

use serde::Deserialize;
use serde_json::json;

use super::shared::batch::BoundedList;
use super::shared::image_event;
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::{Event, ImageEvent, Subject};
use crate::verify::{Authentication, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "Quay",
    handled_events: "image and chart pushes",
    authentication: Authentication::PathOnly,
    parse,
    compose,
    subjects: &[Subject::Images],
    settings: ProviderSettings {
        page: "repository → Settings → Events and Notifications → Create Notification → Webhook POST",
        content_type: None,
        secret: "none: Quay cannot sign, so keep the URL secret; leave the POST template empty",
        events: EventSettings::Described("Push to Repository"),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
struct Notification {
    docker_url: Option<String>,
    updated_tags: Option<BoundedList<String>>,
}

/// Only a push lists `updated_tags`; builds, scans and the rest do not.
fn parse(delivery: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let notification: Notification = delivery.json()?;
    let Some(tags) = notification.updated_tags else {
        return Ok(Parsed::ignored("the notification is not about a push"));
    };
    let written = notification.docker_url.ok_or_else(|| Unreadable::payload("missing field `docker_url`"))?;
    // Without any it concerns whatever references the image.
    let tags = if tags.is_cut { Vec::new() } else { tags.items };
    Ok(Parsed::Events(vec![Event::Image(ImageEvent { tags, ..image_event(&written)? })]))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = change.only_image()?;
    Ok(UnsignedDelivery::json(
        &[],
        &json!({
            "repository": reference.name.path(),
            "docker_url": reference.name.to_string(),
            "updated_tags": reference.tag.iter().collect::<Vec<_>>(),
        }),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back};
    use super::*;

    // Incident 26.
    #[test]
    fn only_pushes_list_tags() {
        let body = json!({"docker_url": "quay.example.com:8443/org/app", "updated_tags": ["1.2", "latest"]});
        check(&PROVIDER, &[], &body, "push of quay.example.com:8443/org/app:1.2,latest");
        check(
            &PROVIDER,
            &[],
            &json!({"docker_url": "quay.io/org/app", "build_id": "x"}),
            "ignored: the notification is not about a push",
        );
        testing::check_malformed(&PROVIDER, &[], &body);
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
