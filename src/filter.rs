//! The filter of an endpoint: decides which events are matched at all.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::event::{Event, GitChanges, GitEvent, ImageEvent, RefChange};
use crate::expression::{Budget, Expression};
use crate::filter_input::FilterInput;

/// The events that an endpoint accepts; a part that is absent accepts all.
#[derive(Debug, Default)]
pub struct Filter {
    /// The provider's own names of events.
    pub events: Option<Globs>,
    /// Git refs: full names, or branches by their short names.
    pub refs: Option<Globs>,
    /// Images by their names with host, without tag.
    pub images: Option<Globs>,
    /// Files of which one has to have changed, where the provider says which have.
    pub paths: Option<Globs>,
    /// The condition on an event.
    pub condition: Option<Expression>,
}

/// Patterns with `*`, `?`, `[…]` and `{a,b}`; where paths are meant, only `**` crosses a slash.
#[derive(Debug)]
pub struct Globs {
    written: Vec<String>,
    set: GlobSet,
}

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}`: {why}")]
pub struct BadGlob {
    pattern: String,
    why: String,
}

/// No event of a delivery got through a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{summary}: {why}")]
pub struct FilteredOut {
    /// The first event, in a line.
    summary: String,
    why: String,
}

impl Globs {
    /// Patterns for names with slashes, such as refs and images.
    ///
    /// # Errors
    /// Names the pattern that cannot be read.
    pub fn from_paths(patterns: Vec<String>) -> Result<Globs, BadGlob> {
        let set = compile(patterns.iter().map(String::as_str), |glob| glob.literal_separator(true))?;
        Ok(Globs { written: patterns, set })
    }

    /// Patterns for names of events, which have no case. A name stands for its actions as well:
    /// `release` for `release.published`.
    ///
    /// # Errors
    /// Names the pattern that cannot be read.
    pub fn from_events(patterns: Vec<String>) -> Result<Globs, BadGlob> {
        let with_actions: Vec<String> = patterns.iter().map(|pattern| format!("{pattern}.*")).collect();
        let all = patterns.iter().chain(&with_actions).map(String::as_str);
        let set = compile(all, |glob| glob.case_insensitive(true))?;
        Ok(Globs { written: patterns, set })
    }

    /// The patterns as they are written.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// Whether one of the patterns matches.
    pub fn matches(&self, name: &str) -> bool {
        self.set.is_match(name)
    }
}

fn compile<'p>(
    patterns: impl Iterator<Item = &'p str>,
    options: impl for<'g> Fn(&'g mut GlobBuilder<'p>) -> &'g mut GlobBuilder<'p>,
) -> Result<GlobSet, BadGlob> {
    let bad = |pattern: &str, err: globset::Error| BadGlob {
        pattern: pattern.to_owned(),
        why: err.kind().to_string(),
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(options(&mut GlobBuilder::new(pattern)).build().map_err(|err| bad(pattern, err))?);
    }
    set.build().map_err(|err| bad("", err))
}

impl Filter {
    /// Whether the endpoint accepts events of this type.
    pub fn accepts_type(&self, name: &str) -> bool {
        self.events.as_ref().is_none_or(|events| events.matches(name))
    }

    /// Leaves of the events what the endpoint accepts.
    ///
    /// # Errors
    /// When nothing is left.
    pub fn narrow(&self, events: Vec<Event>) -> Result<Vec<Event>, FilteredOut> {
        let events = self.narrow_names(events)?;
        let Some(paths) = &self.paths else { return Ok(events) };
        // Where a push does not say which files it changes, any of them may be meant.
        let is_elsewhere = |event: &Event| event.changes_a_file(|file| paths.matches(file)) == Some(false);
        match events.iter().all(is_elsewhere) {
            true => {
                let summary = events.first().map(Event::summary).unwrap_or_default();
                Err(FilteredOut { summary, why: "none of the endpoint's `paths` has changed".to_owned() })
            }
            false => Ok(events),
        }
    }

    fn narrow_names(&self, events: Vec<Event>) -> Result<Vec<Event>, FilteredOut> {
        if self.refs.is_none() && self.images.is_none() {
            return Ok(events);
        }
        let summary = events.first().map(Event::summary).unwrap_or_default();
        let left: Vec<Event> = events.into_iter().filter_map(|event| self.narrow_one(event)).collect();
        match left.is_empty() {
            true => Err(FilteredOut { summary, why: self.describe_names() }),
            false => Ok(left),
        }
    }

    /// The refs and images that the endpoint accepts, since none of those in the delivery is one.
    fn describe_names(&self) -> String {
        let described =
            [("refs", &self.refs), ("images", &self.images)].into_iter().filter_map(|(field, globs)| {
                let globs = globs.as_ref()?;
                Some(format!("the endpoint's `{field}` are {}", globs.written().join(", ")))
            });
        described.collect::<Vec<_>>().join("; ")
    }

    fn narrow_one(&self, event: Event) -> Option<Event> {
        match (event, &self.refs, &self.images) {
            // Where the provider does not list its refs, any of them may be meant.
            (
                Event::Git(GitEvent { changes: GitChanges::Refs(mut refs), repository, ssh_url }),
                Some(wanted),
                _,
            ) => {
                refs.retain(|change| is_wanted(wanted, change));
                let changes = GitChanges::Refs(refs);
                match &changes {
                    GitChanges::Refs(refs) if refs.is_empty() => None,
                    _ => Some(Event::Git(GitEvent { changes, repository, ssh_url })),
                }
            }
            (Event::Image(ImageEvent { names, .. }), _, Some(wanted))
                if !names.iter().any(|name| wanted.matches(&name.to_string())) =>
            {
                None
            }
            (event, _, _) => Some(event),
        }
    }
}

/// Returns the events for which the condition holds. Where it fails it does not hold, and
/// `failed` is told.
///
/// # Errors
/// When nothing is left.
pub fn fulfilling(
    condition: &Expression,
    events: Vec<Event>,
    input: &FilterInput,
    failed: &mut dyn FnMut(String),
) -> Result<Vec<Event>, FilteredOut> {
    let summary = events.first().map(Event::summary).unwrap_or_default();
    let budget = Budget::default();
    let mut holds = |event: &Event| {
        input.hold(condition, &input.event_variable(event), None, &budget).unwrap_or_else(|err| {
            failed(format!("filter: {err}"));
            false
        })
    };
    let left: Vec<Event> = events.into_iter().filter(|event| holds(event)).collect();
    match left.is_empty() {
        true => Err(FilteredOut {
            summary,
            why: format!("the endpoint's `filter` is false: {}", condition.text()),
        }),
        false => Ok(left),
    }
}

fn is_wanted(wanted: &Globs, change: &RefChange) -> bool {
    wanted.matches(change.name.as_str())
        || change.name.as_branch().is_some_and(|branch| wanted.matches(branch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Media;
    use crate::event::git_ref::GitRef;
    use crate::event::image::ImageReference;
    use crate::event::repository_url::RepositoryUrl;

    fn texts(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    fn push(names: &[GitRef]) -> Event {
        let refs = names.iter().cloned().map(RefChange::new);
        let repository = vec![RepositoryUrl::parse("https://github.com/org/app").expect("a URL")];
        Event::Git(GitEvent { repository, ssh_url: None, changes: GitChanges::Refs(refs.collect()) })
    }

    fn image(name: &str) -> Event {
        let reference = ImageReference::parse(name).expect("an image");
        Event::Image(ImageEvent {
            names: vec![reference.name],
            written: name.to_owned(),
            tags: Vec::new(),
            digest: None,
            media: Media::Unknown,
            deleted: false,
        })
    }

    fn left(filter: &Filter, events: Vec<Event>) -> String {
        match filter.narrow(events) {
            Ok(events) => events.iter().map(Event::summary).collect::<Vec<_>>().join("; "),
            Err(none_left) => none_left.to_string(),
        }
    }

    #[test]
    fn refs_are_named_in_full_or_by_their_branch() {
        let refs = Globs::from_paths(texts(&["main", "release/*", "refs/tags/v1.*"])).expect("patterns");
        let filter = Filter { refs: Some(refs), ..Filter::default() };
        let all = ["main", "release/1", "release/1/x", "other"].map(GitRef::branch);
        assert_eq!(left(&filter, vec![push(&all)]), "push to github.com/org/app main, release/1");
        let tags = [GitRef::tag("v1.2"), GitRef::tag("v2.0"), GitRef::tag("main")];
        assert_eq!(left(&filter, vec![push(&tags)]), "push to github.com/org/app refs/tags/v1.2");
        assert_eq!(
            left(&filter, vec![push(&[GitRef::branch("other")])]),
            "push to github.com/org/app other: the endpoint's `refs` are main, release/*, refs/tags/v1.*"
        );
        assert_eq!(left(&filter, vec![image("ghcr.io/org/app")]), "push of ghcr.io/org/app");
    }

    /// A list that the provider has cut short may hold what is wanted.
    #[test]
    fn unknown_refs_are_wanted() {
        let refs = Globs::from_paths(texts(&["main"])).expect("patterns");
        let filter = Filter { refs: Some(refs), ..Filter::default() };
        let repository = vec![RepositoryUrl::parse("https://github.com/org/app").expect("a URL")];
        let event = Event::Git(GitEvent { repository, ssh_url: None, changes: GitChanges::Unknown });
        assert_eq!(left(&filter, vec![event]), "push to github.com/org/app");
    }

    #[test]
    fn images_are_named_with_their_host() {
        let images = Globs::from_paths(texts(&["ghcr.io/org/*", "docker.io/**"])).expect("patterns");
        let filter = Filter { images: Some(images), ..Filter::default() };
        let events = ["ghcr.io/org/app", "ghcr.io/org/team/app", "redis", "quay.io/org/app"].map(image);
        assert_eq!(
            left(&filter, events.to_vec()),
            "push of ghcr.io/org/app; push of docker.io/library/redis"
        );
    }

    #[test]
    fn event_names_have_no_case_and_stand_for_their_actions() {
        let events = Globs::from_events(texts(&["push", "Release.published", "s3:ObjectCreated:*"]))
            .expect("patterns");
        let filter = Filter { events: Some(events), ..Filter::default() };
        for wanted in ["push", "PUSH", "push.x", "release.published", "s3:ObjectCreated:Put"] {
            assert!(filter.accepts_type(wanted), "{wanted}");
        }
        for other in ["", "release", "release.deleted", "pushed", "s3:ObjectRemoved:Delete"] {
            assert!(!filter.accepts_type(other), "{other}");
        }
        assert!(Filter::default().accepts_type("anything"));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let err = Globs::from_paths(texts(&["main", "a[b"])).expect_err("a bracket is open");
        assert!(err.to_string().starts_with("`a[b`: "), "{err}");
    }
}
