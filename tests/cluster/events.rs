//! Kubernetes Events about objects: `kubectl describe` shows them, under the RBAC of the component and the admission
//! policy.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::bed::Bed;
use super::process::{Process, free_port, wait_for};
use super::receive::{FluxRecv, git_repository, own_token};

const PATIENCE: Duration = Duration::from_secs(30);

fn events_of(bed: &Bed, name: &str) -> Vec<Value> {
    let list = bed.get("/api/v1/namespaces/apps/events");
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().filter(|event| event["involvedObject"]["name"] == name).collect()
}

pub fn objects_are_told_under_the_rights_of_the_component(bed: &Bed) {
    let url = "https://github.com/example-org/told";
    git_repository(bed, "apps", "told", json!({"url": url, "ref": {"branch": "main"}}));
    let paused = json!({"url": url, "ref": {"branch": "main"}, "suspend": true});
    git_repository(bed, "apps", "told-paused", paused);
    let token = own_token(bed);

    // Without the right: one line, a metric, and the requests go on.
    let running = FluxRecv::start(bed, &token, &["--events"]);
    assert_eq!(running.push("github", url, "main").0, 202);
    running.wait_for_log(
        "Kubernetes Events may not be written; list kustomization/components/events, which grants it",
        &[],
    );
    assert_eq!(running.push("github", url, "main").0, 202);
    wait_for("the metric", PATIENCE, || {
        let metrics = running.admin_page(bed, "/metrics");
        metrics.contains("flux_recv_kubernetes_events_total{result=\"forbidden\"}").then_some(())
    });
    let lines = running.logged(
        "Kubernetes Events may not be written; list kustomization/components/events, which grants it",
        &[],
    );
    assert_eq!(lines, 1);
    assert!(events_of(bed, "told").is_empty());
    drop(running);

    let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("kustomization/components/events/rbac.yaml");
    bed.kubectl(&["apply", "-f", &component.display().to_string()]);
    let running = FluxRecv::start(bed, &token, &["--events"]);
    wait_for("the right", PATIENCE, || {
        running.push("github", url, "main");
        std::thread::sleep(Duration::from_millis(1200));
        (!events_of(bed, "told").is_empty()).then_some(())
    });
    let told = &events_of(bed, "told")[0];
    assert_eq!((&told["reason"], &told["type"]), (&json!("ReconcileRequested"), &json!("Normal")));
    let message = told["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("push to github.com/example-org/told main, at endpoint github"), "{message}");
    let skipped = &events_of(bed, "told-paused")[0];
    assert_eq!(skipped["reason"], "ReconcileSkipped");
    let described = bed.kubectl(&["-n", "apps", "describe", "gitrepository", "told"]);
    assert!(
        described.contains("ReconcileRequested") && described.contains("push to github.com"),
        "{described}"
    );

    // A thousand pushes to one repository cost a handful of requests, Events included, and count up one Event.
    let other = "https://github.com/example-org/told-often";
    git_repository(bed, "apps", "told-often", json!({"url": other, "ref": {"branch": "main"}}));
    running.push("github", other, "main");
    wait_for("the first Event", PATIENCE, || (!events_of(bed, "told-often").is_empty()).then_some(()));
    let writes = |bed: &Bed| {
        let all = bed.requests_of("flux-recv");
        let verbs = ["patch ", "create ", "get "];
        let written = all.iter().filter(|line| verbs.iter().any(|verb| line.starts_with(verb)));
        let (of_events, others): (Vec<&String>, Vec<&String>) =
            written.partition(|line| line.ends_with("events"));
        (of_events.len(), others.len())
    };
    std::thread::sleep(Duration::from_millis(1500));
    let before = writes(bed);
    let pushing = std::time::Instant::now();
    push_many(bed, &running, other, 1000);
    let pushed_for = pushing.elapsed().as_secs() as usize;
    wait_for("the Event to be counted up", PATIENCE, || {
        events_of(bed, "told-often")[0]["count"].as_i64().filter(|count| *count >= 2)
    });
    let after = writes(bed);
    let (of_events, patches) = (after.0 - before.0, after.1 - before.1);
    println!(
        "1,000 pushes to one repository: {patches} patches in {pushed_for} s, and {of_events} requests for Events"
    );
    let told = events_of(bed, "told-often");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["metadata"]["annotations"]["flux-recv.fluxcd.io/traceparent"], TRACE);
    assert!(of_events <= 2 && patches <= pushed_for + 2, "{of_events} {patches} in {pushed_for} s");
    // The next delivery belongs to no trace, and leaves none behind.
    running.push("github", other, "main");
    wait_for("the trace to go", PATIENCE, || {
        let annotations = &events_of(bed, "told-often")[0]["metadata"]["annotations"];
        annotations["flux-recv.fluxcd.io/traceparent"].is_null().then_some(())
    });
    bed.kubectl(&["delete", "-f", &component.display().to_string()]);
    bed.kubectl(&["-n", "apps", "delete", "events", "--all"]);
}

/// The trace that the pushes belong to.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Posts signed pushes as fast as they are taken.
fn push_many(bed: &Bed, running: &FluxRecv, repository: &str, count: usize) {
    use super::common::running::{hub_signature, test_key};
    let url = format!("{}{}", running.base, running.path("github"));
    let body = json!({"ref": "refs/heads/main", "repository": {"clone_url": repository}}).to_string();
    let signature = hub_signature(&test_key("github"), body.as_bytes());
    bed.block_on(async {
        let client = reqwest::Client::new();
        for _ in 0..count {
            let sent = client
                .post(&url)
                .header("X-GitHub-Event", "push")
                .header("X-Hub-Signature-256", &signature)
                .header("traceparent", TRACE)
                .body(body.clone());
            assert_eq!(sent.send().await.expect("an answer").status(), 202);
        }
    });
}

/// Flux's notification-controller takes what needs someone to where its Alerts go: a missing right, and with
/// `info` every request with its revision.
pub fn notification_controller_takes_events_to_an_alert(bed: &Bed) {
    let (chat, posted) = start_chat();
    let address = || format!("127.0.0.1:{}", free_port());
    let events = address();
    let mut command = std::process::Command::new(bed.parts.cache.join("bin/notification-controller"));
    command
        .env("RUNTIME_NAMESPACE", "flux-system")
        .env("KUBECONFIG", bed.path("admin.kubeconfig"))
        .args(["--events-addr", &events, "--receiverAddr", &address()])
        .args(["--health-addr", &address(), "--metrics-addr", &address()]);
    let _controller = Process::spawn(&mut command, &bed.path("notification-controller-events.log"));
    let api = "/apis/notification.toolkit.fluxcd.io/v1beta3/namespaces/apps";
    let object = |kind: &str, spec: Value| json!({"apiVersion": "notification.toolkit.fluxcd.io/v1beta3", "kind": kind, "metadata": {"name": "chat"}, "spec": spec});
    bed.create(&format!("{api}/providers"), &object("Provider", json!({"type": "generic", "address": chat})));
    let sources = json!([{"kind": "GitRepository", "name": "*"}]);
    let alert = json!({"providerRef": {"name": "chat"}, "eventSeverity": "info", "eventSources": sources});
    bed.create(&format!("{api}/alerts"), &object("Alert", alert));
    let url = "https://github.com/example-org/alerted";
    git_repository(bed, "apps", "alerted", json!({"url": url, "ref": {"branch": "main"}}));
    wait_for("notification-controller", PATIENCE, || std::net::TcpStream::connect(&events).ok());

    let options = ["--flux-events", &format!("http://{events}/"), "--flux-events-severity", "info"];
    let running = FluxRecv::start(bed, &own_token(bed), &options);
    let commit = "1111111111111111111111111111111111111111";
    running.send("github", &["--repo", url, "--commit", commit]);
    let of_reason = |reason: &str| {
        let posted = posted.lock().expect("a lock");
        posted.iter().find(|event| event["reason"] == reason).cloned()
    };
    let requested = wait_for("the request", PATIENCE, || of_reason("ReconcileRequested"));
    assert_eq!(requested["involvedObject"]["name"], "alerted");
    assert_eq!(requested["severity"], "info");
    assert_eq!(requested["metadata"]["revision"], format!("main@sha1:{commit}"), "{requested:#}");
    drop(running);

    // An account that may look and not patch.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "only-looks"}, "rules": [{"apiGroups": ["source.toolkit.fluxcd.io", "image.toolkit.fluxcd.io"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]});
    bed.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role);
    bed.kubectl(&["-n", "flux-system", "create", "serviceaccount", "only-looks"]);
    bed.kubectl(&[
        "create",
        "clusterrolebinding",
        "only-looks",
        "--clusterrole=only-looks",
        "--serviceaccount=flux-system:only-looks",
    ]);
    let token = bed.token("flux-system", "only-looks");
    let running = FluxRecv::start(bed, &token, &options[..2]);
    running.push("github", url, "main");
    let forbidden = wait_for("the missing right", PATIENCE, || of_reason("RequestForbidden"));
    assert_eq!(
        (&forbidden["severity"], &forbidden["involvedObject"]["name"]),
        (&json!("error"), &json!("alerted"))
    );
    let message = forbidden["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("may not request the reconciliation") && message.contains("cannot patch"),
        "{message}"
    );
    // The record says it as well, with the missing right.
    let page =
        bed.block_on(async { reqwest::get(format!("{}/deliveries", running.debug())).await?.text().await });
    let page: Value = serde_json::from_str(&page.expect("a page")).expect("JSON");
    let record = &page["github"][0]["objects"][0];
    assert_eq!(record["state"], "failing", "{page:#}");
    assert!(record["failure"].as_str().is_some_and(|why| why.contains("cannot patch")), "{record}");
    bed.delete(&format!("{api}/alerts/chat"));
    bed.delete(&format!("{api}/providers/chat"));
}

type Posted = std::sync::Arc<std::sync::Mutex<Vec<Value>>>;

/// A chat that remembers what it is told.
fn start_chat() -> (String, Posted) {
    use actix_web::{App, HttpResponse, HttpServer, web};
    let posted = Posted::default();
    let data = web::Data::new(posted.clone());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let take = async |body: web::Json<Value>, posted: web::Data<Posted>| {
                posted.lock().expect("a lock").push(body.into_inner());
                HttpResponse::Ok().finish()
            };
            let app = move || App::new().app_data(data.clone()).default_service(web::to(take));
            let server =
                HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").expect("a port");
            tell.send(server.addrs()[0]).expect("the test waits");
            server.run().await.expect("the chat runs");
        });
    });
    (format!("http://{}/", told.recv().expect("an address")), posted)
}
