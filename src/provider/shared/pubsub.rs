//! Google Pub/Sub push subscriptions: what several services of Google send through.
//! <https://cloud.google.com/pubsub/docs/push#receive_push>

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::batch::bounded_map;
use crate::verify::{Unreadable, Verified};

/// A push wraps the message; a subscription without wrapper sends its data alone.
#[derive(Deserialize)]
struct Push {
    message: Option<Message>,
}

/// A message as it is wrapped.
#[derive(Deserialize)]
pub(in crate::provider) struct Message {
    data: Option<String>,
    /// What the service says about it.
    #[serde(default, deserialize_with = "bounded_map")]
    pub(in crate::provider) attributes: BTreeMap<String, String>,
}

/// The wrapped message, if there is a wrapper.
pub(in crate::provider) fn message(delivery: &Verified<'_>) -> Result<Option<Message>, Unreadable> {
    Ok(delivery.json::<Push>()?.message)
}

/// Returns what filters read: the data of the message.
pub(in crate::provider) fn request(delivery: &Verified<'_>) -> Option<String> {
    match message(delivery).ok()? {
        Some(message) => message.text(),
        None => delivery.json::<&RawValue>().ok().map(|body| body.get().to_owned()),
    }
}

impl Message {
    /// The data, as text.
    pub(in crate::provider) fn text(&self) -> Option<String> {
        let data = STANDARD.decode(self.data.as_deref()?.trim()).ok()?;
        Some(String::from_utf8_lossy(&data).into_owned())
    }
}
