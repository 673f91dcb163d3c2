//! Amazon's services (ECR, CodeCommit, S3) through an API destination of EventBridge.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-api-destinations.html>

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::shared::aws;
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::Subject;
use crate::verify::{Authentication, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "EventBridge",
    handled_events: "images and charts in ECR, pushes to CodeCommit, objects in S3",
    authentication: Authentication::Configured,
    parse,
    compose,
    event_fields: &["/detail-type", "/detail/action-type"],
    may_come_unsigned: true,
    subjects: &[Subject::Images, Subject::Git, Subject::Buckets],
    settings: ProviderSettings {
        page: "EventBridge → API destinations → Create, with a connection that holds the header; then a rule with that target",
        content_type: None,
        secret: "none: keep the URL secret",
        events: EventSettings::Described(
            "the pattern {\"source\": [\"aws.ecr\", \"aws.codecommit\", \"aws.s3\"]} or one of them, without an input transformer",
        ),
    },
    ..Provider::BASE
};

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let body: &RawValue = delivery.json()?;
    match aws::read(body.get(), context) {
        Some(read) => read,
        None => {
            let other: Envelope = delivery.json()?;
            Ok(Parsed::ignored_event(&other.detail_type))
        }
    }
}

/// An event of a service that is none of those that are known.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Envelope {
    detail_type: String,
}

/// The account and region are those in the host, if it is one of ECR.
fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = change.only_image()?;
    let host: Vec<&str> = reference.name.host().split('.').collect();
    let (account, region) = match host.as_slice() {
        [account, "dkr", "ecr", region, ..] => (*account, *region),
        _ => {
            return Err(CannotCompose("knows only images in ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME"));
        }
    };
    Ok(UnsignedDelivery::json(
        &[],
        &json!({
            "source": "aws.ecr",
            "detail-type": "ECR Image Action",
            "account": account,
            "region": region,
            "detail": {
                "result": "SUCCESS",
                "action-type": "PUSH",
                "repository-name": reference.name.path(),
                "image-digest": reference.digest,
                "image-tag": reference.tag,
            },
        }),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check};
    use super::*;
    use crate::event::image::ImageReference;

    fn event(region: &str, detail: Value) -> Value {
        json!({"source": "aws.ecr", "detail-type": "ECR Image Action", "account": "123456789012", "region": region, "detail": detail})
    }

    fn action(action: &str, result: &str) -> Value {
        json!({"result": result, "action-type": action, "repository-name": "team/app", "image-digest": "sha256:11", "image-tag": "v1"})
    }

    #[test]
    fn pushes_and_deletions_are_read() {
        let push = event("eu-west-1", action("PUSH", "SUCCESS"));
        check(&PROVIDER, &[], &push, "push of 123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1");
        testing::check_malformed(&PROVIDER, &[], &push);
        let delete = event("cn-north-1", action("DELETE", "SUCCESS"));
        check(
            &PROVIDER,
            &[],
            &delete,
            "deletion of 123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/team/app:v1",
        );
        let failed = event("eu-west-1", action("PUSH", "FAILURE"));
        check(&PROVIDER, &[], &failed, "ignored: the action `PUSH` ended with `FAILURE`");
        let mut scan = event("eu-west-1", json!({"scan-status": "COMPLETE"}));
        scan["detail-type"] = json!("ECR Image Scan");
        check(&PROVIDER, &[], &scan, "ignored: event type `ECR Image Scan` is not handled");
    }

    #[test]
    fn composed_deliveries_come_back() {
        let image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1";
        let compose = |image: &str| {
            compose(&Sample::Image { reference: ImageReference::parse(image).expect("an image") })
        };
        let composed = compose(image).expect("a delivery");
        let body: Value = serde_json::from_str(&composed.body).expect("JSON");
        check(&PROVIDER, &[], &body, &format!("push of {image}"));
        assert!(compose("ghcr.io/org/app:v1").is_err());
    }
}
