//! Filters of endpoints and resources, paths and consent, through the HTTP port.

use serde_json::{Value, json};

use super::http::{Answer, post};
use super::running::{FluxRecv, hub_signature, test_key};

const OBJECTS: &str = "
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: app, namespace: apps, annotations: {team: blue}}
spec: {url: https://github.com/org/app, ref: {branch: main}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: app, namespace: team-a, labels: {tier: web}, annotations: {flux-recv.fluxcd.io/allow: 'github, other'}}
spec: {url: https://github.com/org/app, ref: {branch: main}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: app, namespace: team-b}
spec: {url: https://github.com/org/app, ref: {branch: main}}
";

fn push(extra: Value) -> Value {
    let mut push = json!({
        "ref": "refs/heads/main", "before": "1111", "after": "2222", "pusher": {"name": "someone"},
        "repository": {"clone_url": "https://github.com/org/app.git"},
        "commits": [{"id": "2222", "added": [], "modified": ["apps/web/deployment.yaml"], "removed": []}],
    });
    push.as_object_mut().expect("a mapping").extend(extra.as_object().expect("a mapping").clone());
    push
}

async fn send(running: &FluxRecv, endpoint: &str, push: &Value, more: &[(&str, &str)]) -> Answer {
    let body = push.to_string().into_bytes();
    let signature = hub_signature(&test_key(endpoint), &body);
    let mut headers = vec![
        ("X-GitHub-Event", "push"),
        ("Content-Type", "application/json"),
        ("X-Hub-Signature-256", &signature),
    ];
    headers.extend_from_slice(more);
    post(&format!("{}{}", running.base, running.path(endpoint)), &headers, body).await
}

fn targets(answer: &Answer) -> Vec<String> {
    let body: Value = serde_json::from_str(&answer.body).expect("JSON");
    body["targets"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

const FILTER_FAILED: &str = "filter failed to evaluate and does not match";

#[tokio::test]
async fn a_filter_decides_before_anything_is_matched() {
    let config = "fluxRecvVersion: 1\nendpoints:\n\
        - {source: GitHub, keyPath: github.key, filter: \"req.pusher.name != 'robot' && event.refs.exists(r, r.branch == 'main')\"}\n\
        - {source: GitHub, keyPath: heads.key, filter: \"headers['x-github-event'] == 'push' && headers['x-team'] == 'a' && !headers.exists(h, h.contains('signature'))\"}\n\
        - {source: GitHub, keyPath: broken.key, filter: \"req.nothing.here == 'x'\"}\n";
    let running = FluxRecv::with_objects(config, OBJECTS);
    let answer = send(&running, "github", &push(json!({})), &[]).await;
    assert_eq!((answer.status, targets(&answer).len()), (202, 3));
    let answer = send(&running, "github", &push(json!({"pusher": {"name": "robot"}})), &[]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("the endpoint's `filter` is false"), "{}", answer.body);

    assert_eq!(send(&running, "heads", &push(json!({})), &[("X-Team", "a")]).await.status, 202);
    assert_eq!(send(&running, "heads", &push(json!({})), &[("X-Team", "b")]).await.status, 200);

    let answer = send(&running, "broken", &push(json!({"secret-word": "xyzzy"})), &[]).await;
    assert_eq!(answer.status, 200);
    running.wait_for_log(FILTER_FAILED, &[("endpoint", "broken")]);
    assert_eq!(running.metric("flux_recv_filter_failures_total{endpoint=\"broken\"}").await, Some(1.0));
    assert_eq!(running.metric("flux_recv_filter_failures_total{endpoint=\"github\"}").await, Some(0.0));
    assert!(!running.log().contains("xyzzy"));

    let long = push(json!({"filler": "x".repeat(3 << 20)}));
    let answer = send(&running, "github", &long, &[]).await;
    assert_eq!(answer.status, 200, "more than filters read");
    running.wait_for_log(FILTER_FAILED, &[("why", "*filters read `req` of up to 3145728*")]);
    assert_eq!(send(&running, "heads", &long, &[("X-Team", "a")]).await.status, 202, "`req` is not read");
}

#[tokio::test]
async fn a_filter_of_a_resource_picks_objects() {
    let config = "fluxRecvVersion: 1\nendpoints:\n\
        - source: GitHub\n  keyPath: github.key\n  resources:\n\
        \x20 - {kind: GitRepository, namespace: apps, filter: \"res.metadata.annotations.team == 'blue' && res.spec.url.endsWith(req.repository.clone_url.replace('https://github.com', '').replace('.git', ''))\"}\n\
        \x20 - {kind: GitRepository, matchLabels: {tier: web}}\n\
        \x20 - {kind: GitRepository, namespace: team-b, filter: 'res.metadata.annotations.team == req.ref'}\n";
    let running = FluxRecv::with_objects(config, OBJECTS);
    let answer = send(&running, "github", &push(json!({})), &[]).await;
    assert_eq!(targets(&answer), ["GitRepository/apps/app", "GitRepository/team-a/app"], "{}", answer.body);
    running.wait_for_log(FILTER_FAILED, &[("why", "*there is no `annotations`*")]);
}

#[tokio::test]
async fn paths_hold_back_pushes_that_change_other_files() {
    let config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key, paths: ['infra/**', '*.md']}\n";
    let running = FluxRecv::with_objects(config, OBJECTS);
    let files = |files: &[&str]| {
        push(json!({"commits": [{"id": "2", "added": files, "modified": [], "removed": []}]}))
    };
    let answer = send(&running, "github", &files(&["apps/x", "docs/a.md"]), &[]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("none of the endpoint's `paths` has changed"), "{}", answer.body);
    assert_eq!(send(&running, "github", &files(&["apps/x", "infra/a/b"]), &[]).await.status, 202);
    assert_eq!(send(&running, "github", &files(&["README.md"]), &[]).await.status, 202);
    assert_eq!(send(&running, "github", &push(json!({"commits": []})), &[]).await.status, 202, "fails open");
    assert_eq!(send(&running, "github", &push(json!({"forced": true})), &[]).await.status, 202, "fails open");
}

// Incident 33.
#[tokio::test]
async fn other_namespaces_have_to_consent_where_that_is_required() {
    let config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key, namespaces: apps}\n- {source: GitHub, keyPath: stranger.key}\n";
    let folder = super::running::folder(config);
    let objects = folder.path().join("objects");
    std::fs::create_dir(&objects).expect("a folder");
    std::fs::write(objects.join("objects.yaml"), OBJECTS).expect("objects");
    let running =
        FluxRecv::in_folder(folder, &["--require-opt-in", "--manifests", &objects.display().to_string()]);
    let answer = send(&running, "github", &push(json!({})), &[]).await;
    assert_eq!(targets(&answer), ["GitRepository/apps/app", "GitRepository/team-a/app"]);
    assert_eq!(send(&running, "stranger", &push(json!({})), &[]).await.status, 200, "nobody has consented");
}

/// Whoever may write filters cannot take the memory of the process, nor hold up other endpoints, whatever
/// authentic bodies come.
#[tokio::test]
async fn hostile_filters_cost_little_memory_and_nobody_else_anything() {
    let hostile = [
        format!("[{}].size() > 0", vec!["req.s"; 400].join(", ")),
        "req.l.map(x, req.l).size() == 1".to_owned(),
        "req.s.split('').map(x, req.s.split('')).size() == 1".to_owned(),
        "req.l.all(x, req.s.matches('a[ab]{400}[c-z]'))".to_owned(),
        "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(x, req).size() == 1".to_owned(),
        "req.s.replace('a', 'aaaaaaa') + req.s == req.s.replace('a', 'aaaaaa')".to_owned(),
    ];
    let mut config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key}\n".to_owned();
    for (at, filter) in hostile.iter().enumerate() {
        config.push_str(&format!("- {{source: GitHub, keyPath: h{at}.key, filter: \"{filter}\"}}\n"));
    }
    let running = FluxRecv::with_objects(&config, OBJECTS);
    let lists: Vec<u32> = (0..50_000).collect();
    let body = push(json!({"s": "a".repeat(600_000), "l": lists}));
    // What a process takes that has read such a body at all.
    for _ in 0..4 {
        assert_eq!(send(&running, "github", &body, &[]).await.status, 202);
    }
    let before = running.metric("flux_recv_resident_memory_bytes").await.expect("the metric");
    let small = push(json!({}));
    for _ in 0..3 {
        let names: Vec<String> = (0..hostile.len()).map(|at| format!("h{at}")).collect();
        let all = names.iter().map(|name| send(&running, name, &body, &[]));
        let others = futures::future::join_all(all);
        let (answers, other) = tokio::join!(others, send(&running, "github", &small, &[]));
        assert_eq!(other.status, 202);
        for answer in answers {
            // Once the CPU time of this second is used up, a delivery waits.
            let is_queued = answer.status == 202 && answer.body.contains("queued");
            assert!(answer.status == 200 || is_queued, "{}", answer.body);
        }
    }
    let after = running.metric("flux_recv_resident_memory_bytes").await.expect("the metric");
    let grown = (after - before) / 1e6;
    assert!(grown < 160.0, "{grown:.0} MB more than before");
    for (at, filter) in hostile.iter().enumerate().take(5) {
        let failures = format!("flux_recv_filter_failures_total{{endpoint=\"h{at}\"}}");
        let failed = running.metric(&failures).await;
        assert!(failed.is_some_and(|failed| failed >= 1.0), "{filter}: {failed:?}");
    }
}
