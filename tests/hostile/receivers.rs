//! Five thousand Receivers of as many tenants.

use std::time::Duration;

use base64::Engine;
use serde_json::json;
use sha2::Digest;

use super::attack::{CONFIG, MIB, memory};
use super::double::{Double, ListedKind};
use super::running::{FluxRecv, client};

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
pub async fn wait_until_served(running: &FluxRecv, at: usize) {
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
    let double = Double { kinds: vec![receivers(RECEIVERS)], secret: Some(secret), ..Double::default() };
    let running = double.start(CONFIG, &["--receivers"]);
    let before = memory(&running);
    // The last one is among those that are looked at in turns.
    wait_until_served(&running, RECEIVERS - 1).await;
    for _ in 0..3 {
        assert_eq!(running.get_admin("/metrics").await.0, 200);
    }
    let grown = memory(&running).resident.saturating_sub(before.resident);
    assert!(grown < 40 * MIB, "{} MiB", grown / MIB);
}

/// Beside harmless Receivers one of 64 KiB, whose filters are joined with one of 4 KiB over and over.
fn with_a_heavy_one(at: usize) -> String {
    if at != 1 {
        return receiver(at);
    }
    let of_all = format!("size([{}])>0", vec!["[]"; 1350].join(","));
    let listed = vec![json!({"kind": "Bucket", "name": "a", "filter": "true"}); 1200];
    let heavy = json!({
        "metadata": {"name": "heavy", "namespace": "attacker", "resourceVersion": "7"},
        "spec": {"type": "generic-hmac", "secretRef": {"name": "s1"}, "resourceFilter": of_all, "resources": listed},
    });
    heavy.to_string()
}

// The attack: one Receiver of 64 KiB took 300 MB, again at each start.
#[actix_web::test]
async fn filters_of_one_receiver_take_no_multiple_of_its_length() {
    let kind = ListedKind { object: with_a_heavy_one, ..receivers(3) };
    let double = Double { kinds: vec![kind], secret: Some(secret), ..Double::default() };
    let running = double.start(CONFIG, &["--receivers"]);
    let before = memory(&running);
    wait_until_served(&running, 2).await;
    running
        .wait_for_logs(
            "Receiver is not served: the memory for Receivers of its namespace or of the cluster is used up",
            &[],
            1,
            Duration::from_secs(10),
        )
        .await;
    let grown = memory(&running).peak.saturating_sub(before.resident);
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
}

// The attack: one Secret whose list hangs kept every Receiver from being served, for ever.
#[actix_web::test]
async fn secrets_that_hang_keep_no_other_receiver_out() {
    let most_hang = |name: &str| {
        let at: usize = name.trim_start_matches('s').parse().ok()?;
        if at.is_multiple_of(20) { secret(name) } else { None }
    };
    let double = Double { kinds: vec![receivers(100)], secret: Some(most_hang), ..Double::default() };
    let running = double.start(CONFIG, &["--receivers"]);
    // The first ones by name have a watch each, the last ones are read in turns: more than 30 of them hang.
    for at in [0, 20, 80] {
        wait_until_served(&running, at).await;
    }
}
