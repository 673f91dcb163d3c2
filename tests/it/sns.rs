//! Messages of Amazon SNS, signed here with a labelled key under a certificate that is handed in.

use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};

use super::google::{InProcess, serve, test_key};
use super::running::client;
use super::web::{CERTIFICATE, Web, with};

pub const TOPIC: &str = "arn:aws:sns:us-west-2:123456789012:MyTopic";
pub const CERTIFICATE_URL: &str =
    "https://sns.us-west-2.amazonaws.com/SimpleNotificationService-0123abcd.pem";
const SUBSCRIBE_URL: &str =
    "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&Token=test-subscribe-token";

const OBJECTS: &str = "
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: app, namespace: apps}
spec: {url: 'ssh://git@git-codecommit.us-west-2.amazonaws.com/v1/repos/app', ref: {branch: main}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: Bucket
metadata: {name: flux, namespace: apps}
spec: {bucketName: flux, endpoint: s3.amazonaws.com, provider: aws, prefix: apps/}
";

fn config() -> String {
    format!(
        "fluxRecvVersion: 1\nendpoints:\n- {{source: SNS, keyPath: sns.key, topicArn: '{TOPIC}'}}\n\
         - {{source: SNS, keyPath: listed.key, topicArn: '{TOPIC}', resources: [{{kind: Bucket}}]}}\n"
    )
}

/// Signs a message as Amazon does, in the second version of its signature.
pub fn signed(message: Value) -> Value {
    let text = signed_text(&message);
    let key = test_key();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), text.as_bytes(), &mut signature)
        .expect("a signature");
    let signed = with(message, "SignatureVersion", json!("2"));
    let signed = with(signed, "Signature", json!(STANDARD.encode(signature)));
    with(signed, "SigningCertURL", json!(CERTIFICATE_URL))
}

/// The same in the first version, which Amazon still signs with by default: over SHA-1, which ring
/// verifies and does not make.
fn signed_the_old_way(message: Value) -> Value {
    let newer = signed(message);
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text");
    std::fs::write(&text, signed_text(&newer)).expect("a file");
    let key = super::running::project().join("tests/fixtures/rsa-key-for-tests-only.pem");
    let output = Command::new("openssl").args(["dgst", "-sha1", "-sign"]).arg(key).arg(text).output();
    let output = output.expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let signed = with(newer, "SignatureVersion", json!("1"));
    with(signed, "Signature", json!(STANDARD.encode(output.stdout)))
}

fn signed_text(message: &Value) -> String {
    let names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];
    names.iter().filter_map(|name| Some(format!("{name}\n{}\n", message.get(*name)?.as_str()?))).collect()
}

/// A notification that carries this text.
pub fn notification(text: &str) -> Value {
    json!({"Type": "Notification", "MessageId": "1", "TopicArn": TOPIC, "Message": text, "Timestamp": "2026-01-01T00:00:00.000Z"})
}

fn push() -> Value {
    let records = json!({"Records": [{"eventSource": "aws:codecommit", "eventName": "ReferenceChange",
        "eventSourceARN": "arn:aws:codecommit:us-west-2:123456789012:app",
        "codecommit": {"references": [{"ref": "refs/heads/main", "commit": "1a"}]}}]});
    notification(&records.to_string())
}

pub fn web() -> Web {
    Web::default().with(CERTIFICATE_URL, CERTIFICATE)
}

async fn post(receiver: &InProcess, endpoint: &str, body: &str, raw: bool) -> (u16, Value) {
    let path = receiver.service.registry.get().endpoints.named(endpoint).expect("the endpoint").path();
    let mut request = client()
        .post(format!("{}{path}", receiver.base))
        .header("Content-Type", "text/plain; charset=UTF-8")
        .header("x-amz-sns-message-type", "Notification")
        .body(body.to_owned());
    if raw {
        request = request.header("x-amz-sns-rawdelivery", "true");
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.expect("a body")).unwrap_or_default())
}

#[tokio::test]
async fn messages_are_accepted_under_the_certificate_of_amazon_and_no_other() {
    let receiver = serve(&config(), OBJECTS, web().put_up()).await;
    let (status, answer) = post(&receiver, "sns", &signed(push()).to_string(), false).await;
    assert_eq!((status, &answer["targets"]), (202, &json!(["GitRepository/apps/app"])), "{answer}");
    let s3 = json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "flux"}, "object": {"key": "apps/a+b.yaml"}}}]});
    let (_, answer) = post(&receiver, "sns", &signed(notification(&s3.to_string())).to_string(), false).await;
    assert_eq!(answer["targets"], json!(["Bucket/apps/flux"]), "{answer}");
    let subject = with(push(), "Subject", json!("AWS CodeCommit"));
    assert_eq!(
        post(&receiver, "sns", &signed(subject).to_string(), false).await.0,
        202,
        "a subject is signed, too"
    );

    let old = signed_the_old_way(push());
    assert_eq!(post(&receiver, "sns", &old.to_string(), false).await.0, 202, "the first version");
    let good = signed(push());
    for bad in [
        with(old.clone(), "Message", json!("{}")),
        with(old, "SignatureVersion", json!("2")),
        push(),
        with(good.clone(), "Message", json!("{}")),
        with(good.clone(), "Timestamp", json!("2026-01-02T00:00:00.000Z")),
        with(good.clone(), "Type", json!("SubscriptionConfirmation")),
        with(good.clone(), "Subject", json!("added")),
        with(good.clone(), "Signature", json!("")),
        with(good.clone(), "Signature", json!("AAAA")),
        with(good.clone(), "SignatureVersion", json!("1")),
        with(good.clone(), "SignatureVersion", json!("3")),
        with(good.clone(), "SigningCertURL", json!("https://evil.example/x.pem")),
        with(good.clone(), "SigningCertURL", json!("https://sns.us-west-2.amazonaws.com.evil.example/x.pem")),
        signed(with(push(), "TopicArn", json!("arn:aws:sns:us-west-2:999999999999:MyTopic"))),
    ] {
        let (status, answer) = post(&receiver, "sns", &bad.to_string(), false).await;
        assert_eq!((status, answer), (401, Value::Null), "{bad}");
    }
    assert_eq!(post(&receiver, "sns", &good.to_string(), true).await.0, 401, "raw messages are not signed");
    assert_eq!(post(&receiver, "sns", &good.to_string()[1..], false).await.0, 401);
}

/// What is signed is what is read: a field that nobody signs can hold a whole form.
#[tokio::test]
async fn a_message_within_a_form_within_a_message_is_not_read() {
    let receiver = serve(&config(), OBJECTS, web().put_up()).await;
    let forged = notification(&json!({"Records": []}).to_string()).to_string();
    let field: String = url::form_urlencoded::byte_serialize(forged.as_bytes()).collect();
    let mut carrier = signed(push());
    carrier["aaa"] = json!(format!("&payload={field}&"));
    let path = receiver.service.registry.get().endpoints.named("sns").expect("the endpoint").path();
    let request = client().post(format!("{}{path}", receiver.base)).body(carrier.to_string());
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(request.send().await.expect("an answer").status().as_u16(), 401);
    // As a form a signed message is as good as any.
    let form = format!(
        "payload={}",
        url::form_urlencoded::byte_serialize(signed(push()).to_string().as_bytes()).collect::<String>()
    );
    let request = client().post(format!("{}{path}", receiver.base)).body(form);
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(request.send().await.expect("an answer").status().as_u16(), 202);
}

#[tokio::test]
async fn other_messages_request_what_the_endpoint_lists() {
    let receiver = serve(&config(), OBJECTS, web().put_up()).await;
    let hello = signed(notification("Hello world!")).to_string();
    let pipeline = json!({"source": "aws.codepipeline", "detail-type": "CodePipeline Pipeline Execution State Change", "detail": {"state": "SUCCEEDED"}});
    let record = json!({"Records": [{"eventSource": "aws:ses", "ses": {}}]});
    for other in [
        hello.clone(),
        signed(notification(&pipeline.to_string())).to_string(),
        signed(notification(&record.to_string())).to_string(),
    ] {
        assert_eq!(post(&receiver, "listed", &other, false).await.1["targets"], json!(["Bucket/apps/flux"]));
    }
    assert_eq!(post(&receiver, "sns", &hello, false).await.1["outcome"], json!("unmatched"));
}

// Incident 21.
#[tokio::test]
async fn a_subscription_is_confirmed_for_the_configured_topic_only() {
    let web = web().with(SUBSCRIBE_URL, "<ConfirmSubscriptionResponse/>").put_up();
    let receiver = serve(&config(), OBJECTS, web.clone()).await;
    let confirmation = |url: &str| {
        let message =
            with(notification("You have chosen to subscribe"), "Type", json!("SubscriptionConfirmation"));
        with(with(message, "SubscribeURL", json!(url)), "Token", json!("test-subscribe-token"))
    };
    let (status, answer) =
        post(&receiver, "sns", &signed(confirmation(SUBSCRIBE_URL)).to_string(), false).await;
    assert_eq!((status, answer), (200, json!({"outcome": "confirmed"})));
    assert!(web.fetched.lock().expect("a list").iter().any(|url| url == SUBSCRIBE_URL));

    let other = with(confirmation(SUBSCRIBE_URL), "TopicArn", json!("arn:aws:sns:us-west-2:1:Other"));
    assert_eq!(post(&receiver, "sns", &signed(other).to_string(), false).await.0, 401);
    assert_eq!(
        post(&receiver, "sns", &confirmation(SUBSCRIBE_URL).to_string(), false).await.0,
        401,
        "unsigned"
    );
    let (status, _) =
        post(&receiver, "sns", &signed(confirmation("https://evil.example/?x")).to_string(), false).await;
    assert_eq!(status, 400, "signed, and yet no URL that may be fetched");
    let fetched = web.fetched.lock().expect("a list").clone();
    assert!(fetched.iter().all(|url| url == SUBSCRIBE_URL || url == CERTIFICATE_URL), "{fetched:?}");

    let (status, answer) =
        post(&receiver, "sns", &signed(confirmation(&format!("{SUBSCRIBE_URL}2"))).to_string(), false).await;
    assert_eq!(status, 503, "the address does not answer: {answer}");
}

#[tokio::test]
async fn without_the_certificate_nothing_is_accepted_and_the_provider_may_send_again() {
    let receiver =
        serve(&config(), OBJECTS, Web::default().with(CERTIFICATE_URL, "no certificate").put_up()).await;
    assert_eq!(post(&receiver, "sns", &signed(push()).to_string(), false).await.0, 503);
}
