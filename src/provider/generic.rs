//! Any client that can post: a delivery says only that something happened.
//! <https://fluxcd.io/flux/components/notification/receivers/#generic>

use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::Event;
use crate::verify::{Authentication, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "generic",
    handled_events: "anything: all of `resources`",
    authentication: Authentication::Configured,
    parse,
    compose,
    takes_cloud_events: true,
    may_come_unsigned: true,
    settings: ProviderSettings {
        page: "wherever the provider takes a URL",
        content_type: None,
        secret: "none: keep the URL secret",
        events: EventSettings::Described("whatever should make Flux look"),
    },
    ..Provider::BASE
};

/// The body may be anything, or nothing.
pub(super) fn parse(_: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    Ok(Parsed::Events(vec![Event::Anything { what: "a delivery".to_owned() }]))
}

pub(super) fn compose(_: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    Ok(UnsignedDelivery::json(&[], &serde_json::json!({})))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared::testing::check;
    use super::*;

    #[test]
    fn any_body_is_a_call() {
        for body in [json!({}), json!(null), json!([1, "two"])] {
            check(&PROVIDER, &[], &body, "a delivery");
        }
        assert!(compose(&Sample::Ping).is_ok());
    }
}
