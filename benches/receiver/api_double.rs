//! A double of the API server: so many GitRepositories, in pages; a watch that says nothing; patches
//! that take 2 ms.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures::StreamExt;
use serde_json::{Value, json};

const GROUPS: [(&str, &[&str]); 2] = [
    (
        "source.toolkit.fluxcd.io",
        &["gitrepositories", "ocirepositories", "helmrepositories", "helmcharts", "buckets"],
    ),
    ("image.toolkit.fluxcd.io", &["imagerepositories"]),
];

struct Double {
    objects: usize,
    requests: AtomicU64,
}

/// An object as source-controller leaves it, with its managed fields: some 3 KiB.
fn object(at: usize) -> Value {
    let commit = format!("{at:040x}");
    let fields: Value = (0..40)
        .map(|field| (format!("f:field-{field}"), json!({"f:nested": {}, ".": {}})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
        "metadata": {
            "name": format!("repository-{at}"), "namespace": format!("team-{}", at % 50), "uid": commit,
            "resourceVersion": "7", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"reconcile.fluxcd.io/requestedAt": "2026-01-01T00:00:00.000000000Z"},
            "finalizers": ["finalizers.fluxcd.io"],
            "managedFields": [{"manager": "source-controller", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields}],
        },
        "spec": {"interval": "10m", "url": super::server::url(at), "ref": {"branch": "main"}, "timeout": "60s"},
        "status": {
            "artifact": {"revision": format!("main@sha1:{commit}"), "digest": format!("sha256:{commit}"), "path": "a/b", "url": "http://source-controller/a/b", "size": 12345, "lastUpdateTime": "2026-01-01T00:00:00Z"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored artifact", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            "lastHandledReconcileAt": "2026-01-01T00:00:00.000000000Z", "observedGeneration": 1,
        },
    })
}

async fn answer(request: HttpRequest, double: web::Data<Double>) -> HttpResponse {
    let path = request.path();
    if path == "/requests" {
        return HttpResponse::Ok().body(double.requests.load(Ordering::Relaxed).to_string());
    }
    double.requests.fetch_add(1, Ordering::Relaxed);
    if request.method() == "PATCH" {
        actix_web::rt::time::sleep(Duration::from_millis(2)).await;
        return HttpResponse::Ok().content_type("application/json").body("{}");
    }
    for (group, plurals) in GROUPS {
        let version = format!("{group}/v1");
        if path == format!("/apis/{version}") {
            let resources: Vec<Value> = plurals.iter().map(|plural| json!({"name": plural, "singularName": "", "namespaced": true, "kind": "Any", "verbs": []})).collect();
            return HttpResponse::Ok()
                .json(json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources}));
        }
    }
    let query = request.query_string();
    let total = if path.ends_with("/gitrepositories") { double.objects } else { 0 };
    if query.contains("sendInitialEvents=true") {
        return stream(total);
    }
    if query.contains("watch=true") {
        return HttpResponse::Ok()
            .streaming(futures::stream::pending::<Result<web::Bytes, std::io::Error>>());
    }
    let parameter = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.and_then(|value| value.parse::<usize>().ok())
    };
    let (limit, from) = (parameter("limit").unwrap_or(total), parameter("continue").unwrap_or(0));
    let to = total.min(from + limit);
    let next = if to < total { to.to_string() } else { String::new() };
    let items: Vec<Value> = (from..to).map(object).collect();
    HttpResponse::Ok().json(json!({
        "kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "7", "continue": next}, "items": items,
    }))
}

/// The list at the head of a watch, as the real API server sends it.
fn stream(objects: usize) -> HttpResponse {
    let added = (0..objects).map(|at| json!({"type": "ADDED", "object": object(at)}));
    let metadata = json!({"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}});
    let end = json!({"type": "BOOKMARK", "object": {"metadata": metadata}});
    let lines =
        added.chain([end]).map(|event| Ok::<_, std::io::Error>(web::Bytes::from(format!("{event}\n"))));
    HttpResponse::Ok().streaming(futures::stream::iter(lines).chain(futures::stream::pending()))
}

pub fn serve(port: &str, objects: &str) {
    let double = Double { objects: objects.parse().expect("a number"), requests: AtomicU64::new(0) };
    let double = web::Data::from(Arc::new(double));
    let app = move || App::new().app_data(double.clone()).default_service(web::to(answer));
    let server = HttpServer::new(app).workers(1).bind(format!("127.0.0.1:{port}")).expect("a port").run();
    actix_web::rt::System::new().block_on(server).expect("a server");
}
