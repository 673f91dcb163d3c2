//! Sonatype Nexus Repository 3.
//! <https://help.sonatype.com/en/example-headers-and-payloads.html>

use serde::Deserialize;
use serde_json::json;

use super::shared::{add_registry_hosts, required_header};
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample,
    UnsignedDelivery,
};
use crate::event::image::ImageName;
use crate::event::{ChartEvent, Event, ImageEvent, Media, Subject};
use crate::verify::{Authentication, Encoding, Hash, Hmac, HmacInput, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "Nexus",
    handled_events: "docker components, helm repositories",
    authentication: Authentication::Hmac(Hmac {
        headers: &["X-Nexus-Webhook-Signature"],
        encoding: Encoding::Hex(Hash::Sha1),
        signed: HmacInput::Body,
    }),
    delivery_id_header: Some("X-Nexus-Webhook-Delivery"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["X-Nexus-Webhook-ID"], usual: "rm:repository:component" }),
    event_fields: &["/action"],
    needs_registry_host: true,
    subjects: &[Subject::Images, Subject::Charts],
    settings: ProviderSettings {
        page: "Administration → System → Capabilities → Create capability → Webhook: Repository",
        content_type: None,
        secret: "Secret Key",
        events: EventSettings::Described("component"),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    repository_name: Option<String>,
    action: String,
    component: Option<Part>,
    asset: Option<Part>,
}

#[derive(Deserialize)]
struct Part {
    format: String,
    name: String,
    version: Option<String>,
}

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let id = required_header(delivery, "X-Nexus-Webhook-ID")?;
    if !matches!(id, "rm:repository:component" | "rm:repository:asset") {
        return Ok(Parsed::ignored_event(id));
    }
    let webhook: Webhook = delivery.json()?;
    if webhook.action == "PURGED" {
        return Ok(Parsed::ignored("purged components are listed without their names"));
    }
    let is_component = webhook.component.is_some();
    let part = webhook
        .component
        .or(webhook.asset)
        .ok_or_else(|| Unreadable::payload("missing field `component`"))?;
    match part.format.as_str() {
        "docker" if is_component => image(part, &webhook.action, context),
        "docker" => Ok(Parsed::ignored("images are read from component events")),
        "helm" => chart(webhook.repository_name),
        other => Ok(Parsed::ignored(format!("format `{other}` concerns no Flux object"))),
    }
}

/// The payload does not say under which host the registry is reached; without `registryHost` the
/// name is taken as it is, as flux-recv always did.
fn image(part: Part, action: &str, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let mut names = Vec::new();
    add_registry_hosts(&mut names, context, &part.name);
    let written = match context.registry_hosts.first() {
        Some(host) => format!("{}/{}", host.trim_end_matches('/'), part.name),
        None => part.name,
    };
    if names.is_empty() {
        names.push(ImageName::parse(&written).map_err(Unreadable::payload)?);
    }
    let tags = part.version.filter(|version| !version.is_empty()).into_iter().collect();
    let deleted = match action {
        "CREATED" | "UPDATED" => false,
        "DELETED" => true,
        other => return Ok(Parsed::ignored(format!("action `{other}` changes no image"))),
    };
    Ok(Parsed::Events(vec![Event::Image(ImageEvent {
        names,
        written,
        tags,
        digest: None,
        media: Media::Unknown,
        deleted,
    })]))
}

fn chart(repository_name: Option<String>) -> Result<Parsed, Unreadable> {
    let name = repository_name
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Unreadable::payload("missing field `repositoryName`"))?;
    let url_tail = vec!["repository".to_owned(), name.to_lowercase()];
    Ok(Parsed::Events(vec![Event::Chart(ChartEvent { url_tail })]))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = change.only_image()?;
    Ok(UnsignedDelivery::json(
        &[("X-Nexus-Webhook-ID", "rm:repository:component")],
        &json!({
            "repositoryName": "docker",
            "action": "CREATED",
            "component": {"format": "docker", "name": reference.name.path(), "version": reference.tag},
        }),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back, check_with_hosts};
    use super::*;

    const COMPONENT_EVENT: (&str, &str) = ("X-Nexus-Webhook-ID", "rm:repository:component");

    fn body(action: &str) -> Value {
        json!({
            "repositoryName": "docker-hosted",
            "action": action,
            "component": {"format": "docker", "name": "app1/alpine", "version": "3.10"},
        })
    }

    #[test]
    fn the_endpoint_names_the_hosts() {
        check_with_hosts(
            &PROVIDER,
            &[COMPONENT_EVENT],
            &body("CREATED"),
            &["registry.example.com/"],
            "push of registry.example.com/app1/alpine:3.10",
        );
        check_with_hosts(
            &PROVIDER,
            &[COMPONENT_EVENT],
            &body("UPDATED"),
            &["a.example.com:5000", "b.example.com"],
            "push of a.example.com:5000/app1/alpine:3.10",
        );
        check(&PROVIDER, &[COMPONENT_EVENT], &body("CREATED"), "push of docker.io/app1/alpine:3.10");
    }

    // Incident 20: 400 until now.
    #[test]
    fn what_does_not_matter_is_ignored() {
        check(
            &PROVIDER,
            &[("X-Nexus-Webhook-ID", "rm:global:audit")],
            &json!({}),
            "ignored: event type `rm:global:audit` is not handled",
        );
        check(
            &PROVIDER,
            &[COMPONENT_EVENT],
            &json!({"action": "PURGED", "components": ["x"]}),
            "ignored: purged components are listed without their names",
        );
        let mut raw = body("CREATED");
        raw["component"]["format"] = json!("raw");
        check(&PROVIDER, &[COMPONENT_EVENT], &raw, "ignored: format `raw` concerns no Flux object");
        check(&PROVIDER, &[COMPONENT_EVENT], &body("DELETED"), "deletion of docker.io/app1/alpine:3.10");
        testing::check_malformed(&PROVIDER, &[COMPONENT_EVENT], &body("CREATED"));
    }

    #[test]
    fn helm_components_concern_their_repository() {
        let body = json!({"repositoryName": "Helm-Hosted", "action": "CREATED", "component": {"format": "helm", "name": "app", "version": "1"}});
        check(&PROVIDER, &[COMPONENT_EVENT], &body, "change of chart repository …/repository/helm-hosted");
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
