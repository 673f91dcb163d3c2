//! Events in the form in which they are remembered and explained: what they name, without what came with it.

use serde::{Deserialize, Serialize};

use super::git_ref::GitRef;
use super::image::ImageReference;
use super::repository_url::RepositoryUrl;
use super::{BucketEvent, BucketService, Event, GitChanges, GitEvent, ImageEvent, Media, RefChange};

/// An event by what it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum NormalEvent {
    Git {
        /// The URLs of the repository.
        repository: Vec<String>,
        /// None where the provider does not list them.
        refs: Option<Vec<NormalRef>>,
    },
    Image {
        /// The names with tags and digest, as far as there are any.
        images: Vec<String>,
        deleted: bool,
    },
    Bucket {
        name: String,
    },
    /// What is matched in another way, in words.
    Other {
        summary: String,
    },
}

/// A ref that has moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NormalRef {
    /// Its full name.
    pub name: String,
    /// The commit that it moved to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

/// URLs, refs and names of one event; what exceeds them is not remembered.
const MAX_NAMES: usize = 4;

impl NormalEvent {
    /// Keeps what an event names.
    pub fn new(event: &Event) -> NormalEvent {
        match event {
            Event::Git(git) => NormalEvent::Git {
                repository: git.repository.iter().take(MAX_NAMES).map(ToString::to_string).collect(),
                refs: match &git.changes {
                    GitChanges::Unknown => None,
                    GitChanges::Refs(refs) => Some(refs.iter().take(MAX_NAMES).map(NormalRef::new).collect()),
                },
            },
            Event::Image(image) => {
                let digest = image.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
                let name = image.names.first().map(ToString::to_string).unwrap_or_default();
                let tags = image.tags.iter().take(MAX_NAMES);
                let mut images: Vec<String> = tags.map(|tag| format!("{name}:{tag}{digest}")).collect();
                if images.is_empty() {
                    images.push(format!("{name}{digest}"));
                }
                NormalEvent::Image { images, deleted: image.deleted }
            }
            Event::Bucket(bucket) => NormalEvent::Bucket { name: bucket.name.clone() },
            Event::Chart(_) | Event::Anything { .. } => NormalEvent::Other { summary: event.summary() },
        }
    }

    /// Keeps what the first of some events name.
    pub fn first_of(events: &[Event], count: usize) -> Vec<NormalEvent> {
        events.iter().take(count).map(NormalEvent::new).collect()
    }

    /// An event that names the same; none where the words do not suffice.
    pub fn to_event(&self) -> Option<Event> {
        Some(match self {
            NormalEvent::Git { repository, refs } => Event::Git(GitEvent {
                repository: repository.iter().filter_map(|url| RepositoryUrl::parse(url).ok()).collect(),
                ssh_url: None,
                changes: match refs {
                    None => GitChanges::Unknown,
                    Some(refs) => GitChanges::Refs(refs.iter().filter_map(NormalRef::to_change).collect()),
                },
            }),
            NormalEvent::Image { images, deleted } => {
                let references: Vec<ImageReference> =
                    images.iter().filter_map(|image| ImageReference::parse(image).ok()).collect();
                let first = references.first()?;
                Event::Image(ImageEvent {
                    names: vec![first.name.clone()],
                    written: first.name.to_string(),
                    digest: first.digest.clone(),
                    tags: references.into_iter().filter_map(|reference| reference.tag).collect(),
                    media: Media::Unknown,
                    deleted: *deleted,
                })
            }
            NormalEvent::Bucket { name } => Event::Bucket(BucketEvent {
                name: name.clone(),
                service: BucketService::S3Compatible,
                endpoint: None,
                keys: Vec::new(),
            }),
            NormalEvent::Other { .. } => return None,
        })
    }

    /// The revision that a push brings, as Flux writes it: `main@sha1:…`.
    /// <https://github.com/fluxcd/flux2/tree/main/rfcs/0005-artifact-revision-and-digest>
    pub fn revision(&self) -> Option<String> {
        let NormalEvent::Git { refs: Some(refs), .. } = self else { return None };
        let NormalRef { name, commit: Some(commit), .. } = refs.first()? else { return None };
        let name =
            name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name);
        let hash = if commit.len() == 64 { "sha256" } else { "sha1" };
        Some(format!("{name}@{hash}:{commit}"))
    }

    /// Bytes that it takes in memory, about.
    pub fn size(&self) -> usize {
        let texts = |texts: &[String]| texts.iter().map(|text| text.len() + 24).sum::<usize>();
        let names = match self {
            NormalEvent::Git { repository, refs } => {
                let refs = refs.iter().flatten();
                let refs: usize = refs
                    .map(|named| named.name.len() + named.commit.as_ref().map_or(0, String::len) + 56)
                    .sum();
                texts(repository) + refs
            }
            NormalEvent::Image { images, .. } => texts(images),
            NormalEvent::Bucket { name } => name.len(),
            NormalEvent::Other { summary } => summary.len(),
        };
        names + size_of::<NormalEvent>()
    }
}

impl NormalRef {
    fn new(change: &RefChange) -> NormalRef {
        NormalRef {
            name: change.name.as_str().to_owned(),
            commit: change.head.clone().map(|head| head.to_string()),
            deleted: change.deleted,
        }
    }

    fn to_change(&self) -> Option<RefChange> {
        let name = GitRef::from_full_name(&self.name)?;
        let head = self.commit.as_deref();
        Some(RefChange {
            deleted: self.deleted,
            head: head.map(Into::into),
            commits: head.into_iter().collect(),
            ..RefChange::new(name)
        })
    }
}
