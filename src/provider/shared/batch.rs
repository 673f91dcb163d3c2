//! Deliveries of many events, read part by part: what a part says is matched before the next one is
//! read, so that a delivery of a hundred thousand events takes no more memory than one of a few.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{ParseContext, Parsed};
use crate::event::Event;
use crate::json_items::JsonItems;
use crate::verify::Unreadable;

/// Events of a part: a few MB of them.
const MAX_PART_EVENTS: usize = 4096;

/// Reads the items of a list from where the last part ended. What cannot be read, or is of no
/// interest, costs the other items nothing.
///
/// # Errors
/// When it is not a list, or nothing in this part can be read.
pub(in crate::provider) fn read(
    list: &RawValue,
    context: &ParseContext<'_>,
    mut one: impl FnMut(&str) -> Result<Parsed, Unreadable>,
) -> Result<Parsed, Unreadable> {
    let items = JsonItems::new(list).ok_or_else(|| Unreadable::payload("the events are not a list"))?;
    let mut items = items.resume(context.resume_at);
    let (mut events, mut other, mut unreadable): (Vec<Event>, _, _) = (Vec::new(), None, None);
    while let Some(item) = items.next() {
        match one(item.get()) {
            Ok(Parsed::Events(of_item)) => events.extend(of_item),
            Ok(part) => other = Some(part),
            Err(err) => drop(unreadable.get_or_insert(err)),
        }
        if events.len() >= MAX_PART_EVENTS {
            return Ok(Parsed::Part { events, resume_at: items.position() });
        }
    }
    match (events.is_empty(), unreadable) {
        (false, _) => Ok(Parsed::Events(events)),
        (true, Some(err)) => Err(err),
        (true, None) => Ok(other.unwrap_or_else(|| Parsed::ignored("the list of events is empty"))),
    }
}

/// Items of a list that is kept: more than any provider has to say of one event.
const MAX_LIST_ITEMS: usize = 2048;

/// The first items of a list.
#[derive(Debug)]
pub(in crate::provider) struct BoundedList<T> {
    pub(in crate::provider) items: Vec<T>,
    /// Whether there were more, so that what the list does not say is unknown.
    pub(in crate::provider) is_cut: bool,
}

impl<T> Default for BoundedList<T> {
    fn default() -> BoundedList<T> {
        BoundedList { items: Vec::new(), is_cut: false }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for BoundedList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BoundedList<T>, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = BoundedList<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BoundedList<T>, A::Error> {
                let mut bounded = BoundedList::default();
                while bounded.items.len() < MAX_LIST_ITEMS {
                    let Some(item) = list.next_element()? else { return Ok(bounded) };
                    bounded.items.push(item);
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    bounded.is_cut = true;
                }
                Ok(bounded)
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Entries of a map of texts. Pub/Sub allows as many attributes.
/// <https://cloud.google.com/pubsub/quotas#resource_limits>
const MAX_MAP_ENTRIES: usize = 100;

/// Reads the first entries of a map of texts.
pub(in crate::provider) fn bounded_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while entries.len() < MAX_MAP_ENTRIES {
                let Some((name, value)) = map.next_entry()? else { return Ok(entries) };
                entries.insert(name, value);
            }
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(entries)
        }
    }
    deserializer.deserialize_map(Entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_read_part_by_part_and_nothing_is_lost() {
        let list = serde_json::to_string(&(0..10_000).collect::<Vec<u32>>()).expect("JSON");
        let list: &RawValue = serde_json::from_str(&list).expect("JSON");
        let mut what = Vec::new();
        let mut context = ParseContext::default();
        loop {
            let one = |item: &str| match item.ends_with('7') {
                true => Err(Unreadable::payload("a seven")),
                false => Ok(Parsed::Events(vec![Event::Anything { what: item.to_owned() }])),
            };
            let (events, resume_at) = match read(list, &context, one) {
                Ok(Parsed::Part { events, resume_at }) => (events, Some(resume_at)),
                Ok(Parsed::Events(events)) => (events, None),
                other => panic!("{other:?}"),
            };
            assert!(events.len() <= MAX_PART_EVENTS);
            what.extend(events.into_iter().map(|event| event.summary()));
            match resume_at {
                Some(resume_at) => context.resume_at = resume_at,
                None => break,
            }
        }
        let expect: Vec<String> =
            (0..10_000).map(|number| number.to_string()).filter(|text| !text.ends_with('7')).collect();
        assert_eq!(what, expect);
    }

    #[test]
    fn lists_and_maps_are_cut() {
        let list: BoundedList<u32> = serde_json::from_str("[1,2]").expect("a list");
        assert_eq!((list.items.len(), list.is_cut), (2, false));
        let long = serde_json::to_string(&vec![1; 5000]).expect("JSON");
        let list: BoundedList<u32> = serde_json::from_str(&long).expect("a list");
        assert_eq!((list.items.len(), list.is_cut), (MAX_LIST_ITEMS, true));
        let map: BTreeMap<String, String> = (0..500).map(|at| (at.to_string(), String::new())).collect();
        let text = serde_json::to_string(&map).expect("JSON");
        let read = bounded_map(&mut serde_json::Deserializer::from_str(&text)).expect("a map");
        assert_eq!(read.len(), MAX_MAP_ENTRIES);
    }
}
