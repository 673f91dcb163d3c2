//! Messages of Amazon SNS: the signature stands in the JSON, under a certificate that the message
//! names.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use serde::Deserialize;
use webpki::EndEntityCert;

use super::fetch::Fetch;
use super::sns_address::parse;
use super::{Refusal, VerifyContext};
use crate::delivery::Delivery;

/// The certificates that SNS signs with, by their addresses.
pub struct Certificates {
    fetch: Arc<dyn Fetch>,
    slots: Mutex<HashMap<String, Arc<CertificateSlot>>>,
}

/// The certificate at a URL, or the time of the last failure.
struct CertificateSlot {
    /// Kept once a signature was verified with it: what anyone may name is worth nothing before.
    certificate: OnceLock<CertificateDer<'static>>,
    /// When the address was first named.
    since: Instant,
    /// When it was last fetched in vain. One fetch at a time: the second waiter finds what the first
    /// one brought.
    failed: tokio::sync::Mutex<Option<Instant>>,
}

/// The signed fields of a message, by the names of SNS.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnsMessage {
    r#type: String,
    message_id: String,
    topic_arn: String,
    subject: Option<String>,
    message: String,
    timestamp: String,
    signature_version: String,
    signature: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
    token: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
}

/// The time before a URL without a certificate is fetched again.
const CERTIFICATE_RETRY_DELAY: Duration = Duration::from_secs(30);

/// One for each region that topics are in; those who know a hook path could name any number of
/// addresses, and each would be a request.
const MAX_CERTIFICATES: usize = 32;

/// Checks that the message is of one of these topics and signed by SNS.
pub(super) async fn check(
    delivery: &Delivery<'_>,
    topics: &[String],
    tools: &VerifyContext,
) -> Result<(), Refusal> {
    if delivery.text("x-amz-sns-rawdelivery").is_some() {
        return Err(Refusal::unauthenticated(
            "the subscription delivers raw messages, which nobody signs; turn raw message delivery off",
        ));
    }
    // The very text that is read afterwards: of a form that would be one of its fields.
    let payload = delivery.payload().unwrap_or_default();
    let message: SnsMessage = serde_json::from_slice(&payload)
        .map_err(|_| Refusal::unauthenticated("the body is not a signed message of SNS"))?;
    if !topics.contains(&message.topic_arn) {
        return Err(Refusal::unauthenticated("the message is of a topic that the endpoint does not list"));
    }
    if !matches!(
        message.r#type.as_str(),
        "Notification" | "SubscriptionConfirmation" | "UnsubscribeConfirmation"
    ) {
        return Err(Refusal::unauthenticated("the message is of a type that SNS does not send"));
    }
    if message.has_line_breaks() {
        return Err(Refusal::unauthenticated(
            "a field of the message has a line break, which SNS does not write",
        ));
    }
    let certificate_url = certificate_url(&message.signing_cert_url, &message.topic_arn)
        .ok_or_else(|| Refusal::unauthenticated("the certificate is not where SNS keeps its own"))?;
    let signature = STANDARD
        .decode(&message.signature)
        .map_err(|_| Refusal::unauthenticated("the field Signature holds no signature"))?;
    let algorithm = match message.signature_version.as_str() {
        "1" => SnsSignatureVersion::Sha1,
        "2" => SnsSignatureVersion::Sha256,
        _ => return Err(Refusal::unauthenticated("the signature is of a version that is not known")),
    };
    let slot = tools.certificates.slot(&certificate_url)?;
    let certificate = tools.certificates.get(&slot, &certificate_url).await?;
    let parsed = EndEntityCert::try_from(&certificate)
        .map_err(|_| Refusal::CannotCheck("the certificate of SNS cannot be read".to_owned()))?;
    parsed.verify_signature(&algorithm, message.signed_text().as_bytes(), &signature).map_err(|_| {
        Refusal::unauthenticated("the signature is not that of this message under the certificate of SNS")
    })?;
    let _ = slot.certificate.set(certificate);
    Ok(())
}

/// The address of a certificate, without its fragment, if it is one that SNS has for messages of the topic.
fn certificate_url(written: &str, topic_arn: &str) -> Option<String> {
    // arn:aws:sns:REGION:ACCOUNT:NAME
    let region = topic_arn.split(':').nth(3)?;
    let mut url = parse(written)?;
    url.set_fragment(None);
    let host = url.host_str()?.strip_prefix("sns.")?.strip_prefix(region)?;
    let is_host = matches!(host, ".amazonaws.com" | ".amazonaws.com.cn");
    let number = url.path().strip_prefix(CERTIFICATE_PATH_PREFIX)?.strip_suffix(".pem")?;
    let is_path =
        !number.is_empty() && number.len() <= 64 && number.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_host && is_path && url.query().is_none()).then(|| url.to_string())
}

/// The beginning of the paths of certificates; a number in hex follows.
const CERTIFICATE_PATH_PREFIX: &str = "/SimpleNotificationService-";

impl SnsMessage {
    /// Whether a field has a line break that SNS puts into none. The fields are signed as lines, so that
    /// one with a line break could be read as others: a message of the attacker's own topic as one of
    /// another topic.
    fn has_line_breaks(&self) -> bool {
        let SnsMessage { r#type, message_id, topic_arn, timestamp, token, subscribe_url, .. } = self;
        let fields = [
            Some(r#type),
            Some(message_id),
            Some(topic_arn),
            Some(timestamp),
            token.as_ref(),
            subscribe_url.as_ref(),
        ];
        fields.into_iter().flatten().any(|field| field.contains(['\n', '\r']))
    }

    /// The fields that are there, each as its name and its value on lines of their own, by name.
    fn signed_text(&self) -> String {
        let SnsMessage {
            r#type,
            message_id,
            topic_arn,
            subject,
            message,
            timestamp,
            token,
            subscribe_url,
            ..
        } = self;
        // A notification has neither of the two, whatever stands there.
        let is_notification = r#type == "Notification";
        let fields = [
            ("Message", Some(message)),
            ("MessageId", Some(message_id)),
            ("Subject", subject.as_ref().filter(|_| is_notification)),
            ("SubscribeURL", subscribe_url.as_ref().filter(|_| !is_notification)),
            ("Timestamp", Some(timestamp)),
            ("Token", token.as_ref().filter(|_| !is_notification)),
            ("TopicArn", Some(topic_arn)),
            ("Type", Some(r#type)),
        ];
        let present = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        present.map(|(name, value)| format!("{name}\n{value}\n")).collect()
    }
}

impl Certificates {
    /// Certificates that will be fetched with this transport.
    pub fn new(fetch: Arc<dyn Fetch>) -> Certificates {
        Certificates { fetch, slots: Mutex::default() }
    }

    /// The certificate at an address: the one that is kept, or a new one.
    async fn get(&self, slot: &CertificateSlot, url: &str) -> Result<CertificateDer<'static>, Refusal> {
        if let Some(certificate) = slot.certificate.get() {
            return Ok(certificate.clone());
        }
        let mut failed = slot.failed.lock().await;
        if let Some(certificate) = slot.certificate.get() {
            return Ok(certificate.clone());
        }
        if failed.is_some_and(|failed| failed.elapsed() < CERTIFICATE_RETRY_DELAY) {
            return Err(cannot("its address brought none a moment ago"));
        }
        // Stands until the fetch is through, also for a provider that hangs up.
        *failed = Some(Instant::now());
        let pem = self.fetch.get(url).await.map_err(|err| cannot(&err.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(&pem)
            .map_err(|_| cannot("its address answers with something else"))?;
        *failed = None;
        Ok(certificate)
    }

    /// The slot of an address. Where there are too many, the oldest without a certificate gives way, then
    /// the oldest of all: SNS has a new certificate every year or so.
    fn slot(&self, url: &str) -> Result<Arc<CertificateSlot>, Refusal> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(url) {
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= MAX_CERTIFICATES {
            let age = |slot: &CertificateSlot| (slot.certificate.get().is_some(), slot.since);
            let oldest = slots.iter().min_by_key(|(_, slot)| age(slot)).map(|(url, _)| url.clone());
            oldest.map(|url| slots.remove(&url));
        }
        let slot = CertificateSlot {
            certificate: OnceLock::new(),
            since: Instant::now(),
            failed: tokio::sync::Mutex::default(),
        };
        Ok(Arc::clone(slots.entry(url.to_owned()).or_insert_with(|| Arc::new(slot))))
    }
}

fn cannot(why: &str) -> Refusal {
    Refusal::CannotCheck(format!("the certificate of SNS cannot be had: {why}"))
}

/// The two ways in which SNS signs; the first is still its default.
#[derive(Debug, Clone, Copy)]
enum SnsSignatureVersion {
    Sha1,
    Sha256,
}

impl SignatureVerificationAlgorithm for SnsSignatureVersion {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let algorithm = match self {
            SnsSignatureVersion::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            SnsSignatureVersion::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, public_key).verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    /// The algorithm of a certificate that is signed in this way; a bare signature has none.
    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_PKCS1_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST_TOPIC_ARN: &str = "arn:aws:sns:us-east-1:123456789012:flux";

    #[test]
    fn only_certificates_of_sns_for_the_region_are_fetched() {
        let good = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0a1b.pem";
        assert_eq!(certificate_url(good, TEST_TOPIC_ARN).as_deref(), Some(good));
        assert_eq!(
            certificate_url(&format!("{good}#1"), TEST_TOPIC_ARN).as_deref(),
            Some(good),
            "one slot for all of them"
        );
        let china = "https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1.pem";
        assert!(certificate_url(china, "arn:aws-cn:sns:cn-north-1:1:flux").is_some());
        assert!(parse("https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription").is_some());
        for bad in [
            "http://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem?y=.txt&a",
            "https://sns.us-east-2.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.us-east-1x.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.us-east-1.amazonaws.com.evil.example/SimpleNotificationService-1.pem",
            "https://evil.example/sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.us-east-1.amazonaws.com@evil.example/SimpleNotificationService-1.pem",
            "https://user:x@sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.us-east-1.amazonaws.com:8443/SimpleNotificationService-1.pem",
            "https://s3.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem/other",
            "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-xyz.pem",
            "https://sns.us-east-1.amazonaws.com/other/SimpleNotificationService-1.pem",
            "",
        ] {
            assert!(certificate_url(bad, TEST_TOPIC_ARN).is_none(), "{bad}");
        }
    }

    // The attack: what Amazon signed for one topic reads as a message of another.
    #[test]
    fn two_messages_with_one_signed_text_are_told_apart() {
        let message =
            |fields: serde_json::Value| serde_json::from_value::<SnsMessage>(fields).expect("a message");
        let of_attacker = message(serde_json::json!({
            "Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:us-east-1:6:own", "Timestamp": "t",
            "Message": "hello\nMessageId\n1\nTimestamp\nt\nTopicArn\narn:aws:sns:us-east-1:1:victim\nType\nNotification",
            "SignatureVersion": "2", "Signature": "", "SigningCertURL": "",
        }));
        let rest = "Notification\nMessageId\n1\nTimestamp\nt\nTopicArn\narn:aws:sns:us-east-1:6:own\nType\nNotification";
        let of_victim = message(serde_json::json!({
            "Type": rest, "MessageId": "1", "TopicArn": "arn:aws:sns:us-east-1:1:victim", "Timestamp": "t",
            "Message": "hello", "SignatureVersion": "2", "Signature": "", "SigningCertURL": "",
        }));
        assert_eq!(of_attacker.signed_text(), of_victim.signed_text(), "one signature is good for both");
        assert!(!of_attacker.has_line_breaks(), "a message may have any number of lines");
        assert!(of_victim.has_line_breaks());
    }
}
