//! What several providers share: formats that more than one of them sends, and how refs, images and hosts
//! are read.

pub(super) mod aws;
pub(super) mod batch;
pub(super) mod cloud_event;
pub(super) mod forge;
pub(super) mod pubsub;
#[cfg(test)]
pub(super) mod testing;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{CannotCompose, ParseContext, Parsed, Sample};
use crate::event::git_ref::{GitRef, is_zero_object_id};
use crate::event::image::{ImageName, ImageReference};
use crate::event::repository_url::RepositoryUrl;
use crate::event::{CommitIds, Event, GitChanges, GitEvent, ImageEvent, Media, RefChange};
use crate::verify::{Unreadable, Verified};

/// The header that names the event; a delivery without it cannot be read.
pub(super) fn required_header<'a>(delivery: &Verified<'a>, name: &str) -> Result<&'a str, Unreadable> {
    delivery.header(name).ok_or_else(|| Unreadable(format!("the header {name} is missing")))
}

/// Reads a field that only some endpoints need: a value of another type counts as absent.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(value.get()).ok())
}

/// URLs of one repository that are read; providers give five at most, and each is compared with each host of
/// `gitHosts`. Before Bitbucket Server 6 there are two for each host.
const MAX_REPOSITORY_URLS: usize = 32;

/// A Git event about whatever URLs of the list can be read.
pub(super) fn git_event<'u>(
    urls: impl IntoIterator<Item = Option<&'u str>>,
    ssh_url: Option<&str>,
    changes: GitChanges,
) -> Result<Parsed, Unreadable> {
    let ssh_url = ssh_url.map(str::to_owned);
    let mut repository: Vec<RepositoryUrl> = Vec::new();
    for url in urls.into_iter().flatten().filter_map(|url| RepositoryUrl::parse(url).ok()) {
        if repository.len() < MAX_REPOSITORY_URLS && !repository.contains(&url) {
            repository.push(url);
        }
    }
    if repository.is_empty() {
        return Err(Unreadable::payload("the repository has no URL that can be read"));
    }
    Ok(Parsed::Events(vec![Event::Git(GitEvent { repository, ssh_url, changes })]))
}

/// One ref, as push events write it: its full name and the object it points to afterwards, which for
/// a tag may be a tag object rather than the commit `head`, and their list of commits.
pub(super) fn pushed_ref<'c>(
    name: &str,
    after: Option<&'c str>,
    deleted: bool,
    head: Option<&'c str>,
    list: Option<&RawValue>,
) -> Result<RefChange, Unreadable> {
    let name = GitRef::from_full_name(name)
        .ok_or_else(|| Unreadable::payload(format_args!("ref: `{name}` is not a full ref name")))?;
    let deleted = deleted || after.is_some_and(is_zero_object_id);
    let after = after.filter(|after| !is_zero_object_id(after));
    let named: CommitIds = after.into_iter().chain(head).collect();
    let branch_head = after.filter(|_| name.as_branch().is_some());
    let head = head.or(branch_head).filter(|_| !deleted).map(str::to_owned);
    let commits = match list {
        Some(list) => named.with_list(list.get()),
        None => named,
    };
    Ok(RefChange { deleted, commits, head, ..RefChange::new(name) })
}

/// The refs of a pull request whose head has moved: `base` is what stands before `/head`. The other one, the
/// trial merge, moves with it.
pub(super) fn pull_request_refs(base: &str, head: Option<&str>) -> Vec<RefChange> {
    let refs = [("head", head), ("merge", None)].into_iter().filter_map(|(end, head)| {
        let name = GitRef::from_full_name(&format!("{base}/{end}"))?;
        let commits = head.into_iter().collect();
        Some(RefChange { commits, head: head.map(str::to_owned), ..RefChange::new(name) })
    });
    refs.collect()
}

/// An image as a provider writes it, in a registry with a known host.
pub(super) fn image_event(written: &str) -> Result<ImageEvent, Unreadable> {
    let reference = ImageReference::parse(written).map_err(Unreadable::payload)?;
    Ok(ImageEvent {
        names: vec![reference.name],
        written: written_without_tag(written),
        tags: reference.tag.into_iter().collect(),
        digest: reference.digest,
        media: Media::Unknown,
        deleted: false,
    })
}

/// A change of a tag or a manifest in a registry that does not say what kind of artifact it is; none
/// if no name of the repository is known.
pub(super) fn artifact_event(
    names: Vec<ImageName>,
    tag: Option<String>,
    digest: Option<String>,
    deleted: bool,
) -> Option<Event> {
    Some(Event::Image(ImageEvent {
        written: names.first()?.to_string(),
        names,
        tags: tag.filter(|tag| !tag.is_empty()).into_iter().collect(),
        digest: digest.filter(|digest| !digest.is_empty()),
        media: Media::Unknown,
        deleted,
    }))
}

/// The host of a URL, with its port if one is written that is not the scheme's own.
pub(super) fn host_of(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Adds the repository under the hosts that the endpoint lists.
pub(super) fn add_registry_hosts(names: &mut Vec<ImageName>, context: &ParseContext<'_>, path: &str) {
    for host in context.registry_hosts {
        if let Ok(name) = ImageName::in_registry(host, path)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
}

/// Adds a Git repository under the hosts that the endpoint lists.
pub(super) fn add_git_hosts(urls: &mut Vec<RepositoryUrl>, context: &ParseContext<'_>) {
    for at in 0..urls.len() {
        for host in context.git_hosts {
            // Also at the host that the payload names: ports are not compared at hosts that are listed.
            let url = urls[at].at_host(host);
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
}

pub(super) fn written_without_tag(written: &str) -> String {
    let name = written.split('@').next().unwrap_or(written);
    let last_segment = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last_segment..].find(':') {
        Some(colon) => name[..last_segment + colon].to_owned(),
        None => name.to_owned(),
    }
}
