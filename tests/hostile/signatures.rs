//! Deliveries whose signatures cost more than they should.

use super::attack::{CONFIG, MIB, assert_others_are_served};
use super::running::{FluxRecv, OBJECTS, client};

// The attack: 1,500 candidates over 8 MiB, twice, kept both workers busy for 33 s.
#[tokio::test]
async fn many_signatures_over_a_large_body_keep_nobody_waiting() {
    let config = format!(
        "{CONFIG}- {{source: StandardWebhooks, keyPath: signed.key, resources: [{{kind: Bucket}}]}}\n"
    );
    let running = FluxRecv::with_objects(&config, OBJECTS);
    let url = format!("{}{}", running.base, running.path("signed"));
    let now = jiff::Timestamp::now().as_second().to_string();
    let candidates = format!("v1,{} ", "A".repeat(43) + "=").repeat(300);
    let attacks: Vec<_> = (0..2)
        .map(|_| {
            let request = client()
                .post(&url)
                .header("webhook-id", "1")
                .header("webhook-timestamp", &now)
                .header("webhook-signature", candidates.trim())
                .body(vec![b' '; 8 * MIB]);
            tokio::spawn(async move { request.send().await.map(|answer| answer.status().as_u16()) })
        })
        .collect();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_others_are_served(&running, "many signatures").await;
    for attack in attacks {
        // The endpoint may read one body of this size at a time.
        assert!(matches!(attack.await.expect("a task").expect("an answer"), 401 | 503));
    }
}

// A form of millions of fields was decoded field by field before its signature was checked.
#[tokio::test]
async fn a_form_of_many_fields_costs_little() {
    let config = format!("{CONFIG}- {{source: Gitea, keyPath: gitea.key}}\n");
    let running = FluxRecv::with_objects(&config, OBJECTS);
    let url = format!("{}{}", running.base, running.path("gitea"));
    let body = b"a&".repeat(4 * MIB);
    let answer = client()
        .post(&url)
        .header("Content-Type", "application/x-www-form-urlencoded")
        .header("X-Gitea-Signature", "00".repeat(32))
        .body(body)
        .send();
    assert_eq!(answer.await.expect("an answer").status().as_u16(), 401);
    assert_others_are_served(&running, "a form of many fields").await;
}
