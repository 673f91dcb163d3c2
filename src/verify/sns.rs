//! Messages of Amazon SNS: the signature stands in the JSON, under a certificate that the message
//! names.
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use serde::Deserialize;
use webpki::EndEntityCert;

use super::fetch::Fetch;
use super::sns_address::of_sns;
use super::{Refusal, Tools};
use crate::delivery::Delivery;

/// The certificates that SNS signs with, by their addresses.
pub struct Certificates {
    fetch: Arc<dyn Fetch>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// What is at an address.
#[derive(Default)]
struct Slot {
    certificate: OnceLock<CertificateDer<'static>>,
    /// When it was last fetched in vain. One fetch at a time: the second waiter finds what the first
    /// one brought.
    failed: tokio::sync::Mutex<Option<Instant>>,
}

/// What of a message is signed, by the names of SNS.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Message {
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

/// How long an address without a certificate is not asked again.
const PAUSE_AFTER_A_FAILURE: Duration = Duration::from_secs(30);

/// One for each region that topics are in; those who know a hook path could name any number of
/// addresses, and each would be a request.
const MOST_CERTIFICATES: usize = 32;

/// Checks that the message is of one of these topics and signed by SNS.
pub(super) async fn check(delivery: &Delivery<'_>, topics: &[String], tools: &Tools) -> Result<(), Refusal> {
    if delivery.text("x-amz-sns-rawdelivery").is_some() {
        return Err(Refusal::unproved(
            "the subscription delivers raw messages, which nobody signs; turn raw message delivery off",
        ));
    }
    // The very text that is read afterwards: of a form that would be one of its fields.
    let payload = delivery.payload().unwrap_or_default();
    let message: Message = serde_json::from_slice(&payload)
        .map_err(|_| Refusal::unproved("the body is no signed message of SNS"))?;
    if !topics.contains(&message.topic_arn) {
        return Err(Refusal::unproved("the message is of a topic that the endpoint does not list"));
    }
    if !is_certificate(&message.signing_cert_url) {
        return Err(Refusal::unproved("the certificate is not where SNS keeps its own"));
    }
    let signature = STANDARD
        .decode(&message.signature)
        .map_err(|_| Refusal::unproved("the field Signature holds no signature"))?;
    let algorithm = match message.signature_version.as_str() {
        "1" => Rsa::Sha1,
        "2" => Rsa::Sha256,
        _ => return Err(Refusal::unproved("the signature is of a version that is not known")),
    };
    let certificate = tools.certificates.get(&message.signing_cert_url).await?;
    let certificate = certificate.certificate.get().ok_or_else(|| cannot("it was not fetched"))?;
    let certificate = EndEntityCert::try_from(certificate)
        .map_err(|_| Refusal::CannotCheck("the certificate of SNS cannot be read".to_owned()))?;
    certificate.verify_signature(&algorithm, message.signed_text().as_bytes(), &signature).map_err(|_| {
        Refusal::unproved("the signature is not that of this message under the certificate of SNS")
    })
}

fn is_certificate(url: &str) -> bool {
    of_sns(url).is_some_and(|url| url.query().is_none() && url.path().ends_with(".pem"))
}

impl Message {
    /// The fields that are there, each as its name and its value on lines of their own, by name.
    fn signed_text(&self) -> String {
        let Message {
            r#type, message_id, topic_arn, subject, message, timestamp, token, subscribe_url, ..
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

    /// The slot of an address, with its certificate in it.
    async fn get(&self, url: &str) -> Result<Arc<Slot>, Refusal> {
        let slot = self.slot(url)?;
        if slot.certificate.get().is_some() {
            return Ok(slot);
        }
        let mut failed = slot.failed.lock().await;
        if slot.certificate.get().is_none() {
            if failed.is_some_and(|failed| failed.elapsed() < PAUSE_AFTER_A_FAILURE) {
                return Err(cannot("its address brought none a moment ago"));
            }
            // Stands until the fetch is through, also for a sender that hangs up.
            *failed = Some(Instant::now());
            let pem = self.fetch.get(url).await.map_err(|err| cannot(&err.to_string()))?;
            let certificate = CertificateDer::from_pem_slice(&pem)
                .map_err(|_| cannot("its address answers with something else"))?;
            let _ = slot.certificate.set(certificate);
        }
        drop(failed);
        Ok(slot)
    }

    fn slot(&self, url: &str) -> Result<Arc<Slot>, Refusal> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(url) {
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= MOST_CERTIFICATES {
            slots.retain(|_, slot| slot.is_of_use());
        }
        if slots.len() >= MOST_CERTIFICATES {
            return Err(cannot("too many addresses were named that have none"));
        }
        Ok(Arc::clone(slots.entry(url.to_owned()).or_default()))
    }
}

impl Slot {
    /// Whether it holds a certificate, or the memory of a failure that is not long ago.
    fn is_of_use(&self) -> bool {
        let is_recent =
            |failed: &Option<Instant>| failed.is_some_and(|failed| failed.elapsed() < PAUSE_AFTER_A_FAILURE);
        self.certificate.get().is_some() || self.failed.try_lock().map_or(true, |failed| is_recent(&failed))
    }
}

fn cannot(why: &str) -> Refusal {
    Refusal::CannotCheck(format!("the certificate of SNS cannot be had: {why}"))
}

/// The two ways in which SNS signs; the first is still its default.
#[derive(Debug, Clone, Copy)]
enum Rsa {
    Sha1,
    Sha256,
}

impl SignatureVerificationAlgorithm for Rsa {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let algorithm = match self {
            Rsa::Sha1 => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Rsa::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, public_key).verify(message, signature).map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    /// What a certificate would say that is signed in this way; a bare signature says nothing.
    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_PKCS1_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_sns_are_asked() {
        let good = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem";
        assert!(is_certificate(good));
        assert!(is_certificate("https://sns.cn-north-1.amazonaws.com.cn/x.pem"));
        assert!(of_sns("https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription").is_some());
        for bad in [
            "http://sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com/x.pem?y=.txt&a",
            "https://sns.us-east-1.amazonaws.com.evil.example/x.pem",
            "https://evil.example/sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com@evil.example/x.pem",
            "https://user:x@sns.us-east-1.amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com:8443/x.pem",
            "https://s3.us-east-1.amazonaws.com/x.pem",
            "https://sns.us-east-1.amazonaws.com/x.pem/other",
            "",
        ] {
            assert!(!is_certificate(bad), "{bad}");
        }
    }
}
