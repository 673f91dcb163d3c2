//! `events`, `refs`, `images`, `paths` and `filter` of an endpoint.

use super::section::Section;
use super::{expression, suggestion};
use crate::event::Subject;
use crate::filter::{BadGlob, Filter, Globs};
use crate::filter_input;
use crate::provider::Provider;

/// Reads the fields that limit the events of an endpoint.
pub(super) fn read(entry: &mut Section<'_>) -> Filter {
    Filter {
        events: globs(entry, "events", Globs::from_events),
        refs: globs(entry, "refs", Globs::from_paths),
        images: globs(entry, "images", Globs::from_paths),
        paths: globs(entry, "paths", Globs::from_paths),
        condition: expression::read(entry, "filter", filter_input::DELIVERY_VARIABLES),
    }
}

/// Patterns that no event of the provider can have.
pub(super) fn warnings(name: &str, provider: &Provider, filter: &Filter) -> Vec<String> {
    let mut warnings = Vec::new();
    let types = provider.event_types;
    for pattern in filter.events.iter().flat_map(|events| events.written()).filter(|_| !types.is_empty()) {
        // The action behind the dot is the provider's, and not every one is known.
        let base = pattern.split('.').next().unwrap_or_default();
        let compiled = Globs::from_events(vec![base.to_owned()]);
        if compiled.is_ok_and(|glob| !types.iter().any(|event_type| glob.matches(event_type))) {
            warnings.push(format!(
                "endpoint {name}: events: {} has no event type `{pattern}` that flux-recv acts on; {}",
                provider.name,
                suggestion::fix(base, types)
            ));
        }
    }
    for pattern in filter.refs.iter().flat_map(|refs| refs.written()) {
        if let Some(meant) = misspelt_ref(pattern) {
            warnings.push(format!(
                "endpoint {name}: refs: no ref is called `{pattern}`; branches are `main` or `refs/heads/main`, tags \
                 `refs/tags/v1`: did you mean `{meant}`?"
            ));
        }
    }
    warnings
}

/// What a pattern that looks like a full name but begins as none does was meant to be.
fn misspelt_ref(pattern: &str) -> Option<String> {
    let (first, rest) = pattern.split_once('/')?;
    let (space, name) = match first {
        "refs" | "ref" => rest.split_once('/')?,
        "heads" | "tags" => (first, rest),
        _ => return None,
    };
    let is_known = first == "refs"
        && (space.contains(['*', '?', '[', '{'])
            || ["heads", "tags", "pull", "merge-requests", "changes", "notes", "remotes"].contains(&space));
    let meant = if space.starts_with('t') { "tags" } else { "heads" };
    (!is_known).then(|| format!("refs/{meant}/{name}"))
}

fn globs(
    entry: &mut Section<'_>,
    field: &'static str,
    compile: fn(Vec<String>) -> Result<Globs, BadGlob>,
) -> Option<Globs> {
    let patterns = entry.texts(field);
    if patterns.is_empty() {
        return None;
    }
    compile(patterns).map_err(|err| entry.mistake(field, &err.to_string())).ok()
}

/// A filter that nothing could pass, or that could hold nothing back, was meant otherwise.
pub(super) fn check(entry: &mut Section<'_>, provider: &Provider, filter: &Filter) {
    let sends = |subject: Subject| provider.subjects.contains(&subject);
    for (field, is_set, is_of_use, why) in [
        ("events", filter.events.is_some(), provider.names_its_events(), "does not name its events"),
        ("refs", filter.refs.is_some(), sends(Subject::Git), "knows no Git repositories"),
        ("images", filter.images.is_some(), sends(Subject::Images), "knows no images"),
        (
            "paths",
            filter.paths.is_some(),
            provider.lists_changed_files,
            "does not list the files that a push changes",
        ),
    ] {
        if is_set && !is_of_use {
            entry.mistake(field, &format!("is of no use: {} {why}; remove it", provider.name));
        }
    }
}
