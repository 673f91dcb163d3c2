//! Lists that arrive in pieces, from the API server and in payloads: read item by item, they hold what
//! serde_json reads of them at once.
//!
//! Input: a byte for the length of the pieces, then the list.
#![no_main]

use flux_recv::internals::ListScanner;
use flux_recv::internals::JsonItems;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let Some((length, text)) = input.split_first() else { return };
    let mut scanner = ListScanner::default();
    let mut objects = Vec::new();
    for mut piece in text.chunks(usize::from(*length).max(1)) {
        while let Some(object) = scanner.next_object(&mut piece).expect("the input is short") {
            objects.push(object);
        }
    }
    let around = scanner.into_around();
    if let Ok(Value::Object(list)) = serde_json::from_slice::<Value>(text)
        && let Some(Value::Array(items)) = list.get("items")
        && !text.windows(2).any(|escape| escape == b"\\u")
        && text.windows(7).filter(|name| name == b"\"items\"").count() == 1
    {
        let read: Vec<Value> =
            objects.iter().map(|object| serde_json::from_slice(object).expect("an object")).collect();
        // The API server sends objects; a value of another type is passed over.
        let expected = items.iter().filter(|item| item.is_object() || item.is_array());
        assert_eq!(read, expected.cloned().collect::<Vec<_>>());
        serde_json::from_slice::<Value>(&around).expect("the rest is JSON");
    }
    let Ok(value) = serde_json::from_slice::<Box<RawValue>>(text) else { return };
    let Some(items) = JsonItems::new(&value) else { return };
    let read: Vec<&str> = items.clone().map(RawValue::get).collect();
    let at_once: Vec<&RawValue> = serde_json::from_str(value.get()).expect("a list");
    assert_eq!(read, at_once.iter().map(|item| item.get()).collect::<Vec<_>>());
    let mut first = items.clone();
    let half = first.by_ref().take(read.len() / 2).count();
    assert_eq!(half + items.resume(first.position()).count(), read.len(), "from wherever it goes on");
});
