//! Makes an endpoint of a Receiver and its Secret: at the same path, requesting the same objects.

use std::path::PathBuf;

use super::listed::{self, ResourceList};
use super::{DEFAULT_AUDIENCE, FluxReceiver, OidcProvider, Secret, Type};
use crate::endpoint::{Endpoint, EndpointOptions, EndpointOrigin, HOOK_PREFIX};
use crate::expression::Expression;
use crate::field_error::FieldError;
use crate::filter::{Filter, Globs};
use crate::flux::selection::{ResourceSelector, Selection};
use crate::provider::Provider;
use crate::verify::fetch::Trust;
use crate::verify::key::{Key, digest_of};
use crate::verify::oidc::{Issuer, TOKEN_VARIABLES, Validation};
use crate::verify::{Credentials, GoogleAccount, Requirement};

/// Options of the command line that hold for all Receivers.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReceiverDefaults<'r> {
    /// Whether a Receiver reaches objects of other namespaces than its own.
    pub cross_namespace_refs: bool,
    /// Whether objects outside of its namespace have to consent.
    pub require_opt_in: bool,
    /// Issuers that may be fetched from wherever they are.
    pub allowed_issuers: &'r [String],
}

/// An endpoint out of a Receiver.
pub struct ReceiverEndpoint {
    pub endpoint: Endpoint,
    /// What of the Receiver has no effect, and what to do about it.
    pub without_effect: Vec<String>,
}

/// Makes the endpoint that a Receiver describes.
///
/// # Errors
/// Why it cannot be served, with the field.
pub fn endpoint(
    receiver: &FluxReceiver,
    secret: Option<&Secret>,
    rules: ReceiverDefaults<'_>,
) -> Result<ReceiverEndpoint, FieldError> {
    let spec = &receiver.spec;
    let receiver_type = Type::named(&spec.r#type)?;
    let provider = Provider::named(receiver_type.source).expect("the table of types names providers");
    let keys = keys(receiver, secret)?;
    let expects = expects(receiver, receiver_type, secret, rules)?;
    let ResourceList { resources, left_out } = listed::read(receiver, rules.cross_namespace_refs)?;
    let salt = receiver.path_salt();
    let digest = keys.first().map_or_else(|| digest_of(&[], &salt), |key| key.digest(&salt));
    let credentials = Credentials { keys, expects, unsigned: receiver_type.proves_nothing };
    let name = receiver.endpoint_name();
    let mut filter = Filter::default();
    if receiver_type.has_events && !spec.events.is_empty() {
        let events = spec.events.iter().map(|event| globset::escape(event)).collect();
        filter.events = Some(Globs::from_events(events).map_err(|err| FieldError::new("spec.events", err))?);
    }
    // A changed token changes the path only when notification-controller says so in the status.
    let from_status = receiver.webhook_path.as_deref().and_then(|path| path.strip_prefix(HOOK_PREFIX));
    let from_status = from_status.filter(|digest| !digest.is_empty()).map(str::to_owned);
    let options = EndpointOptions {
        selection: selection(receiver, rules, resources),
        filter,
        suspended: spec.suspend,
        takes_any_method: true,
        takes_any_body: !receiver_type.reads_body,
        origin: EndpointOrigin::Receiver { created: receiver.created.clone(), uid: receiver.uid.clone() },
        more_digests: from_status.into_iter().collect(),
        ..EndpointOptions::default()
    };
    let key_file = PathBuf::from(receiver.secret_name());
    let endpoint = Endpoint::new(name, provider, key_file, credentials, digest, options);
    Ok(ReceiverEndpoint { endpoint, without_effect: left_out })
}

/// The token as the Secret has it; tokens that prove nothing make the path all the same.
fn keys(receiver: &FluxReceiver, secret: Option<&Secret>) -> Result<Vec<Key>, FieldError> {
    if receiver.spec.secret_ref.is_none() {
        return match receiver.spec.r#type.as_str() {
            "generic-oidc" => Ok(Vec::new()),
            _ => Err(FieldError::new("spec.secretRef", "is missing; name a Secret with the key `token`")),
        };
    }
    let name = receiver.secret_name();
    let problem = |problem: String| FieldError::new("spec.secretRef", problem);
    let secret = secret.ok_or_else(|| problem(format!("{name} is not there, or may not be read")))?;
    let token = secret.token.as_ref().ok_or_else(|| problem(format!("{name} has no key `token`")))?;
    let key = Key::new(receiver.secret_name().as_str(), token.to_vec())
        .map_err(|err| problem(format!("`token` of {name} {err}")))?;
    Ok(vec![key])
}

fn expects(
    receiver: &FluxReceiver,
    receiver_type: &Type,
    secret: Option<&Secret>,
    rules: ReceiverDefaults<'_>,
) -> Result<Requirement, FieldError> {
    match receiver_type.name {
        "gcr" => {
            let field = |value: Option<&String>, name: &str| {
                let missing = || format!("{} has no key `{name}`", receiver.secret_name());
                let value = value.filter(|value| !value.is_empty()).cloned();
                value.ok_or_else(|| FieldError::new("spec.secretRef", missing()))
            };
            let email = field(secret.and_then(|secret| secret.email.as_ref()), "email")?;
            let audience = field(secret.and_then(|secret| secret.audience.as_ref()), "audience")?;
            Ok(Requirement::Google(GoogleAccount { audience, email }))
        }
        "generic-oidc" => {
            let mut issuers = issuers(&receiver.spec.oidc_providers)?;
            for (at, issuer) in issuers.iter_mut().enumerate() {
                issuer.trust = trust_in(&issuer.url, rules.allowed_issuers)
                    .map_err(|err| err.within(&format!("spec.oidcProviders[{at}]")))?;
            }
            Ok(Requirement::Issuers(issuers))
        }
        _ => Ok(Requirement::KeyAlone),
    }
}

/// What fetching from an issuer may reach: the author of a Receiver is not the operator.
///
/// # Errors
/// When the issuer is not reached over TLS.
fn trust_in(url: &str, allowed: &[String]) -> Result<Trust, FieldError> {
    if allowed.iter().any(|allowed| allowed == url) {
        return Ok(Trust::Operator);
    }
    match url.starts_with("https://") {
        true => Ok(Trust::Tenant),
        false => {
            let problem = format!("`{url}` is not an https URL; --allow-issuer {url} allows it");
            Err(FieldError::new("issuerURL", problem))
        }
    }
}

/// The issuers that a Receiver lists.
///
/// # Errors
/// When there is none, or an issuer cannot be used; names the field.
pub(super) fn issuers(listed: &[OidcProvider]) -> Result<Vec<Issuer>, FieldError> {
    if listed.is_empty() {
        return Err(FieldError::new("spec.oidcProviders", "is empty; list at least one issuer"));
    }
    let read =
        |(at, provider)| issuer(provider).map_err(|err| err.within(&format!("spec.oidcProviders[{at}]")));
    listed.iter().enumerate().map(read).collect()
}

fn issuer(provider: &OidcProvider) -> Result<Issuer, FieldError> {
    if provider.validations.is_empty() {
        return Err(FieldError::new("validations", "is empty; public issuers give tokens to anyone"));
    }
    let variables = provider.variables.iter().enumerate().map(|(at, variable)| {
        let read = Expression::value(&variable.expression, TOKEN_VARIABLES);
        let read = read.map_err(|err| FieldError::new(format!("variables[{at}].expression"), err));
        read.map(|expression| (variable.name.clone(), expression))
    });
    let validations = provider.validations.iter().enumerate().map(|(at, validation)| {
        let read = Expression::condition(&validation.expression, TOKEN_VARIABLES);
        let read = read.map_err(|err| FieldError::new(format!("validations[{at}].expression"), err));
        read.map(|condition| Validation { condition, message: validation.message.clone() })
    });
    let audience = Some(&provider.audience).filter(|audience| !audience.is_empty());
    Ok(Issuer {
        url: provider.issuer_url.clone(),
        trust: Trust::Operator,
        audience: audience.map_or_else(|| DEFAULT_AUDIENCE.to_owned(), String::clone),
        variables: variables.collect::<Result<_, _>>()?,
        validations: validations.collect::<Result<_, _>>()?,
    })
}

fn selection(
    receiver: &FluxReceiver,
    rules: ReceiverDefaults<'_>,
    resources: Vec<ResourceSelector>,
) -> Selection {
    let selection = Selection { resources, matches_all: true, ..Selection::default() };
    match rules.require_opt_in {
        true => selection.with_consent(&receiver.endpoint_name(), vec![receiver.namespace.clone()]),
        false => selection,
    }
}
