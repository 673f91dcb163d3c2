//! Providers that prove themselves as the endpoint says, and deliveries that name nothing.

use flux_recv::internals::Authentication;
use flux_recv::internals::PROVIDERS;

use super::common::leaks;
use super::http::{post, push, push_signed};
use super::running::{FluxRecv, OBJECTS, flux_recv, hub_signature, stderr, stdout, test_key};

const LISTED: &str = "resources: [{kind: GitRepository, name: app, namespace: apps}]";

fn basic(pair: &str) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    leaks::remember(&encoded);
    format!("Basic {encoded}")
}

// Incident 12.
#[tokio::test]
async fn the_header_that_the_endpoint_names_holds_the_key_and_nothing_else_will_do() {
    let config = format!(
        "fluxRecvVersion: 1\nendpoints:\n\
         - {{source: generic, keyPath: bearer.key, auth: bearer, {LISTED}}}\n\
         - {{source: generic, keyPath: basic.key, auth: {{basic: flux}}, {LISTED}}}\n\
         - {{source: generic, keyPath: header.key, auth: {{header: X-Token}}, {LISTED}}}\n\
         - {{source: generic, keyPath: open.key, unsigned: true, {LISTED}}}\n"
    );
    let running = FluxRecv::with_objects(&config, OBJECTS);
    let status = async |endpoint: &str, headers: &[(&str, &str)]| {
        let url = format!("{}{}", running.base, running.path(endpoint));
        let answer = post(&url, headers, b"not even JSON".to_vec()).await;
        assert!(answer.status == 202 || answer.body.is_empty(), "{}", answer.body);
        answer.status
    };
    let bearer = |key: &str| format!("Bearer {}", test_key(key));
    assert_eq!(status("bearer", &[("Authorization", &bearer("bearer"))]).await, 202);
    assert_eq!(status("bearer", &[("Authorization", &bearer("basic"))]).await, 401);
    assert_eq!(status("bearer", &[("Authorization", &test_key("bearer"))]).await, 401);
    assert_eq!(status("bearer", &[]).await, 401);
    let pair = |user: &str, key: &str| basic(&format!("{user}:{}", test_key(key)));
    assert_eq!(status("basic", &[("Authorization", &pair("flux", "basic"))]).await, 202);
    assert_eq!(status("basic", &[("Authorization", &pair("root", "basic"))]).await, 401);
    assert_eq!(status("basic", &[("Authorization", &pair("flux", "bearer"))]).await, 401);
    assert_eq!(status("header", &[("X-Token", &test_key("header"))]).await, 202);
    assert_eq!(status("header", &[("Authorization", &bearer("header"))]).await, 401);
    assert_eq!(status("open", &[]).await, 202);
}

#[tokio::test]
async fn a_delivery_requests_what_the_endpoint_lists() {
    let objects = format!(
        "{OBJECTS}---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: Bucket\n\
         metadata: {{name: charts, namespace: apps, labels: {{team: a}}}}\n\
         spec: {{bucketName: charts, endpoint: s3.example.com}}\n---\n\
         apiVersion: source.toolkit.fluxcd.io/v1\nkind: Bucket\nmetadata: {{name: other, namespace: apps}}\n\
         spec: {{bucketName: other, endpoint: s3.example.com}}\n"
    );
    let config = "fluxRecvVersion: 1\nendpoints:\n\
                  - source: generic\n  keyPath: a.key\n  unsigned: true\n  resources:\n\
                  \x20 - {kind: Bucket, name: '*', matchLabels: {team: a}}\n\
                  - source: GitHub\n  keyPath: github.key\n  match: all\n  resources:\n\
                  \x20 - {apiVersion: source.toolkit.fluxcd.io/v1, kind: Bucket}\n";
    let running = FluxRecv::with_objects(config, &objects);
    let url = format!("{}{}", running.base, running.path("a"));
    let answer = post(&url, &[], Vec::new()).await;
    assert_eq!(
        answer.body,
        r#"{"dryRun":true,"event":"a delivery","outcome":"accepted","skipped":[],"targets":["Bucket/apps/charts"]}"#
    );
    let answer = push_signed(&running, push(), &[]).await;
    assert!(
        answer.body.contains(r#""targets":["Bucket/apps/charts","Bucket/apps/other"]"#),
        "{}",
        answer.body
    );
}

/// `send` composes and signs for every provider; the twin under another key gets nothing.
#[test]
fn every_provider_is_sent_for_and_its_forged_twin_is_refused() {
    // Only Google, Amazon and issuers of tokens can sign for the others.
    let is_ours = |authentication: Authentication| {
        !matches!(
            authentication,
            Authentication::GoogleIdentity | Authentication::Sns | Authentication::OpenId
        )
    };
    let named: Vec<_> = PROVIDERS.iter().filter(|provider| is_ours(provider.authentication)).collect();
    let mut config = "fluxRecvVersion: 1\nendpoints:\n".to_owned();
    for provider in &named {
        let auth =
            if matches!(provider.authentication, Authentication::Configured) { "auth: bearer, " } else { "" };
        let name = provider.name;
        config.push_str(&format!(
            "- {{source: {name}, {auth}{LISTED}, match: all, name: {name}, keyPath: {name}.key}}\n"
        ));
    }
    let running = FluxRecv::with_objects(&config, OBJECTS);
    let forged = tempfile::tempdir().expect("a folder");
    let with_other_keys = config.replace("keyPath: ", "keyPath: other.key, pathKeyPath: ");
    for provider in &named {
        let key = format!("{}.key", provider.name);
        std::fs::write(forged.path().join(&key), test_key(provider.name)).expect("a key");
    }
    std::fs::write(forged.path().join("other.key"), test_key("other")).expect("a key");
    std::fs::write(forged.path().join("fluxrecv.yaml"), with_other_keys).expect("a config");
    for provider in &named {
        for (folder, is_forged) in [(running.folder.path(), false), (forged.path(), true)] {
            let send = |what: [&str; 2]| {
                let mut command = flux_recv();
                command.arg("send").arg("--config").arg(folder.join("fluxrecv.yaml"));
                command.args(["--to", &running.base, "--endpoint", provider.name]).args(what);
                command.output().expect("send runs")
            };
            let mut output = send(["--repo", "https://github.com/org/app"]);
            if stdout(&output).is_empty() {
                output = send(["--image", "ghcr.io/org/app:v1"]);
            }
            if stdout(&output).is_empty() {
                output = send(["--image", "1.dkr.ecr.eu-west-1.amazonaws.com/org/app:v1"]);
            }
            let expect = match is_forged && !matches!(provider.authentication, Authentication::PathOnly) {
                true => "401 ",
                false => "202 ",
            };
            let (text, errors) = (stdout(&output), stderr(&output));
            assert!(text.starts_with(expect), "{} {is_forged}: {text}{errors}", provider.name);
        }
    }
}

#[tokio::test]
async fn events_that_the_endpoint_does_not_accept_are_ignored_with_the_reason() {
    let config = "fluxRecvVersion: 1\nendpoints:\n\
                  - {source: GitHub, keyPath: github.key, events: [push, release.published], refs: [main, 'refs/tags/v*']}\n";
    let running = FluxRecv::with_objects(config, OBJECTS);
    let sent = async |event: &str, body: &str| {
        let signature = hub_signature(&test_key("github"), body.as_bytes());
        let headers = [("X-GitHub-Event", event), ("X-Hub-Signature-256", &signature)];
        let url = format!("{}{}", running.base, running.path("github"));
        let answer = post(&url, &headers, body.as_bytes().to_vec()).await;
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        (answer.status, format!("{} {}", body["outcome"], body["reason"]))
    };
    let push = String::from_utf8(push()).expect("text");
    assert_eq!(sent("push", &push).await, (202, r#""accepted" null"#.to_owned()));
    assert_eq!(sent("ping", "{}").await, (200, r#""pong" null"#.to_owned()));
    assert_eq!(
        sent("push", &push.replace("heads/main", "heads/other")).await.1,
        r#""ignored" "push to github.com/org/app other: the endpoint's `refs` are main, refs/tags/v*""#
    );
    let release = |action: &str| {
        let repository = serde_json::json!({"clone_url": "https://github.com/org/app"});
        let release = serde_json::json!({"tag_name": "v1"});
        serde_json::json!({"action": action, "release": release, "repository": repository}).to_string()
    };
    assert!(sent("release", &release("published")).await.1.starts_with(r#""unmatched" "#));
    for (event, body, name) in [
        ("release", release("released"), "release.released"),
        ("issues", "{}".to_owned(), "issues"),
        ("push", "[".to_owned(), ""),
    ] {
        let (status, answer) = sent(event, &body).await;
        if name.is_empty() {
            assert_eq!(status, 400, "wanted, and unreadable: {answer}");
            continue;
        }
        let expect = format!(r#""ignored" "event type `{name}` is not in the endpoint's `events`""#);
        assert_eq!((status, answer), (200, expect));
    }
    let (_, config) = running.get_admin("/config").await;
    assert!(config.contains(r#""refs":["main","refs/tags/v*"]"#), "{config}");
}

/// CloudEvents providers that validate before they send.
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection>
#[tokio::test]
async fn cloud_events_may_come_after_a_handshake() {
    let config = "fluxRecvVersion: 1\nendpoints:\n- {source: CDEvents, keyPath: events.key, auth: bearer}\n- {source: GitHub, keyPath: github.key}\n";
    let running = FluxRecv::with_objects(config, OBJECTS);
    let validate = async |endpoint: &str, origin: Option<&str>| {
        let url = format!("{}{}", running.base, running.path(endpoint));
        let mut request = super::running::client().request(reqwest::Method::OPTIONS, url);
        if let Some(origin) = origin {
            request = request.header("WebHook-Request-Origin", origin);
        }
        let response = request.send().await.expect("an answer");
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        (
            response.status().as_u16(),
            header("webhook-allowed-origin"),
            header("webhook-allowed-rate"),
            header("allow"),
        )
    };
    let yes = (200, "ci.example.com".to_owned(), "*".to_owned(), "POST".to_owned());
    assert_eq!(validate("events", Some("ci.example.com")).await, yes);
    for (endpoint, origin) in [("events", None), ("github", Some("ci.example.com"))] {
        assert_eq!(validate(endpoint, origin).await.0, 405, "{endpoint}");
    }
}
