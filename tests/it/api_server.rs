//! A small double of the API server, for answers that a real one does not give on demand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

use super::running::{FluxRecv, folder, stdout, write_config};

/// An answer to a patch: its status, and its `Retry-After`.
#[derive(Clone, Copy)]
struct Scripted(u16, Option<u64>);

#[derive(Default)]
struct Double {
    /// Answers to the coming patches; then 200.
    script: Mutex<VecDeque<Scripted>>,
    patches: Mutex<Vec<Instant>>,
    /// What lists of other kinds answer; 404 for those that are not served.
    broken_kind: Option<&'static str>,
    /// What the list of GitRepositories holds beside the good one.
    extra: Vec<Value>,
    /// How watches are answered.
    watches: Watches,
    /// Whether lists of GitRepositories fail.
    lists_fail: AtomicBool,
    /// Whether they take a second.
    lists_are_slow: AtomicBool,
    /// Requests to list and to watch GitRepositories.
    lists: AtomicUsize,
    watched: AtomicUsize,
    /// The served version; the other ones are not there.
    version: Mutex<&'static str>,
}

/// How watches are answered.
#[derive(Default, PartialEq, Eq)]
enum Watches {
    /// They stand and are silent.
    #[default]
    Silent,
    /// They are taken and end at once.
    Cut,
    /// Their version is said to be too old; the list has grown by then.
    Expired,
}

/// An answer that never comes.
const NEVER: u16 = 0;

async fn answer(request: HttpRequest, double: web::Data<Double>) -> HttpResponse {
    let path = request.path().to_owned();
    if request.method() == "PATCH" {
        double.patches.lock().expect("a lock").push(Instant::now());
        let served = *double.version.lock().expect("a lock");
        if !path.contains(&format!("/{served}/")) {
            return HttpResponse::NotFound().finish();
        }
        let Scripted(status, retry_after) =
            double.script.lock().expect("a lock").pop_front().unwrap_or(Scripted(200, None));
        if status == NEVER {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let mut response = HttpResponse::build(StatusCode::from_u16(status).expect("a status"));
        if let Some(seconds) = retry_after {
            response.insert_header(("Retry-After", seconds.to_string()));
        }
        return response.body("Too plain for JSON");
    }
    let served = *double.version.lock().expect("a lock");
    if path == format!("/apis/source.toolkit.fluxcd.io/{served}") {
        let broken = double.broken_kind.map(|plural| json!({"name": plural, "singularName": "", "namespaced": true, "kind": "Broken", "verbs": []}));
        let mut resources = json!([{"name": "gitrepositories", "singularName": "", "namespaced": true, "kind": "GitRepository", "verbs": []}]);
        resources.as_array_mut().expect("a list").extend(broken);
        return HttpResponse::Ok().json(json!({"kind": "APIResourceList", "groupVersion": format!("source.toolkit.fluxcd.io/{served}"), "resources": resources}));
    }
    if path.ends_with("/gitrepositories") {
        // As an API server without streaming lists does; a real one that has them is in the cluster suite.
        if request.query_string().contains("sendInitialEvents") {
            return HttpResponse::UnprocessableEntity().body("sendInitialEvents is forbidden");
        }
        if request.query_string().contains("watch=true") {
            double.watched.fetch_add(1, Ordering::Relaxed);
            return match double.watches {
                Watches::Cut => HttpResponse::Ok().finish(),
                Watches::Expired if double.lists.load(Ordering::Relaxed) == 1 => HttpResponse::Ok().body(
                    "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\
                     \"message\":\"too old resource version\",\"reason\":\"Expired\",\"code\":410}}\n",
                ),
                _ => HttpResponse::Ok().streaming(futures::stream::pending::<Result<web::Bytes, std::io::Error>>()),
            };
        }
        if double.lists_fail.load(Ordering::Relaxed) {
            return HttpResponse::InternalServerError().body("etcd is down");
        }
        let lists = double.lists.fetch_add(1, Ordering::Relaxed);
        if double.lists_are_slow.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let good = json!({"metadata": {"name": "app", "namespace": "apps", "annotations": {"team": "a"}}, "spec": {"url": "https://github.com/org/app", "ref": {"branch": "main"}}});
        let later = json!({"metadata": {"name": "later", "namespace": "apps"}, "spec": {"url": "https://github.com/org/later", "ref": {"branch": "main"}}});
        let grown = (double.watches == Watches::Expired && lists > 0).then_some(&later);
        let items: Vec<&Value> = double.extra.iter().chain([&good]).chain(grown).collect();
        return HttpResponse::Ok().json(json!({"kind": "GitRepositoryList", "apiVersion": "source.toolkit.fluxcd.io/v1", "metadata": {"resourceVersion": "1"}, "items": items}));
    }
    match double.broken_kind.is_some_and(|plural| path.ends_with(plural)) {
        true => HttpResponse::InternalServerError().body("conversion webhook failed"),
        false => HttpResponse::NotFound().finish(),
    }
}

struct Bed {
    double: web::Data<Double>,
    running: FluxRecv,
}

/// Starts the double and the binary before it; has to be called within an actix runtime.
fn start(double: Double) -> Bed {
    if double.version.lock().expect("a lock").is_empty() {
        *double.version.lock().expect("a lock") = "v1";
    }
    let double = web::Data::from(Arc::new(double));
    let data = double.clone();
    let server = HttpServer::new(move || App::new().app_data(data.clone()).default_service(web::to(answer)));
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0").expect("a port");
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());
    let folder = folder("fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key}\n");
    let kubeconfig = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters: [{{name: t, cluster: {{server: \"http://{address}\"}}}}]\n\
         users: [{{name: t, user: {{token: test-token}}}}]\ncontexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).expect("a kubeconfig");
    let running = FluxRecv::in_folder(
        folder,
        &["--kubeconfig", &kubeconfig.display().to_string(), "--min-interval", "0"],
    );
    Bed { double, running }
}

const INVENTORY_COMPLETE: &str = "inventory complete; matching deliveries as they arrive";
const REQUEST_FAILED: &str = "reconciliation request failed, retrying";
const CONTINUING_WITHOUT: &str = "kind cannot be listed; continuing without it";
const QUEUED_MATCHED: &str = "waiting delivery matched";
const APP: [(&str, &str); 1] = [("object", "GitRepository/apps/app")];

impl Bed {
    async fn push(&self) -> String {
        self.push_to("https://github.com/org/app").await
    }

    async fn push_to(&self, repository: &str) -> String {
        self.wait_for_log(INVENTORY_COMPLETE, &[]).await;
        self.push_now(repository)
    }

    fn push_now(&self, repository: &str) -> String {
        self.push_now_to("github", repository)
    }

    fn push_now_to(&self, endpoint: &str, repository: &str) -> String {
        let output = self.running.command(&[
            "send",
            "--to",
            &self.running.base,
            "--endpoint",
            endpoint,
            "--repo",
            repository,
        ]);
        stdout(&output)
    }

    /// Lets the double answer while waiting.
    async fn wait_for_log(&self, message: &str, fields: &[(&str, &str)]) {
        self.running.wait_for_logs(message, fields, 1, Duration::from_secs(60)).await;
    }

    fn reload(&self, config: &str) {
        write_config(self.running.folder.path(), config);
    }

    fn patches(&self) -> Vec<Instant> {
        self.double.patches.lock().expect("a lock").clone()
    }
}

fn script(answers: &[Scripted]) -> Double {
    Double { script: Mutex::new(answers.iter().copied().collect()), ..Double::default() }
}

// Incident 30.
#[actix_web::test]
async fn what_may_pass_is_tried_again_and_retry_after_is_kept() {
    let bed = start(script(&[
        Scripted(429, Some(2)),
        Scripted(500, None),
        Scripted(409, None),
        Scripted(404, None),
        Scripted(401, None),
    ]));
    assert!(bed.push().await.starts_with("202 "));
    bed.wait_for_log("reconciliation requested", &APP).await;
    let patches = bed.patches();
    assert_eq!(patches.len(), 6);
    assert!(patches[1] - patches[0] >= Duration::from_secs(2), "{:?}", patches[1] - patches[0]);
    let failed = [APP[0], ("why", "429 Too plain for JSON")];
    assert_eq!(bed.running.logged(REQUEST_FAILED, &failed), 1, "{}", bed.running.log());
    assert!(bed.running.logged("API server address and credentials reloaded", &[]) > 0);
}

/// An API server that has just started may say so for a moment; later the pauses are long.
#[actix_web::test]
async fn what_someone_has_to_mend_is_said_and_tried_again() {
    let bed = start(script(&[Scripted(403, None), Scripted(422, None)]));
    assert!(bed.push().await.starts_with("202 "));
    bed.wait_for_log(REQUEST_FAILED, &[APP[0], ("why", "*403*")]).await;
    bed.wait_for_log(REQUEST_FAILED, &[APP[0], ("why", "*422*")]).await;
    bed.wait_for_log("reconciliation requested", &APP).await;
    assert_eq!(bed.patches().len(), 3);
}

// Incident 32.
#[actix_web::test]
async fn objects_that_cannot_be_read_hide_only_themselves() {
    let extra = vec![
        json!({"metadata": {"name": "strange", "namespace": "apps"}, "spec": {"url": {"not": "a text"}}}),
        json!({"metadata": {"name": "empty", "namespace": "apps"}}),
        json!({"metadata": {"name": "nonsense", "namespace": "apps"}, "spec": {"url": "nonsense"}}),
    ];
    let bed = start(Double { extra, ..Double::default() });
    assert!(bed.push().await.contains("\"targets\":[\"GitRepository/apps/app\"]"));
    for name in ["strange", "empty", "nonsense"] {
        let object = format!("GitRepository/apps/{name}");
        assert_eq!(bed.running.logged("object cannot be matched", &[("object", &object)]), 1, "{name}");
    }
    bed.wait_for_log("kind is not served by the cluster, retrying", &[("kind", "Bucket")]).await;
}

#[actix_web::test]
async fn a_broken_kind_does_not_hold_back_the_others() {
    let bed = start(Double { broken_kind: Some("buckets"), ..Double::default() });
    bed.wait_for_log(CONTINUING_WITHOUT, &[("kind", "Bucket")]).await;
    assert!(bed.push().await.contains("\"targets\":[\"GitRepository/apps/app\"]"));
}

#[actix_web::test]
async fn a_patch_that_hangs_is_ended_and_sent_again() {
    let bed = start(script(&[Scripted(NEVER, None)]));
    assert!(bed.push().await.starts_with("202 "));
    bed.wait_for_log(REQUEST_FAILED, &[APP[0], ("why", "no answer within 10 s")]).await;
    bed.wait_for_log("reconciliation requested", &APP).await;
    assert_eq!(bed.patches().len(), 2);
}

#[actix_web::test]
async fn watches_that_end_at_once_are_opened_with_growing_pauses() {
    let bed = start(Double { watches: Watches::Cut, ..Double::default() });
    assert!(bed.push().await.starts_with("202 "));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let watched = bed.double.watched.load(Ordering::Relaxed);
    assert!((3..=10).contains(&watched), "{watched} watches in 5 s");
    assert_eq!(bed.double.lists.load(Ordering::Relaxed), 1, "nothing has to be listed again");
}

#[actix_web::test]
async fn an_expired_version_is_listed_anew() {
    let bed = start(Double { watches: Watches::Expired, ..Double::default() });
    bed.wait_for_log("watch interrupted, retrying", &[]).await;
    let started = Instant::now();
    while bed.double.lists.load(Ordering::Relaxed) < 2 {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = Instant::now();
    loop {
        let answer = bed.push_to("https://github.com/org/later").await;
        if answer.contains("\"targets\":[\"GitRepository/apps/later\"]") {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{answer}");
    }
}

// Incident 34.
#[actix_web::test]
async fn a_served_version_that_goes_away_is_found_under_its_new_one() {
    let bed = start(Double { version: Mutex::new("v1beta2"), ..Double::default() });
    assert!(bed.push().await.starts_with("202 "));
    bed.wait_for_log("reconciliation requested", &APP).await;
    *bed.double.version.lock().expect("a lock") = "v1";
    assert!(bed.push().await.starts_with("202 "));
    bed.running.wait_for_logs("reconciliation requested", &APP, 2, Duration::from_secs(20)).await;
    assert!(bed.running.logged(REQUEST_FAILED, &[APP[0], ("why", "*404*")]) > 0, "{}", bed.running.log());
}

/// Incident 30: an API server that answers, but with errors, for longer than the others wait.
#[actix_web::test]
async fn deliveries_wait_for_a_broken_kind_of_their_own() {
    let bed = start(Double { lists_fail: AtomicBool::new(true), ..Double::default() });
    let early = bed.push_now("https://github.com/org/app");
    assert!(early.contains("\"outcome\":\"queued\""), "{early}");
    bed.wait_for_log(CONTINUING_WITHOUT, &[("kind", "GitRepository")]).await;
    let late = bed.push_now("https://github.com/org/app");
    assert!(late.contains("\"outcome\":\"queued\""), "{late}");
    assert_eq!(bed.patches().len(), 0);
    bed.double.lists_fail.store(false, Ordering::Relaxed);
    bed.wait_for_log("reconciliation requested", &APP).await;
}

/// What only filters read of objects is kept only where one does.
#[actix_web::test]
async fn the_first_filter_over_objects_has_them_listed_again_and_its_deliveries_wait_for_that() {
    let bed = start(Double::default());
    assert!(bed.push().await.starts_with("202 "));
    bed.wait_for_log("reconciliation requested", &APP).await;
    bed.double.lists_are_slow.store(true, Ordering::Relaxed);
    // The second filter holds of an object of which nothing is known.
    let filtered = "fluxRecvVersion: 1
endpoints:
- source: GitHub
  keyPath: github.key
  resources: [{kind: GitRepository, filter: 'res.metadata.annotations[\"team\"] == \"a\"'}]
- source: GitHub
  keyPath: others.key
  resources: [{kind: GitRepository, filter: '!has(res.metadata.annotations)'}]
- source: GitHub
  keyPath: plain.key
";
    bed.reload(filtered);
    bed.wait_for_log("config reloaded", &[]).await;
    let app = "https://github.com/org/app";
    for endpoint in ["github", "others"] {
        let early = bed.push_now_to(endpoint, app);
        assert!(early.contains("\"outcome\":\"queued\""), "{endpoint}: {early}");
    }
    let patches = bed.patches().len();
    bed.wait_for_log(
        QUEUED_MATCHED,
        &[("outcome", "accepted"), ("detail", "*push to github.com/org/app main*")],
    )
    .await;
    bed.wait_for_log(
        QUEUED_MATCHED,
        &[("detail", "*no object passed the filters of `resources` (1 object references this*")],
    )
    .await;
    assert_eq!(bed.running.logged("filter failed to evaluate and does not match", &[]), 0);
    assert_eq!(bed.double.lists.load(Ordering::Relaxed), 2);
    let started = Instant::now();
    while bed.patches().len() == patches {
        assert!(started.elapsed() < Duration::from_secs(10), "{}", bed.running.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bed.patches().len(), patches + 1);
    let late = bed.push_now(app);
    assert!(late.contains("\"targets\":[\"GitRepository/apps/app\"]"), "{late}");

    // The same kind again: filters read what is there.
    bed.reload(&filtered.replace("\"a\"", "\"b\""));
    bed.running.wait_for_logs("config reloaded", &[], 2, Duration::from_secs(20)).await;
    let other = bed.push_now(app);
    assert!(
        other.contains("no object passed the filters of `resources` (1 object references this"),
        "{other}"
    );
    assert_eq!(bed.double.lists.load(Ordering::Relaxed), 2);
}

#[actix_web::test]
async fn a_list_for_filters_that_fails_holds_back_nobody_else_and_is_told_of() {
    let bed = start(Double::default());
    assert!(bed.push().await.starts_with("202 "));
    bed.double.lists_fail.store(true, Ordering::Relaxed);
    let config = "fluxRecvVersion: 1
endpoints:
- source: GitHub
  keyPath: github.key
  resources: [{kind: GitRepository, filter: 'res.metadata.annotations[\"team\"] == \"a\"'}]
- source: GitHub
  keyPath: plain.key
";
    bed.reload(config);
    bed.wait_for_log("kind cannot be listed; its deliveries wait", &[("kind", "GitRepository")]).await;
    let app = "https://github.com/org/app";
    assert!(bed.push_now_to("plain", app).contains("\"targets\":[\"GitRepository/apps/app\"]"));
    let waits = bed.push_now(app);
    assert!(waits.contains("\"outcome\":\"queued\""), "{waits}");
    bed.double.lists_fail.store(false, Ordering::Relaxed);
    bed.wait_for_log(
        QUEUED_MATCHED,
        &[("outcome", "accepted"), ("detail", "*push to github.com/org/app main*")],
    )
    .await;
}
