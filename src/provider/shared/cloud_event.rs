//! CloudEvents over HTTP, as several providers wrap what they have to say.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ParseContext, Parsed, batch, required_header};
use crate::verify::{Unreadable, Verified, from_json};

/// An event out of any of the three modes.
#[derive(Debug)]
pub(in crate::provider) struct CloudEvent<'v> {
    pub(in crate::provider) kind: Cow<'v, str>,
    /// Its data, as JSON text.
    pub(in crate::provider) data: Cow<'v, str>,
}

#[derive(Deserialize)]
struct Structured<'v> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'v, str>,
    #[serde(borrow)]
    data: Option<&'v RawValue>,
    data_base64: Option<String>,
}

/// Reads the events of a delivery: one, or in batch mode as many as there are.
///
/// # Errors
/// When none of them can be read.
pub(in crate::provider) fn read(
    delivery: &Verified<'_>,
    context: &ParseContext<'_>,
    mut one: impl FnMut(&CloudEvent<'_>) -> Result<Parsed, Unreadable>,
) -> Result<Parsed, Unreadable> {
    let content_type = delivery.header("Content-Type").unwrap_or_default();
    let mode = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match mode.as_str() {
        "application/cloudevents+json" => one(&delivery.json::<Structured<'_>>()?.event()?),
        "application/cloudevents-batch+json" => {
            batch::read(delivery.json()?, context, |item| one(&from_json::<Structured<'_>>(item)?.event()?))
        }
        _ => {
            let kind = Cow::Borrowed(required_header(delivery, "ce-type")?);
            let data: &RawValue = delivery.json()?;
            one(&CloudEvent { kind, data: Cow::Borrowed(data.get()) })
        }
    }
}

impl<'v> Structured<'v> {
    fn event(self) -> Result<CloudEvent<'v>, Unreadable> {
        let data = match (self.data, self.data_base64) {
            (Some(data), _) => Cow::Borrowed(data.get()),
            (None, Some(encoded)) => {
                let bytes = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                Cow::Owned(bytes.ok_or_else(|| Unreadable::payload("data_base64 holds no text"))?)
            }
            (None, None) => Cow::Borrowed("null"),
        };
        Ok(CloudEvent { kind: self.kind, data })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::delivery::Delivery;
    use crate::verify::testing::assume_verified;

    fn check(headers: &[(&str, &str)], body: &str, expect: &[(&str, &str)]) {
        let headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let verified = assume_verified(Delivery { headers: &headers, body: body.as_bytes() });
        let mut events: Vec<(String, String)> = Vec::new();
        let read = read(&verified, &ParseContext::default(), |event| {
            events.push((event.kind.to_string(), event.data.to_string()));
            Ok(Parsed::Ping)
        });
        assert!(read.is_ok(), "{read:?}: {body}");
        let events: Vec<(&str, &str)> = events.iter().map(|(kind, data)| (&**kind, &**data)).collect();
        assert_eq!(events, expect);
    }

    #[test]
    fn all_modes_say_the_same() {
        let json = ("Content-Type", "application/json; charset=utf-8");
        check(&[json, ("Ce-Type", "a.b")], r#"{"x":1}"#, &[("a.b", r#"{"x":1}"#)]);
        let structured = json!({"specversion": "1.0", "type": "a.b", "data": {"x": 1}}).to_string();
        check(&[("Content-Type", "application/cloudevents+json")], &structured, &[("a.b", r#"{"x":1}"#)]);
        let encoded = json!({"type": "a.b", "data_base64": STANDARD.encode(r#"{"x":1}"#)}).to_string();
        check(&[("Content-Type", "application/CloudEvents+JSON")], &encoded, &[("a.b", r#"{"x":1}"#)]);
        let batch = format!("[{structured},{structured}]");
        let twice = [("a.b", r#"{"x":1}"#), ("a.b", r#"{"x":1}"#)];
        check(&[("Content-Type", "application/cloudevents-batch+json; charset=utf-8")], &batch, &twice);
    }

    #[test]
    fn an_event_without_a_type_cannot_be_read() {
        let headers: Vec<(String, String)> = Vec::new();
        let verified = assume_verified(Delivery { headers: &headers, body: b"{}" });
        assert!(read(&verified, &ParseContext::default(), |_| Ok(Parsed::Ping)).is_err());
    }
}
