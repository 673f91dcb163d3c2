//! Gogs, the ancestor of Gitea and Forgejo.
//! <https://gogs.io/docs/features/webhook>

use super::shared::forge;
use super::{
    CannotCompose, EventHeader, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample,
    UnsignedDelivery, gitea,
};
use crate::event::Subject;
use crate::verify::{Authentication, Encoding, Hash, Hmac, HmacInput, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "Gogs",
    handled_events: "pushes of branches and tags, pull requests, releases",
    authentication: Authentication::Hmac(Hmac {
        headers: &["X-Gogs-Signature"],
        encoding: Encoding::Hex(Hash::Sha256),
        signed: HmacInput::Payload,
    }),
    delivery_id_header: Some("X-Gogs-Delivery"),
    parse,
    compose,
    event_header: Some(EventHeader { names: &["X-Gogs-Event"], usual: "push" }),
    event_types: gitea::EVENT_TYPES,
    event_fields: &["/action"],
    // It cuts the list of commits short and does not say so.
    subjects: &[Subject::Git],
    settings: ProviderSettings {
        page: "repository → Settings → Webhooks → Add a new webhook → Gogs",
        content_type: Some("application/json (the form works too)"),
        secret: "Secret",
        events: EventSettings::Described(
            "Push, Create, Delete, Release; for objects that track a pull request also Pull Request",
        ),
    },
    ..Provider::BASE
};

fn parse(delivery: &Verified<'_>, context: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    gitea::parse_named(delivery, context, &PROVIDER)
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    Ok(UnsignedDelivery::json(&[("X-Gogs-Event", "push")], &forge::push_body(change)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared::testing::{check, check_composed_delivery_comes_back};
    use super::*;

    // Incident 5: Gogs payloads with nulls where lists were expected.
    #[test]
    fn pushes_and_created_branches_are_read() {
        let repository = json!({"clone_url": "https://gogs.example.com/org/app.git", "ssh_url": null});
        let push =
            json!({"ref": "refs/heads/main", "after": "1111", "commits": null, "repository": repository});
        check(&PROVIDER, &[("X-Gogs-Event", "push")], &push, "push to gogs.example.com/org/app main");
        let create = json!({"ref": "refs/heads/x", "ref_type": "branch", "repository": repository});
        check(&PROVIDER, &[("X-Gogs-Event", "create")], &create, "push to gogs.example.com/org/app x");
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
