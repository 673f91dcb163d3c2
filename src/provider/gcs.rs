//! Google Cloud Storage, through a Pub/Sub push subscription or Eventarc.
//! <https://cloud.google.com/storage/docs/pubsub-notifications>

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::shared::pubsub;
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::{BucketEvent, BucketService, Event, Subject};
use crate::verify::{Authentication, Unreadable, Verified, from_json};

pub(super) const PROVIDER: Provider = Provider {
    name: "GCS",
    handled_events: "changes of objects in buckets",
    authentication: Authentication::GoogleIdentity,
    parse,
    compose,
    event_fields: &["/message/attributes/eventType"],
    filter_body: Some(pubsub::request),
    subjects: &[Subject::Buckets],
    settings: ProviderSettings {
        page: "gcloud storage buckets notifications create gs://BUCKET --topic=TOPIC; then Pub/Sub → TOPIC → Create subscription → Delivery type: Push",
        content_type: None,
        secret: "none; tick Enable authentication, choose the account of pubsub.email and the audience of pubsub.audience",
        events: EventSettings::Described("OBJECT_FINALIZE and OBJECT_DELETE"),
    },
    ..Provider::BASE
};

/// An object, as the service describes it.
#[derive(Deserialize)]
struct Object {
    bucket: Option<String>,
    name: Option<String>,
}

/// The types of Eventarc begin with this.
const CLOUD_EVENT_TYPE_PREFIX: &str = "google.cloud.storage.object.v1.";

fn parse(delivery: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    if let Some(kind) = delivery.header("ce-type").and_then(|kind| kind.strip_prefix(CLOUD_EVENT_TYPE_PREFIX))
    {
        let object = delivery.json()?;
        return Ok(changed(kind, object));
    }
    // A subscription without wrapper writes the attributes into headers, if it is told to.
    if let Some(kind) = delivery.header("x-goog-pubsub-eventtype") {
        let described: Object = delivery.json().unwrap_or(Object { bucket: None, name: None });
        let attribute = |name: &str| delivery.header(name).map(str::to_owned);
        let object = Object {
            bucket: attribute("x-goog-pubsub-bucketid").or(described.bucket),
            name: attribute("x-goog-pubsub-objectid").or(described.name),
        };
        return Ok(changed(kind, object));
    }
    let Some(message) = pubsub::message(delivery)? else {
        // Without wrapper and without attributes: the object, and not what has become of it.
        let object: Object = delivery.json()?;
        return Ok(match object.bucket {
            Some(_) => changed("OBJECT_FINALIZE", object),
            None => Parsed::ignored("the message is not a notification of a bucket"),
        });
    };
    let attribute = |name: &str| message.attributes.get(name).cloned();
    let Some(kind) = attribute("eventType") else {
        return Ok(Parsed::ignored("the message is not a notification of a bucket"));
    };
    // The attributes are there whatever the payload's format is.
    let described = message.text().and_then(|text| from_json::<Object>(&text).ok());
    let described = described.unwrap_or(Object { bucket: None, name: None });
    let object = Object {
        bucket: attribute("bucketId").or(described.bucket),
        name: attribute("objectId").or(described.name),
    };
    Ok(changed(&kind, object))
}

fn changed(kind: &str, object: Object) -> Parsed {
    let is_change = matches!(
        kind,
        "OBJECT_FINALIZE" | "OBJECT_DELETE" | "OBJECT_ARCHIVE" | "finalized" | "deleted" | "archived"
    );
    if !is_change {
        return Parsed::ignored_event(kind);
    }
    // Pub/Sub would repeat for days what is refused.
    let Some(name) = object.bucket else { return Parsed::ignored("the notification names no bucket") };
    let keys = object.name.into_iter().collect();
    Parsed::Events(vec![Event::Bucket(BucketEvent {
        name,
        service: BucketService::Gcp,
        endpoint: None,
        keys,
    })])
}

fn compose(_: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let object = json!({"bucket": "flux", "name": "apps/kustomization.yaml"});
    let message = json!({
        "data": STANDARD.encode(object.to_string()),
        "attributes": {"eventType": "OBJECT_FINALIZE", "bucketId": "flux", "objectId": "apps/kustomization.yaml"},
    });
    Ok(UnsignedDelivery::json(&[], &json!({"message": message})))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::shared::testing::{self, check};
    use super::*;

    fn notification(kind: &str) -> Value {
        json!({"message": {"data": STANDARD.encode(r#"{"bucket":"other","name":"x"}"#), "messageId": "1",
            "attributes": {"eventType": kind, "bucketId": "flux", "objectId": "apps/a b.yaml"}}})
    }

    #[test]
    fn notifications_are_read_from_their_attributes() {
        check(&PROVIDER, &[], &notification("OBJECT_FINALIZE"), "change of bucket flux");
        check(&PROVIDER, &[], &notification("OBJECT_DELETE"), "change of bucket flux");
        check(
            &PROVIDER,
            &[],
            &notification("OBJECT_METADATA_UPDATE"),
            "ignored: event type `OBJECT_METADATA_UPDATE` is not handled",
        );
        testing::check_malformed(&PROVIDER, &[], &notification("OBJECT_FINALIZE"));
    }

    #[test]
    fn what_is_no_notification_is_ignored() {
        check(
            &PROVIDER,
            &[],
            &json!({"message": {"data": "e30="}}),
            "ignored: the message is not a notification of a bucket",
        );
        let bare = json!({"message": {"attributes": {"eventType": "OBJECT_FINALIZE"}}});
        check(&PROVIDER, &[], &bare, "ignored: the notification names no bucket");
    }

    #[test]
    fn messages_without_a_wrapper_are_read() {
        let object = json!({"kind": "storage#object", "bucket": "flux", "name": "apps/a.yaml"});
        check(&PROVIDER, &[], &object, "change of bucket flux");
        let header = |kind: &'static str| {
            [
                ("x-goog-pubsub-eventType", kind),
                ("x-goog-pubsub-bucketId", "flux"),
                ("x-goog-pubsub-objectId", "a"),
            ]
        };
        check(&PROVIDER, &header("OBJECT_DELETE"), &json!({}), "change of bucket flux");
        let updated = "ignored: event type `OBJECT_METADATA_UPDATE` is not handled";
        check(&PROVIDER, &header("OBJECT_METADATA_UPDATE"), &object, updated);
        check(&PROVIDER, &[], &json!({"a": 1}), "ignored: the message is not a notification of a bucket");
    }

    #[test]
    fn cloud_events_are_read() {
        let object = json!({"bucket": "flux", "name": "apps/a.yaml"});
        let header = |kind: &'static str| [("ce-type", kind)];
        check(
            &PROVIDER,
            &header("google.cloud.storage.object.v1.finalized"),
            &object,
            "change of bucket flux",
        );
        let other = "google.cloud.storage.object.v1.metadataUpdated";
        check(&PROVIDER, &header(other), &object, "ignored: event type `metadataUpdated` is not handled");
        assert!(compose(&Sample::Ping).is_ok());
    }
}
