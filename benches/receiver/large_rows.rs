//! A large cluster: memory, time to ready and requests at the start, against a real kube-apiserver.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::json;

use super::bed::Bed;
use super::cluster_rows::{SOURCE, bed_with_manifests};
use super::server::{Server, url};
use super::table::{Must, Row};

const OBJECTS: usize = 100_000;
const NAMESPACES: usize = 50;
const CREATING_THREADS: usize = 16;

pub fn large() -> Vec<Row> {
    let Some(bed) = bed_with_manifests() else { return Vec::new() };
    create_objects(&bed);
    let token = bed.token("flux-system", "flux-recv");
    let bare = list_once(&bed, &token);
    let before = bed.requests_of("flux-recv").len();
    let started = Instant::now();
    let receiver =
        Server::flux_recv_with(&bed.kubeconfig(&token, "flux-system"), &[]).when_it_knows_all_objects();
    let ready = started.elapsed().as_secs_f64();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let megabytes = receiver.resident_kib() as f64 * 1024.0 / 1e6;
    let requests = bed.requests_of("flux-recv").split_off(before);
    let lists = requests.iter().filter(|request| request.starts_with("list ")).count();
    println!(
        "{OBJECTS} objects: {megabytes:.1} MB; ready after {ready:.2} s, bare list {bare:.2} s; {} requests, {lists} of them lists",
        requests.len()
    );
    vec![
        Row {
            what: "resident MB, idle, 100,000 objects, real API server",
            figures: format!("{megabytes:.1} MB"),
            value: megabytes,
            must: Must::AtMost(64.0),
        },
        Row {
            what: "start to ready to match with 100,000 objects, real API server : the bytes of one list",
            figures: format!("{ready:.2} s : {bare:.2} s"),
            value: ready / bare,
            must: Must::AtMost(2.0),
        },
        Row {
            what: "API requests from the start to ready with 100,000 objects",
            figures: format!("{}, {lists} of them lists", requests.len()),
            value: requests.len() as f64,
            must: Must::AtMost(60.0),
        },
    ]
}

fn create_objects(bed: &Bed) {
    for namespace in 0..NAMESPACES {
        let name = format!("large-{namespace}");
        bed.create(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..CREATING_THREADS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= OBJECTS {
                        return;
                    }
                    let namespace = format!("large-{}", at % NAMESPACES);
                    let object = json!({
                        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
                        "metadata": {
                            "name": format!("repository-{at}"),
                            "annotations": {"reconcile.fluxcd.io/requestedAt": "2026-01-01T00:00:00.000000000Z"},
                        },
                        "spec": {"interval": "1h", "url": url(at), "ref": {"branch": "main"}},
                    });
                    bed.create(&format!("{SOURCE}/namespaces/{namespace}/gitrepositories"), &object);
                }
            });
        }
    });
}

/// Returns the seconds that a client takes to get the bytes of one list, which it does not read.
fn list_once(bed: &Bed, token: &str) -> f64 {
    let request = format!("{}{SOURCE}/gitrepositories", bed.server);
    bed.block_on(async {
        let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().expect("a client");
        let started = Instant::now();
        let answer = client.get(request).bearer_auth(token).send().await.expect("an answer");
        let bytes = answer.bytes().await.expect("a list").len();
        assert!(bytes > OBJECTS * 100, "{bytes} bytes");
        started.elapsed().as_secs_f64()
    })
}
