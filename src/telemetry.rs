//! Log lines, as text or JSON, through env_logger.

use std::io::Write;

use clap::ValueEnum;
use env_logger::{Builder, Env};
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged unless `RUST_LOG` says otherwise. Libraries speak up only when something is wrong:
/// what they log of requests could hold what flux-recv keeps to itself.
const DEFAULT_FILTER: &str = "warn,flux_recv=info";

/// Starts logging to stderr.
pub fn init(format: LogFormat) {
    let mut builder = Builder::from_env(Env::default().default_filter_or(DEFAULT_FILTER));
    builder.format(move |out, record| match format {
        LogFormat::Text => writeln!(out, "{}", text_line(record)),
        LogFormat::Json => writeln!(out, "{}", json_line(record)),
    });
    // A second start, as in tests, keeps the first.
    let _ = builder.try_init();
}

fn text_line(record: &Record<'_>) -> String {
    struct Fields(String);
    impl<'kvs> VisitSource<'kvs> for Fields {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            let value = value.to_string();
            let needs_quotes =
                value.is_empty() || value.contains(|c: char| c.is_whitespace() || c == '"' || c.is_control());
            let value = if needs_quotes { format!("{value:?}") } else { value };
            self.0.push_str(&format!(" {key}={value}"));
            Ok(())
        }
    }
    let mut fields = Fields(String::new());
    let _ = record.key_values().visit(&mut fields);
    let message = one_line(&record.args().to_string());
    format!("{} {:5} {message}{}", jiff::Timestamp::now(), record.level(), fields.0)
}

/// Payloads name branches and repositories, so a message could hold a line break.
fn one_line(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Written piece by piece: this runs once per delivery, and a tree of values costs more than all the
/// rest of the line.
fn json_line(record: &Record<'_>) -> String {
    struct Fields(String);
    impl<'kvs> VisitSource<'kvs> for Fields {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            self.0.push(',');
            push_json(&mut self.0, key.as_str());
            self.0.push(':');
            match (value.to_u64(), value.to_bool(), value.to_borrowed_str()) {
                (Some(number), _, _) => push_display(&mut self.0, number),
                (None, Some(flag), _) => push_display(&mut self.0, flag),
                (None, None, Some(text)) => push_json(&mut self.0, text),
                (None, None, None) => push_json(&mut self.0, &value.to_string()),
            }
            Ok(())
        }
    }
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let mut fields = Fields(String::with_capacity(256));
    fields.0.push_str("{\"time\":\"");
    push_display(&mut fields.0, jiff::Timestamp::now());
    fields.0.push_str("\",\"level\":\"");
    fields.0.push_str(level);
    fields.0.push_str("\",\"message\":");
    match record.args().as_str() {
        Some(message) => push_json(&mut fields.0, message),
        None => push_json(&mut fields.0, &record.args().to_string()),
    }
    let _ = record.key_values().visit(&mut fields);
    fields.0.push('}');
    fields.0
}

fn push_display(line: &mut String, value: impl std::fmt::Display) {
    use std::fmt::Write;
    // Writing to a string does not fail.
    let _ = write!(line, "{value}");
}

fn push_json(line: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => line.push_str(&quoted),
        Err(_) => line.push_str("\"\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: fn(&Record<'_>) -> String, message: &str, fields: &[(&str, &str)]) -> String {
        let fields: Vec<(&str, &str)> = fields.to_vec();
        let fields = fields.as_slice();
        format(
            &Record::builder().level(Level::Warn).args(format_args!("{message}")).key_values(&fields).build(),
        )
    }

    #[test]
    fn text_lines_quote_what_needs_it() {
        let line = line(text_line, "delivery", &[("endpoint", "github"), ("why", "a b\nc")]);
        assert!(line.ends_with(" WARN  delivery endpoint=github why=\"a b\\nc\""), "{line}");
    }

    #[test]
    fn json_lines_are_one_object() {
        let line = line(json_line, "say \"hi\"\n", &[("endpoint", "git\"hub")]);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["message"], "say \"hi\"\n");
        assert_eq!(value["endpoint"], "git\"hub");
        assert_eq!(value["level"], "warn");
        assert!(!line.contains('\n'));
    }
}
