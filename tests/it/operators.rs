//! The listener for operators.

use serde_json::{Value, json};

use super::http::{push, push_signed};
use super::running::{CONFIG, FluxRecv, OBJECTS, client};

// Incident 43.
#[tokio::test]
async fn the_public_listener_serves_hooks_and_health_and_nothing_else() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    for path in ["/livez", "/readyz", "/metrics", "/config", "/deliveries", "/"] {
        let status =
            client().get(format!("{}{path}", running.base)).send().await.expect("an answer").status();
        assert_eq!(status, 404, "{path}");
    }
    for (path, expect) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/config", 200),
        ("/deliveries", 200),
        ("/", 404),
        ("/health", 404),
    ] {
        assert_eq!(running.get_admin(path).await.0, expect, "{path}");
    }
    let hook = format!("{}{}", running.admin, running.path("github"));
    assert_eq!(client().post(hook).send().await.expect("an answer").status(), 404, "no hooks there");
}

#[tokio::test]
async fn the_last_deliveries_are_listed_with_what_became_of_them() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    push_signed(&running, push(), &[("X-GitHub-Event", "")]).await;
    push_signed(&running, push(), &[]).await;
    let (_, text) = running.get_admin("/deliveries").await;
    let mut list: Value = serde_json::from_str(&text).expect("JSON");
    for field in ["requested", "state"] {
        list["github"][0]["objects"][0].as_object_mut().expect("an object").remove(field);
    }
    let latest = &mut list["github"][0];
    let time = |step: &str| latest[step].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let steps = ["received", "verifiedAt", "matchedAt"].map(time);
    assert!(steps.is_sorted() && !steps.contains(&None), "{latest}");
    for field in ["received", "tookMicros", "verifiedAt", "matchedAt"] {
        latest.as_object_mut().expect("an object").remove(field);
    }
    let expect = json!({
        "id": "github-1", "endpoint": "github",
        "outcome": "accepted", "status": 202, "from": "127.0.0.1", "key": "github.key",
        "events": [{
            "type": "git", "repository": ["https://github.com/org/app.git"],
            "refs": [{"name": "refs/heads/main", "commit": "1111"}],
        }],
        "objects": [{"object": "GitRepository/apps/app"}],
        "detail": "push to github.com/org/app main: GitRepository/apps/app",
        "targets": ["GitRepository/apps/app"],
    });
    assert_eq!(*latest, expect);
    assert_eq!(list["github"].as_array().map(Vec::len), Some(2));
}

// Incident 29.
#[tokio::test]
async fn deliveries_are_counted_by_what_became_of_them() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    push_signed(&running, push(), &[]).await;
    let elsewhere = String::from_utf8(push()).expect("text").replace("org/app", "org/other").into_bytes();
    push_signed(&running, elsewhere, &[]).await;
    client().post(format!("{}{}", running.base, running.path("github"))).send().await.expect("an answer");
    client().post(format!("{}/hook/unknown", running.base)).send().await.expect("an answer");
    for (labels, count) in [
        ("endpoint=\"github\",source=\"GitHub\",outcome=\"accepted\"", 1.0),
        ("endpoint=\"github\",source=\"GitHub\",outcome=\"unmatched\"", 1.0),
        ("endpoint=\"github\",source=\"GitHub\",outcome=\"refused\"", 1.0),
        // Incident 39: no path is a label.
        ("endpoint=\"unmatched\",source=\"unmatched\",outcome=\"unknown_path\"", 1.0),
    ] {
        assert_eq!(
            running.metric(&format!("flux_recv_deliveries_total{{{labels}}}")).await,
            Some(count),
            "{labels}"
        );
    }
    let last = running.metric("flux_recv_last_delivery_timestamp_seconds{endpoint=\"github\"}").await;
    assert!(last.is_some_and(|last| last > 1.7e9), "{last:?}");
    let silent = running.metric("flux_recv_last_delivery_timestamp_seconds{endpoint=\"hub\"}").await;
    assert!(silent.is_some_and(|since| since > 1.7e9), "a silent hook shows from the start");
}

// A path-only endpoint is alive without any key: the alert for silent hooks looks at its last delivery.
#[tokio::test]
async fn only_a_key_that_verified_is_named() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let last = "flux_recv_last_delivery_timestamp_seconds{endpoint=\"hub\"}";
    let before = running.metric(last).await.expect("a time");
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let body = r#"{"push_data": {"tag": "1"}, "repository": {"repo_name": "org/app"}}"#;
    let url = format!("{}{}", running.base, running.path("hub"));
    assert_eq!(client().post(url).body(body).send().await.expect("an answer").status(), 200);
    assert!(running.metric(last).await.expect("a time") > before);
    let uses = running.metric("flux_recv_key_uses_total{endpoint=\"hub\",key=\"hub.key\"}").await;
    assert_eq!(uses, Some(0.0), "nothing was verified with it");
    let fields = [("endpoint", "hub"), ("source", "DockerHub"), ("outcome", "unmatched"), ("key", "none")];
    assert_eq!(running.logged("delivery matches no object", &fields), 1, "{}", running.log());
}
