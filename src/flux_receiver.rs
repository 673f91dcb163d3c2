//! Flux's own Receiver objects: each becomes an `Endpoint` like an entry of the config, or an entry
//! of a config file that keeps its URL.
//! <https://fluxcd.io/flux/components/notification/receivers/>

mod listed;
mod to_config;
mod to_endpoint;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::expression::Expression;
use crate::field_error::FieldError;

pub use self::to_config::{ConfigEntry, convert};
pub use self::to_endpoint::{ReceiverDefaults, endpoint};

/// A Receiver, as far as serving reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluxReceiver {
    pub namespace: String,
    pub name: String,
    /// When it was made, as `metadata.creationTimestamp` has it.
    pub created: String,
    /// Its identity over time, as `metadata.uid` has it.
    pub uid: String,
    pub spec: ReceiverSpec,
    /// Where notification-controller serves it, if it has said so.
    pub webhook_path: Option<String>,
}

/// Bytes of an entry of a list beside its texts.
const BYTES_PER_ITEM: usize = 256;

impl FluxReceiver {
    /// Bytes that it takes while it is served, about: its texts, and its expressions once they are compiled.
    pub fn weight(&self) -> usize {
        let ReceiverSpec { events, resources, resource_filter, oidc_providers, .. } = &self.spec;
        let listed = resources.iter().map(|resource| {
            let labels = resource.match_labels.iter().flatten();
            let labels: usize = labels.map(|(name, value)| name.len() + value.len()).sum();
            // A filter of its own is joined with that of all.
            let filter = match resource.filter.len() {
                0 => 0,
                length => Expression::compiled_bytes(length + resource_filter.len()),
            };
            BYTES_PER_ITEM + resource.name.len() + resource.namespace.len() + labels + filter
        });
        let tokens = oidc_providers.iter().map(|provider| {
            let variables = provider.variables.iter().map(|variable| &variable.expression);
            let conditions = provider.validations.iter().map(|validation| &validation.expression);
            let expressions: usize = variables.chain(conditions).map(String::len).sum();
            BYTES_PER_ITEM + provider.issuer_url.len() + Expression::compiled_bytes(expressions)
        });
        let events = events.iter().map(|event| BYTES_PER_ITEM + event.len());
        let of_all = Expression::compiled_bytes(resource_filter.len());
        listed.chain(tokens).chain(events).sum::<usize>() + of_all
    }
}

/// `spec` of a Receiver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiverSpec {
    pub r#type: String,
    /// The event types that it accepts; empty: all.
    #[serde(default)]
    pub events: Vec<String>,
    /// The objects that a delivery requests.
    #[serde(default)]
    pub resources: Vec<ResourceReference>,
    /// The condition on all of them.
    #[serde(default)]
    pub resource_filter: String,
    /// The Secret with the token; none for `generic-oidc`.
    pub secret_ref: Option<SecretRef>,
    /// The issuers of `generic-oidc`.
    #[serde(default)]
    pub oidc_providers: Vec<OidcProvider>,
    /// Whether deliveries are left alone.
    #[serde(default)]
    pub suspend: bool,
}

/// An object that a Receiver requests, or all of a kind with some labels.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceReference {
    /// The API version, where the kind has no usual one.
    #[serde(default)]
    pub api_version: String,
    pub kind: String,
    /// The name, or `*` for all with the labels.
    pub name: String,
    /// The namespace; the Receiver's own if there is none.
    #[serde(default)]
    pub namespace: String,
    /// What all of them have to carry; counts only with the name `*`, which selects nothing without it
    /// and for everything if it is empty.
    pub match_labels: Option<BTreeMap<String, String>>,
    /// The condition on each.
    #[serde(default)]
    pub filter: String,
}

/// A Secret of the Receiver's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SecretRef {
    pub name: String,
}

/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OidcProvider {
    /// The issuer's identifier, the `iss` of its tokens.
    #[serde(rename = "issuerURL")]
    pub issuer_url: String,
    /// Whom tokens have to be for; `notification-controller` if there is none.
    #[serde(default)]
    pub audience: String,
    /// Values that the validations read.
    #[serde(default)]
    pub variables: Vec<OidcVariable>,
    /// The condition on the claims.
    #[serde(default)]
    pub validations: Vec<OidcValidation>,
}

/// A value that validations read as `vars.<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OidcVariable {
    pub name: String,
    pub expression: String,
}

/// A condition on the claims.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OidcValidation {
    /// What has to hold.
    pub expression: String,
    /// What to say if it does not.
    pub message: String,
}

/// What is read of the Secret that a Receiver names.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// The data of `token`: the key.
    pub token: Option<Zeroizing<Vec<u8>>>,
    /// The data of `email`, for `gcr`.
    pub email: Option<String>,
    /// The data of `audience`, for `gcr`.
    pub audience: Option<String>,
}

impl Secret {
    /// Reads it out of the data of a Secret, which is in Base64, by the key of a value.
    pub fn from_data<'d>(data: impl Fn(&str) -> Option<&'d str>) -> Secret {
        let bytes = |key: &str| Some(Zeroizing::new(STANDARD.decode(data(key)?).ok()?));
        let text = |key: &str| String::from_utf8(bytes(key)?.to_vec()).ok();
        Secret { token: bytes("token"), email: text("email"), audience: text("audience") }
    }
}

/// A type of Receiver, and the provider that it stands for.
struct Type {
    name: &'static str,
    source: &'static str,
    /// Whether notification-controller checks nothing but the path.
    proves_nothing: bool,
    /// Whether it looks at `events`.
    has_events: bool,
    /// Whether it reads the body, so that the body has to be what the provider would send.
    reads_body: bool,
}

/// All types of notification-controller 1.9.
const RECEIVER_TYPES: [Type; 13] = [
    known("generic", "generic").without_proof(),
    known("generic-hmac", "generic-hmac"),
    known("generic-oidc", "generic-oidc"),
    known("github", "GitHub").with_events(),
    known("gitlab", "GitLab").with_events(),
    known("bitbucket", "BitbucketServer").with_events(),
    known("harbor", "Harbor"),
    known("dockerhub", "DockerHub").reading_the_body(),
    known("quay", "Quay").reading_the_body(),
    known("gcr", "GoogleContainerRegistry").reading_the_body(),
    known("nexus", "Nexus").reading_the_body(),
    known("acr", "ACR").without_proof().reading_the_body(),
    known("cdevents", "CDEvents").without_proof().with_events().reading_the_body(),
];

/// The audience of tokens where a Receiver names none.
const DEFAULT_AUDIENCE: &str = "notification-controller";

const fn known(name: &'static str, source: &'static str) -> Type {
    Type { name, source, proves_nothing: false, has_events: false, reads_body: false }
}

impl Type {
    const fn without_proof(self) -> Type {
        Type { proves_nothing: true, ..self }
    }

    const fn with_events(self) -> Type {
        Type { has_events: true, ..self }
    }

    const fn reading_the_body(self) -> Type {
        Type { reads_body: true, ..self }
    }

    fn named(name: &str) -> Result<&'static Type, FieldError> {
        let known = || RECEIVER_TYPES.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
        let found = RECEIVER_TYPES.iter().find(|known| known.name == name);
        found.ok_or_else(|| {
            FieldError::new("spec.type", format!("`{name}` is unknown; known are {}", known()))
        })
    }
}

impl FluxReceiver {
    /// How the endpoint is called in logs, metrics and pages.
    pub fn endpoint_name(&self) -> String {
        format!("Receiver/{}/{}", self.namespace, self.name)
    }

    /// What goes behind the token into the hash that makes the path.
    fn path_salt(&self) -> String {
        format!("{}{}", self.name, self.namespace)
    }

    /// The Secret that it names, for messages.
    fn secret_name(&self) -> String {
        match &self.spec.secret_ref {
            Some(secret) => format!("Secret/{}/{}", self.namespace, secret.name),
            None => "none".to_owned(),
        }
    }
}

impl ResourceReference {
    /// Returns the namespace that the reference means.
    fn namespace<'r>(&'r self, receiver: &'r FluxReceiver) -> &'r str {
        if self.namespace.is_empty() { &receiver.namespace } else { &self.namespace }
    }
}

#[cfg(test)]
mod tests;
