//! Captured payloads of the providers: each gets the right answer, and
//! its forged, truncated, unsigned and bit-flipped twins get 401 or 400 and request nothing.
//!
//! The captures are under several licences, so none is part of the project: `FLUX_RECV_PAYLOADS` names
//! their folder, and without it the test is ignored.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flux_recv::internals::Authentication;
use flux_recv::internals::Delivery;
use flux_recv::internals::Endpoint;
use flux_recv::internals::Key;
use flux_recv::internals::Subject;
use flux_recv::internals::sign;
use flux_recv::internals::{Credentials, Requirement};
use serde_json::Value;

use super::google::{AUDIENCE, EMAIL, good_token, key_set, serve};
use super::running::client;
use super::sns::{self, TOPIC};
use super::web::with;

/// Folder of the captures, and the endpoint that gets them.
const PROVIDER_NAMES: &[(&str, &str)] = &[
    ("github", "github"),
    ("ghcr", "github"),
    ("gitlab", "gitlab"),
    ("bitbucket-cloud", "cloud"),
    ("bitbucket-server", "server"),
    ("gitea", "gitea"),
    ("forgejo", "forgejo"),
    ("gogs", "gogs"),
    ("dockerhub", "hub"),
    ("quay", "quay"),
    ("harbor", "harbor"),
    ("nexus", "nexus"),
    ("gcr", "gcr"),
    ("azure-devops", "azure"),
    ("acr", "acr"),
    ("ecr", "bridge"),
    ("codecommit", "bridge"),
    ("s3", "bridge"),
    ("sns", "sns"),
    ("gcs", "gcs"),
    ("cdevents", "cdevents"),
    ("distribution", "distribution"),
    ("zot", "zot"),
    ("minio", "minio"),
    ("standard-webhooks", "standard"),
    ("generic", "generic"),
    ("generic-hmac", "generic-hmac"),
];

/// For providers that do not say what they are about.
const LISTED: &str = "resources: [{kind: Bucket, name: minio}]";

fn config() -> String {
    format!(
        "fluxRecvVersion: 1\nendpoints:\n- {{source: GitHub, keyPath: github.key}}\n- {{source: GitLab, keyPath: gitlab.key}}\n\
         - {{source: BitbucketCloud, keyPath: cloud.key}}\n- {{source: BitbucketServer, keyPath: server.key}}\n\
         - {{source: Gitea, keyPath: gitea.key}}\n- {{source: Forgejo, keyPath: forgejo.key}}\n- {{source: Gogs, keyPath: gogs.key}}\n\
         - {{source: DockerHub, keyPath: hub.key}}\n- {{source: Quay, keyPath: quay.key}}\n\
         - {{source: Harbor, keyPath: harbor.key, registryHost: harbor.example.com}}\n\
         - {{source: Nexus, keyPath: nexus.key, registryHost: container.example.com}}\n\
         - {{source: AzureDevOps, keyPath: azure.key, auth: basic}}\n- {{source: ACR, keyPath: acr.key, auth: {{header: X-Key}}, registryHost: example.azurecr.io}}\n\
         - {{source: EventBridge, keyPath: bridge.key, auth: {{header: X-Key}}}}\n- {{source: SNS, keyPath: sns.key, topicArn: '{TOPIC}'}}\n\
         - {{source: CDEvents, keyPath: cdevents.key, auth: bearer}}\n- {{source: GCS, keyPath: gcs.key, pubsub: {{audience: \"{AUDIENCE}\", email: \"{EMAIL}\"}}}}\n- {{source: distribution, keyPath: distribution.key, auth: bearer}}\n\
         - {{source: zot, keyPath: zot.key, auth: {{basic: zot}}, registryHost: zot.example.com}}\n\
         - {{source: MinIO, keyPath: minio.key, auth: bearer}}\n- {{source: StandardWebhooks, keyPath: standard.key, {LISTED}}}\n\
         - {{source: generic, keyPath: generic.key, auth: bearer, {LISTED}}}\n\
         - {{source: generic-hmac, keyPath: generic-hmac.key, {LISTED}}}\n\
         - source: GoogleContainerRegistry\n  keyPath: gcr.key\n  gcr: {{audience: \"{AUDIENCE}\", email: \"{EMAIL}\"}}\n"
    )
}

/// One object for each of some captures, so that the answer names it.
const OBJECTS: &str = include_str!("payloads/objects.yaml");

/// What each capture is answered: `path | status | outcome | event or reason | objects`.
const ANSWERS: &str = include_str!("payloads/answers.txt");

struct Capture {
    name: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Headers as captured, without those that prove something: those are made anew.
fn captures(folder: &Path, provider: &str) -> Vec<Capture> {
    let mut captures = Vec::new();
    for entry in std::fs::read_dir(folder.join(provider)).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let headers = std::fs::read_to_string(path.with_extension("headers.txt")).unwrap_or_default();
        let is_proof = |name: &str| {
            let name = name.to_lowercase();
            ["signature", "token"].iter().any(|part| name.contains(part))
                || ["webhook-", "svix-"].iter().any(|prefix| name.starts_with(prefix))
                || ["authorization", "host"].contains(&name.as_str())
        };
        let lines =
            headers.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
        let headers = lines
            .filter(|(name, _)| !is_proof(name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let name = format!("{provider}/{}", path.file_stem().expect("a name").to_string_lossy());
        captures.push(Capture { name, headers, body: std::fs::read(&path).expect("a body") });
    }
    captures.sort_by(|left, right| left.name.cmp(&right.name));
    captures
}

/// What a service hands to SNS comes in a message of SNS.
fn is_handed_to_sns(name: &str) -> bool {
    let of_service = ["codecommit/", "s3/"].iter().any(|service| name.starts_with(service));
    name.starts_with("sns/") || (of_service && !name.contains("/eventbridge-"))
}

/// A message of SNS as Amazon would have signed it: the capture, or one that carries it.
fn message_of_sns(body: &[u8]) -> Value {
    let text = String::from_utf8_lossy(body);
    let captured: Value = serde_json::from_str(&text).unwrap_or_default();
    match captured.get("Type").is_some() {
        true => sns::signed(with(captured, "TopicArn", TOPIC.into())),
        false => sns::signed(sns::notification(&text)),
    }
}

/// Some captures were kept without the header that names the event.
fn add_event_header(endpoint: &Endpoint, name: &str, headers: &mut Vec<(String, String)>) {
    // Those of objects alone are what Eventarc would send.
    let of_object =
        name.starts_with("gcs/object-").then_some(("ce-type", "google.cloud.storage.object.v1.finalized"));
    let usual = endpoint.provider.event_header.map(|header| (header.names[0], header.usual));
    let Some((header, usual)) = usual.or(of_object) else { return };
    if headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case(header)) {
        headers.push((header.to_owned(), usual.to_owned()));
    }
}

fn authentication(
    endpoint: &Endpoint,
    headers: &[(String, String)],
    body: &[u8],
    credentials: &Credentials,
) -> Vec<(String, String)> {
    if matches!(endpoint.provider.authentication, Authentication::GoogleIdentity) {
        return vec![("Authorization".to_owned(), format!("Bearer {}", good_token()))];
    }
    let headers = headers.to_vec();
    let delivery = Delivery { headers: &headers, body };
    sign(&delivery, endpoint.provider.authentication, credentials, SystemTime::now())
        .expect("a authentication")
}

async fn post(
    url: &str,
    headers: &[(String, String)],
    authentication: &[(String, String)],
    body: Vec<u8>,
) -> (u16, Value) {
    let mut request = client().post(url).body(body);
    for (name, value) in headers.iter().chain(authentication) {
        request = request.header(name, value);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.expect("a body")).unwrap_or_default())
}

fn line(name: &str, status: u16, answer: &Value) -> String {
    let text = |field: &str| answer[field].as_str().map(str::to_owned);
    let what = text("event").or(text("reason")).unwrap_or_default();
    let mut targets: Vec<&str> =
        answer["targets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    targets.sort_unstable();
    format!("{name} | {status} | {} | {what} | {}", text("outcome").unwrap_or_default(), targets.join(" "))
        .trim_end_matches([' ', '|'])
        .to_owned()
}

#[tokio::test]
#[ignore = "reads captured payloads, the folder FLUX_RECV_PAYLOADS"]
async fn captures_get_the_right_answer_and_their_twins_get_none() {
    let folder = std::env::var_os("FLUX_RECV_PAYLOADS").expect("FLUX_RECV_PAYLOADS names the captures");
    let folder = PathBuf::from(folder);
    let folders =
        std::fs::read_dir(&folder).expect("a folder").flatten().filter(|entry| entry.path().is_dir());
    for provider in folders.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        assert!(
            PROVIDER_NAMES.iter().any(|(known, _)| *known == provider),
            "nobody takes the captures of {provider}"
        );
    }
    let web = sns::web().with("https://www.googleapis.com/oauth2/v3/certs", key_set().to_string()).put_up();
    let receiver = serve(&config(), OBJECTS, web).await;
    let stranger = |expects: &Requirement| Credentials {
        expects: expects.clone(),
        ..Credentials::from_key(Key::new("test.key", b"a-key-that-nobody-knows".to_vec()).expect("a key"))
    };
    let (mut lines, mut table) = (Vec::new(), Vec::new());
    for (provider, endpoint) in PROVIDER_NAMES {
        let serving = receiver.service.registry.get();
        let mut counts = Counts::default();
        for Capture { name, mut headers, body } in captures(&folder, provider) {
            let endpoint = if is_handed_to_sns(&name) { "sns" } else { endpoint };
            let endpoint = serving.endpoints.named(endpoint).expect("an endpoint");
            let url = format!("{}{}", receiver.base, endpoint.path());
            add_event_header(endpoint, &name, &mut headers);
            let (status, answer);
            if is_handed_to_sns(&name) {
                let message = message_of_sns(&body);
                (status, answer) = post(&url, &headers, &[], message.to_string().into_bytes()).await;
                counts.refused += check_twins_of_a_message(&url, &name, &headers, &message).await;
            } else {
                let good = authentication(endpoint, &headers, &body, &endpoint.credentials);
                (status, answer) = post(&url, &headers, &good, body.clone()).await;
                let stranger = stranger(&endpoint.credentials.expects);
                counts.refused += check_twins(endpoint, &url, &name, &headers, &good, &body, &stranger).await;
            }
            match answer["outcome"].as_str() {
                Some("accepted" | "unmatched") => counts.accepted += 1,
                Some("unreadable") => counts.unreadable += 1,
                _ => counts.ignored += 1,
            }
            lines.push(line(&name, status, &answer));
        }
        let Counts { accepted, ignored, unreadable, refused } = counts;
        table.push(format!("| {provider} | {accepted} | {ignored} | {unreadable} | {refused} |"));
    }
    println!(
        "| captures of | read | ignored | unreadable | twins refused |\n| --- | --- | --- | --- | --- |\n{}",
        table.join("\n")
    );
    let expected: Vec<&str> = ANSWERS.lines().filter(|line| !line.is_empty()).collect();
    if lines != expected {
        let written = lines.join("\n");
        for (is, should) in
            lines.iter().map(String::as_str).zip(expected.iter()).filter(|(is, should)| is != *should)
        {
            eprintln!("is:     {is}\nshould: {should}");
        }
        panic!("{} answers, {} expected; all of them:\n{written}", lines.len(), expected.len());
    }
}

/// What became of the captures of a provider, and how many of their twins were refused.
#[derive(Default)]
struct Counts {
    accepted: usize,
    ignored: usize,
    unreadable: usize,
    refused: usize,
}

/// The authentication of a message of SNS stands in it.
async fn check_twins_of_a_message(
    url: &str,
    name: &str,
    headers: &[(String, String)],
    message: &Value,
) -> usize {
    let whole = message.to_string();
    let mut stripped = message.clone();
    stripped.as_object_mut().expect("a mapping").remove("Signature");
    let forged = with(message.clone(), "Message", "{\"Records\":[]}".into());
    let foreign =
        with(message.clone(), "SigningCertURL", "https://evil.example/SimpleNotificationService.pem".into());
    let twins =
        [whole[..whole.len() / 2].to_owned(), stripped.to_string(), forged.to_string(), foreign.to_string()];
    for twin in &twins {
        let (status, answer) = post(url, headers, &[], twin.clone().into_bytes()).await;
        assert_eq!((status, answer), (401, Value::Null), "{name}: {twin}");
    }
    twins.len()
}

async fn check_twins(
    endpoint: &Endpoint,
    url: &str,
    name: &str,
    headers: &[(String, String)],
    good: &[(String, String)],
    body: &[u8],
    stranger: &Credentials,
) -> usize {
    let mut refused = 2;
    let signs_the_body = matches!(
        endpoint.provider.authentication,
        Authentication::Hmac(_) | Authentication::TokenOrHmac(_) | Authentication::StandardWebhooks
    );
    let reads_the_body = !endpoint.provider.subjects.contains(&Subject::Selection);
    let is_unread = |status: u16, answer: &Value| {
        status == 400 || is_ignored_by_its_header(status, answer) || (!reads_the_body && status == 202)
    };
    let half = body[..body.len() / 2].to_vec();
    let mut flipped = body.to_vec();
    let first = flipped.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or_default();
    flipped[first] ^= 1;

    // Cut and signed anew: authentic, and unreadable.
    let signed_half = authentication(endpoint, headers, &half, &endpoint.credentials);
    let (status, answer) = post(url, headers, &signed_half, half.clone()).await;
    assert!(is_unread(status, &answer), "{name} truncated: {status} {answer}");

    let (status, answer) = post(url, headers, good, flipped).await;
    match signs_the_body {
        true => assert_eq!(status, 401, "{name} bit-flipped"),
        false => assert!(is_unread(status, &answer), "{name} bit-flipped: {status} {answer}"),
    }
    if signs_the_body {
        assert_eq!(post(url, headers, good, half).await.0, 401, "{name} truncated on its way");
        refused += 1;
    }
    if endpoint.is_authenticated() {
        let (status, answer) = post(url, headers, &[], body.to_vec()).await;
        assert_eq!((status, answer), (401, Value::Null), "{name} unsigned");
        let forged = match endpoint.provider.authentication {
            Authentication::GoogleIdentity => vec![("Authorization".to_owned(), format!("{}x", good[0].1))],
            _ => authentication(endpoint, headers, body, stranger),
        };
        let (status, answer) = post(url, headers, &forged, body.to_vec()).await;
        assert_eq!((status, answer), (401, Value::Null), "{name} forged");
        refused += 2;
    }
    refused
}

/// A ping, or an event without interest, is told by its header alone; its body is never read.
fn is_ignored_by_its_header(status: u16, answer: &Value) -> bool {
    status == 200 && (answer["outcome"] == "pong" || answer["outcome"] == "ignored")
}
