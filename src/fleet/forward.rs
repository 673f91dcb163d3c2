//! Fields of a delivery that a publisher forwards beside the event: `req.…`, `headers.…` and `claims.…`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::expression::VariableName;

/// The place of a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardPath {
    text: String,
}

/// A text does not name a field that can be forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` does not name a field; write it like req.pusher.name, headers.x-gitlab-instance or claims.repository"
)]
pub struct NotAForwardPath(String);

/// Bytes of the JSON of one field; longer ones are left out, and filters that read them fail.
const MAX_FIELD_BYTES: usize = 4096;

/// Fields that an endpoint may forward.
pub const MAX_FORWARDED_FIELDS: usize = 32;

/// The fields that were forwarded with an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardedFields {
    /// The paths that the endpoint forwarded then, whether the delivery had the fields or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Each by the text of its path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, Value>,
    /// Those that are too long.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub too_long: Vec<String>,
}

impl ForwardPath {
    /// # Errors
    /// When it names no field, or everything: payloads are not forwarded.
    pub fn parse(text: &str) -> Result<ForwardPath, NotAForwardPath> {
        let path = ForwardPath { text: text.to_owned() };
        let (variable, rest) = text.split_once('.').unwrap_or((text, ""));
        let is_known = matches!(variable, "req" | "headers" | "claims");
        let is_written_well = !rest.is_empty() && rest.split('.').all(|segment| !segment.is_empty());
        if is_known && is_written_well { Ok(path) } else { Err(NotAForwardPath(text.to_owned())) }
    }

    pub fn variable(&self) -> VariableName {
        match self.text.split('.').next() {
            Some("headers") => VariableName::Headers,
            Some("claims") => VariableName::Claims,
            _ => VariableName::Req,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names of the fields on the way, the outermost first. Names of headers have no dots.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.text.split('.').skip(1)
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ForwardedFields {
    /// Takes the field out of the JSON text of its variable; one that is not there is not forwarded.
    pub fn take(&mut self, path: &ForwardPath, json: &str) {
        let Some(field) = find(json, path.segments()) else { return };
        match serde_json::from_str(&field) {
            Ok(value) if field.len() <= MAX_FIELD_BYTES => {
                self.values.insert(path.text.clone(), value);
            }
            _ => self.too_long.push(path.text.clone()),
        }
    }

    /// Whether this field was forwarded, as far as the delivery had it: neither left out for its length nor
    /// unknown to the endpoint at that time.
    pub fn covers(&self, field: &str) -> bool {
        covers(&self.paths, field) && !covers(&self.too_long, field)
    }

    /// Returns a variable as far as it was forwarded.
    pub fn variable(&self, variable: VariableName) -> Value {
        let is_of = |text: &&String| ForwardPath::parse(text).is_ok_and(|path| path.variable() == variable);
        let mut root = Value::Object(serde_json::Map::new());
        for (text, value) in self.values.iter().filter(|(text, _)| is_of(text)) {
            let mut at = &mut root;
            for segment in text.split('.').skip(1) {
                if !at.is_object() {
                    *at = Value::Object(serde_json::Map::new());
                }
                at = &mut at[segment];
            }
            *at = value.clone();
        }
        root
    }
}

/// Whether one of these paths is that of the field, or of something that it is in.
pub fn covers(paths: &[String], field: &str) -> bool {
    let is_within =
        |path: &String| field.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('.'));
    paths.iter().any(|path| path == field || is_within(path))
}

/// Looks a field up without reading what stands beside it.
fn find<'p>(json: &str, segments: impl Iterator<Item = &'p str>) -> Option<String> {
    let mut at: Cow<'_, str> = Cow::Borrowed(json);
    for segment in segments {
        let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(&at).ok()?;
        let field = fields.get(segment)?.get().to_owned();
        at = Cow::Owned(field);
    }
    Some(at.into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> ForwardPath {
        ForwardPath::parse(text).expect("a path")
    }

    #[test]
    fn whole_variables_and_others_are_not_forwarded() {
        for text in ["req", "req.", "headers", "event.name", "res.metadata", "req..a", "", "claims."] {
            assert!(ForwardPath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_field_arrives_where_it_was_and_nothing_beside_it() {
        let body = json!({"pusher": {"name": "ann", "email": "secret"}, "n": 1, "long": "x".repeat(5000)})
            .to_string();
        let mut forwarded = ForwardedFields::default();
        for text in ["req.pusher.name", "req.n", "req.missing.x", "req.n.x"] {
            forwarded.take(&path(text), &body);
        }
        forwarded.take(&path("req.long"), &body);
        assert_eq!(forwarded.variable(VariableName::Req), json!({"pusher": {"name": "ann"}, "n": 1}));
        assert_eq!(forwarded.variable(VariableName::Claims), json!({}));
        forwarded.paths = ["req.pusher", "req.n", "req.long"].map(str::to_owned).to_vec();
        assert!(forwarded.covers("req.pusher.name") && forwarded.covers("req.n"));
        assert!(!forwarded.covers("req.long") && !forwarded.covers("req.number") && !forwarded.covers("req"));
        assert!(!serde_json::to_string(&forwarded).expect("JSON").contains("secret"));
    }
}
