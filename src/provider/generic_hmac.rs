//! Any client that can post and sign.
//! <https://fluxcd.io/flux/components/notification/receivers/#generic-hmac>

use super::{EventSettings, Provider, ProviderSettings};
use crate::verify::{Authentication, Encoding, Hmac, HmacInput};

pub(super) const PROVIDER: Provider = Provider {
    name: "generic-hmac",
    handled_events: "anything, signed: all of `resources`",
    authentication: Authentication::Hmac(Hmac {
        headers: &["X-Signature"],
        encoding: Encoding::Prefixed,
        signed: HmacInput::Body,
    }),
    takes_cloud_events: true,
    settings: ProviderSettings {
        page: "wherever the provider takes a URL and a key",
        content_type: None,
        secret: "the key of an HMAC (SHA-256, SHA-512 or SHA-1) of the body, in `X-Signature: sha256=<hex>`",
        events: EventSettings::Described("whatever should make Flux look"),
    },
    ..Provider::BASE
};
