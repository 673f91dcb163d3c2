//! Amazon Elastic Container Registry, through an API destination of EventBridge.
//! <https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html>

use serde::Deserialize;
use serde_json::json;

use super::{
    CannotCompose, Change, Composed, Hints, Parsed, Provider, Settings, add_registry_hosts, artifact_event,
};
use crate::event::Subject;
use crate::event::image::ImageName;
use crate::verify::{Proof, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "ECR",
    sends: "pushes and deletions of images and charts",
    proof: Proof::Chosen,
    parse,
    compose,
    event_header: None,
    event_fields: &["/detail-type", "/detail/action-type"],
    request: None,
    lists_changed_files: false,
    needs_registry_host: false,
    may_come_unsigned: true,
    subjects: &[Subject::Images],
    settings: Settings {
        page: "EventBridge → API destinations → Create, with a connection that holds the header; then a rule with that target",
        content_type: None,
        secret: "none: keep the URL secret",
        events: "the pattern {\"source\": [\"aws.ecr\"], \"detail-type\": [\"ECR Image Action\"]}, without an input transformer",
    },
};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Envelope {
    detail_type: String,
    account: String,
    region: String,
    detail: Detail,
}

/// Events of other types have other details.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Detail {
    result: Option<String>,
    action_type: Option<String>,
    repository_name: Option<String>,
    image_digest: Option<String>,
    image_tag: Option<String>,
}

fn parse(delivery: &Verified<'_>, hints: &Hints<'_>) -> Result<Parsed, Unreadable> {
    let Envelope { detail_type, account, region, detail } = delivery.json()?;
    if detail_type != "ECR Image Action" {
        return Ok(Parsed::ignored_event(&detail_type));
    }
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
    let own = ImageName::in_registry(&registry(&account, &region), &path).map_err(Unreadable::payload)?;
    let mut names = vec![own];
    add_registry_hosts(&mut names, hints, &path);
    let event = artifact_event(names, detail.image_tag, detail.image_digest, deleted);
    Ok(Parsed::Events(event.into_iter().collect()))
}

/// The event does not name the registry, but an account has one in each region.
fn registry(account: &str, region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("{account}.dkr.ecr.{region}.amazonaws.com{suffix}")
}

/// The account and region are those in the host, if it is one of ECR.
fn compose(change: &Change) -> Result<Composed, CannotCompose> {
    let reference = change.only_image()?;
    let host: Vec<&str> = reference.name.host().split('.').collect();
    let (account, region) = match host.as_slice() {
        [account, "dkr", "ecr", region, ..] => (*account, *region),
        _ => {
            return Err(CannotCompose("knows only images in ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME"));
        }
    };
    Ok(Composed::json(
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

    use super::super::testing::{self, check};
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
        check(&PROVIDER, &[], &scan, "ignored: event `ECR Image Scan` is none that flux-recv acts on");
    }

    #[test]
    fn composed_deliveries_come_back() {
        let image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1";
        let compose = |image: &str| {
            compose(&Change::Image { reference: ImageReference::parse(image).expect("an image") })
        };
        let composed = compose(image).expect("a delivery");
        let body: Value = serde_json::from_str(&composed.body).expect("JSON");
        check(&PROVIDER, &[], &body, &format!("push of {image}"));
        assert!(compose("ghcr.io/org/app:v1").is_err());
    }
}
