//! Any client that has a token of an OpenID Connect issuer: jobs of GitHub Actions, GitLab CI and others.
//! <https://fluxcd.io/flux/components/notification/receivers/#generic-oidc>

use super::{EventSettings, Provider, ProviderSettings};
use crate::verify::Authentication;

pub(super) const PROVIDER: Provider = Provider {
    name: "generic-oidc",
    handled_events: "anything, with a token: all of `resources`",
    authentication: Authentication::OpenId,
    takes_cloud_events: true,
    settings: ProviderSettings {
        page: "a step of the job that requests a token with the audience of `oidc` and posts with it",
        content_type: None,
        secret: "none; the header is `Authorization: Bearer TOKEN`",
        events: EventSettings::Described("whatever the job runs on"),
    },
    ..Provider::BASE
};
