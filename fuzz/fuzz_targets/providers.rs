//! What strangers could send, were they authentic: whatever it is, every provider reads it or says
//! why not, and what it read survives the journal.
//!
//! Input: a line that names the provider (or picks it by its first byte), a line that is its event
//! header, the body.
#![no_main]

mod no_fetch;

use std::sync::Arc;
use std::time::SystemTime;

use flux_recv::internals::Delivery;
use flux_recv::internals::Event;
use flux_recv::internals::{EventHeader, ParseContext, PROVIDERS, Parsed, Provider};
use flux_recv::internals::Key;
use flux_recv::internals::{Credentials, Authentication, VerifyContext, verify};
use libfuzzer_sys::fuzz_target;

use no_fetch::NoFetch;

fuzz_target!(|input: &[u8]| {
    let (name, rest) = line(input);
    let (event, body) = line(rest);
    let named = std::str::from_utf8(name).ok().and_then(Provider::named);
    let picked = usize::from(name.first().copied().unwrap_or_default()) % PROVIDERS.len();
    let provider = named.unwrap_or(PROVIDERS[picked]);
    let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    if let (Some(EventHeader { names: [name, ..], .. }), Ok(value)) =
        (provider.event_header, std::str::from_utf8(event))
    {
        headers.push(((*name).to_owned(), value.to_owned()));
    }
    let credentials = Credentials::from_key(Key::new("test.key", b"fuzz-key".to_vec()).expect("a key"));
    let tools = VerifyContext::new(Arc::new(NoFetch), SystemTime::now);
    let delivery = Delivery { headers: &headers, body };
    let verified = futures::executor::block_on(verify(delivery, Authentication::PathOnly, &credentials, &tools));
    let Ok(verified) = verified else { panic!("the path is proof enough here") };
    let hosts = ["registry.example.com:5000".to_owned()];
    let git_hosts = ["git.example.com".to_owned()];
    for context in [ParseContext::default(), ParseContext { registry_hosts: &hosts, git_hosts: &git_hosts, resume_at: body.len() / 2 }] {
        if let Ok(Parsed::Events(events)) = provider.read(&verified, &context) {
            let text = serde_json::to_vec(&events).expect("events can be written");
            let read: Vec<Event> = serde_json::from_slice(&text).expect("and read again");
            let text = serde_json::to_vec(&read).expect("and written again");
            assert_eq!(read, serde_json::from_slice::<Vec<Event>>(&text).expect("and read once more"));
            assert_eq!(read.len(), events.len());
            for event in events {
                assert!(event.summary().len() < 64 + 8 * body.len());
            }
        }
    }
});

fn line(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    (&input[..end], input.get(end + 1..).unwrap_or_default())
}
