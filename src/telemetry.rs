//! Log lines, as text or JSON, through env_logger.

use std::fmt::{self, Write as _};
use std::io::Write;

use clap::ValueEnum;
use env_logger::{Builder, Env};
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record};
use serde::{Serialize, Serializer};

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people, with fields at their end.
    Text,
    /// One JSON object per line.
    Json,
}

/// The filter of log lines unless `RUST_LOG` sets one. Libraries log only what is wrong: what they log of
/// requests could hold what flux-recv keeps to itself. actix-http logs every broken request as an
/// error, so strangers could fill the log.
const DEFAULT_FILTER: &str = "warn,actix_http=off,kube_client=off,flux_recv=info";

/// Bytes of a line. A line that names many objects is cut; the rest of them is in `/deliveries`.
const MAX_LINE_BYTES: usize = 4096;

/// Bytes of a line that the message may take, so that its fields are always there.
const MAX_MESSAGE_BYTES: usize = 2048;

/// Starts logging to stderr.
pub fn init(format: LogFormat) {
    let mut builder = Builder::from_env(Env::default().default_filter_or(DEFAULT_FILTER));
    builder.format(move |out, record| match format {
        LogFormat::Text => writeln!(out, "{}", text_line(record)),
        LogFormat::Json => {
            out.write_all(&json_line(record))?;
            out.write_all(b"\n")
        }
    });
    // A second start, as in tests, keeps the first.
    let _ = builder.try_init();
}

fn text_line(record: &Record<'_>) -> String {
    struct TextFields(String);
    impl<'kvs> VisitSource<'kvs> for TextFields {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            let value = value.to_string();
            let needs_quotes =
                value.is_empty() || value.contains(|c: char| c.is_whitespace() || c == '"' || c.is_control());
            let value = if needs_quotes { format!("{value:?}") } else { value };
            self.0.push_str(&format!(" {key}={value}"));
            Ok(())
        }
    }
    let mut fields = TextFields(String::new());
    let _ = record.key_values().visit(&mut fields);
    let message = one_line(&record.args().to_string());
    let message = TruncatedText { text: &message, bytes: MAX_MESSAGE_BYTES };
    let line = format!("{} {:5} {message}{}", jiff::Timestamp::now(), record.level(), fields.0);
    TruncatedText { text: &line, bytes: MAX_LINE_BYTES }.to_string()
}

/// A text without what goes beyond so many bytes of JSON.
struct TruncatedText<'t, T: ?Sized> {
    text: &'t T,
    bytes: usize,
}

impl<T: fmt::Display + ?Sized> fmt::Display for TruncatedText<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer =
            TruncatingLine { out: f, left: self.bytes.saturating_sub('…'.len_utf8()), is_cut: false };
        write!(writer, "{}", self.text)
    }
}

struct TruncatingLine<'w, W> {
    out: &'w mut W,
    left: usize,
    is_cut: bool,
}

impl<W: fmt::Write> fmt::Write for TruncatingLine<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Ok(());
        }
        if let Some(left) = self.left.checked_sub(json_bytes(text)) {
            self.left = left;
            return self.out.write_str(text);
        }
        self.is_cut = true;
        for (at, char) in text.char_indices() {
            match self.left.checked_sub(json_bytes(char.encode_utf8(&mut [0; 4]))) {
                Some(left) => self.left = left,
                None => return write!(self.out, "{}…", &text[..at]),
            }
        }
        Ok(())
    }
}

/// Returns the bytes that a text takes in a JSON string.
fn json_bytes(text: &str) -> usize {
    let escapes = |byte: &u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 1,
        ..=0x1f => "\\u0000".len() - 1,
        _ => 0,
    };
    text.len() + text.as_bytes().iter().map(escapes).sum::<usize>()
}

/// Payloads name branches and repositories, so a message could hold a line break.
fn one_line(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Written piece by piece: this runs once per delivery, and a tree of values costs more than all the
/// rest of the line. The names of fields are ours and need no escape.
fn json_line(record: &Record<'_>) -> Vec<u8> {
    struct JsonFields(Vec<u8>);
    impl<'kvs> VisitSource<'kvs> for JsonFields {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
            let line = &mut self.0;
            // Of a field that does not fit, its name is left, and that it was cut.
            let around = key.as_str().len() + r#","":""}"#.len();
            let left = MAX_LINE_BYTES.saturating_sub(line.len() + around);
            line.extend_from_slice(b",\"");
            line.extend_from_slice(key.as_str().as_bytes());
            line.extend_from_slice(b"\":");
            match (value.to_u64(), value.to_bool(), value.to_borrowed_str()) {
                (Some(number), _, _) => push_json(line, &number),
                (None, Some(flag), _) => push_json(line, &flag),
                (None, None, Some(text)) if json_bytes(text) < left => push_json(line, text),
                (None, None, Some(text)) => push_quoted(line, &TruncatedText { text, bytes: left }),
                (None, None, None) => push_quoted(line, &TruncatedText { text: &value, bytes: left }),
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
    let mut line = Vec::with_capacity(512);
    line.extend_from_slice(b"{\"time\":");
    push_quoted(&mut line, &jiff::Timestamp::now());
    line.extend_from_slice(b",\"level\":\"");
    line.extend_from_slice(level.as_bytes());
    line.extend_from_slice(b"\",\"message\":");
    push_quoted(&mut line, &TruncatedText { text: record.args(), bytes: MAX_MESSAGE_BYTES });
    let mut fields = JsonFields(line);
    let _ = record.key_values().visit(&mut fields);
    fields.0.push(b'}');
    fields.0
}

fn push_json(line: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Neither strings nor numbers fail to be written to memory.
    let _ = serde_json::to_writer(line, value);
}

fn push_quoted(line: &mut Vec<u8>, value: &impl std::fmt::Display) {
    let _ = serde_json::Serializer::new(line).collect_str(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: impl Fn(&Record<'_>) -> String, message: &str, fields: &[(&str, &str)]) -> String {
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

    // The attack: a log line of 1.7 MB for one delivery.
    #[test]
    fn no_line_is_longer_than_it_may_be() {
        let json_line = |record: &Record<'_>| String::from_utf8(json_line(record)).expect("UTF-8");
        for text in ["x".repeat(10_000), "\u{1}\"".repeat(10_000), "ä\n".repeat(10_000)] {
            let fields =
                [("endpoint", "github"), ("why", text.as_str()), ("path", text.as_str()), ("last", "x")];
            let json = line(json_line, &text, &fields);
            assert!(json.len() <= MAX_LINE_BYTES + 40, "{}", json.len());
            let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            assert_eq!(value["endpoint"], "github");
            assert!(value["why"].as_str().is_some_and(|why| why.ends_with('…')), "{json}");
            let text = line(text_line, &text, &fields);
            assert!(text.len() <= MAX_LINE_BYTES && text.contains(" endpoint=github"), "{}", text.len());
        }
    }

    #[test]
    fn json_lines_are_one_object() {
        let json_line = |record: &Record<'_>| String::from_utf8(json_line(record)).expect("UTF-8");
        let line = line(json_line, "say \"hi\"\n", &[("endpoint", "git\"hub")]);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(value["message"], "say \"hi\"\n");
        assert_eq!(value["endpoint"], "git\"hub");
        assert_eq!(value["level"], "warn");
        assert!(value["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(!line.contains('\n'));
    }
}
