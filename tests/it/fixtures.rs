//! The fixtures of every provider: an accepted, an irrelevant and a malformed delivery each, as the
//! provider's documentation has them. They are signed here, and forged with another key.
//!
//! `tests/fixtures/PROVIDER/NAME.json` is the body, `.headers` the headers without authentication,
//! `.answer` the status and the answer.

use std::path::PathBuf;
use std::time::SystemTime;

use flux_recv::internals::{Authentication, Credentials, Delivery, Endpoint, Key, PROVIDERS, sign};
use serde_json::{Value, json};

use super::google::{AUDIENCE, EMAIL, InProcess, good_token, header, key_set, now, serve, token};
use super::running::{client, project};
use super::sns::{self, TOPIC};
use super::web::with;

const ISSUER: &str = "https://issuer.example.com";

/// What the endpoint of a provider needs beside `source` and `keyPath`.
fn options(provider: &str) -> String {
    let listed = "resources: [{kind: Bucket, name: listed}]";
    let filter = "filter: \"req.type == 'app.deployed'\"";
    match provider {
        "AzureDevOps" => "auth: basic".to_owned(),
        "ACR" | "EventBridge" | "CDEvents" | "distribution" | "MinIO" => "auth: bearer".to_owned(),
        "zot" => "auth: bearer, registryHost: zot.example.com".to_owned(),
        "Nexus" => "registryHost: registry.example.com".to_owned(),
        "GoogleContainerRegistry" | "GCS" => format!("gcr: {{audience: '{AUDIENCE}', email: '{EMAIL}'}}"),
        "SNS" => format!("topicArn: '{TOPIC}'"),
        "StandardWebhooks" | "generic-hmac" => format!("{listed}, {filter}"),
        "generic" => format!("auth: bearer, {listed}, {filter}"),
        "generic-oidc" => format!(
            "{listed}, {filter}, oidc: [{{issuerURL: '{ISSUER}', audience: flux-recv, claims: {{sub: deploy}}}}]"
        ),
        _ => String::new(),
    }
}

fn config() -> String {
    let mut config = "fluxRecvVersion: 1\nendpoints:\n".to_owned();
    for provider in PROVIDERS.iter().map(|provider| provider.name) {
        let options = match options(provider) {
            none if none.is_empty() => none,
            some => format!(", {some}"),
        };
        config.push_str(&format!(
            "- {{source: {provider}, name: {provider}, keyPath: {provider}.key{options}}}\n"
        ));
    }
    config
}

struct Fixture {
    body: String,
    headers: Vec<(String, String)>,
    answer: PathBuf,
}

fn fixture(provider: &str, name: &str) -> Fixture {
    let file = project().join("tests/fixtures").join(provider).join(name);
    let read = |extension: &str| {
        let file = file.with_extension(extension);
        std::fs::read_to_string(&file).unwrap_or_else(|err| panic!("{}: {err}", file.display()))
    };
    let headers = read("headers");
    let headers = headers.lines().map(|line| line.split_once(": ").expect("a header"));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Fixture { body: read("json"), headers, answer: file.with_extension("answer") }
}

/// A delivery with its authentication, under these credentials or a token that is not good.
fn signed(endpoint: &Endpoint, fixture: &Fixture, forged: bool) -> (Vec<(String, String)>, String) {
    let Fixture { body, headers, .. } = fixture;
    let bearer = |token: String| {
        let token = if forged { format!("{token}x") } else { token };
        vec![("Authorization".to_owned(), format!("Bearer {token}"))]
    };
    let claims =
        json!({"iss": ISSUER, "aud": "flux-recv", "sub": "deploy", "iat": now(), "exp": now() + 300});
    let (authentication, body) = match endpoint.provider.authentication {
        Authentication::GoogleIdentity => (bearer(good_token()), body.clone()),
        Authentication::OpenId => (bearer(token(&header(), &claims)), body.clone()),
        Authentication::Sns => {
            let message = sns::signed(serde_json::from_str(body).expect("a message"));
            let message = if forged { with(message, "MessageId", json!("another")) } else { message };
            (Vec::new(), message.to_string())
        }
        scheme => {
            let stranger = Credentials {
                expects: endpoint.credentials.expects.clone(),
                ..Credentials::from_key(
                    Key::new("test.key", b"another-test-key-0123".to_vec()).expect("a key"),
                )
            };
            let credentials = if forged { &stranger } else { &endpoint.credentials };
            let delivery = Delivery { headers, body: body.as_bytes() };
            let authentication = sign(&delivery, scheme, credentials, SystemTime::now());
            (authentication.expect("a signature"), body.clone())
        }
    };
    (headers.iter().cloned().chain(authentication).collect(), body)
}

async fn post(receiver: &InProcess, provider: &str, fixture: &Fixture, forged: bool) -> (u16, String) {
    let serving = receiver.service.registry.get();
    let endpoint = serving.endpoints.named(provider).expect("an endpoint");
    let (headers, body) = signed(endpoint, fixture, forged);
    let mut request = client().post(format!("{}{}", receiver.base, endpoint.path())).body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("a body"))
}

/// The status in one line, the answer below it. Written anew with `FLUX_RECV_BLESS=1`.
fn check(provider: &str, name: &str, answer: &PathBuf, (status, body): (u16, String)) {
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let is = format!("{status}\n{}\n", serde_json::to_string_pretty(&body).expect("JSON"));
    if std::env::var_os("FLUX_RECV_BLESS").is_some() {
        std::fs::write(answer, &is).expect("a file");
    }
    let should = std::fs::read_to_string(answer).unwrap_or_default();
    assert_eq!(is, should, "{provider}/{name}");
}

#[tokio::test]
async fn every_provider_answers_its_fixtures_and_refuses_the_forged_ones() {
    let objects = std::fs::read_to_string(project().join("tests/fixtures/objects.yaml")).expect("objects");
    let web = sns::web().with_issuer(ISSUER);
    let web = web.with("https://www.googleapis.com/oauth2/v3/certs", key_set().to_string()).put_up();
    let receiver = serve(&config(), &objects, web).await;
    for provider in PROVIDERS.iter().map(|provider| provider.name) {
        for name in ["accepted", "irrelevant", "malformed"] {
            let fixture = fixture(provider, name);
            let answer = post(&receiver, provider, &fixture, false).await;
            assert_eq!(name == "accepted", answer.0 == 202, "{provider}/{name}: {answer:?}");
            check(provider, name, &fixture.answer, answer);
        }
        let serving = receiver.service.registry.get();
        let endpoint = serving.endpoints.named(provider).expect("an endpoint");
        // Where the secret path is all there is, there is nothing to forge.
        if endpoint.is_authenticated() {
            let forged = post(&receiver, provider, &fixture(provider, "accepted"), true).await;
            assert_eq!(forged, (401, String::new()), "{provider}/forged");
        }
    }
}

/// A fixture of a provider that is gone would never be read.
#[test]
fn every_folder_of_fixtures_is_a_provider() {
    for entry in std::fs::read_dir(project().join("tests/fixtures")).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_provider = PROVIDERS.iter().any(|provider| provider.name == name);
        // The entries that publishers write have a test of their own.
        assert!(is_provider || name == "wire" || entry.path().is_file(), "{name}");
    }
}
