//! A Receiver → an entry of a `fluxRecvVersion: 1` file that keeps its URL.

use serde_json::{Map, Value, json};

use super::listed::{self, ResourceList};
use super::to_endpoint::issuers;
use super::{DEFAULT_AUDIENCE, FluxReceiver, OidcProvider, Secret, Type};
use crate::field_error::FieldError;
use crate::flux::selection::ResourceSelector;

/// An entry for a config file.
pub struct ConfigEntry {
    pub entry: Map<String, Value>,
    /// The file that the entry names as its key; what has to be in it is `token` of the Secret.
    pub key_path: String,
    /// What does not map, or has to be filled in.
    pub notes: Vec<String>,
}

/// Turns a Receiver into an entry; its key has to be put beside the file. What is known of its Secret is
/// filled in.
///
/// # Errors
/// Why there is no such entry.
pub fn convert(receiver: &FluxReceiver, secret: Option<&Secret>) -> Result<ConfigEntry, FieldError> {
    let spec = &receiver.spec;
    let receiver_type = Type::named(&spec.r#type)?;
    let mut notes = Vec::new();
    // Namespaces hold no dots, so no two Receivers have one file.
    let key_path = format!("{}.{}.key", receiver.namespace, receiver.name);
    let mut entry = Map::new();
    let mut set = |field: &str, value: Value| entry.insert(field.to_owned(), value);
    set("source", json!(receiver_type.source));
    set("keyPath", json!(key_path));
    set("name", json!(receiver.endpoint_name()));
    set("pathSalt", json!(receiver.path_salt()));
    if receiver_type.proves_nothing {
        set("unsigned", json!(true));
        notes.push("protected by the secret path alone, as the Receiver did; `auth` is better".to_owned());
    }
    notes.push(match receiver_type.reads_body || receiver_type.source.starts_with("generic") {
        true => "takes POST alone, where the Receiver took any method".to_owned(),
        false => format!(
            "takes POST alone, and bodies that {} sends, where the Receiver took any method and body",
            receiver_type.source
        ),
    });
    if spec.secret_ref.is_none() {
        notes.push(
            "the URL changes: a Receiver without a Secret has none in its path, an endpoint has; make a key with \
             `flux-recv keygen`"
                .to_owned(),
        );
    }
    if receiver_type.name == "gcr" {
        let known = |value: Option<&String>| json!(value.map_or("FILL-IN", String::as_str));
        let (audience, email) =
            secret.map(|secret| (secret.audience.as_ref(), secret.email.as_ref())).unwrap_or_default();
        set("gcr", json!({"audience": known(audience), "email": known(email)}));
        if audience.is_none() || email.is_none() {
            notes.push("gcr: take `audience` and `email` out of the Secret".to_owned());
        }
    }
    if receiver_type.name == "generic-oidc" {
        issuers(&spec.oidc_providers)?;
        set("oidc", spec.oidc_providers.iter().map(issuer).collect());
    }
    match (spec.events.is_empty(), receiver_type.has_events) {
        (true, _) => {}
        (false, true) => {
            // Here they are globs.
            set("events", spec.events.iter().map(|event| globset::escape(event)).collect());
        }
        (false, false) => {
            notes.push("events: this type does not look at them, so they are left out".to_owned())
        }
    }
    let ResourceList { resources, left_out } = listed::read(receiver, true)?;
    notes.extend(left_out.into_iter().map(|why| format!("{why}, so it is left out")));
    let is_own = |resource: &ResourceSelector| resource.namespace.as_ref() == Some(&receiver.namespace);
    // What is its own needs no consent under --require-opt-in.
    if resources.iter().all(is_own) {
        set("namespaces", json!([receiver.namespace]));
    } else {
        let note = "lists other namespaces; under --require-opt-in all of its objects have to consent, also those \
                    of its own namespace";
        notes.push(note.to_owned());
    }
    set("match", json!("all"));
    set("resources", resources.iter().map(entry_of).collect());
    if spec.suspend {
        set("suspend", json!(true));
    }
    Ok(ConfigEntry { entry, key_path, notes })
}

fn entry_of(resource: &ResourceSelector) -> Value {
    let ResourceSelector { kind, name, namespace, labels, filter } = resource;
    let name = name.as_deref().unwrap_or("*");
    let mut entry = json!({"kind": kind.info().name, "name": name, "namespace": namespace});
    if !labels.is_empty() {
        entry["matchLabels"] = json!(labels);
    }
    if let Some(filter) = filter {
        entry["filter"] = json!(filter.text());
    }
    entry
}

fn issuer(provider: &OidcProvider) -> Value {
    let audience = Some(provider.audience.as_str()).filter(|audience| !audience.is_empty());
    let mut issuer =
        json!({"issuerURL": provider.issuer_url, "audience": audience.unwrap_or(DEFAULT_AUDIENCE)});
    if !provider.variables.is_empty() {
        let variables = provider.variables.iter();
        issuer["variables"] = variables
            .map(|variable| json!({"name": variable.name, "expression": variable.expression}))
            .collect();
    }
    let validations = provider.validations.iter();
    issuer["validations"] = validations
        .map(|validation| json!({"expression": validation.expression, "message": validation.message}))
        .collect();
    issuer
}
