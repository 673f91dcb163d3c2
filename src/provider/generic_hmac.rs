//! Whoever can post and sign.
//! <https://fluxcd.io/flux/components/notification/receivers/#generic-hmac>

use super::{Provider, ProviderSettings, generic};
use crate::event::Subject;
use crate::verify::{Encoding, Hmac, HmacInput, Proof};

pub(super) const PROVIDER: Provider = Provider {
    name: "generic-hmac",
    sends: "anything, signed: all of `resources` is asked",
    proof: Proof::Hmac(Hmac {
        headers: &["X-Signature"],
        encoding: Encoding::Prefixed,
        signed: HmacInput::Body,
    }),
    parse: generic::parse,
    compose: generic::compose,
    event_header: None,
    event_fields: &[],
    request: None,
    lists_changed_files: false,
    takes_cloud_events: true,
    needs_registry_host: false,
    may_come_unsigned: false,
    subjects: &[Subject::Listed],
    settings: ProviderSettings {
        page: "wherever the sender takes a URL and a key",
        content_type: None,
        secret: "the key of an HMAC (SHA-256, SHA-512 or SHA-1) of the body, in `X-Signature: sha256=<hex>`",
        events: "whatever should make Flux look",
    },
};
