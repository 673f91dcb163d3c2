//! Events of Amazon's services, as EventBridge writes them and as the services hand them to SNS.
//!
//! - EventBridge: <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html>
//! - CodeCommit triggers: <https://docs.aws.amazon.com/codecommit/latest/userguide/how-to-notify-sns.html>
//! - S3 notifications: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::minio::decoded;
use super::batch::BoundedList;
use super::{ParseContext, Parsed, add_registry_hosts, artifact_event, batch, git_event, pushed_ref};
use crate::event::image::ImageName;
use crate::event::{BucketEvent, BucketService, Event, GitChanges};
use crate::json_items::{self, JsonItems};
use crate::verify::{Unreadable, from_json};

/// The envelope of an event of EventBridge.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Envelope {
    source: String,
    detail_type: String,
    account: String,
    region: String,
    detail: Box<RawValue>,
}

/// The message that a service hands to SNS.
#[derive(Deserialize)]
struct Records<'a> {
    #[serde(rename = "Records", borrow)]
    records: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[serde(default)]
    event_source: String,
    #[serde(default)]
    event_name: String,
    #[serde(rename = "eventSourceARN")]
    arn: Option<String>,
    codecommit: Option<Codecommit>,
    s3: Option<S3>,
}

#[derive(Deserialize)]
struct Codecommit {
    references: BoundedList<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    r#ref: String,
    commit: Option<String>,
    #[serde(default)]
    deleted: bool,
}

#[derive(Deserialize)]
struct S3 {
    bucket: Named,
    object: Option<Object>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Object {
    key: String,
}

/// The details of an ECR event; events of other types have others.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ImageAction {
    result: Option<String>,
    action_type: Option<String>,
    repository_name: Option<String>,
    image_digest: Option<String>,
    image_tag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RepositoryChange {
    event: Option<String>,
    repository_name: Option<String>,
    reference_full_name: Option<String>,
    commit_id: Option<String>,
}

/// An ECR event that an input transformer has made a CloudEvent of.
#[derive(Deserialize)]
struct Transformed {
    source: String,
    data: TransformedImage,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TransformedImage {
    repository_name: String,
    image_tag: Option<String>,
    image_digest: Option<String>,
    registry_id: Option<String>,
}

/// Reads an event of a service; none if the text comes from none of those that are known.
pub(in crate::provider) fn read(
    text: &str,
    context: &ParseContext<'_>,
) -> Option<Result<Parsed, Unreadable>> {
    let field = |name: &str| json_items::field(text, name);
    let says = |name: &str, word: &str| field(name).is_some_and(|value| is_text(value, word));
    if let Some(first) = field("Records").and_then(JsonItems::new).and_then(|mut records| records.next())
        && let Some(service) = json_items::field(first.get(), "eventSource")
    {
        let is_known = ["aws:codecommit", "aws:s3"].iter().any(|known| is_text(service, known));
        return is_known.then(|| from_json(text).and_then(|records| all_records(&records, context)));
    }
    if says("Service", "Amazon S3") && says("Event", "s3:TestEvent") {
        return Some(Ok(Parsed::Ping));
    }
    if says("type", "com.amazon.ecr.image.push") {
        return Some(from_json(text).and_then(|event| transformed(event, context)));
    }
    let is_of_a_known_service =
        ["aws.ecr", "aws.codecommit", "aws.s3"].iter().any(|known| says("source", known));
    if field("detail-type").is_some() && is_of_a_known_service {
        return Some(from_json(text).and_then(|envelope| event(envelope, context)));
    }
    None
}

/// Whether a value is this text, however it is escaped.
fn is_text(value: &RawValue, word: &str) -> bool {
    serde_json::from_str::<Cow<'_, str>>(value.get()).is_ok_and(|text| text == word)
}

fn event(envelope: Envelope, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let Envelope { source, detail_type, account, region, detail } = envelope;
    let detail = detail.get();
    match (source.as_str(), detail_type.as_str()) {
        ("aws.ecr", "ECR Image Action") => image_action(from_json(detail)?, &account, &region, context),
        ("aws.codecommit", "CodeCommit Repository State Change") => {
            repository_change(from_json(detail)?, &region)
        }
        ("aws.s3", "Object Created" | "Object Deleted") => {
            let S3 { bucket, object } = from_json(detail)?;
            // Other than in notifications the key is written as it is.
            Ok(Parsed::Events(vec![bucket_event(bucket, object.map(|object| object.key))]))
        }
        _ => Ok(Parsed::ignored_event(&detail_type)),
    }
}

fn image_action(
    detail: ImageAction,
    account: &str,
    region: &str,
    context: &ParseContext<'_>,
) -> Result<Parsed, Unreadable> {
    let deleted = match (detail.action_type.as_deref(), detail.result.as_deref()) {
        (Some("PUSH"), Some("SUCCESS")) => false,
        (Some("DELETE"), Some("SUCCESS")) => true,
        (action, result) => {
            let (action, result) = (action.unwrap_or_default(), result.unwrap_or_default());
            return Ok(Parsed::ignored(format!("the action `{action}` ended with `{result}`")));
        }
    };
    let path = detail
        .repository_name
        .ok_or_else(|| Unreadable::payload("missing field `detail.repository-name`"))?;
    image(account, region, &path, (detail.image_tag, detail.image_digest), deleted, context)
}

fn transformed(event: Transformed, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let Transformed { source, data } = event;
    // urn:aws:ecr:REGION:ACCOUNT:repository/NAME
    let parts: Vec<&str> = source.split(':').collect();
    let (region, account) = match parts.as_slice() {
        ["urn", _, "ecr", region, account, ..] => (*region, *account),
        _ => return Err(Unreadable::payload("source: does not name region and account of the registry")),
    };
    let account = data.registry_id.as_deref().unwrap_or(account);
    image(account, region, &data.repository_name, (data.image_tag, data.image_digest), false, context)
}

/// The event does not name the registry, but an account has one in each region.
fn image(
    account: &str,
    region: &str,
    path: &str,
    (tag, digest): (Option<String>, Option<String>),
    deleted: bool,
    context: &ParseContext<'_>,
) -> Result<Parsed, Unreadable> {
    let registry = format!("{account}.dkr.ecr.{region}.{}", domain(region));
    let mut names = vec![ImageName::in_registry(&registry, path).map_err(Unreadable::payload)?];
    add_registry_hosts(&mut names, context, path);
    Ok(Parsed::Events(artifact_event(names, tag, digest, deleted).into_iter().collect()))
}

/// China's regions are a world of their own.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

fn repository_change(detail: RepositoryChange, region: &str) -> Result<Parsed, Unreadable> {
    let event = detail.event.unwrap_or_default();
    if !matches!(event.as_str(), "referenceCreated" | "referenceUpdated" | "referenceDeleted") {
        return Ok(Parsed::ignored_event(&event));
    }
    let missing = |field: &str| Unreadable::payload(format_args!("missing field `detail.{field}`"));
    let repository = detail.repository_name.ok_or_else(|| missing("repositoryName"))?;
    let name = detail.reference_full_name.ok_or_else(|| missing("referenceFullName"))?;
    let deleted = event == "referenceDeleted";
    let change = pushed_ref(&name, detail.commit_id.as_deref(), deleted, None, None)?;
    git_event([Some(repository_url(&repository, region).as_str())], None, GitChanges::Refs(vec![change]))
}

fn repository_url(name: &str, region: &str) -> String {
    format!("https://git-codecommit.{region}.{}/v1/repos/{name}", domain(region))
}

fn all_records(records: &Records<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    batch::read(records.records, context, |item| record(from_json(item)?))
}

fn record(record: Record) -> Result<Parsed, Unreadable> {
    match (record.event_source.as_str(), record.event_name.as_str()) {
        ("aws:codecommit", "TriggerEventTest") => Ok(Parsed::Ping),
        ("aws:codecommit", "ReferenceChange") => references(record),
        ("aws:s3", name) if name.starts_with("ObjectCreated:") || name.starts_with("ObjectRemoved:") => {
            let S3 { bucket, object } =
                record.s3.ok_or_else(|| Unreadable::payload("missing field `Records[].s3`"))?;
            let key = object.map(|object| decoded(&object.key));
            Ok(Parsed::Events(vec![bucket_event(bucket, key)]))
        }
        (_, name) => Ok(Parsed::ignored_event(name)),
    }
}

fn references(record: Record) -> Result<Parsed, Unreadable> {
    // arn:aws:codecommit:REGION:ACCOUNT:NAME
    let arn = record.arn.unwrap_or_default();
    let parts: Vec<&str> = arn.split(':').collect();
    let [_, _, "codecommit", region, _, repository] = parts.as_slice() else {
        return Err(Unreadable::payload("eventSourceARN: names no repository of CodeCommit"));
    };
    let list = record.codecommit.map(|codecommit| codecommit.references).unwrap_or_default();
    if list.is_cut {
        return git_event([Some(repository_url(repository, region).as_str())], None, GitChanges::Unknown);
    }
    let refs = list.items.iter().map(|reference| {
        pushed_ref(&reference.r#ref, reference.commit.as_deref(), reference.deleted, None, None)
    });
    let refs = refs.collect::<Result<Vec<_>, _>>()?;
    git_event([Some(repository_url(repository, region).as_str())], None, GitChanges::Refs(refs))
}

fn bucket_event(bucket: Named, key: Option<String>) -> Event {
    Event::Bucket(BucketEvent {
        name: bucket.name,
        service: BucketService::Aws,
        endpoint: None,
        keys: key.into_iter().collect(),
    })
}
