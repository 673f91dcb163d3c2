//! Senders that follow Standard Webhooks, and Svix. What they send is theirs to say.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use super::{Provider, ProviderSettings, generic};
use crate::event::Subject;
use crate::verify::Proof;

pub(super) const PROVIDER: Provider = Provider {
    name: "StandardWebhooks",
    sends: "anything, signed: all of `resources` is asked",
    proof: Proof::StandardWebhooks,
    parse: generic::parse,
    compose: generic::compose,
    event_header: None,
    event_fields: &["/type"],
    request: None,
    lists_changed_files: false,
    takes_cloud_events: false,
    needs_registry_host: false,
    may_come_unsigned: false,
    subjects: &[Subject::Listed],
    settings: ProviderSettings {
        page: "the sender's page of webhook endpoints",
        content_type: None,
        secret: "the signing secret; where the sender makes one (`whsec_…`), put that into the key file",
        events: "whatever should make Flux look",
    },
};
