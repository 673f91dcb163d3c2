//! Texts of payloads and headers that are far too long.

use super::attack::{CONFIG, MIB, assert_others_are_served, growth, memory};
use super::running::{FluxRecv, OBJECTS, client};

// The attack: twenty posts with an image name of 8 MiB held 305 MB for ever, wrote 168 MB of log and
// were answered with 8 MiB each.
#[tokio::test]
async fn long_names_are_neither_answered_nor_logged_nor_remembered() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    assert_others_are_served(&running, "none yet").await;
    let (before, log_before) = (memory(&running), running.log().len());
    let url = format!("{}{}", running.base, running.path("hub"));
    let long = "a".repeat(8 * MIB - 200);
    for body in [
        format!("{{\"push_data\": {{\"tag\": \"1\"}}, \"repository\": {{\"repo_name\": \"org/{long}\"}}}}"),
        format!("{{\"push_data\": {{\"tag\": \"{long}\"}}, \"repository\": {{\"repo_name\": \"org/app\"}}}}"),
        format!("{{\"push_data\": {{\"tag\": \"1\"}}, \"repository\": \"{long}\"}}"),
    ] {
        for _ in 0..10 {
            let answer = client().post(&url).body(body.clone()).send().await.expect("an answer");
            assert!(answer.text().await.expect("a text").len() <= 8192);
        }
    }
    let logged = running.log().len() - log_before;
    assert!(logged < 30 * 4200, "{logged} bytes of log");
    let grown = growth(&running, before);
    assert!(grown < 56 * MIB, "{} MiB at most", grown / MIB);
    let kept = memory(&running).resident.saturating_sub(before.resident);
    assert!(kept < 24 * MIB, "{} MiB kept", kept / MIB);
    let (_, page) = running.get_admin("/deliveries").await;
    assert!(page.len() < 100_000, "{} bytes of last deliveries", page.len());
}
