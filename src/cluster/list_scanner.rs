//! Takes a list of the API server apart while it arrives, object by object: pages of large objects
//! would otherwise be held whole, first as bytes and then as objects.

/// Bytes of an object; etcd takes 1.5 MiB, the API server 3.
pub(super) const MAX_OBJECT_BYTES: usize = 4 << 20;

/// Bytes of what stands around the objects.
const MAX_AROUND_BYTES: usize = 256 << 10;

/// The state of a list that arrives in pieces.
#[derive(Default)]
pub struct ListScanner {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    in_items: bool,
    /// The object that is arriving.
    object: Vec<u8>,
    /// The list without its objects.
    around: Vec<u8>,
}

/// A list or an object of it is longer than any API server sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server sends an object of more than {MAX_OBJECT_BYTES} bytes")]
pub struct TooLong;

/// Depth of the fields of the list, and of its objects.
const LIST_FIELD_DEPTH: usize = 1;
const ITEM_DEPTH: usize = 2;

impl ListScanner {
    /// Reads of the input up to the end of an object, which is given; all of it if none ends there.
    ///
    /// # Errors
    /// When something is too long.
    pub fn next_object(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, TooLong> {
        for (at, byte) in input.iter().enumerate() {
            let was_in_object = self.in_items && self.depth > ITEM_DEPTH;
            self.step(*byte);
            let is_in_object = self.in_items && self.depth > ITEM_DEPTH;
            if was_in_object || is_in_object {
                self.object.push(*byte);
                if self.object.len() > MAX_OBJECT_BYTES {
                    return Err(TooLong);
                }
            } else if !self.in_items || (!self.in_string && matches!(byte, b'[' | b']')) {
                self.around.push(*byte);
                if self.around.len() > MAX_AROUND_BYTES {
                    return Err(TooLong);
                }
            }
            if was_in_object && !is_in_object {
                *input = &input[at + 1..];
                return Ok(Some(std::mem::take(&mut self.object)));
            }
        }
        *input = &[];
        Ok(None)
    }

    /// The list as JSON without its objects, once all of it was read.
    pub fn into_around(self) -> Vec<u8> {
        self.around
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' if self.depth == LIST_FIELD_DEPTH && self.is_behind_items() => {
                self.in_items = true;
                self.depth += 1;
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == LIST_FIELD_DEPTH {
                    self.in_items = false;
                }
            }
            _ => {}
        }
    }

    /// Whether the name of a field that has just been read is `items`.
    fn is_behind_items(&self) -> bool {
        let name = self.around.trim_ascii_end().strip_suffix(b":").unwrap_or_default();
        name.trim_ascii_end().ends_with(b"\"items\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn scan(text: &[u8], piece: usize) -> (Vec<Value>, Value) {
        let mut scanner = ListScanner::default();
        let mut objects = Vec::new();
        for mut input in text.chunks(piece) {
            while let Some(object) = scanner.next_object(&mut input).expect("short objects") {
                objects.push(serde_json::from_slice(&object).expect("an object"));
            }
        }
        (objects, serde_json::from_slice(&scanner.into_around()).expect("the rest is JSON"))
    }

    #[test]
    fn objects_come_one_by_one_and_the_rest_stays_a_list() {
        let list = json!({
            "apiVersion": "v1", "metadata": {"continue": "\"items\":[", "items": [{"x": 1}]},
            "items": [{"a": "}]\\\""}, {"b": [{"items": [1, {}]}]}, {}], "kind": "List",
        });
        for text in [list.to_string(), serde_json::to_string_pretty(&list).expect("JSON")] {
            for piece in [1, 2, 7, 1000] {
                let (objects, around) = scan(text.as_bytes(), piece);
                assert_eq!(json!(objects), list["items"], "{piece}");
                assert_eq!(around["metadata"], list["metadata"]);
                assert_eq!(around["items"], json!([]));
            }
        }
        assert_eq!(scan(b"{\"items\": null, \"metadata\": {}}", 3).0, Vec::<Value>::new());
        assert_eq!(scan(b"{\"items\": []}", 3).0, Vec::<Value>::new());
        assert_eq!(scan(b"{\"items\": [\"]\", 7]}", 3).1, json!({"items": []}));
    }

    #[test]
    fn what_is_too_long_is_an_error() {
        let mut scanner = ListScanner::default();
        let text = [b"{\"items\":[{\"a\":\"".as_slice(), &vec![b'x'; MAX_OBJECT_BYTES]].concat();
        assert_eq!(scanner.next_object(&mut text.as_slice()), Err(TooLong));
    }

    proptest! {
        #[test]
        fn any_texts_survive(texts in proptest::collection::vec("\\PC{0,12}", 0..6), piece in 1_usize..9) {
            let items: Vec<Value> = texts.iter().map(|text| json!({"name": text})).collect();
            let list = json!({"items": items, "metadata": {"resourceVersion": "1"}});
            let (objects, around) = scan(list.to_string().as_bytes(), piece);
            prop_assert_eq!(json!(objects), list["items"].clone());
            prop_assert_eq!(&around["metadata"], &list["metadata"]);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut input = bytes.as_slice();
            while let Ok(Some(_)) = ListScanner::default().next_object(&mut input) {}
        }
    }
}
