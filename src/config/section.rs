//! Reading a YAML mapping field by field, collecting mistakes instead of stopping at the first.

use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::suggestion;
use crate::expression::LINE_PREFIX;

/// A mapping, and where to say what is wrong with it.
pub(super) struct Section<'m> {
    fields: Mapping,
    /// The fields that were read.
    known: Vec<&'static str>,
    /// Where it stands, for messages; empty for the file itself.
    place: String,
    mistakes: &'m mut Vec<String>,
}

impl<'m> Section<'m> {
    pub(super) fn new(value: Value, place: String, mistakes: &'m mut Vec<String>) -> Option<Section<'m>> {
        match value {
            Value::Mapping(fields) => Some(Section { fields, known: Vec::new(), place, mistakes }),
            _ => {
                let place = if place.is_empty() { String::new() } else { format!("{place}: ") };
                mistakes.push(format!("{place}is not a mapping; write `field: value` lines"));
                None
            }
        }
    }

    /// A mapping that stands in this one.
    pub(super) fn within(&mut self, field: &str, value: Value) -> Option<Section<'_>> {
        Section::new(value, format!("{}: {field}", self.place), self.mistakes)
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(|value| !value.is_null())
    }

    pub(super) fn mistake(&mut self, field: &str, what: &str) {
        let place =
            if self.place.is_empty() { String::new() } else { format!("{}: ", on_one_line(&self.place)) };
        let lines: Vec<String> = what.split(LINE_PREFIX).map(on_one_line).collect();
        self.mistakes.push(format!("{place}{}: {}", on_one_line(field), lines.join(LINE_PREFIX)));
    }

    /// The field's value; null counts as absent.
    pub(super) fn take(&mut self, field: &'static str) -> Option<Value> {
        self.known.push(field);
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, field: &'static str) -> Option<String> {
        match self.take(field)? {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::String(_) => {
                self.mistake(field, "is empty; give it a value or remove it");
                None
            }
            _ => {
                self.mistake(field, "must be a string; put it in quotes");
                None
            }
        }
    }

    /// A text that meant nothing when it was empty, with flux-recv for Flux v1.
    pub(super) fn drop_if_empty(&mut self, field: &str) {
        if self.fields.get(field).and_then(Value::as_str) == Some("") {
            self.fields.remove(field);
        }
    }

    pub(super) fn required_text(&mut self, field: &'static str) -> Option<String> {
        if self.fields.get(field).is_none_or(Value::is_null) {
            self.mistake(field, "is missing");
        }
        self.text(field)
    }

    /// A text, or a list of texts that is not empty: an empty one could mean all or nothing.
    pub(super) fn texts(&mut self, field: &'static str) -> Vec<String> {
        if !self.fields.get(field).is_some_and(Value::is_sequence) {
            return self.text(field).into_iter().collect();
        }
        let mut texts = Vec::new();
        for value in self.filled_list(field) {
            match value {
                Value::String(text) if !text.is_empty() => texts.push(text),
                _ => self.mistake(field, "lists a value that is not a string; put it in quotes"),
            }
        }
        texts
    }

    /// A list that is not empty where it is written.
    pub(super) fn filled_list(&mut self, field: &'static str) -> Vec<Value> {
        let list = self.list(field);
        if list.as_ref().is_some_and(Vec::is_empty) {
            self.mistake(field, "is an empty list; list something or remove it");
        }
        list.unwrap_or_default()
    }

    pub(super) fn list(&mut self, field: &'static str) -> Option<Vec<Value>> {
        match self.take(field)? {
            Value::Sequence(list) => Some(list),
            _ => {
                self.mistake(field, "is not a list; write `- ` before each entry");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, field: &'static str) -> bool {
        match self.take(field) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(_) => {
                self.mistake(field, "is neither true nor false");
                false
            }
        }
    }

    /// A number of bytes, plain or with `KiB`, `MiB`, `KB` or `MB` behind it.
    pub(super) fn bytes(&mut self, field: &'static str, most: usize) -> Option<usize> {
        let value = self.take(field)?;
        let bytes = match &value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => parse_bytes(text),
            _ => None,
        };
        match bytes.and_then(|bytes| usize::try_from(bytes).ok()) {
            Some(bytes) if (1..=most).contains(&bytes) => Some(bytes),
            Some(_) => {
                self.mistake(field, &format!("has to be between 1 byte and {} MiB", most >> 20));
                None
            }
            None => {
                self.mistake(field, "is not a size; write it like 1048576, 512KiB or 25MiB");
                None
            }
        }
    }

    /// A whole number above zero.
    pub(super) fn count(&mut self, field: &'static str) -> Option<u32> {
        let count = self.take(field)?.as_u64().and_then(|count| u32::try_from(count).ok());
        if count.is_none_or(|count| count == 0) {
            self.mistake(field, "is not a whole number above zero; remove it to have no limit");
            return None;
        }
        count
    }

    /// A length of time: a number with `s`, `m`, `h` or `d` behind it.
    pub(super) fn duration(&mut self, field: &'static str, most: Duration) -> Option<Duration> {
        let value = self.take(field)?;
        let read = value.as_str().and_then(parse_duration);
        match read {
            Some(duration) if duration <= most => Some(duration),
            Some(_) => {
                self.mistake(field, &format!("is longer than {} hours", most.as_secs() / 3600));
                None
            }
            None => {
                self.mistake(field, "is not a duration; write it like 30s, 10m, 12h or 14d");
                None
            }
        }
    }

    /// Reports the fields that nothing has read.
    pub(super) fn finish(&mut self) {
        for (field, _) in std::mem::take(&mut self.fields) {
            let written = field.as_str().map_or_else(|| format!("{field:?}"), str::to_owned);
            let fix = suggestion::fix(&written, &self.known);
            self.mistake(&written, &format!("is an unknown field; {fix}"));
        }
    }
}

/// A mistake is one line, whatever the file has in its texts.
fn on_one_line(text: &str) -> String {
    let escaped =
        text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
    escaped.collect()
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

fn parse_bytes(text: &str) -> Option<u64> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit.trim() {
        "" => 1,
        "KB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
