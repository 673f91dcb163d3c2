//! `alias`: a path of the user's choice at which an endpoint is served as well, so that a webhook that posts there
//! already need not be changed.

use super::section::Section;
use crate::endpoint::{HEALTH_PATH, HOOK_PREFIX};
use crate::fleet::SUBSCRIBE_PATH;

/// Characters of a path.
const MAX_LENGTH: usize = 128;

/// Reads the field.
pub(super) fn read(entry: &mut Section<'_>) -> Option<String> {
    let alias = entry.text("alias")?;
    match mistake(&alias) {
        None => Some(alias),
        Some(why) => {
            entry.mistake("alias", &format!("`{alias}` {why}"));
            None
        }
    }
}

fn mistake(path: &str) -> Option<String> {
    let Some(segments) = path.strip_prefix('/') else {
        return Some(format!("does not begin with a slash; write `/{path}`"));
    };
    // What every ingress controller takes as an exact path.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(is_plain);
    if path.len() > MAX_LENGTH || !segments.split('/').all(is_segment) {
        return Some(format!(
            "is not a plain path; use letters, digits, `-` and `_` between slashes, {MAX_LENGTH} characters at most"
        ));
    }
    let is_own = [HEALTH_PATH, SUBSCRIBE_PATH, HOOK_PREFIX.trim_end_matches('/')].contains(&path);
    if is_own || path.starts_with(HOOK_PREFIX) {
        return Some("is a path of flux-recv itself; choose another one".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_exact_and_none_of_our_own() {
        for good in ["/webhook", "/api/webhook", "/a-b_c/1"] {
            assert_eq!(mistake(good), None, "{good}");
        }
        let long = format!("/{}", "a".repeat(MAX_LENGTH));
        for bad in [
            "webhook",
            "/",
            "//",
            "/webhook/",
            "/a//b",
            "/a.b",
            "/subscribe",
            "/../hook/x",
            "/a/.",
            "/a?b",
            "/a%2fb",
            "/ä",
            "/a b",
            "/health",
            "/hook",
            "/hook/x",
            &long,
        ] {
            assert!(mistake(bad).is_some(), "{bad}");
        }
    }
}
