//! Whoever has a token of an OpenID Connect issuer: jobs of GitHub Actions, GitLab CI and others.
//! <https://fluxcd.io/flux/components/notification/receivers/#generic-oidc>

use super::{Provider, ProviderSettings, generic};
use crate::event::Subject;
use crate::verify::Proof;

pub(super) const PROVIDER: Provider = Provider {
    name: "generic-oidc",
    sends: "anything, with a token: all of `resources` is asked",
    proof: Proof::OpenId,
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
        page: "a step of the job that asks for a token with the audience of `oidc` and posts with it",
        content_type: None,
        secret: "none; the header is `Authorization: Bearer TOKEN`",
        events: "whatever the job runs on",
    },
};
