//! Whether an object tracks what changed, once its repository is known to be the right one.

use super::inventory::{GitReference, Object, OciReference, Tracked};
use super::pattern::{CompileBudget, Pattern, VersionRange};
use crate::event::image::signed_digest;
use crate::event::{BucketEvent, BucketService, Event, GitChanges, GitEvent, ImageEvent, Media, RefChange};

pub(super) fn git(object: &Object, event: &GitEvent) -> bool {
    let reference = match &object.tracked {
        Tracked::Git { reference, .. } => reference,
        // The pages of the repository were published; the index has looked at the branch already.
        _ => return true,
    };
    match &event.changes {
        GitChanges::Unknown => !matches!(reference, GitReference::Commit(_)),
        GitChanges::Refs(refs) => refs.iter().any(|change| tracks_ref(reference, change)),
    }
}

/// The commit ID or digest that the object should show afterwards, in hex: only for objects that
/// track one name. What a range picks is Flux's to say.
pub(super) fn brings<'e>(object: &Object, event: &'e Event) -> Option<&'e str> {
    match (&object.tracked, event) {
        (Tracked::Git { reference, .. }, Event::Git(GitEvent { changes: GitChanges::Refs(refs), .. })) => {
            let is_tracked_name = |change: &&RefChange| match reference {
                GitReference::Branch(branch) => change.name.as_branch() == Some(branch),
                GitReference::Name(name) => change.name == *name,
                GitReference::TagOrRange { tag: Some(tag), range: None } => change.name.as_tag() == Some(tag),
                _ => false,
            };
            let change = refs.iter().find(is_tracked_name)?;
            change.head.as_deref().filter(|_| !change.deleted)
        }
        (Tracked::OciArtifact { reference: OciReference::Tag(tag), .. }, Event::Image(event)) => {
            let digest = event.digest.as_deref().filter(|_| has_tag(event, tag) && !event.deleted)?;
            digest.strip_prefix("sha256:")
        }
        _ => None,
    }
}

/// A deleted ref can only make Flux report an error, except that it may have been the highest
/// version of a range.
fn tracks_ref(reference: &GitReference, change: &RefChange) -> bool {
    match reference {
        GitReference::Commit(commit) => change.commits.contains(commit),
        GitReference::Name(name) if name.as_branch().or(name.as_tag()).is_some() => {
            change.name == *name && !change.deleted
        }
        // Its provider tells of it in events of their own, which a hook may have to be told to send.
        GitReference::Name(name) if name.is_head_of_pull_request() => change.name == *name,
        // The trial merge moves with its base as well.
        GitReference::Name(name) if change.name == *name => true,
        // Other refs, as those of code review servers, never come in a push.
        GitReference::Name(_) | GitReference::Anything => !change.name.is_of_pull_request(),
        GitReference::Branch(branch) => change.name.as_branch() == Some(branch) && !change.deleted,
        GitReference::TagOrRange { tag, range } => change.name.as_tag().is_some_and(|pushed| {
            let is_tag = tag.as_deref() == Some(pushed) && !change.deleted;
            is_tag || range.as_ref().is_some_and(|range| range.holds(pushed))
        }),
    }
}

pub(super) fn image(object: &Object, event: &ImageEvent, budget: &CompileBudget) -> bool {
    match &object.tracked {
        Tracked::Image { excluded, .. } => {
            event.media != Media::Chart && !event.deleted && scans(excluded, &event.tags, budget)
        }
        Tracked::OciArtifact { reference, is_verified, .. } => {
            tracks_artifact(reference, event, budget)
                || (*is_verified
                    && is_signature_for(event, |digest| match reference {
                        OciReference::Digest(tracked) => tracked.strip_prefix("sha256:") == Some(digest),
                        _ => object.may_have_digest(digest),
                    }))
        }
        Tracked::Chart { version, is_verified, .. } => {
            (event.media != Media::Image && tracks_chart(version.as_ref(), event))
                // The digest of a chart is in no status.
                || (*is_verified && is_signature_for(event, |_| true))
        }
        _ => false,
    }
}

/// Whether the tag that the object tracks was pushed, with a digest that the event does not name.
pub(super) fn moves_tag_without_digest(object: &Object, event: &Event) -> bool {
    let (Tracked::OciArtifact { reference: OciReference::Tag(tag), .. }, Event::Image(event)) =
        (&object.tracked, event)
    else {
        return false;
    };
    event.digest.is_none() && !event.deleted && has_tag(event, tag)
}

fn has_tag(event: &ImageEvent, tag: &str) -> bool {
    event.tags.iter().any(|named| named == tag)
}

/// Whether a signature was pushed of a manifest whose digest, in hex, passes. Signatures come after what they
/// sign: an object that verifies them fails in between, and would wait for its interval.
fn is_signature_for(event: &ImageEvent, is_digest: impl Fn(&str) -> bool) -> bool {
    !event.deleted && event.tags.iter().filter_map(|tag| signed_digest(tag)).any(is_digest)
}

/// All tags are scanned, unless everything that was pushed is excluded from that.
fn scans(excluded: &[Pattern], tags: &[String], budget: &CompileBudget) -> bool {
    let is_excluded =
        |tag: &String| excluded.iter().any(|pattern| pattern.matches(tag, budget) == Some(true));
    tags.is_empty() || tags.iter().any(|tag| !is_excluded(tag))
}

fn tracks_artifact(reference: &OciReference, event: &ImageEvent, budget: &CompileBudget) -> bool {
    match reference {
        OciReference::Anything => true,
        OciReference::Digest(digest) => event.digest.as_deref() == Some(&**digest) && !event.deleted,
        OciReference::Tag(_) if event.deleted => false,
        // A push without tag says nothing about tags.
        OciReference::Tag(tag) => event.tags.is_empty() || has_tag(event, tag),
        OciReference::Range { range, filter } => {
            let passes = |tag: &String| {
                filter.as_ref().is_none_or(|filter| filter.matches(tag, budget) != Some(false))
            };
            event.tags.is_empty() || event.tags.iter().any(|tag| passes(tag) && range.holds(tag))
        }
    }
}

/// No version means any release; a tag that reads like the version is taken before any range is read.
/// The tags of charts have `_` where versions have `+`.
fn tracks_chart(version: Option<&VersionRange>, event: &ImageEvent) -> bool {
    let mut releases = event.tags.iter().filter(|tag| signed_digest(tag).is_none());
    event.tags.is_empty()
        || releases.any(|tag| version.is_none_or(|range| range.is_written_as(tag) || range.holds(tag)))
}

pub(super) fn bucket(object: &Object, event: &BucketEvent) -> bool {
    let Tracked::Bucket { provider, endpoint, prefix, .. } = &object.tracked else { return false };
    let provider = provider.as_deref().unwrap_or("generic");
    let same_service = match event.service {
        BucketService::Aws => provider == "aws" || endpoint.contains("amazonaws.com"),
        BucketService::Gcp => provider == "gcp" || endpoint.contains("storage.googleapis.com"),
        // `aws` with the endpoint of another server signs in as at Amazon, and reads there.
        BucketService::S3Compatible => {
            (provider == "generic" || (provider == "aws" && !endpoint.contains("amazonaws.com")))
                && event.endpoint.as_ref().is_none_or(|host| host.eq_ignore_ascii_case(endpoint))
        }
    };
    let under_prefix = match prefix {
        Some(prefix) if !event.keys.is_empty() => event.keys.iter().any(|key| key.starts_with(&**prefix)),
        _ => true,
    };
    same_service && under_prefix
}
