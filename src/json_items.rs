//! The items of a JSON list, one after the other. A list of millions of small items takes a hundred
//! times its length as a `Vec` of what they say.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The field of an object with this name; the last one, as elsewhere, if there are several.
pub fn field<'t>(object: &'t str, name: &str) -> Option<&'t RawValue> {
    struct Field<'n>(&'n str);
    struct IsName<'n>(&'n str);

    impl<'de> DeserializeSeed<'de> for IsName<'_> {
        type Value = bool;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
            deserializer.deserialize_str(self)
        }
    }

    impl Visitor<'_> for IsName<'_> {
        type Value = bool;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name")
        }

        fn visit_str<E>(self, name: &str) -> Result<bool, E> {
            Ok(name == self.0)
        }
    }

    impl<'de> Visitor<'de> for Field<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(is_field) = map.next_key_seed(IsName(self.0))? {
                if is_field {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    serde_json::Deserializer::from_str(object).deserialize_map(Field(name)).ok()?
}

/// Values of a text that may become a tree: each takes some 70 bytes then.
pub const MAX_TREE_VALUES: usize = 200_000;

/// Whether a JSON text has more values than a tree may have. Those in texts are counted as well.
pub fn has_too_many_values(text: &str) -> bool {
    // A comma for each but the first of a list or an object.
    text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() > MAX_TREE_VALUES
}

/// Goes through the items of a list that is known to be valid JSON.
#[derive(Debug, Clone)]
pub struct JsonItems<'t> {
    list: &'t str,
    /// Where the next item or the end is, in bytes.
    at: usize,
}

impl<'t> JsonItems<'t> {
    /// The items of a list; `None` for another value.
    pub fn new(value: &'t RawValue) -> Option<JsonItems<'t>> {
        let list = value.get();
        list.starts_with('[').then_some(JsonItems { list, at: 1 })
    }

    /// Goes on from a place that [`JsonItems::position`] has told.
    pub fn resume(self, position: usize) -> JsonItems<'t> {
        let is_place = position > 0 && self.list.is_char_boundary(position);
        if is_place { JsonItems { at: position, ..self } } else { self }
    }

    /// Where the next item is.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'t> Iterator for JsonItems<'t> {
    type Item = &'t RawValue;

    fn next(&mut self) -> Option<&'t RawValue> {
        let rest = self.list.get(self.at..)?;
        let item = rest.trim_start_matches([' ', '\t', '\r', '\n', ',']);
        if item.starts_with(']') {
            return None;
        }
        let mut values = serde_json::Deserializer::from_str(item).into_iter::<&'t RawValue>();
        let value = values.next()?.ok()?;
        self.at += rest.len() - item.len() + values.byte_offset();
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(list: &str) -> Vec<&str> {
        let value: &RawValue = serde_json::from_str(list).expect("JSON");
        JsonItems::new(value).expect("a list").map(RawValue::get).collect()
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        let object = r#"{"a": 1, "b\u0062": {"c": [2]}, "a": "x", "d": null}"#;
        let found = |name| field(object, name).map(RawValue::get);
        assert_eq!(
            [found("a"), found("bb"), found("d"), found("c")],
            [Some("\"x\""), Some("{\"c\": [2]}"), Some("null"), None]
        );
        assert_eq!(field("[1]", "a").map(RawValue::get), None);
    }

    #[test]
    fn items_come_as_they_are_written() {
        assert_eq!(items("[]"), [""; 0]);
        assert_eq!(
            items(" [ 1 ,\n\"a,]\" , [2,[3]],{\"x\": []} , null] "),
            ["1", "\"a,]\"", "[2,[3]]", "{\"x\": []}", "null"]
        );
        let other: &RawValue = serde_json::from_str("{}").expect("JSON");
        assert!(JsonItems::new(other).is_none());
    }

    proptest! {
        #[test]
        fn they_are_those_of_serde_json_from_wherever_one_goes_on(
            texts in proptest::collection::vec("\\PC{0,8}", 0..12), pretty: bool, stop in 0_usize..12,
        ) {
            let list = if pretty { serde_json::to_string_pretty(&texts) } else { serde_json::to_string(&texts) };
            let list = list.expect("JSON");
            let value: &RawValue = serde_json::from_str(&list).expect("JSON");
            let mut first = JsonItems::new(value).expect("a list");
            let mut read: Vec<String> = first.by_ref().take(stop).map(|item| serde_json::from_str(item.get()).expect("a text")).collect();
            let rest = JsonItems::new(value).expect("a list").resume(first.position());
            read.extend(rest.map(|item| serde_json::from_str::<String>(item.get()).expect("a text")));
            prop_assert_eq!(read, texts);
        }
    }
}
