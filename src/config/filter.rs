//! `events`, `refs`, `images`, `paths` and `filter` of an endpoint.

use super::expression;
use super::section::Section;
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
