//! A double of the API server that lists what tenants wrote: a real one takes such objects as well, which
//! the cluster suite shows for one of each.

use std::sync::Arc;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures::StreamExt;
use serde_json::json;

use super::running::{FluxRecv, folder};

/// What the double lists.
#[derive(Default)]
pub struct Double {
    pub kinds: Vec<ListedKind>,
    /// The Secret of this name, as JSON; the answer never comes where there is none.
    pub secret: Option<fn(&str) -> Option<serde_json::Value>>,
    /// It lists in pages, as API servers before streaming lists do.
    pub lists_in_pages: bool,
    /// The kind, in the plural, whose list never comes.
    pub hangs: Option<(&'static str, &'static str)>,
}

/// The objects of one kind, and how often the watch says that the first one has changed.
#[derive(Clone, Copy)]
pub struct ListedKind {
    pub group: &'static str,
    pub plural: &'static str,
    pub objects: usize,
    pub object: fn(usize) -> String,
    pub changes: usize,
}

impl Double {
    pub fn new(kind: ListedKind) -> Double {
        Double { kinds: vec![kind], ..Double::default() }
    }

    /// Serves on loopback, and starts a flux-recv against it.
    pub fn start(self, config: &str, arguments: &[&str]) -> FluxRecv {
        let double = web::Data::from(Arc::new(self));
        let server =
            HttpServer::new(move || App::new().app_data(double.clone()).default_service(web::to(answer)));
        let server = server.workers(1).disable_signals().bind("127.0.0.1:0").expect("a port");
        let address = server.addrs()[0];
        actix_web::rt::spawn(server.run());
        let folder = folder(config);
        let kubeconfig = folder.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters: [{{name: t, cluster: {{server: \"http://{address}\"}}}}]\n\
             users: [{{name: t, user: {{token: test-token}}}}]\ncontexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n"
        );
        std::fs::write(&kubeconfig, text).expect("a kubeconfig");
        let kubeconfig = kubeconfig.display().to_string();
        FluxRecv::in_folder(folder, &[&["--kubeconfig", &kubeconfig], arguments].concat())
    }

    fn resources(&self, group: &str) -> Vec<&'static str> {
        let listed = self.kinds.iter().map(|kind| (kind.group, kind.plural)).chain(self.hangs);
        listed.filter(|(of, _)| *of == group).map(|(_, plural)| plural).collect()
    }
}

async fn answer(request: HttpRequest, double: web::Data<Double>) -> HttpResponse {
    let (path, query) = (request.path(), request.query_string());
    if let Some(group) = path.strip_prefix("/apis/").and_then(|rest| rest.strip_suffix("/v1")) {
        let resource = |plural: &str| json!({"name": plural, "singularName": "", "namespaced": true, "kind": "Any", "verbs": []});
        let resources: Vec<_> = double.resources(group).into_iter().map(resource).collect();
        return HttpResponse::Ok().json(json!({
            "kind": "APIResourceList", "groupVersion": format!("{group}/v1"), "resources": resources,
        }));
    }
    if request.method() == "PATCH" {
        return HttpResponse::Ok().content_type("application/json").body("{}");
    }
    if double.hangs.is_some_and(|(_, plural)| path.ends_with(plural)) {
        return HttpResponse::Ok()
            .streaming(futures::stream::pending::<Result<web::Bytes, std::io::Error>>());
    }
    if let Some(secret) = double.secret.filter(|_| path.ends_with("/secrets")) {
        // fieldSelector=metadata.name%3Ds17
        let named = query.split("metadata.name%3D").nth(1).and_then(|rest| rest.split('&').next());
        return match named.and_then(secret) {
            Some(secret) if !query.contains("watch=true") => page(std::iter::once(secret.to_string()), ""),
            _ => unending(Vec::new()),
        };
    }
    let Some(kind) = double.kinds.iter().find(|kind| path.ends_with(kind.plural)) else {
        return HttpResponse::NotFound().finish();
    };
    let object = kind.object;
    let changed = format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", object(0));
    let changes = vec![web::Bytes::from(changed); kind.changes];
    if query.contains("sendInitialEvents=true") {
        return match double.lists_in_pages {
            true => HttpResponse::UnprocessableEntity().body("sendInitialEvents is forbidden"),
            false => stream((0..kind.objects).map(object), changes),
        };
    }
    if query.contains("watch=true") {
        return unending(changes);
    }
    let parameter = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.and_then(|value| value.parse::<usize>().ok())
    };
    let (limit, from) = (parameter("limit").unwrap_or(50), parameter("continue").unwrap_or(0));
    let to = kind.objects.min(from + limit);
    let next = if to < kind.objects { to.to_string() } else { String::new() };
    page((from..to).map(object), &next)
}

/// A list at the head of a watch, as the real API server sends it.
fn stream(objects: impl Iterator<Item = String> + 'static, changes: Vec<web::Bytes>) -> HttpResponse {
    let lines = objects.map(|object| format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n"));
    let end = "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"7\",\
               \"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}}\n";
    let all = lines.map(web::Bytes::from).chain([web::Bytes::from(end)]).chain(changes);
    let all = futures::stream::iter(all.map(Ok::<_, std::io::Error>));
    HttpResponse::Ok().streaming(all.chain(futures::stream::pending()))
}

fn unending(lines: Vec<web::Bytes>) -> HttpResponse {
    let lines = futures::stream::iter(lines.into_iter().map(Ok::<_, std::io::Error>));
    HttpResponse::Ok().streaming(lines.chain(futures::stream::pending()))
}

/// As the real API server writes it: the objects come before what is said about the list.
fn page(objects: impl Iterator<Item = String> + 'static, next: &str) -> HttpResponse {
    let begin = web::Bytes::from_static(b"{\"apiVersion\":\"v1\",\"items\":[");
    let items = objects.enumerate().map(|(at, object)| {
        let separator = if at > 0 { "," } else { "" };
        web::Bytes::from(format!("{separator}{object}"))
    });
    let end = web::Bytes::from(format!(
        "],\"kind\":\"List\",\"metadata\":{{\"resourceVersion\":\"7\",\"continue\":\"{next}\"}}}}"
    ));
    let all = std::iter::once(begin).chain(items).chain([end]).map(Ok::<_, std::io::Error>);
    HttpResponse::Ok().content_type("application/json").streaming(futures::stream::iter(all))
}
