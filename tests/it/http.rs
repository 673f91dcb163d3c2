//! What strangers and providers get at the HTTP port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::running::{CONFIG, FluxRecv, OBJECTS, client, hub_signature, test_key};

pub fn push() -> Vec<u8> {
    let repository = json!({"clone_url": "https://github.com/org/app.git"});
    json!({"ref": "refs/heads/main", "after": "1111", "repository": repository}).to_string().into_bytes()
}

pub struct Answer {
    pub status: u16,
    pub body: String,
    pub headers: reqwest::header::HeaderMap,
}

pub async fn post(url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = client().post(url).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, body: response.text().await.expect("a body"), headers }
}

pub async fn push_signed(running: &FluxRecv, body: Vec<u8>, extra: &[(&str, &str)]) -> Answer {
    push_under(running, "github", &test_key("github"), body, extra).await
}

/// A push to an endpoint of GitHub's, signed with this key.
pub async fn push_under(
    running: &FluxRecv,
    endpoint: &str,
    key: &str,
    body: Vec<u8>,
    extra: &[(&str, &str)],
) -> Answer {
    let signature = hub_signature(key, &body);
    let mut headers = vec![("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature.as_str())];
    headers.extend(extra);
    post(&format!("{}{}", running.base, running.path(endpoint)), &headers, body).await
}

const DRY_RUN: &str = "reconciliation would be requested (dry run)";

// Incident 28: what was verified is what is read.
#[tokio::test]
async fn a_signed_push_is_accepted_and_says_what_would_be_patched() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let answer = push_signed(&running, push(), &[]).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(
        body,
        json!({"outcome": "accepted", "event": "push to github.com/org/app main", "targets": ["GitRepository/apps/app"], "skipped": [], "dryRun": true})
    );
    running.wait_for_log(DRY_RUN, &[("object", "GitRepository/apps/app")]);
}

// https://www.w3.org/TR/trace-context/ has the example of a header.
#[tokio::test]
async fn a_valid_traceparent_is_in_the_log_line_and_an_invalid_or_unverified_one_is_not() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    push_signed(&running, push(), &[("traceparent", trace)]).await;
    running.wait_for_log("delivery accepted (dry run)", &[("trace", trace)]);
    push_signed(&running, push(), &[("traceparent", &trace.to_uppercase())]).await;
    running.wait_for_log("delivery accepted (dry run)", &[("trace", "none")]);
    push_under(&running, "github", "another-key", push(), &[("traceparent", trace)]).await;
    running.wait_for_log("delivery refused", &[("trace", "none")]);
    assert_eq!(running.log().matches(trace).count(), 1, "{}", running.log());
}

// Incidents 10, 12, 22 and 41.
#[tokio::test]
async fn answers_to_unverified_deliveries_say_nothing() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let url = format!("{}{}", running.base, running.path("github"));
    let forged = hub_signature("another-key", &push());
    let good = hub_signature(&test_key("github"), &push());
    for headers in [
        vec![],
        vec![("X-Hub-Signature-256", "")],
        vec![("X-Hub-Signature-256", "sha256=")],
        vec![("X-Hub-Signature-256", forged.as_str())],
        vec![("X-Hub-Signature-256", good.as_str()), ("X-Hub-Signature-256", good.as_str())],
    ] {
        let answer = post(&url, &[vec![("X-GitHub-Event", "push")], headers.clone()].concat(), push()).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{headers:?}");
    }
    assert_eq!(running.logged(DRY_RUN, &[]), 0);
}

#[tokio::test]
async fn an_alias_serves_an_endpoint_as_well_and_verifies_like_its_hook_path() {
    let config = CONFIG.replace("keyPath: github.key", "keyPath: github.key, alias: /webhook");
    let running = FluxRecv::with_objects(&config, OBJECTS);
    running.wait_for_log("serving endpoint at its alias as well", &[("path", "/webhook")]);
    let at = |path: &str| format!("{}{path}", running.base);
    for (key, status) in [(test_key("github"), 202), ("another-key".to_owned(), 401)] {
        let signature = hub_signature(&key, &push());
        let headers = [("X-GitHub-Event", "push"), ("X-Hub-Signature-256", signature.as_str())];
        let answer = post(&at("/webhook"), &headers, push()).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.body.is_empty(), status == 401, "{}", answer.body);
        for unknown in ["/webhook/", "/Webhook", "//webhook", "/hook/webhook", "/webhook%2f"] {
            assert_eq!(post(&at(unknown), &headers, push()).await.status, 404, "{unknown}");
        }
    }
    assert_eq!(push_signed(&running, push(), &[]).await.status, 202, "its hook path stays");
    let (_, remembered) = running.get_admin("/deliveries").await;
    let remembered: Value = serde_json::from_str(&remembered).expect("JSON");
    let outcomes: Vec<_> =
        remembered["github"].as_array().into_iter().flatten().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes, ["accepted", "accepted"], "what a stranger sends to the alias is not remembered");
    let got = client().get(at("/webhook")).send().await.expect("an answer");
    assert_eq!(got.status(), 405);
}

// Incident 23.
#[tokio::test]
async fn paths_and_methods_are_exact() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let path = running.path("github");
    let get = |path: String| client().get(format!("{}{path}", running.base)).send();
    for unknown in [
        "/".to_owned(),
        "/hook/".to_owned(),
        format!("{path}/"),
        path.to_uppercase(),
        path[..path.len() - 1].to_owned(),
        "/metrics".to_owned(),
    ] {
        let response = get(unknown.clone()).await.expect("an answer");
        assert_eq!(response.status(), 404, "{unknown}");
        assert_eq!(response.text().await.expect("a body"), "", "no echo");
    }
    let response = get(path.clone()).await.expect("an answer");
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "POST");
    let with_query = format!("{}{path}?x=1", running.base);
    let signature = hub_signature(&test_key("github"), &push());
    let answer =
        post(&with_query, &[("X-GitHub-Event", "push"), ("X-Hub-Signature-256", &signature)], push()).await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn health_answers_as_before() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let response = client().get(format!("{}/health", running.base)).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.expect("a body"), "OK");
}

const LIMIT: usize = 8 * 1024 * 1024;

pub fn padded(length: usize) -> Vec<u8> {
    let mut body = push();
    body.resize(length, b' ');
    body
}

// Incidents 1 and 2.
#[tokio::test]
async fn the_body_limit_is_exact() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    assert_eq!(push_signed(&running, padded(LIMIT), &[]).await.status, 202);
    let answer = push_signed(&running, padded(LIMIT + 1), &[]).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.body, format!("{{\"limit\":{LIMIT},\"outcome\":\"too_large\"}}"));
}

// Incident 1.
#[tokio::test]
async fn chunked_bodies_have_the_same_limit() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let url = format!("{}{}", running.base, running.path("github"));
    let chunks =
        futures::stream::iter((0..LIMIT / 65536 + 1).map(|_| Ok::<_, std::io::Error>(vec![b' '; 65536])));
    let result = client().post(url).body(reqwest::Body::wrap_stream(chunks)).send().await;
    if let Ok(response) = result {
        assert_eq!(response.status(), 413);
    }
    assert_eq!(running.logged("body is too large", &[("outcome", "too_large")]), 1, "{}", running.log());
}

#[tokio::test]
async fn encoded_bodies_are_refused_and_never_inflated() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    for encoding in ["gzip", "br", "identity, gzip"] {
        assert_eq!(
            push_signed(&running, push(), &[("Content-Encoding", encoding)]).await.status,
            415,
            "{encoding}"
        );
    }
    assert_eq!(push_signed(&running, push(), &[("Content-Encoding", "identity")]).await.status, 202);
}

// Incident 3.
#[tokio::test]
async fn trailing_bytes_and_truncated_bodies_are_unreadable() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    for body in [[push(), b"}".to_vec()].concat(), push()[..20].to_vec(), b"null".to_vec(), Vec::new()] {
        let answer = push_signed(&running, body, &[]).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.body.contains("cannot read the payload"), "{}", answer.body);
    }
}

// Incidents 7 and 8.
#[tokio::test]
async fn forms_and_other_alphabets_are_verified_as_sent() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let text = String::from_utf8(push()).expect("text").replace("1111", "1111 🐙 ä");
    let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &text).finish();
    let content_type = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(push_signed(&running, form.into_bytes(), &[content_type]).await.status, 202);
    assert_eq!(push_signed(&running, text.into_bytes(), &[]).await.status, 202);
}

// Incident 1: strangers who know a path cannot fill the memory.
#[tokio::test]
async fn all_bodies_together_are_bounded() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let (address, path) = (running.base.trim_start_matches("http://").to_owned(), running.path("github"));
    let held = tokio::task::spawn_blocking(move || {
        let half = vec![b' '; LIMIT - 1];
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT}\r\n\r\n");
        let senders: Vec<TcpStream> = (0..5)
            .map(|_| {
                let mut stream = TcpStream::connect(&address).expect("a connection");
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&half);
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        senders
    });
    let senders = held.await.expect("a thread");
    let fields = [("outcome", "unavailable"), ("status", "503")];
    assert!(running.logged("delivery cannot be taken now", &fields) > 0, "{}", running.log());
    drop(senders);
    let mut status = 0;
    for _ in 0..50 {
        status = push_signed(&running, push(), &[]).await.status;
        if status == 202 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(status, 202, "there is room again");
}

// Incident 4.
#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let address = running.base.trim_start_matches("http://").to_owned();
    let cut = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        stream.write_all(b"POST /hook/x HTTP/1.1\r\nHost: x\r\n").expect("a half head");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| String::from_utf8_lossy(&answer).into_owned())
    });
    let answer = cut.await.expect("a thread").expect("the server ends the connection by itself");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

// Incidents 38, 40 and 41.
#[tokio::test]
async fn no_secret_reaches_the_log_after_startup() {
    let folder = super::running::folder(CONFIG);
    let manifests = folder.path().join("objects");
    std::fs::create_dir(&manifests).expect("a folder");
    std::fs::write(manifests.join("o.yaml"), OBJECTS).expect("objects");
    // Everything that flux-recv and its libraries can say.
    let running = FluxRecv::with_environment(
        folder,
        &["--manifests", &manifests.display().to_string()],
        &[("RUST_LOG", "trace")],
    );
    let signature = hub_signature(&test_key("github"), &push());
    push_signed(&running, push(), &[("Authorization", "Bearer test-bearer-token")]).await;
    push_signed(&running, b"{".to_vec(), &[]).await;
    post(
        &format!("{}{}", running.base, running.path("github")),
        &[("X-Hub-Signature-256", "sha256=c0ffee")],
        push(),
    )
    .await;
    client().get(format!("{}/hook/c0ffee-unknown", running.base)).send().await.expect("an answer");
    running.signal("-HUP");
    running.wait_for_log("config reloaded", &[]);
    let mut pages = String::new();
    for path in ["/metrics", "/config", "/deliveries"] {
        pages.push_str(&running.get_admin(path).await.1);
    }
    for secret in ["test-key", "sha256=", "Bearer", "c0ffee", "/hook/"] {
        assert!(!pages.contains(secret), "{secret} in {pages}");
    }
    let log: String = running.log().lines().filter(|line| !line.contains("\"serving endpoint\"")).collect();
    let after_startup = log.split("\"listening\"").nth(1).expect("lines after the start");
    let digest = running.path("github").trim_start_matches("/hook/").to_owned();
    for secret in [test_key("github").as_str(), &signature, "test-bearer-token", "c0ffee", &digest] {
        assert!(!after_startup.contains(secret), "{secret} in {after_startup}");
    }
    assert!(!log.contains(&test_key("github")));
}

#[tokio::test]
async fn answers_carry_json() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let url = format!("{}{}", running.base, running.path("hub"));
    let body =
        json!({"push_data": {"tag": "1"}, "repository": {"repo_name": "org/app"}}).to_string().into_bytes();
    let answer = post(&url, &[], body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    // Incident 29.
    assert_eq!(
        answer.body,
        "{\"event\":\"push of docker.io/org/app:1\",\"outcome\":\"unmatched\",\"reason\":\"no object references this image\",\"skipped\":[]}"
    );
    let fields =
        [("level", "warn"), ("detail", "push of docker.io/org/app:1: no object references this image")];
    assert_eq!(running.logged("delivery matches no object", &fields), 1, "{}", running.log());
}
