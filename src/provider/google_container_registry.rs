//! Google Container Registry and Artifact Registry, through a Pub/Sub push subscription.
//! <https://cloud.google.com/artifact-registry/docs/configure-notifications>

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::shared::{image_event, pubsub};
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::{Event, ImageEvent, Subject};
use crate::json_items::has_too_many_values;
use crate::verify::{Authentication, Unreadable, Verified, from_json};

pub(super) const PROVIDER: Provider = Provider {
    name: "GoogleContainerRegistry",
    handled_events: "image and chart pushes and deletions",
    authentication: Authentication::GoogleIdentity,
    parse,
    compose,
    filter_body: Some(request),
    subjects: &[Subject::Images],
    settings: ProviderSettings {
        page: "Pub/Sub → topic `gcr` → Create subscription → Delivery type: Push",
        content_type: None,
        secret: "none; tick Enable authentication, choose the account of gcr.email and the audience of gcr.audience",
        events: EventSettings::Described("everything on the topic `gcr`"),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
struct Notification {
    action: Option<String>,
    digest: Option<String>,
    tag: Option<String>,
}

/// Returns what filters read: the notification with all of its fields, as Flux's own receiver gives it to them.
fn request(delivery: &Verified<'_>) -> Option<String> {
    let text = pubsub::request(delivery)?;
    if has_too_many_values(&text) {
        return Some(text);
    }
    let mut notification: Value = serde_json::from_str(&text).ok()?;
    let fields = notification.as_object_mut()?;
    for field in ["action", "digest", "tag"] {
        fields.entry(field).or_insert_with(|| Value::String(String::new()));
    }
    Some(notification.to_string())
}

const NO_NOTIFICATION: &str = "the message is not a notification of a registry";

fn parse(delivery: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let notification: Notification = match pubsub::message(delivery)? {
        None => delivery.json()?,
        // Other messages may come over the same topic. Pub/Sub would repeat them for days if they were
        // an error.
        Some(message) => match message.text().and_then(|text| from_json(&text).ok()) {
            Some(notification) => notification,
            None => return Ok(Parsed::ignored(NO_NOTIFICATION)),
        },
    };
    let deleted = match notification.action.as_deref().map(str::to_ascii_uppercase).as_deref() {
        Some("INSERT") => false,
        Some("DELETE") => true,
        Some(other) => return Ok(Parsed::ignored_event(other)),
        None => return Ok(Parsed::ignored(NO_NOTIFICATION)),
    };
    let by_tag = notification.tag.as_deref().map(image_event).transpose()?;
    let by_digest = notification.digest.as_deref().map(image_event).transpose()?;
    let event = match (by_tag, by_digest) {
        (Some(by_tag), by_digest) => {
            ImageEvent { digest: by_digest.and_then(|event| event.digest), deleted, ..by_tag }
        }
        (None, Some(by_digest)) => ImageEvent { deleted, ..by_digest },
        (None, None) => {
            return Err(Unreadable::payload("neither `tag` nor `digest`"));
        }
    };
    Ok(Parsed::Events(vec![Event::Image(event)]))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = change.only_image()?;
    let name = &reference.name;
    let data = json!({
        "action": "INSERT",
        "tag": reference.tag.as_ref().map(|tag| format!("{name}:{tag}")),
        "digest": reference.digest.as_ref().map(|digest| format!("{name}@{digest}")),
    });
    let body = json!({"message": {"data": STANDARD.encode(data.to_string())}});
    Ok(UnsignedDelivery::json(&[], &body))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back};
    use super::*;

    fn wrapped(data: &Value) -> Value {
        json!({"message": {"data": STANDARD.encode(data.to_string()), "messageId": "1"}, "subscription": "projects/p/subscriptions/s"})
    }

    #[test]
    fn messages_are_read_wrapped_and_bare() {
        let data =
            json!({"action": "INSERT", "digest": "us.gcr.io/p/app@sha256:ab", "tag": "us.gcr.io/p/app:1.1"});
        check(&PROVIDER, &[], &wrapped(&data), "push of us.gcr.io/p/app:1.1");
        check(&PROVIDER, &[], &data, "push of us.gcr.io/p/app:1.1");
        let untagged = json!({"action": "insert", "digest": "us.gcr.io/p/app@sha256:ab"});
        check(&PROVIDER, &[], &wrapped(&untagged), "push of us.gcr.io/p/app@sha256:ab");
        testing::check_malformed(&PROVIDER, &[], &wrapped(&data));
    }

    // Incident 26.
    #[test]
    fn deletions_are_marked_and_other_actions_ignored() {
        check(
            &PROVIDER,
            &[],
            &json!({"action": "DELETE", "tag": "us.gcr.io/p/app:1.1"}),
            "deletion of us.gcr.io/p/app:1.1",
        );
        check(&PROVIDER, &[], &json!({"action": "SCAN"}), "ignored: event type `SCAN` is not handled");
        check(
            &PROVIDER,
            &[],
            &json!({"action": "INSERT"}),
            "unreadable: cannot read the payload: neither `tag` nor `digest`",
        );
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
