//! Reads `spec.resources` of a Receiver.

use super::{FluxReceiver, ResourceReference};
use crate::expression::Expression;
use crate::field_error::FieldError;
use crate::filter_input;
use crate::flux::Kind;
use crate::flux::selection;

/// The resources of a Receiver that are requested.
pub(super) struct ResourceList {
    pub(super) resources: Vec<selection::ResourceSelector>,
    /// Why the others are not, each with its field: notification-controller does not request them either,
    /// or flux-recv does not know their kind.
    pub(super) left_out: Vec<String>,
}

/// Reads the resources of a Receiver.
///
/// # Errors
/// When a filter cannot be read, which leaves the whole Receiver not ready, or no reconcile request is pending;
/// names the field.
pub(super) fn read(receiver: &FluxReceiver, cross_namespace_refs: bool) -> Result<ResourceList, FieldError> {
    let filter_of_all = condition(&receiver.spec.resource_filter, "spec.resourceFilter")?;
    let mut listed = ResourceList { resources: Vec::new(), left_out: Vec::new() };
    for (at, resource) in receiver.spec.resources.iter().enumerate() {
        let place = format!("spec.resources[{at}]");
        if !cross_namespace_refs && resource.namespace(receiver) != receiver.namespace {
            let why = "references another namespace; --cross-namespace-refs allows that";
            listed.left_out.push(format!("{place}.namespace: {why}"));
            continue;
        }
        match read_one(receiver, resource, &place, filter_of_all.as_ref()) {
            Ok(resource) => listed.resources.push(resource),
            Err(ResourceProblem::NotRequested(why)) => listed.left_out.push(why),
            Err(ResourceProblem::Unreadable(why)) => return Err(why),
        }
    }
    if listed.resources.is_empty() {
        let why = format!("none of them can be requested: {}", listed.left_out.join("; "));
        return Err(FieldError::new("spec.resources", why));
    }
    Ok(listed)
}

/// What is in the way of a resource, with the field.
enum ResourceProblem {
    NotRequested(String),
    Unreadable(FieldError),
}

fn read_one(
    receiver: &FluxReceiver,
    listed: &ResourceReference,
    place: &str,
    filter_of_all: Option<&Expression>,
) -> Result<selection::ResourceSelector, ResourceProblem> {
    let not_requested = |why: String| ResourceProblem::NotRequested(format!("{place}.{why}"));
    let kind = Kind::named(&listed.kind).ok_or_else(|| {
        not_requested(format!("kind: `{}` is not a kind that flux-recv handles", listed.kind))
    })?;
    let group = listed.api_version.split_once('/').map(|(group, _)| group);
    if group.is_some_and(|group| group != kind.info().group) {
        return Err(not_requested(format!(
            "apiVersion: `{}` is not a version of {kind}",
            listed.api_version
        )));
    }
    let is_wildcard = listed.name == "*";
    if is_wildcard && listed.match_labels.is_none() {
        let why = "matchLabels: is missing, without it the name `*` selects nothing";
        return Err(not_requested(why.to_owned()));
    }
    let filter = both(filter_of_all, &listed.filter, &format!("{place}.filter"));
    Ok(selection::ResourceSelector {
        kind,
        name: (!is_wildcard).then(|| listed.name.clone()),
        namespace: Some(listed.namespace(receiver).to_owned()),
        // With a name of its own an object need not carry them.
        labels: listed.match_labels.clone().filter(|_| is_wildcard).unwrap_or_default(),
        filter: filter.map_err(ResourceProblem::Unreadable)?,
    })
}

/// Two conditions that both have to hold. Together they may be as long as one.
fn both(of_all: Option<&Expression>, of_one: &str, field: &str) -> Result<Option<Expression>, FieldError> {
    let of_one = condition(of_one, field)?;
    let (Some(of_all), Some(of_one)) = (of_all, &of_one) else { return Ok(of_one.or(of_all.cloned())) };
    // A comment ends with its line.
    let joined = format!("({}\n) && ({}\n)", of_all.text(), of_one.text());
    condition(&joined, &format!("{field}: joined with spec.resourceFilter"))
}

fn condition(text: &str, field: &str) -> Result<Option<Expression>, FieldError> {
    let read = |text| Expression::condition(text, filter_input::RESOURCE_VARIABLES);
    let text = Some(text.trim()).filter(|text| !text.is_empty());
    text.map(read).transpose().map_err(|err| FieldError::new(field, err))
}
