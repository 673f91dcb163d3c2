//! Amazon SNS: CodeCommit, S3 and whatever else publishes to a topic.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>

use serde::Deserialize;
use serde_json::json;

use super::shared::aws;
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::{Event, Subject};
use crate::verify::sns_address;
use crate::verify::{Authentication, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "SNS",
    handled_events: "CodeCommit pushes, S3 objects, ECR images; other messages: all of `resources`",
    authentication: Authentication::Sns,
    delivery_id_header: Some("x-amz-sns-message-id"),
    parse,
    compose,
    // The header says it as well, but is not signed.
    event_fields: &["/Type", "/Subject"],
    filter_body: Some(request),
    subjects: &[Subject::Git, Subject::Buckets, Subject::Images],
    settings: ProviderSettings {
        page: "SNS → Topics → the topic of `topicArn` → Create subscription, protocol HTTPS, without raw message delivery",
        content_type: None,
        secret: "none: messages are signed by Amazon, and the subscription is confirmed by itself",
        events: EventSettings::Described("whatever publishes to the topic"),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Envelope {
    r#type: String,
    message: String,
    topic_arn: String,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
}

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let envelope: Envelope = delivery.json()?;
    match envelope.r#type.as_str() {
        "Notification" => notification(&envelope, context),
        "SubscriptionConfirmation" => {
            let url = envelope.subscribe_url.filter(|url| sns_address::parse(url).is_some());
            url.map(Parsed::Confirm)
                .ok_or_else(|| Unreadable::payload("SubscribeURL: is not an address of SNS"))
        }
        "UnsubscribeConfirmation" => Ok(Parsed::ignored("the subscription was ended")),
        other => Ok(Parsed::ignored_event(other)),
    }
}

/// A message that none of the known services has written may still be meant for what the endpoint
/// lists.
fn notification(envelope: &Envelope, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    aws::read(&envelope.message, context).unwrap_or_else(|| {
        let topic = envelope.topic_arn.rsplit(':').next().unwrap_or_default();
        Ok(Parsed::Events(vec![Event::Anything { what: format!("a message of the topic {topic}") }]))
    })
}

/// Returns what filters read: the message, if it is JSON.
fn request(delivery: &Verified<'_>) -> Option<String> {
    Some(delivery.json::<Envelope>().ok()?.message)
}

fn compose(_: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let body = json!({"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:flux",
        "Message": "a message", "Timestamp": "2026-01-01T00:00:00.000Z"});
    Ok(UnsignedDelivery::json(&[("x-amz-sns-message-type", "Notification")], &body))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::shared::testing::{self, check};
    use super::*;

    fn message(message: &Value) -> Value {
        let text = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
        json!({"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:1:flux", "Message": text})
    }

    fn codecommit(references: &Value) -> Value {
        json!({"Records": [{"eventSource": "aws:codecommit", "eventName": "ReferenceChange",
            "eventSourceARN": "arn:aws:codecommit:eu-west-1:1:app", "codecommit": {"references": references}}]})
    }

    #[test]
    fn services_are_read_out_of_their_messages() {
        let references = json!([{"ref": "refs/heads/main", "commit": "1a"}, {"ref": "refs/tags/v1", "commit": "2b", "deleted": true}]);
        let expect =
            "push to git-codecommit.eu-west-1.amazonaws.com/v1/repos/app main, refs/tags/v1 (deleted)";
        check(&PROVIDER, &[], &message(&codecommit(&references)), expect);
        testing::check_malformed(&PROVIDER, &[], &message(&codecommit(&references)));
        let s3 = json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "flux"}, "object": {"key": "a+b%2Fc"}}}]});
        check(&PROVIDER, &[], &message(&s3), "change of bucket flux");
        let ecr = json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "account": "1", "region": "eu-west-1",
            "detail": {"result": "SUCCESS", "action-type": "PUSH", "repository-name": "app", "image-tag": "v1"}});
        check(&PROVIDER, &[], &message(&ecr), "push of 1.dkr.ecr.eu-west-1.amazonaws.com/app:v1");
        check(&PROVIDER, &[], &message(&json!({"Service": "Amazon S3", "Event": "s3:TestEvent"})), "ping");
        let test = json!({"Records": [{"eventSource": "aws:codecommit", "eventName": "TriggerEventTest"}]});
        check(&PROVIDER, &[], &message(&test), "ping");
        let read = json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectRestore:Post", "s3": {"bucket": {"name": "flux"}}}]});
        check(&PROVIDER, &[], &message(&read), "ignored: event type `ObjectRestore:Post` is not handled");
    }

    #[test]
    fn other_messages_are_about_what_is_listed() {
        for other in [json!("Hello world!"), json!({"a": 1}), json!("7")] {
            check(&PROVIDER, &[], &message(&other), "a message of the topic flux");
        }
    }

    #[test]
    fn only_sns_itself_confirms() {
        let confirm = |url: &str| json!({"Type": "SubscriptionConfirmation", "TopicArn": "x", "Message": "y", "SubscribeURL": url});
        let good = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=1";
        check(&PROVIDER, &[], &confirm(good), "confirm");
        let bad = "unreadable: cannot read the payload: SubscribeURL: is not an address of SNS";
        for url in ["https://evil.example/?Action=ConfirmSubscription", "http://169.254.169.254/", ""] {
            check(&PROVIDER, &[], &confirm(url), bad);
        }
        let ended = json!({"Type": "UnsubscribeConfirmation", "TopicArn": "x", "Message": "y"});
        check(&PROVIDER, &[], &ended, "ignored: the subscription was ended");
        assert!(compose(&Sample::Ping).is_ok());
    }
}
