//! A resource that a Receiver lists → what it asks for.

use super::{FluxReceiver, Resource};
use crate::expression::Expression;
use crate::facts;
use crate::flux::Kind;
use crate::flux::selection;

/// What is in the way of a resource, with the field.
pub(super) enum Hindrance {
    /// notification-controller does not ask it either, or flux-recv does not know its kind.
    NotAsked(String),
    /// The whole Receiver would not be ready.
    Unreadable(String),
}

/// Reads a resource of a Receiver; `place` is where it stands.
pub(super) fn read(
    receiver: &FluxReceiver,
    listed: &Resource,
    place: &str,
) -> Result<selection::Resource, Hindrance> {
    let not_asked = |why: String| Hindrance::NotAsked(format!("{place}.{why}"));
    let kind = Kind::named(&listed.kind)
        .ok_or_else(|| not_asked(format!("kind: `{}` is no kind that flux-recv asks", listed.kind)))?;
    let group = listed.api_version.split_once('/').map(|(group, _)| group);
    if group.is_some_and(|group| group != kind.info().group) {
        return Err(not_asked(format!("apiVersion: `{}` is none of {kind}", listed.api_version)));
    }
    let is_wildcard = listed.name == "*";
    if is_wildcard && listed.match_labels.is_none() {
        let why = "matchLabels: is missing, without it the name `*` asks for nothing";
        return Err(not_asked(why.to_owned()));
    }
    let filter = filter(&receiver.spec.resource_filter, &listed.filter, place);
    Ok(selection::Resource {
        kind,
        name: (!is_wildcard).then(|| listed.name.clone()),
        namespace: Some(listed.namespace(receiver).to_owned()),
        // With a name of its own an object need not carry them.
        labels: listed.match_labels.clone().filter(|_| is_wildcard).unwrap_or_default(),
        filter: filter.map_err(Hindrance::Unreadable)?,
    })
}

/// The filter of the Receiver and that of the resource: both have to hold. Together they may be as long
/// as one.
fn filter(of_receiver: &str, of_resource: &str, place: &str) -> Result<Option<Expression>, String> {
    let read = |text: &str, field: String| {
        let read = Expression::condition(text, facts::OF_A_RESOURCE);
        read.map_err(|err| format!("{field}: {err}"))
    };
    let of_all = |text| read(text, "spec.resourceFilter".to_owned());
    let of_one = |text| read(text, format!("{place}.filter"));
    let (of_receiver, of_resource) = (of_receiver.trim(), of_resource.trim());
    Ok(match (of_receiver.is_empty(), of_resource.is_empty()) {
        (true, true) => None,
        (false, true) => Some(of_all(of_receiver)?),
        (true, false) => Some(of_one(of_resource)?),
        (false, false) => {
            of_all(of_receiver)?;
            of_one(of_resource)?;
            // A comment ends with its line.
            let both = format!("({of_receiver}\n) && ({of_resource}\n)");
            Some(read(&both, format!("{place}.filter: joined with spec.resourceFilter"))?)
        }
    })
}
