//! Patterns and version ranges that people write into objects: kept as text, and made usable when an
//! event asks. In a cluster of many tenants, what a pattern costs is for flux-recv to bound.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use regex::bytes::{Regex, RegexBuilder};

use crate::event::semver::{Constraint, version_of_tag};

/// Bytes of a pattern; a list of release names fits.
pub(super) const MAX_PATTERN_BYTES: usize = 512;

/// Bytes of a version range.
pub(super) const MAX_RANGE_BYTES: usize = 256;

/// Bytes that a compiled pattern may take, as a program and again while it searches.
const MAX_COMPILED_BYTES: usize = 64 << 10;

/// Compiled patterns that are kept: 4 MiB of them.
const MAX_COMPILED: usize = 32;

/// Patterns that are compiled for one event. Beyond that, every pattern counts as matching.
pub(super) const MAX_COMPILED_FOR_AN_EVENT: usize = 64;

/// A regular expression over tags, in the syntax of Go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Box<str>);

/// The number of patterns that may still be compiled for an event.
pub(super) struct CompileBudget(Cell<usize>);

impl Default for CompileBudget {
    fn default() -> CompileBudget {
        CompileBudget(Cell::new(MAX_COMPILED_FOR_AN_EVENT))
    }
}

impl Pattern {
    /// A pattern as it is written; none if it is too long to be used.
    pub(super) fn new(text: &str) -> Option<Pattern> {
        (text.len() <= MAX_PATTERN_BYTES).then(|| Pattern(text.into()))
    }

    /// Whether it matches a tag. None where that cannot be said: the text cannot be read, takes too much
    /// memory, or too many patterns were compiled for this event.
    pub(super) fn matches(&self, tag: &str, budget: &CompileBudget) -> Option<bool> {
        compiled(&self.0, budget).map(|regex| regex.is_match(tag.as_bytes()))
    }
}

/// The compiled form, out of the cache or made now.
fn compiled(text: &str, budget: &CompileBudget) -> Option<Arc<Regex>> {
    type Cache = HashMap<Box<str>, Option<Arc<Regex>>>;
    static PATTERN_CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);
    let lock = || PATTERN_CACHE.lock();
    if let Some(found) = lock().get(text) {
        return found.clone();
    }
    budget.0.set(budget.0.get().checked_sub(1)?);
    // Outside of the lock: other events go on.
    let regex = RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build()
        .ok()
        .map(Arc::new);
    let mut cache = lock();
    if cache.len() >= MAX_COMPILED {
        // Which one goes matters little: most clusters have a handful of patterns.
        let one = cache.keys().nth(fastrand::usize(..cache.len())).cloned();
        one.map(|one| cache.remove(&one));
    }
    cache.insert(text.into(), regex.clone());
    regex
}

/// A version range as it is written, or one that says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VersionRange(Option<Box<str>>);

impl VersionRange {
    /// A range as it is written; one that is too long says nothing.
    pub(super) fn new(text: &str) -> VersionRange {
        VersionRange((text.len() <= MAX_RANGE_BYTES).then(|| text.into()))
    }

    /// The range as it is written.
    pub(super) fn text(&self) -> &str {
        self.0.as_deref().unwrap_or("that is too long to be read")
    }

    /// Whether the tag reads like it.
    pub(super) fn is_written_as(&self, tag: &str) -> bool {
        self.0.as_deref().is_some_and(|text| *text == *tag.replace('_', "+"))
    }

    /// Whether the version of a tag lies in it. Flux reports on the object what it cannot read, so that
    /// every tag lies in it; the tags of charts have `_` where versions have `+`.
    pub(super) fn holds(&self, tag: &str) -> bool {
        let Some(constraint) = self.0.as_deref().and_then(|text| Constraint::parse(text).ok()) else {
            return true;
        };
        version_of_tag(&tag.replace('_', "+")).is_some_and(|version| constraint.matches(&version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, tag: &str) -> Option<bool> {
        Pattern::new(pattern)?.matches(tag, &CompileBudget::default())
    }

    #[test]
    fn patterns_are_those_of_go() {
        assert_eq!(matches(r"^.*\.sig$", "sha256-11.sig"), Some(true));
        assert_eq!(matches(r"^v\d+$", "v12"), Some(true));
        assert_eq!(matches(r"^v\d+$", "v१"), Some(false), "digits are those of ASCII");
        assert_eq!(matches(r"(?i)^RC", "rc1"), Some(true));
        assert_eq!(matches(r"(", "v1"), None);
    }

    // The attack: 25 patterns of an object took 244 MB and 7 s, again at each change of any object.
    #[test]
    fn a_pattern_that_takes_too_much_says_nothing() {
        for text in
            [r"(?:\w{1,200}){1,200}", r"((a{0,100}){0,100}){0,100}", &"a".repeat(MAX_PATTERN_BYTES + 1)]
        {
            assert_eq!(matches(text, "v1"), None, "{text}");
        }
    }

    #[test]
    fn an_event_compiles_only_so_many() {
        let budget = CompileBudget::default();
        let matches = |at: usize| Pattern::new(&format!("^only-here-{at}$"))?.matches("v1", &budget);
        let answers = (0..MAX_COMPILED_FOR_AN_EVENT + 10).filter(|at| matches(*at) == Some(false)).count();
        assert_eq!(answers, MAX_COMPILED_FOR_AN_EVENT);
    }

    #[test]
    fn a_range_that_is_too_long_holds_whatever_comes() {
        assert!(VersionRange::new(">=1.0.0").holds("v1.2.3"));
        assert!(!VersionRange::new(">=2.0.0").holds("v1.2.3"));
        assert!(VersionRange::new("nonsense").holds("v1.2.3"));
        assert!(VersionRange::new(&">=2.0.0 ".repeat(100)).holds("v1.2.3"));
    }
}
