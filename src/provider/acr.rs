//! Azure Container Registry.
//! <https://learn.microsoft.com/en-us/azure/container-registry/container-registry-webhook-reference>

use serde::Deserialize;
use serde_json::json;

use super::shared::{add_registry_hosts, artifact_event};
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::image::ImageName;
use crate::event::{ChartEvent, Event, Subject};
use crate::verify::{Authentication, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "ACR",
    handled_events: "pushes and deletions of images and charts",
    authentication: Authentication::Configured,
    parse,
    compose,
    event_fields: &["/action"],
    may_come_unsigned: true,
    subjects: &[Subject::Images, Subject::Charts],
    settings: ProviderSettings {
        page: "registry → Services → Webhooks → Add; the header goes into Custom headers",
        content_type: None,
        secret: "none: keep the URL secret",
        events: EventSettings::Described("push, delete (and chart_push, chart_delete for `az acr helm`)"),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
struct Webhook {
    action: String,
    target: Option<Target>,
    request: Option<Request>,
}

#[derive(Deserialize)]
struct Target {
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    host: Option<String>,
}

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let webhook: Webhook = delivery.json()?;
    let deleted = match webhook.action.as_str() {
        "ping" => return Ok(Parsed::Ping),
        // The HTTP repository of a registry; the payload does not say of which.
        "chart_push" | "chart_delete" => {
            let url_tail = ["helm", "v1", "repo"].map(str::to_owned).to_vec();
            return Ok(Parsed::Events(vec![Event::Chart(ChartEvent { url_tail })]));
        }
        "push" => false,
        "delete" => true,
        other => return Ok(Parsed::ignored_event(other)),
    };
    let target = webhook.target.ok_or_else(|| Unreadable::payload("missing field `target`"))?;
    let path = target.repository.ok_or_else(|| Unreadable::payload("missing field `target.repository`"))?;
    let host = webhook.request.and_then(|request| request.host);
    let mut names = Vec::new();
    if let Some(host) = &host {
        names.push(ImageName::in_registry(host, &path).map_err(Unreadable::payload)?);
    }
    add_registry_hosts(&mut names, context, &path);
    let event = artifact_event(names, target.tag, target.digest, deleted);
    Ok(Parsed::Events(vec![event.ok_or_else(|| Unreadable::payload("missing field `request.host`"))?]))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = match change {
        Sample::Ping => return Ok(UnsignedDelivery::json(&[], &json!({"action": "ping"}))),
        change => change.only_image()?,
    };
    Ok(UnsignedDelivery::json(
        &[],
        &json!({
            "action": "push",
            "target": {"repository": reference.name.path(), "tag": reference.tag, "digest": reference.digest},
            "request": {"host": reference.name.host()},
        }),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back, check_with_hosts};
    use super::*;

    fn webhook(action: &str, target: Value) -> Value {
        json!({"action": action, "target": target, "request": {"host": "example.azurecr.io"}})
    }

    #[test]
    fn pushes_and_deletions_are_read() {
        let push = webhook("push", json!({"repository": "team/app", "tag": "v1", "digest": "sha256:11"}));
        check(&PROVIDER, &[], &push, "push of example.azurecr.io/team/app:v1");
        testing::check_malformed(&PROVIDER, &[], &push);
        let delete = webhook("delete", json!({"repository": "team/app", "digest": "sha256:11"}));
        check(&PROVIDER, &[], &delete, "deletion of example.azurecr.io/team/app@sha256:11");
        let hidden = json!({"action": "push", "target": {"repository": "app", "tag": "v1"}});
        check_with_hosts(
            &PROVIDER,
            &[],
            &hidden,
            &["mirror.example.com"],
            "push of mirror.example.com/app:v1",
        );
        check(&PROVIDER, &[], &hidden, "unreadable: cannot read the payload: missing field `request.host`");
    }

    #[test]
    fn the_other_actions_are_told_apart() {
        check(&PROVIDER, &[], &json!({"action": "ping"}), "ping");
        let chart = json!({"action": "chart_push", "target": {"repository": "wordpress"}});
        check(&PROVIDER, &[], &chart, "change of chart repository …/helm/v1/repo");
        let ignored = "ignored: event type `quarantine` is not handled";
        check(&PROVIDER, &[], &webhook("quarantine", json!({})), ignored);
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
