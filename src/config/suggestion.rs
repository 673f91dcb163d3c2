//! Suggestions for misspelt names.

/// The similarity (Jaro-Winkler) from which a name is suggested.
const MIN_SIMILARITY: f64 = 0.8;

/// Returns the fix for an unknown name: the nearest known one, or all of them.
pub(super) fn fix(written: &str, known: &[&str]) -> String {
    match nearest(written, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are {}", known.join(", ")),
    }
}

/// Returns the known name that is most like a written one, if any is.
pub fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let likeness = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &written.to_lowercase());
    known
        .map(|name| (likeness(name), name))
        .filter(|(likeness, _)| *likeness > MIN_SIMILARITY)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, name)| name)
}
