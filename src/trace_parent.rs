//! The trace that a provider's delivery belongs to, as its header `traceparent` says.
//! <https://www.w3.org/TR/trace-context/#traceparent-header>

use std::fmt;

use serde::{Deserialize, Serialize};

/// A valid `traceparent`: version, trace, span and flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent(Box<str>);

/// It is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a traceparent (W3C Trace Context)")]
pub struct NotATraceParent;

impl TraceParent {
    /// Bytes of its text.
    pub const LENGTH: usize = 55;

    /// Reads the header's value.
    ///
    /// # Errors
    /// When it is not as version 00 of the specification has it.
    pub fn parse(text: &str) -> Result<TraceParent, NotATraceParent> {
        let fields: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = fields[..] else { return Err(NotATraceParent) };
        let is_hex = |field: &str, length: usize| {
            field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_some = |field: &str| field.bytes().any(|byte| byte != b'0');
        let is_valid = version == "00"
            && is_hex(trace, 32)
            && is_some(trace)
            && is_hex(span, 16)
            && is_some(span)
            && is_hex(flags, 2);
        if is_valid { Ok(TraceParent(text.into())) } else { Err(NotATraceParent) }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TraceParent {
    type Error = NotATraceParent;

    fn try_from(text: String) -> Result<TraceParent, NotATraceParent> {
        TraceParent::parse(&text)
    }
}

impl From<TraceParent> for String {
    fn from(trace: TraceParent) -> String {
        trace.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_specification_has_is_a_traceparent() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceParent::parse(good).map(|trace| trace.to_string()).as_deref(), Ok(good));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\n-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), Err(NotATraceParent), "{bad}");
        }
    }
}
