//! URLs, images, refs, ranges: parsing never panics, and a normal form is its own normal form.
#![no_main]

use flux_recv::internals::GitRef;
use flux_recv::internals::{ImageName, ImageReference};
use flux_recv::internals::RepositoryUrl;
use flux_recv::internals::{Constraint, version_of_tag};
use flux_recv::internals::revision_hash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(url) = RepositoryUrl::parse(text) {
        let canonical = url.to_string();
        match RepositoryUrl::parse(&canonical) {
            Ok(again) => assert!(again == url && url.same_repository(&again)),
            // It has what was left out or has to be encoded, which may be too long.
            Err(_) => assert!(canonical.len() > text.len()),
        }
        assert_eq!(url.at_host("git.example.com").path(), url.path());
    }
    if let Ok(name) = ImageName::parse(text) {
        let canonical = name.to_string();
        match ImageName::parse(&canonical) {
            Ok(again) => assert_eq!(again, name),
            Err(_) => assert!(canonical.len() > text.len()),
        }
    }
    let _ = ImageReference::parse(text);
    if let Some(name) = GitRef::from_full_name(text) {
        assert_eq!(GitRef::from_full_name(name.as_str()), Some(name));
    }
    let (range, tag) = text.split_once('\n').unwrap_or((text, "1.2.3"));
    if let (Ok(range), Some(version)) = (Constraint::parse(range), version_of_tag(tag)) {
        assert_eq!(range.matches(&version), range.matches(&version.clone()));
    }
    assert!(text.ends_with(revision_hash(text)));
});
