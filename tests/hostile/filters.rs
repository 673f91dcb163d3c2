//! Filters that take as much as they may.

use std::time::{Duration, Instant};

use serde_json::json;

use super::attack::{CONFIG, deliver};
use super::running::{FluxRecv, OBJECTS, client, hub_signature, test_key};

/// The most expensive filter over a payload: three loops in one another.
const EXPENSIVE: &str =
    "req.list.exists(a, req.list.exists(b, req.list.exists(c, a + b + c == 'nothing of the kind')))";

fn expensive_body() -> Vec<u8> {
    let list: Vec<String> = (0..2000).map(|at| format!("{at}")).collect();
    json!({
        "ref": "refs/heads/main", "after": "1111", "list": list,
        "repository": {"clone_url": "https://github.com/org/app.git"},
    })
    .to_string()
    .into_bytes()
}

// The attack: twenty clients at one expensive filter raised the ping of another endpoint to 0.9 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expensive_filter_keeps_no_other_endpoint_waiting() {
    let config = format!("{CONFIG}- {{source: GitHub, keyPath: slow.key, filter: \"{EXPENSIVE}\"}}\n");
    let folder = super::running::folder(&config);
    let manifests = folder.path().join("objects");
    std::fs::create_dir(&manifests).expect("a folder");
    std::fs::write(manifests.join("objects.yaml"), OBJECTS).expect("objects");
    let running = FluxRecv::in_folder(folder, &["--manifests", &manifests.display().to_string()]);
    let url = format!("{}{}", running.base, running.path("slow"));
    let body = expensive_body();
    let signature = hub_signature(&test_key("slow"), &body);
    let until = Instant::now() + Duration::from_secs(4);
    let attackers: Vec<_> = (0..20)
        .map(|_| {
            let (client, url, body, signature) = (client(), url.clone(), body.clone(), signature.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while Instant::now() < until {
                    let request = client.post(&url).header("X-GitHub-Event", "push");
                    let request = request.header("X-Hub-Signature-256", &signature).body(body.clone());
                    let answer = request.send().await.expect("an answer");
                    let status = answer.status().as_u16();
                    answers.push((status, answer.text().await.expect("a text")));
                    if status == 503 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                answers
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut times = Vec::new();
    while Instant::now() < until {
        let (status, time) = deliver(&running, "other", Duration::from_secs(5)).await.expect("an answer");
        assert_eq!(status, 202);
        times.push(time);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    times.sort();
    // The bound is measured by `cargo bench`; here it is enough that nobody waits for a filter.
    let median = times[times.len() / 2];
    assert!(median < Duration::from_millis(150), "{median:?} of {times:?}");
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for attacker in attackers {
        for (status, text) in attacker.await.expect("a task") {
            assert!(status == 200 || status == 202 || status == 503, "{status} {text}");
            assert!(status != 202 || text.contains("queued"), "{text}");
            *statuses.entry(status).or_default() += 1;
        }
    }
    assert!(statuses.contains_key(&202) && statuses.contains_key(&503), "{statuses:?}");
}
