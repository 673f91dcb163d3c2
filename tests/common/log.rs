//! Reads what flux-recv logs with `--log-format json`.

use serde_json::Value;

/// A line of the log: a constant message, and fields.
#[derive(Debug)]
pub struct LogLine(Value);

/// Parses a log. Lines that are not JSON, such as those of a panic, are left out.
pub fn parse(log: &str) -> Vec<LogLine> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).map(LogLine).collect()
}

impl LogLine {
    pub fn message(&self) -> &str {
        self.0["message"].as_str().unwrap_or_default()
    }

    /// Returns a field as text; empty where the line does not have it.
    pub fn field(&self, name: &str) -> String {
        match &self.0[name] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }

    /// Whether it is this message with these fields. `*` at both ends of a value stands for anything.
    pub fn is(&self, message: &str, fields: &[(&str, &str)]) -> bool {
        self.message() == message && fields.iter().all(|(name, value)| is_like(&self.field(name), value))
    }
}

fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*').and_then(|rest| rest.strip_suffix('*')) {
        Some(part) => text.contains(part),
        None => text == pattern,
    }
}
