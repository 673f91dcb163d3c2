//! Times as people read them.

use std::time::Duration;

use jiff::Timestamp;

use crate::history::length;

/// How long ago it was: `3 min ago`.
pub(super) fn ago(at: Timestamp) -> String {
    match Timestamp::now().duration_since(at).as_secs() {
        ..1 => "just now".to_owned(),
        seconds => format!("{} ago", length(Duration::from_secs(seconds.unsigned_abs()))),
    }
}

/// A name as one segment of a path, or a value of a query: names of endpoints hold slashes.
pub(super) fn encoded(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect()
}
