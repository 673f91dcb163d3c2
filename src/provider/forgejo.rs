//! Forgejo, which adds headers of its own to Gitea's.
//! <https://forgejo.org/docs/latest/user/webhooks/>

use super::shared::forge;
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample,
    UnsignedDelivery, gitea,
};
use crate::event::Subject;
use crate::verify::{Authentication, Encoding, Hash, Hmac, HmacInput, Unreadable, Verified};
use crate::webhook_api::WebhookApi;

pub(super) const PROVIDER: Provider = Provider {
    name: "Forgejo",
    handled_events: "pushes of branches and tags, pull requests, releases, container packages",
    authentication: Authentication::Hmac(Hmac {
        headers: &["X-Forgejo-Signature", "X-Gitea-Signature"],
        encoding: Encoding::Hex(Hash::Sha256),
        signed: HmacInput::Payload,
    }),
    delivery_id_header: Some("X-Forgejo-Delivery"),
    parse,
    compose,
    event_header: Some(EventHeader {
        names: &["X-Forgejo-Event", "X-Gitea-Event", "X-Forgejo-Event-Type", "X-Gitea-Event-Type"],
        usual: "push",
    }),
    event_types: gitea::EVENT_TYPES,
    event_fields: &["/action"],
    lists_changed_files: true,
    subjects: &[Subject::Git, Subject::Images],
    settings: ProviderSettings {
        page: "repository or organisation → Settings → Webhooks → Add webhook → Forgejo",
        content_type: Some("application/json (the form works too)"),
        secret: "Secret",
        events: EventSettings::Choices(gitea::EVENT_CHOICES),
    },
    webhook_api: Some(&WebhookApi {
        token_variables: &["FORGEJO_TOKEN"],
        write: |form, existing| gitea::write_webhook("forgejo", form, existing),
        ..gitea::WEBHOOK_API
    }),
    ..Provider::BASE
};

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    gitea::parse_named(delivery, context, &PROVIDER)
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    Ok(UnsignedDelivery::json(&[("X-Forgejo-Event", "push")], &forge::push_body(change)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared::testing::{check, check_composed_delivery_comes_back};
    use super::*;

    #[test]
    fn its_own_header_goes_before_those_of_its_relatives() {
        let body = json!({
            "ref": "refs/heads/main",
            "after": "1111",
            "repository": {"clone_url": "https://forgejo.example.com/org/app.git"},
        });
        let expect = "push to forgejo.example.com/org/app main";
        check(&PROVIDER, &[("X-Forgejo-Event", "push"), ("X-GitHub-Event", "other")], &body, expect);
        check(&PROVIDER, &[("X-Gitea-Event", "push")], &body, expect);
        check(
            &PROVIDER,
            &[("X-GitHub-Event", "push")],
            &body,
            "unreadable: the header X-Forgejo-Event is missing",
        );
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
