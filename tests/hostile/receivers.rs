//! Five thousand Receivers of as many tenants.

use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::json;
use sha2::Digest;

use super::attack::{CONFIG, MIB, memory};
use super::running::{Running, client, folder};

const RECEIVERS: usize = 5000;

fn token(at: usize) -> String {
    format!("test-token-of-tenant-{at}")
}

async fn answer(request: HttpRequest) -> HttpResponse {
    let (path, query) = (request.path(), request.query_string());
    if query.contains("watch=true") {
        return HttpResponse::Ok()
            .streaming(futures::stream::pending::<Result<web::Bytes, std::io::Error>>());
    }
    let list = |items: Vec<serde_json::Value>, next: String| {
        HttpResponse::Ok()
            .json(json!({"items": items, "metadata": {"resourceVersion": "7", "continue": next}}))
    };
    if path.ends_with("/secrets") {
        // fieldSelector=metadata.name%3Ds17
        let at =
            query.split("metadata.name%3Ds").nth(1).and_then(|rest| rest.split('&').next()?.parse().ok());
        use base64::Engine;
        let data = |at| base64::engine::general_purpose::STANDARD.encode(token(at));
        let secret =
            at.map(|at: usize| json!({"metadata": {"name": format!("s{at}")}, "data": {"token": data(at)}}));
        return list(secret.into_iter().collect(), String::new());
    }
    if !path.ends_with("/receivers") {
        return HttpResponse::NotFound().finish();
    }
    let parameter = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.and_then(|value| value.parse::<usize>().ok())
    };
    let from = parameter("continue").unwrap_or(0);
    let to = RECEIVERS.min(from + parameter("limit").unwrap_or(50));
    let next = if to < RECEIVERS { to.to_string() } else { String::new() };
    let receiver = |at: usize| {
        json!({
            "metadata": {"name": format!("r{at}"), "namespace": "tenants", "resourceVersion": "7",
                         "creationTimestamp": "2026-01-01T00:00:00Z", "uid": format!("{at}")},
            "spec": {"type": "generic-hmac", "secretRef": {"name": format!("s{at}")},
                     "resources": [{"kind": "GitRepository", "name": format!("app-{at}")}]},
        })
    };
    list((from..to).map(receiver).collect(), next)
}

#[actix_web::test]
async fn five_thousand_receivers_are_served_and_take_little_memory() {
    let server = HttpServer::new(|| App::new().default_service(web::to(answer)));
    let server = server.workers(1).disable_signals().bind("127.0.0.1:0").expect("a port");
    let address = server.addrs()[0];
    actix_web::rt::spawn(server.run());
    let folder = folder(CONFIG);
    let kubeconfig = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters: [{{name: t, cluster: {{server: \"http://{address}\"}}}}]\n\
         users: [{{name: t, user: {{token: test-token}}}}]\ncontexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).expect("a kubeconfig");
    let running =
        Running::in_folder(folder, &["--kubeconfig", &kubeconfig.display().to_string(), "--receivers"]);
    let before = memory(&running);
    // The last one is among those that are looked at in turns.
    let last = RECEIVERS - 1;
    let digest = sha2::Sha256::digest(format!("{}r{last}tenants", token(last)));
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
    for _ in 0..3 {
        assert_eq!(running.ask("/metrics").await.0, 200);
    }
    let grown = memory(&running).resident.saturating_sub(before.resident);
    assert!(grown < 40 * MIB, "{} MiB", grown / MIB);
}
