//! Objects that tenants write, listed by a double of the API server: a real one takes them as well,
//! which the cluster suite shows for one of each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::json;

use super::attack::{CONFIG, MIB, deliver, growth, memory};
use super::running::{Running, folder};

/// What the double lists of one kind, and how often it says that the first object has changed.
struct Double {
    group: &'static str,
    plural: &'static str,
    objects: usize,
    object: fn(usize) -> String,
    changes: usize,
}

async fn answer(request: HttpRequest, double: web::Data<Double>) -> HttpResponse {
    let path = request.path().to_owned();
    if path == format!("/apis/{}/v1", double.group) {
        let resource = json!({"name": double.plural, "singularName": "", "namespaced": true, "kind": "Any", "verbs": []});
        return HttpResponse::Ok().json(json!({
            "kind": "APIResourceList", "groupVersion": format!("{}/v1", double.group), "resources": [resource],
        }));
    }
    if request.method() == "PATCH" {
        return HttpResponse::Ok().content_type("application/json").body("{}");
    }
    if !path.ends_with(double.plural) {
        return HttpResponse::NotFound().finish();
    }
    let query = request.query_string().to_owned();
    if query.contains("watch=true") {
        let line = format!("{{\"type\":\"MODIFIED\",\"object\":{}}}\n", (double.object)(0));
        let changes = futures::stream::iter(
            std::iter::repeat_n(web::Bytes::from(line), double.changes).map(Ok::<_, std::io::Error>),
        );
        use futures::StreamExt;
        return HttpResponse::Ok().streaming(changes.chain(futures::stream::pending()));
    }
    let parameter = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        pair.and_then(|value| value.parse::<usize>().ok())
    };
    let (limit, from) = (parameter("limit").unwrap_or(50), parameter("continue").unwrap_or(0));
    let to = double.objects.min(from + limit);
    let next = if to < double.objects { to.to_string() } else { String::new() };
    // As the real one writes it: the objects come before what is said about the list.
    let begin = web::Bytes::from_static(b"{\"apiVersion\":\"v1\",\"items\":[");
    let object = double.object;
    let items = (from..to)
        .map(move |at| web::Bytes::from(format!("{}{}", if at > from { "," } else { "" }, object(at))));
    let end = web::Bytes::from(format!(
        "],\"kind\":\"List\",\"metadata\":{{\"resourceVersion\":\"7\",\"continue\":\"{next}\"}}}}"
    ));
    let all = std::iter::once(begin).chain(items).chain([end]).map(Ok::<_, std::io::Error>);
    HttpResponse::Ok().content_type("application/json").streaming(futures::stream::iter(all))
}

fn start(double: Double) -> Running {
    let double = web::Data::from(Arc::new(double));
    let server =
        HttpServer::new(move || App::new().app_data(double.clone()).default_service(web::to(answer)));
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
    Running::in_folder(folder, &["--kubeconfig", &kubeconfig.display().to_string(), "--min-interval", "0"])
}

fn metadata(at: usize) -> String {
    format!("\"metadata\":{{\"name\":\"o{at}\",\"namespace\":\"tenant\",\"resourceVersion\":\"7\"}}")
}

/// 25 patterns of which each compiles to megabytes.
fn with_patterns(at: usize) -> String {
    let patterns: Vec<String> =
        (0..25).map(|number| format!("\"(?:\\\\pL{{1,{}}}){{1,9}}x\"", 80 + number)).collect();
    format!(
        "{{\"apiVersion\":\"image.toolkit.fluxcd.io/v1\",\"kind\":\"ImageRepository\",{},\"spec\":{{\"image\":\"r.io/app\",\"exclusionList\":[{}]}}}}",
        metadata(at),
        patterns.join(",")
    )
}

// The attack: 600 bytes of YAML took 244 MB and 7 s of the thread that drives the queue, again at each
// change, and crash-looped the default install.
#[actix_web::test]
async fn patterns_of_objects_take_neither_memory_nor_time() {
    let double = Double {
        group: "image.toolkit.fluxcd.io",
        plural: "imagerepositories",
        objects: 100,
        object: with_patterns,
        changes: 50,
    };
    let running = start(double);
    let began = Instant::now();
    running.wait_for_logs("all objects are known", 1, Duration::from_secs(60)).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let peak = memory(&running).peak;
    assert!(peak < 100 * MIB, "{} MiB", peak / MIB);
    let (status, page) = running.ask("/metrics").await;
    assert_eq!(status, 200);
    assert!(page.contains("flux_recv_inventory_objects{kind=\"ImageRepository\"} 100"), "{page}");
}

/// 1 MB, most of it in a field that matching does not read.
fn large(at: usize) -> String {
    let folders = vec!["\"/a\""; 200_000].join(",");
    format!(
        "{{\"apiVersion\":\"source.toolkit.fluxcd.io/v1\",\"kind\":\"GitRepository\",{},\"spec\":{{\"url\":\"https://github.com/org/r{at}\",\"sparseCheckout\":[{folders}]}}}}",
        metadata(at)
    )
}

// The attack: lists came in pages of 50, each held as bytes and as a tree of values.
#[actix_web::test]
async fn a_thousand_objects_of_a_megabyte_are_listed_one_by_one() {
    let double = Double {
        group: "source.toolkit.fluxcd.io",
        plural: "gitrepositories",
        objects: 1000,
        object: large,
        changes: 3,
    };
    let running = start(double);
    let before = memory(&running);
    running.wait_for_logs("all objects are known", 1, Duration::from_secs(120)).await;
    let grown = growth(&running, before);
    assert!(grown < 32 * MIB, "{} MiB", grown / MIB);
    let (_, page) = running.ask("/metrics").await;
    assert!(page.contains("flux_recv_inventory_objects{kind=\"GitRepository\"} 1000"), "{page}");
}

/// A range of 900 KB.
fn with_range(at: usize) -> String {
    let range = ">=1.0.0 ".repeat(110_000);
    format!(
        "{{\"apiVersion\":\"source.toolkit.fluxcd.io/v1\",\"kind\":\"GitRepository\",{},\"spec\":{{\"url\":\"https://github.com/org/app\",\"ref\":{{\"semver\":\"{range}\"}}}}}}",
        metadata(at)
    )
}

// The attack: one range of 900 KB held 27 MB.
#[actix_web::test]
async fn long_ranges_are_not_kept_and_match_whatever_comes() {
    let double = Double {
        group: "source.toolkit.fluxcd.io",
        plural: "gitrepositories",
        objects: 20,
        object: with_range,
        changes: 0,
    };
    let running = start(double);
    running.wait_for_logs("all objects are known", 1, Duration::from_secs(60)).await;
    let before = memory(&running);
    let (status, _) = deliver(&running, "other", Duration::from_secs(5)).await.expect("an answer");
    assert_eq!(status, 200, "a push of a branch");
    assert!(before.peak < 100 * MIB, "{} MiB", before.peak / MIB);
    running.wait_for_logs("matched without a field that is too long", 1, Duration::from_secs(10)).await;
    let said = running
        .log()
        .matches("matched without a field that is too long object=GitRepository/tenant/o1 ")
        .count();
    assert_eq!(said, 1, "{}", running.log());
}
