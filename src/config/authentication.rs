//! The fields about authentication: `auth`, `unsigned`, `gcr`, `pubsub`, `oidc` and `topicArn` of an
//! endpoint.

use serde_yaml::Value;

use super::section::Section;
use super::{auth, oidc};
use crate::provider::Provider;
use crate::verify::auth::Auth;
use crate::verify::{Authentication, GoogleAccount, Requirement};

/// The fields about proofs, as far as they are good by themselves.
pub(super) struct AuthFields {
    says_auth: bool,
    auth: Option<Auth>,
    /// The field and what stands in it.
    account: Option<(&'static str, Value)>,
    issuers: Option<Vec<Value>>,
    topics: Vec<String>,
    /// Whether a delivery without any authentication is good enough.
    pub(super) unsigned: bool,
}

/// Reads the fields about proofs.
pub(super) fn read(entry: &mut Section<'_>) -> AuthFields {
    let [gcr, pubsub] = ["gcr", "pubsub"].map(|field| Some((field, entry.take(field)?)));
    if gcr.is_some() && pubsub.is_some() {
        entry.mistake("pubsub", "does not go with `gcr`; keep the one that belongs to the source");
    }
    let says_issuers = entry.has("oidc");
    let issuers = entry.filled_list("oidc");
    AuthFields {
        says_auth: entry.has("auth"),
        auth: auth::read(entry),
        account: gcr.or(pubsub),
        issuers: says_issuers.then_some(issuers),
        topics: entry.texts("topicArn"),
        unsigned: entry.flag("unsigned"),
    }
}

/// Checks that the fields fit the provider and each other; returns the requirement that they make.
pub(super) fn check(
    entry: &mut Section<'_>,
    provider: &Provider,
    written: AuthFields,
    accepts_more_keys: bool,
) -> Requirement {
    let AuthFields { says_auth, auth, account, issuers, topics, unsigned } = written;
    let holds_no_key = match provider.authentication {
        Authentication::PathOnly
        | Authentication::GoogleIdentity
        | Authentication::OpenId
        | Authentication::Sns => true,
        Authentication::Configured => unsigned,
        _ => false,
    };
    if accepts_more_keys && holds_no_key {
        entry.mistake(
            "acceptKeyPaths",
            "is only for providers that sign with the key; here it makes only the URL, remove it",
        );
    }
    check_auth(entry, provider, says_auth, unsigned);
    let for_others = |entry: &mut Section<'_>, field: &str, whose: &str| {
        entry.mistake(field, &format!("is only for {whose}; remove it"));
    };
    if let Some((field, _)) =
        account.as_ref().filter(|_| !matches!(provider.authentication, Authentication::GoogleIdentity))
    {
        for_others(entry, field, "GoogleContainerRegistry and GCS");
    }
    if issuers.is_some() && !matches!(provider.authentication, Authentication::OpenId) {
        for_others(entry, "oidc", "generic-oidc");
    }
    if !topics.is_empty() && !matches!(provider.authentication, Authentication::Sns) {
        for_others(entry, "topicArn", "SNS");
    }
    match provider.authentication {
        Authentication::GoogleIdentity => google_account(entry, account).map(Requirement::Google),
        Authentication::OpenId => Some(Requirement::Issuers(oidc::issuers(entry, issuers))),
        Authentication::Sns => Some(Requirement::Topics(checked_topics(entry, topics))),
        _ => auth.map(Requirement::Header),
    }
    .unwrap_or(Requirement::KeyAlone)
}

/// Anyone can have a topic of their own, signed by the same Amazon.
fn checked_topics(entry: &mut Section<'_>, topics: Vec<String>) -> Vec<String> {
    if topics.is_empty() {
        entry.mistake("topicArn", "is missing; name the topic, without it anyone's topic could post here");
    }
    for topic in &topics {
        if !topic.starts_with("arn:") || topic.split(':').count() != 6 {
            entry.mistake(
                "topicArn",
                &format!(
                    "`{topic}` is not the ARN of a topic; write it like arn:aws:sns:REGION:ACCOUNT:NAME"
                ),
            );
        }
    }
    topics
}

fn check_auth(entry: &mut Section<'_>, provider: &Provider, says_auth: bool, unsigned: bool) {
    let is_chosen = matches!(provider.authentication, Authentication::Configured);
    match (is_chosen, says_auth, unsigned) {
        (false, true, _) => {
            let why = format!(
                "is only for providers that cannot sign, and {} has an authentication of its own; remove it",
                provider.name
            );
            entry.mistake("auth", &why);
        }
        (true, true, true) => entry.mistake("unsigned", "contradicts `auth`; remove one of them"),
        (true, false, false) => entry.mistake(
            "auth",
            &format!(
                "is missing; {} cannot sign, so say which header holds the key (`auth: bearer`, `auth: basic`, \
                 `auth: {{header: NAME}}`), or `unsigned: true` to accept deliveries from anyone who knows the URL",
                provider.name,
            ),
        ),
        (false, false, true) if !provider.may_come_unsigned => entry.mistake(
            "unsigned",
            "is only for providers that cannot sign, or could not until lately (BitbucketCloud); remove it",
        ),
        _ => {}
    }
}

fn google_account(entry: &mut Section<'_>, account: Option<(&'static str, Value)>) -> Option<GoogleAccount> {
    let Some((field, account)) = account else {
        entry.mistake(
            "pubsub",
            "is missing; set `audience` and `email` of the subscription's token, without them anyone could post here",
        );
        return None;
    };
    let mut account = entry.within(field, account)?;
    let audience = account.required_text("audience");
    let email = account.required_text("email");
    account.finish();
    Some(GoogleAccount { audience: audience?, email: email? })
}
