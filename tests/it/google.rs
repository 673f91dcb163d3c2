//! Google identity tokens, made here with a labelled key; Google's keys are handed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flux_recv::internals::listener::{self, RunningServer};
use flux_recv::internals::{
    Fetch, FetchError, Inventory, KINDS, KindCoverage, Limits, Service, VerifyContext, add_manifests, config,
    offline_service, server,
};
use futures::future::BoxFuture;
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::running::client;

const TEST_KEY: &str = include_str!("../fixtures/rsa-key-for-tests-only.pem");
pub const AUDIENCE: &str = "https://recv.example.com/hook";
pub const EMAIL: &str = "push@project.iam.gserviceaccount.com";

pub fn test_key() -> RsaKeyPair {
    let body: String = TEST_KEY.lines().filter(|line| !line.starts_with("-----")).collect();
    RsaKeyPair::from_der(&STANDARD.decode(body).expect("base64")).expect("an RSA key")
}

/// Stands in for Google's key server.
pub struct KeyServer {
    answers: Result<Value, String>,
    fetched: AtomicUsize,
}

/// The public half of the labelled key, as issuers publish theirs.
pub fn key_set() -> Value {
    let public = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(test_key().public_key());
    let key = json!({
        "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "test-1",
        "n": URL_SAFE_NO_PAD.encode(public.n), "e": URL_SAFE_NO_PAD.encode(public.e),
    });
    json!({"keys": [{"kty": "XYZ", "kid": "unknown kind"}, key]})
}

impl KeyServer {
    pub fn good() -> KeyServer {
        KeyServer { answers: Ok(key_set()), fetched: AtomicUsize::new(0) }
    }

    fn bad(answer: Result<Value, String>) -> KeyServer {
        KeyServer { answers: answer, fetched: AtomicUsize::new(0) }
    }
}

impl Fetch for KeyServer {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        assert!(!url.contains('?'), "nothing of a token goes into a URL");
        self.fetched.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers.clone().map(|value| value.to_string().into_bytes()).map_err(FetchError);
        Box::pin(std::future::ready(answer))
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs()
}

pub fn claims() -> Value {
    json!({"iss": "https://accounts.google.com", "aud": AUDIENCE, "email": EMAIL, "email_verified": true, "sub": "1", "iat": now(), "exp": now() + 3600})
}

pub fn token(header: &Value, claims: &Value) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let key = test_key();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), message.as_bytes(), &mut signature)
        .expect("a signature");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub fn good_token() -> String {
    token(&header(), &claims())
}

pub fn header() -> Value {
    json!({"alg": "RS256", "kid": "test-1", "typ": "JWT"})
}

/// A receiver on a real port, with a key server handed in.
pub struct InProcess {
    pub base: String,
    pub service: Arc<Service>,
    _running: RunningServer,
    _folder: tempfile::TempDir,
}

pub async fn serve(config: &str, objects: &str, fetch: Arc<dyn Fetch>) -> InProcess {
    let folder = super::running::folder(config);
    let file = folder.path().join("fluxrecv.yaml");
    let config = config::load(&file, config::Rules::default()).config.expect("a config");
    let mut inventory = Inventory::default();
    for info in &KINDS {
        inventory.set_coverage(info.kind, KindCoverage::complete());
    }
    add_manifests(&mut inventory, objects).expect("objects");
    let verify_context = VerifyContext::new(fetch, SystemTime::now);
    let service = offline_service(config, inventory, Limits::default(), verify_context).await;
    let listener = listener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener::local_address(&listener).expect("an address"));
    let running = server::start(listener, Arc::clone(&service)).expect("a server");
    InProcess { base, service, _running: running, _folder: folder }
}

fn config_text() -> String {
    format!(
        "fluxRecvVersion: 1\nendpoints:\n- source: GoogleContainerRegistry\n  keyPath: gcr.key\n  gcr: {{audience: \"{AUDIENCE}\", email: \"{EMAIL}\"}}\n"
    )
}

async fn status_with(receiver: &InProcess, authorization: Option<String>) -> u16 {
    let path = receiver.service.registry.get().endpoints.named("gcr").expect("the endpoint").path();
    let mut request = client().post(format!("{}{path}", receiver.base));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let body = json!({"message": {"data": STANDARD.encode("{\"action\":\"INSERT\",\"tag\":\"us.gcr.io/p/app:1\"}")}});
    request.body(body.to_string()).send().await.expect("an answer").status().as_u16()
}

// Incident 15.
#[tokio::test]
async fn only_the_configured_account_is_accepted() {
    let keys = Arc::new(KeyServer::good());
    let receiver = serve(&config_text(), "", Arc::clone(&keys) as Arc<dyn Fetch>).await;
    let bearer = |claims: &Value| Some(format!("Bearer {}", token(&header(), claims)));
    assert_eq!(status_with(&receiver, bearer(&claims())).await, 200);
    let mut short_issuer = claims();
    short_issuer["iss"] = json!("accounts.google.com");
    assert_eq!(status_with(&receiver, bearer(&short_issuer)).await, 200);
    for (claim, value) in [
        ("aud", json!("https://other.example.com")),
        ("aud", Value::Null),
        ("iss", json!("https://evil.example.com")),
        ("iss", Value::Null),
        ("email", json!("other@project.iam.gserviceaccount.com")),
        ("email", Value::Null),
        ("email_verified", json!(false)),
        ("email_verified", json!("true")),
        ("email_verified", Value::Null),
        ("exp", json!(now() - 3600)),
        ("exp", Value::Null),
        ("nbf", json!(now() + 3600)),
    ] {
        let mut claims = claims();
        claims[claim] = value.clone();
        assert_eq!(status_with(&receiver, bearer(&claims)).await, 401, "{claim}: {value}");
    }
    assert_eq!(keys.fetched.load(Ordering::SeqCst), 1, "Google's keys are kept");
}

// Incident 15.
#[tokio::test]
async fn malformed_and_foreign_tokens_are_refused() {
    let receiver = serve(&config_text(), "", Arc::new(KeyServer::good())).await;
    let good = good_token();
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let flipped = format!(
        "{message}.{}",
        signature.replacen(&signature[..1], if signature.starts_with('A') { "B" } else { "A" }, 1)
    );
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode("{\"alg\":\"none\",\"kid\":\"test-1\"}"),
        URL_SAFE_NO_PAD.encode(claims().to_string())
    );
    for authorization in [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(good.clone()),
        Some(format!("Basic {good}")),
        Some("Bearer a.b.c".to_owned()),
        Some(format!("Bearer {flipped}")),
        Some(format!("Bearer {none}")),
        Some(format!("Bearer {}", token(&json!({"alg": "HS256", "kid": "test-1"}), &claims()))),
        Some(format!("Bearer {}", token(&json!({"alg": "RS256", "kid": "made-up"}), &claims()))),
        Some(format!("Bearer {}", token(&json!({"alg": "RS256"}), &claims()))),
    ] {
        assert_eq!(status_with(&receiver, authorization.clone()).await, 401, "{authorization:?}");
    }
    // The name of a scheme has no case (RFC 9110, section 11.1).
    assert_eq!(status_with(&receiver, Some(format!("bearer {good}"))).await, 200);
}

// Incidents 15 and 18.
#[tokio::test]
async fn made_up_key_ids_do_not_hammer_google() {
    let keys = Arc::new(KeyServer::good());
    let receiver = serve(&config_text(), "", Arc::clone(&keys) as Arc<dyn Fetch>).await;
    for at in 0..20 {
        let header = json!({"alg": "RS256", "kid": format!("made-up-{at}")});
        assert_eq!(status_with(&receiver, Some(format!("Bearer {}", token(&header, &claims())))).await, 401);
    }
    assert_eq!(keys.fetched.load(Ordering::SeqCst), 1);
    assert_eq!(status_with(&receiver, Some(format!("Bearer {}", good_token()))).await, 200);
}

// Incident 15.
#[tokio::test]
async fn without_googles_keys_nothing_is_accepted_and_the_provider_may_come_again() {
    for answer in [Err("timed out".to_owned()), Ok(json!({"error": "invalid_token"})), Ok(json!([]))] {
        let receiver = serve(&config_text(), "", Arc::new(KeyServer::bad(answer.clone()))).await;
        let bearer = Some(format!("Bearer {}", good_token()));
        assert_eq!(status_with(&receiver, bearer.clone()).await, 503, "{answer:?}");
        assert_eq!(status_with(&receiver, bearer).await, 503, "also while it is not fetched again");
    }
}
