//! What deliveries cost the API server, from its own audit log.

use std::time::Duration;

use serde_json::json;

use super::bed::Bed;
use super::common::leaks;
use super::process::wait_for;
use super::receive::{FluxRecv, git_repository, own_token, test_key};

const DELIVERIES: usize = 1000;
const CONNECTIONS: usize = 16;
const OBJECTS: usize = 1000;

pub fn deliveries_cost_the_api_server_a_handful_of_requests(bed: &Bed) {
    let url = "https://github.com/example-org/busy";
    git_repository(bed, "apps", "busy", json!({"url": url, "ref": {"branch": "main"}}));
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let hook = hook_url(&running, "github");
    let body = json!({
        "ref": "refs/heads/main",
        "after": "1111111111111111111111111111111111111111",
        "repository": {"clone_url": url},
    })
    .to_string();
    let signature = signature(&body);

    let forged = count(bed, || {
        let statuses = bed.block_on(post_many(&hook, &body, "sha256=00"));
        assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    });
    assert_eq!(forged, Vec::<String>::new(), "a stranger costs nothing");

    let verified = count(bed, || {
        let statuses = bed.block_on(post_many(&hook, &body, &signature));
        assert!(statuses.iter().all(|status| *status == 202), "{statuses:?}");
    });
    println!(
        "API requests: {} for {DELIVERIES} deliveries about one repository, {} for {DELIVERIES} forged ones",
        verified.len(),
        forged.len()
    );
    assert!(verified.len() <= 10, "{verified:?}");
    assert!(verified.iter().all(|request| request == "patch gitrepositories"), "{verified:?}");
    let clients: Vec<String> = bed.clients_of("flux-recv").into_iter().collect();
    assert_eq!(clients, [concat!("flux-recv/", env!("CARGO_PKG_VERSION"))], "the audit log names who it was");
}

/// Prints what a thousand objects cost in memory; `cargo test --release --test cluster` measures the
/// binary as it is shipped but for the allocator of its C library.
pub fn a_thousand_objects_are_known(bed: &Bed) {
    for at in 0..OBJECTS {
        let url = format!("https://github.com/example-org/repository-{at}");
        git_repository(bed, "team-a", &format!("many-{at}"), json!({"url": url, "ref": {"branch": "main"}}));
    }
    let mut running = FluxRecv::start(bed, &own_token(bed), &["--namespaces", "team-a"]);
    let (status, answer) = running.push("github", "https://github.com/example-org/repository-999", "main");
    assert_eq!((status, &answer["targets"]), (202, &json!(["GitRepository/team-a/many-999"])));
    println!("{} KiB resident with {OBJECTS} GitRepositories", running.process.resident_kib());
    bed.kubectl(&["delete", "gitrepositories", "--all", "-n", "team-a", "--wait=false"]);
}

/// The requests that flux-recv makes while `act` runs and shortly after. Discovery and lists are
/// done by then; a watch that renews itself is no request about a delivery.
fn count(bed: &Bed, act: impl FnOnce()) -> Vec<String> {
    let before = settled(bed);
    act();
    std::thread::sleep(Duration::from_millis(2500));
    let after = settled(bed);
    after[before.len()..].iter().filter(|request| !request.starts_with("watch ")).cloned().collect()
}

/// The requests so far, once the audit log has stopped growing.
fn settled(bed: &Bed) -> Vec<String> {
    let mut last = bed.requests_of("flux-recv");
    wait_for("the audit log to settle", Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(300));
        let now = bed.requests_of("flux-recv");
        let same = now.len() == last.len();
        last = now;
        same.then_some(())
    });
    last
}

async fn post_many(hook: &str, body: &str, signature: &str) -> Vec<u16> {
    let client = reqwest::Client::new();
    let senders = (0..CONNECTIONS).map(|sender| {
        let (client, hook, body, signature) =
            (client.clone(), hook.to_owned(), body.to_owned(), signature.to_owned());
        tokio::spawn(async move {
            let mut statuses = Vec::new();
            for _ in (sender..DELIVERIES).step_by(CONNECTIONS) {
                let request = client
                    .post(&hook)
                    .header("X-GitHub-Event", "push")
                    .header("X-Hub-Signature-256", &signature);
                statuses.push(request.body(body.clone()).send().await.expect("an answer").status().as_u16());
            }
            statuses
        })
    });
    let mut all = Vec::new();
    for sender in senders.collect::<Vec<_>>() {
        all.extend(sender.await.expect("a provider"));
    }
    all
}

pub fn hook_url(running: &FluxRecv, endpoint: &str) -> String {
    let lines = running.process.log_lines();
    let line = lines.iter().find(|line| line.is("serving endpoint", &[("endpoint", endpoint)]));
    format!("{}{}", running.base, line.expect("a startup line").field("path"))
}

pub fn signature(body: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac =
        <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(test_key("github").as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    leaks::remember(&signature);
    format!("sha256={signature}")
}
