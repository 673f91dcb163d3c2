//! Providers that sign as Standard Webhooks says, and Svix. Their payloads have no common format.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use super::{EventSettings, Provider, ProviderSettings};
use crate::verify::Authentication;

pub(super) const PROVIDER: Provider = Provider {
    name: "StandardWebhooks",
    handled_events: "anything, signed: all of `resources`",
    authentication: Authentication::StandardWebhooks,
    delivery_id_header: Some("webhook-id"),
    event_fields: &["/type"],
    settings: ProviderSettings {
        page: "the provider's page of webhook endpoints",
        content_type: None,
        secret: "the signing secret; where the provider makes one (`whsec_…`), put that into the key file",
        events: EventSettings::Described("whatever should make Flux look"),
    },
    ..Provider::BASE
};
