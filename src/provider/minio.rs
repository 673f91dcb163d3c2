//! MinIO, and other S3 services that notify as it does.
//! <https://min.io/docs/minio/linux/administration/monitoring/publish-events-to-webhook.html>

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::shared::batch;
use super::shared::host_of;
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::{BucketEvent, BucketService, Event, Subject};
use crate::verify::{Authentication, Unreadable, Verified, from_json};

pub(super) const PROVIDER: Provider = Provider {
    name: "MinIO",
    handled_events: "changes of objects in buckets",
    authentication: Authentication::Configured,
    parse,
    compose,
    event_fields: &["/EventName"],
    may_come_unsigned: true,
    subjects: &[Subject::Buckets],
    settings: ProviderSettings {
        page: "mc admin config set ALIAS notify_webhook:flux endpoint=URL auth_token=KEY; then mc event add ALIAS/BUCKET arn:minio:sqs::flux:webhook",
        content_type: None,
        secret: "none: keep the URL secret",
        events: EventSettings::Described("put and delete"),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(rename = "Records", borrow)]
    records: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_name: String,
    #[serde(default)]
    response_elements: ResponseElements,
    s3: S3,
}

#[derive(Default, Deserialize)]
struct ResponseElements {
    #[serde(rename = "x-minio-origin-endpoint")]
    origin: Option<String>,
}

#[derive(Deserialize)]
struct S3 {
    bucket: Bucket,
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
}

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let notification: Notification<'_> = delivery.json()?;
    batch::read(notification.records, context, |record| {
        let record: Record = from_json(record)?;
        let name = record.event_name.strip_prefix("s3:").unwrap_or(&record.event_name);
        match name.starts_with("ObjectCreated:") || name.starts_with("ObjectRemoved:") {
            true => Ok(Parsed::Events(vec![record.event(context)])),
            false => Ok(Parsed::ignored("no object was created or removed")),
        }
    })
}

impl Record {
    /// The origin is what the service calls itself, often a name that only it knows. So it counts only
    /// where the endpoint confirms it; otherwise any address of the service may be meant.
    fn event(self, context: &ParseContext<'_>) -> Event {
        let origin = self.response_elements.origin.as_deref().and_then(host_of);
        let endpoint = origin.filter(|origin| context.registry_hosts.contains(origin));
        Event::Bucket(BucketEvent {
            name: self.s3.bucket.name,
            service: BucketService::S3Compatible,
            endpoint,
            keys: self.s3.object.map(|object| decoded(&object.key)).into_iter().collect(),
        })
    }
}

/// Keys are written as in a form: `+` is a space.
pub(super) fn decoded(key: &str) -> String {
    let pair = format!("={key}");
    url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, key)| key.into_owned()).unwrap_or_default()
}

fn compose(_: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let record = json!({
        "eventName": "s3:ObjectCreated:Put",
        "s3": {"bucket": {"name": "flux"}, "object": {"key": "apps/kustomization.yaml"}},
    });
    Ok(UnsignedDelivery::json(&[], &json!({"EventName": "s3:ObjectCreated:Put", "Records": [record]})))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared::testing::{self, check};
    use super::*;

    #[test]
    fn changes_are_read() {
        let record = json!({
            "eventName": "s3:ObjectCreated:Put",
            "responseElements": {"x-minio-origin-endpoint": "http://10.0.0.7:9000"},
            "s3": {"bucket": {"name": "flux"}, "object": {"key": "my+apps%2Fa%26b.yaml"}},
        });
        let body = json!({"EventName": "s3:ObjectCreated:Put", "Records": [record]});
        check(&PROVIDER, &[], &body, "change of bucket flux");
        testing::check_malformed(&PROVIDER, &[], &body);
        assert_eq!(decoded("my+apps%2Fa%26b.yaml"), "my apps/a&b.yaml");
        let read =
            json!({"Records": [{"eventName": "s3:ObjectAccessed:Get", "s3": {"bucket": {"name": "flux"}}}]});
        check(&PROVIDER, &[], &read, "ignored: no object was created or removed");
        assert!(compose(&Sample::Ping).is_ok());
    }

    #[test]
    fn the_origin_counts_where_the_endpoint_names_it() {
        let origin = || Record {
            event_name: String::new(),
            response_elements: ResponseElements { origin: Some("http://minio.example.com:9000".to_owned()) },
            s3: S3 { bucket: Bucket { name: "flux".to_owned() }, object: None },
        };
        let endpoint = |hosts: &[String]| match origin()
            .event(&ParseContext { registry_hosts: hosts, ..ParseContext::default() })
        {
            Event::Bucket(event) => event.endpoint,
            other => panic!("{other:?}"),
        };
        assert_eq!(endpoint(&[]), None);
        let hosts = ["minio.example.com:9000".to_owned()];
        assert_eq!(endpoint(&hosts), Some(hosts[0].clone()));
    }
}
