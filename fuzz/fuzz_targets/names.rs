//! URLs, images, refs, ranges: parsing never panics, and a normal form is its own normal form.
#![no_main]

use flux_recv::event::git_ref::GitRef;
use flux_recv::event::image::{ImageName, ImageReference};
use flux_recv::event::repository_url::RepositoryUrl;
use flux_recv::event::semver::{Constraint, version_of_tag};
use flux_recv::flux::revision_hash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(url) = RepositoryUrl::parse(text) {
        let canonical = url.to_string();
        // Of what has to be encoded, it is longer than what was written, and may be too long.
        if canonical.len() <= 4096 {
            let again = RepositoryUrl::parse(&canonical).expect("the canonical spelling is a URL");
            assert_eq!(again, url);
            assert!(url.same_repository(&again));
        }
        assert_eq!(url.at_host("git.example.com").path(), url.path());
    }
    if let Ok(name) = ImageName::parse(text) {
        let again = ImageName::parse(&name.to_string()).expect("the canonical spelling is a name");
        assert_eq!(again, name);
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
