//! Checks Receivers for `flux-recv check`.

use std::collections::BTreeSet;

use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, Request, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::access::failed;
use super::super::connection::ApiConnection;
use super::objects::{ReceiverObject, SecretObject, receivers, secrets};
use crate::flux::Kind;
use crate::flux_receiver::{self, ReceiverDefaults};

/// The result of checking Receivers.
pub struct ReceiverReport {
    /// One line for each Receiver, for the terminal.
    pub lines: Vec<String>,
    /// Whether all is well.
    pub is_good: bool,
    /// The kinds that they list.
    pub kinds: BTreeSet<Kind>,
}

/// Finds out about the Receivers in these namespaces, or everywhere.
///
/// # Errors
/// When the API server does not answer, or the Receivers may not be listed.
pub async fn examine(
    connection: &ApiConnection,
    namespaces: &[String],
    rules: ReceiverDefaults<'_>,
) -> anyhow::Result<ReceiverReport> {
    let scopes: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let mut found = ReceiverReport { lines: Vec::new(), is_good: true, kinds: BTreeSet::new() };
    for scope in scopes {
        let listed: Listed<ReceiverObject> = get(connection, &receivers(), scope, None).await?;
        for object in listed.items {
            let (line, is_served) = examine_one(connection, object, rules, &mut found.kinds).await;
            found.is_good &= is_served;
            found.lines.push(line);
        }
    }
    Ok(found)
}

async fn examine_one(
    connection: &ApiConnection,
    object: ReceiverObject,
    rules: ReceiverDefaults<'_>,
    kinds: &mut BTreeSet<Kind>,
) -> (String, bool) {
    let name = format!("Receiver/{}/{}", object.metadata.namespace, object.metadata.name);
    let not_served = |why: String| (format!("{name}: is NOT served: {why}"), false);
    let receiver = match object.read() {
        Ok(receiver) => receiver,
        Err(err) => return not_served(err.to_string()),
    };
    let secret = match &receiver.spec.secret_ref {
        None => None,
        Some(named) => {
            let (secrets, namespace) = (secrets(), Some(receiver.namespace.as_str()));
            match get::<Listed<SecretObject>>(connection, &secrets, namespace, Some(&named.name)).await {
                // One that is not there is told of below.
                Ok(listed) => listed.items.first().map(SecretObject::read),
                Err(err) => return not_served(format!("spec.secretRef: {err}")),
            }
        }
    };
    match flux_receiver::endpoint(&receiver, secret.as_ref(), rules) {
        Err(err) => not_served(err.to_string()),
        Ok(made) => {
            kinds.extend(made.endpoint.selection.kinds());
            let of_status = match &receiver.webhook_path {
                None => "its status names no path yet",
                Some(path) if *path == made.endpoint.path() => "at the path of its status",
                Some(_) => "at the path of its status, and at that of its changed token",
            };
            let lost: String =
                made.without_effect.iter().map(|why| format!("; without effect: {why}")).collect();
            (
                format!("{name} ({}): is served, {of_status}{lost}", receiver.spec.r#type),
                made.without_effect.is_empty(),
            )
        }
    }
}

#[derive(Deserialize)]
struct Listed<T> {
    items: Vec<T>,
}

/// The list of all, or of the one with this name: it takes the right that a watch of it takes.
async fn get<T: DeserializeOwned>(
    connection: &ApiConnection,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: Option<&str>,
) -> anyhow::Result<T> {
    let request = Request::new(DynamicObject::url_path(resource, namespace));
    let which = match name {
        Some(name) => ListParams::default().fields(&format!("metadata.name={name}")),
        None => ListParams::default(),
    };
    let request = request.list(&which)?;
    let answer = connection.client().request(request).await;
    answer.map_err(failed)
}
