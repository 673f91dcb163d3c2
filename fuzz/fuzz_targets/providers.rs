//! What strangers could send, were they authentic: whatever it is, every provider reads it or says
//! why not, and what it read survives the journal.
//!
//! Input: a byte that picks the provider, a line that is its event header, the body.
#![no_main]

use std::sync::Arc;
use std::time::SystemTime;

use flux_recv::delivery::Delivery;
use flux_recv::event::Event;
use flux_recv::provider::{Hints, PROVIDERS, Parsed};
use flux_recv::verify::fetch::{FetchError, NoFetch};
use flux_recv::verify::key::Key;
use flux_recv::verify::{Credentials, GoogleKeys, Proof, Tools, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((pick, rest)) = input.split_first() else { return };
    let line_end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (event, body) = (&rest[..line_end], rest.get(line_end + 1..).unwrap_or_default());
    let provider = PROVIDERS[usize::from(*pick) % PROVIDERS.len()];
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    if let (Some((name, _)), Ok(value)) = (provider.event_header, std::str::from_utf8(event)) {
        headers.push((name.to_owned(), value.to_owned()));
    }
    let credentials = Credentials::of(Key::new(b"fuzz-key".to_vec()).expect("a key"));
    let fetch = Arc::new(NoFetch(FetchError("no network".to_owned())));
    let tools = Tools { google_keys: GoogleKeys::new(fetch), now: SystemTime::now };
    let delivery = Delivery { headers: &headers, body };
    let verified = futures::executor::block_on(verify(delivery, Proof::PathOnly, &credentials, &tools));
    let Ok(verified) = verified else { panic!("the path is proof enough here") };
    let hosts = ["registry.example.com:5000".to_owned()];
    for hints in [Hints::default(), Hints { registry_hosts: &hosts }] {
        if let Ok(Parsed::Events(events)) = (provider.parse)(&verified, &hints) {
            let text = serde_json::to_vec(&events).expect("events can be written");
            let read: Vec<Event> = serde_json::from_slice(&text).expect("and read again");
            assert_eq!(read, events);
            for event in events {
                assert!(event.summary().len() < 64 + 8 * body.len());
            }
        }
    }
});
