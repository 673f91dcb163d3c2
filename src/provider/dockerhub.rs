//! Docker Hub.
//! <https://docs.docker.com/docker-hub/repos/manage/webhooks/>

use serde::Deserialize;
use serde_json::json;

use super::shared::image_event;
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::{Event, ImageEvent, Media, Subject};
use crate::verify::{Authentication, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "DockerHub",
    handled_events: "image and chart pushes",
    authentication: Authentication::PathOnly,
    parse,
    compose,
    subjects: &[Subject::Images],
    settings: ProviderSettings {
        page: "repository → Webhooks",
        content_type: None,
        secret: "none: Docker Hub cannot sign, so keep the URL secret",
        events: EventSettings::Described("every push"),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
struct Push {
    repository: Repository,
    push_data: PushData,
}

#[derive(Deserialize)]
struct Repository {
    repo_name: String,
}

#[derive(Deserialize)]
struct PushData {
    tag: Option<String>,
    media_type: Option<String>,
}

/// The payload's `callback_url` is never called: anyone who knows the path can set it.
fn parse(delivery: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let push: Push = delivery.json()?;
    let named = image_event(&push.repository.repo_name)?;
    let media = push.push_data.media_type.as_deref().map_or(Media::Unknown, Media::from_config_media_type);
    let tags = push.push_data.tag.filter(|tag| !tag.is_empty()).into_iter().collect();
    Ok(Parsed::Events(vec![Event::Image(ImageEvent { tags, media, ..named })]))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let reference = change.only_image()?;
    Ok(UnsignedDelivery::json(
        &[],
        &json!({
            "push_data": {"tag": reference.tag},
            "repository": {"repo_name": reference.name.path()},
        }),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back};
    use super::*;

    #[test]
    fn pushes_are_read() {
        let body = json!({"push_data": {"tag": "1.2", "pushed_at": 1.417_566_161e9}, "repository": {"repo_name": "Org/app"}});
        check(&PROVIDER, &[], &body, "push of docker.io/org/app:1.2");
        let official = json!({"push_data": {}, "repository": {"repo_name": "redis"}});
        check(&PROVIDER, &[], &official, "push of docker.io/library/redis");
        testing::check_malformed(&PROVIDER, &[], &body);
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
