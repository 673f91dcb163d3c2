//! What has to prove a delivery: `auth`, `unsigned` and `gcr` of an endpoint.

use serde_yaml::Value;

use super::auth;
use super::section::Section;
use crate::provider::Provider;
use crate::verify::auth::Auth;
use crate::verify::{Expects, GoogleAccount, Proof};

/// The fields about proofs, as far as they are good by themselves.
pub(super) struct Written {
    says_auth: bool,
    auth: Option<Auth>,
    account: Option<Value>,
    /// Whether a delivery without any proof is good enough.
    pub(super) unsigned: bool,
}

/// The fields that [`read`] reads.
pub(super) const FIELDS: [&str; 3] = ["auth", "unsigned", "gcr"];

/// Reads the fields about proofs.
pub(super) fn read(entry: &mut Section<'_>) -> Written {
    Written {
        says_auth: entry.has("auth"),
        auth: auth::read(entry),
        account: entry.take("gcr"),
        unsigned: entry.flag("unsigned"),
    }
}

/// What the sender has to show, if what is written fits the sender and each other.
pub(super) fn check(
    entry: &mut Section<'_>,
    provider: &Provider,
    written: Written,
    accepts_more_keys: bool,
) -> Expects {
    let Written { says_auth, auth, account, unsigned } = written;
    let holds_no_key = match provider.proof {
        Proof::PathOnly | Proof::GoogleIdentity => true,
        Proof::Chosen => unsigned,
        _ => false,
    };
    if accepts_more_keys && holds_no_key {
        entry.mistake(
            "acceptKeyPaths",
            "is only for senders that sign with the key; here it makes only the URL, remove it",
        );
    }
    check_auth(entry, provider, says_auth, unsigned);
    let google = match (provider.proof, account) {
        (Proof::GoogleIdentity, account) => google_account(entry, account),
        (_, Some(_)) => {
            entry.mistake("gcr", "is only for GoogleContainerRegistry; remove it");
            None
        }
        _ => None,
    };
    google.map(Expects::Google).or(auth.map(Expects::Header)).unwrap_or(Expects::KeyAlone)
}

fn check_auth(entry: &mut Section<'_>, provider: &Provider, says_auth: bool, unsigned: bool) {
    let is_chosen = matches!(provider.proof, Proof::Chosen);
    match (is_chosen, says_auth, unsigned) {
        (false, true, _) => {
            let why = format!(
                "is only for senders that cannot sign, and {} proves itself in its own way; remove it",
                provider.name
            );
            entry.mistake("auth", &why);
        }
        (true, true, true) => entry.mistake("unsigned", "contradicts `auth`; remove one of them"),
        (true, false, false) => entry.mistake(
            "auth",
            &format!(
                "is missing; {} cannot sign, so say which header holds the key (`auth: bearer`, `auth: basic`, \
                 `auth: {{header: NAME}}`), or `unsigned: true` to believe whoever knows the URL",
                provider.name,
            ),
        ),
        (false, false, true) if !provider.may_come_unsigned => entry.mistake(
            "unsigned",
            "is only for senders that cannot sign, or could not until lately (BitbucketCloud); remove it",
        ),
        _ => {}
    }
}

fn google_account(entry: &mut Section<'_>, account: Option<Value>) -> Option<GoogleAccount> {
    let Some(account) = account else {
        entry.mistake(
            "gcr",
            "is missing; set `audience` and `email` of the subscription's token, without them anyone could post here",
        );
        return None;
    };
    let mut account = entry.within("gcr", account)?;
    let audience = account.required_text("audience");
    let email = account.required_text("email");
    account.finish(&["audience", "email"]);
    Some(GoogleAccount { audience: audience?, email: email? })
}
