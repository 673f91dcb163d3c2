//! Five thousand Receivers of as many tenants.

use std::time::Duration;

use base64::Engine;
use serde_json::json;
use sha2::Digest;

use super::attack::{CONFIG, MIB, memory};
use super::double::{Double, ListedKind};
use super::running::{Running, client};

const RECEIVERS: usize = 5000;

fn token(at: usize) -> String {
    format!("test-token-of-tenant-{at}")
}

/// A Receiver of a tenant's own.
fn receiver(at: usize) -> String {
    let receiver = json!({
        "metadata": {"name": format!("r{at}"), "namespace": "tenants", "resourceVersion": "7",
                     "creationTimestamp": "2026-01-01T00:00:00Z", "uid": format!("{at}")},
        "spec": {"type": "generic-hmac", "secretRef": {"name": format!("s{at}")},
                 "resources": [{"kind": "GitRepository", "name": format!("app-{at}")}]},
    });
    receiver.to_string()
}

/// The Secret that it names.
pub fn secret(name: &str) -> Option<serde_json::Value> {
    let at = name.trim_start_matches('s').parse().unwrap_or_default();
    let token = base64::engine::general_purpose::STANDARD.encode(token(at));
    Some(json!({"metadata": {"name": name}, "data": {"token": token}}))
}

pub fn receivers(objects: usize) -> ListedKind {
    let group = "notification.toolkit.fluxcd.io";
    ListedKind { group, plural: "receivers", objects, object: receiver, changes: 0 }
}

/// Waits until the Receiver with this number is served.
pub async fn wait_until_served(running: &Running, at: usize) {
    let digest = sha2::Sha256::digest(format!("{}r{at}tenants", token(at)));
    let url = format!("{}/hook/{}", running.base, hex::encode(digest));
    let mut status = 0;
    for _ in 0..600 {
        status = client().post(&url).body("{}").send().await.expect("an answer").status().as_u16();
        if status == 401 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(status, 401, "it is served, and this was not signed");
}

#[actix_web::test]
async fn five_thousand_receivers_are_served_and_take_little_memory() {
    let double = Double { kinds: vec![receivers(RECEIVERS)], secret: Some(secret), hangs: None };
    let running = double.start(CONFIG, &["--receivers"]);
    let before = memory(&running);
    // The last one is among those that are looked at in turns.
    wait_until_served(&running, RECEIVERS - 1).await;
    for _ in 0..3 {
        assert_eq!(running.ask("/metrics").await.0, 200);
    }
    let grown = memory(&running).resident.saturating_sub(before.resident);
    assert!(grown < 40 * MIB, "{} MiB", grown / MIB);
}

// The attack: one Secret whose list hangs kept every Receiver from being served, for ever.
#[actix_web::test]
async fn secrets_that_hang_keep_no_other_receiver_out() {
    let every_second_hangs = |name: &str| {
        let at: usize = name.trim_start_matches('s').parse().ok()?;
        if at.is_multiple_of(2) { None } else { secret(name) }
    };
    let double = Double { kinds: vec![receivers(80)], secret: Some(every_second_hangs), hangs: None };
    let running = double.start(CONFIG, &["--receivers"]);
    // The first ones have a watch each, the last ones are read in turns.
    for at in [1, 79] {
        wait_until_served(&running, at).await;
    }
}
