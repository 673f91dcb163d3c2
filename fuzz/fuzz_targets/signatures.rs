//! Headers of strangers: no proof of any provider is believed that its key did not make.
//!
//! Input: lines that are tried as the value of every header that a proof can stand in, then the body.
#![no_main]

mod no_fetch;

use std::sync::Arc;
use std::time::SystemTime;

use flux_recv::internals::Delivery;
use flux_recv::internals::PROVIDERS;
use flux_recv::internals::Auth;
use flux_recv::internals::Key;
use flux_recv::internals::sign;
use flux_recv::internals::{Credentials, Requirement, GoogleAccount, Authentication, VerifyContext, verify};
use libfuzzer_sys::fuzz_target;

use no_fetch::NoFetch;

const HEADERS: [&str; 15] = [
    "X-Hub-Signature-256",
    "X-Hub-Signature",
    "X-Gitea-Signature",
    "X-Gogs-Signature",
    "X-Forgejo-Signature",
    "X-Gitlab-Token",
    "webhook-signature",
    "webhook-timestamp",
    "webhook-id",
    "X-Nexus-Webhook-Signature",
    "X-JFrog-Event-Auth",
    "X-Signature",
    "svix-signature",
    "svix-timestamp",
    "svix-id",
];

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|byte| *byte == 0) else { return };
    let (Ok(lines), body) = (std::str::from_utf8(&input[..end]), &input[end + 1..]) else { return };
    let account = GoogleAccount { audience: "fuzz".to_owned(), email: "fuzz@example.com".to_owned() };
    for text in ["fuzz-key-that-nobody-guesses-0123456789", "whsec_ZnV6ei1rZXktdGhhdC1ub2JvZHktZ3Vlc3Nlcw=="]
    {
        let key = Key::new("test.key", text.as_bytes().to_vec()).expect("a key");
        let (account, bearer) = (Requirement::Google(account.clone()), Requirement::Header(Auth::Bearer));
        let mut credentials = Credentials::from_key(key);
        let fetch = Arc::new(NoFetch);
        let tools = VerifyContext::new(fetch, SystemTime::now);
        for provider in PROVIDERS.iter().filter(|provider| !matches!(provider.authentication, Authentication::PathOnly)) {
            credentials.expects = match provider.authentication {
                Authentication::GoogleIdentity => account.clone(),
                _ => bearer.clone(),
            };
            for line in lines.lines().take(4) {
                let names = HEADERS.iter().copied().chain(["Authorization"]);
                let headers: Vec<(String, String)> =
                    names.map(|name| (name.to_owned(), line.to_owned())).collect();
                let delivery = Delivery { headers: &headers, body };
                let result =
                    futures::executor::block_on(verify(delivery, provider.authentication, &credentials, &tools));
                let real =
                    sign(&delivery, provider.authentication, &credentials, SystemTime::now()).unwrap_or_default();
                // More than one space behind a scheme is as good.
                let written = line.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
                let is_real = real.iter().any(|(_, value)| written.contains(&value.to_lowercase()));
                // Artifactory may send the key itself.
                let is_key = matches!(provider.authentication, Authentication::TokenOrHmac(_)) && line.trim() == text;
                assert!(result.is_err() || is_real || is_key, "{} believed {line:?}", provider.name);
            }
        }
    }
});
