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

fn json_line(record: &Record<'_>) -> String {
    struct Fields(serde_json::Map<String, serde_json::Value>);
    impl<'kvs> VisitSource<'kvs> for Fields {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            let value = match (value.to_u64(), value.to_bool()) {
                (Some(number), _) => number.into(),
                (None, Some(flag)) => flag.into(),
                (None, None) => value.to_string().into(),
            };
            self.0.insert(key.to_string(), value);
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
    let mut fields = Fields(serde_json::Map::new());
    fields.0.insert("time".to_owned(), jiff::Timestamp::now().to_string().into());
    fields.0.insert("level".to_owned(), level.into());
    fields.0.insert("message".to_owned(), record.args().to_string().into());
    let _ = record.key_values().visit(&mut fields);
    serde_json::Value::Object(fields.0).to_string()
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
