//! Against a real kube-apiserver.

use std::time::{Duration, Instant};

use flux_recv::internals::{Kind, REQUESTED_AT};
use futures::StreamExt;
use serde_json::json;

use super::bed::{Bed, Parts};
use super::load::{requests, run};
use super::server::{Server, url};
use super::table::{Must, Row, median};

const OBJECTS: usize = 1000;
const IN_FLIGHT: usize = 32;
pub const SOURCE: &str = "/apis/source.toolkit.fluxcd.io/v1";

pub fn cluster() -> Vec<Row> {
    let Some(bed) = bed_with_manifests() else { return Vec::new() };
    let kubeconfig = bed.kubeconfig(&bed.token("flux-system", "flux-recv"), "flux-system");
    for at in 0..OBJECTS {
        let object = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {"name": format!("many-{at}")},
            "spec": {"interval": "1h", "url": url(0), "ref": {"branch": "main"}},
        });
        bed.create(&format!("{SOURCE}/namespaces/team-a/gitrepositories"), &object);
    }
    let one = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {"name": "one"},
        "spec": {"interval": "1h", "url": url(1), "ref": {"branch": "main"}},
    });
    bed.create(&format!("{SOURCE}/namespaces/apps/gitrepositories"), &one);
    let mut rows = requests_per_push(&bed, &kubeconfig);
    rows.push(patches(&bed, &kubeconfig));
    rows
}

/// Starts a cluster with our manifests; none where its parts are not built.
pub fn bed_with_manifests() -> Option<Bed> {
    let parts = match Parts::find() {
        Ok(parts) => parts,
        Err(missing) => {
            println!("rows with a real API server skipped: {missing} is not built (tests/testbed/build)");
            return None;
        }
    };
    let bed = Bed::start(parts);
    let base = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kustomization");
    std::fs::write(bed.path("base.yaml"), bed.kustomize(&base)).expect("a file");
    bed.kubectl(&["apply", "-f", &bed.path("base.yaml").display().to_string()]);
    Some(bed)
}

fn requests_per_push(bed: &Bed, kubeconfig: &str) -> Vec<Row> {
    let receiver = Server::flux_recv_with(kubeconfig, &[]).when_it_knows_all_objects().when_it_listens();
    let count = || {
        std::thread::sleep(Duration::from_secs(3));
        let all = bed.requests_of("flux-recv");
        all.into_iter().filter(|request| !request.starts_with("watch ")).collect::<Vec<_>>()
    };
    let path = receiver.path();
    let push = vec![requests(&path, 2, false).remove(1); 16];
    let before = count().len();
    let verified = run(&receiver, &push, 202, |count, _| count >= 1000).requests;
    let after = count();
    assert!(
        after[before..].iter().all(|request| request == "patch gitrepositories"),
        "{:?}",
        &after[before..]
    );
    let forged = vec![requests(&path, 2, true).remove(1); 16];
    let posted = run(&receiver, &forged, 401, |count, _| count >= 100_000).requests;
    let at_last = count();
    let (writes, caused) = (after.len() - before, at_last.len() - after.len());
    println!(
        "{writes} API requests for {verified} pushes to one repository, {caused} for {posted} forged ones"
    );
    vec![
        Row {
            what: "API requests for 1,000 pushes to one repository",
            figures: format!("{writes}, none of them a read"),
            value: writes as f64,
            must: Must::AtMost(10.0),
        },
        Row {
            what: "API requests for 100,000 forged requests",
            figures: caused.to_string(),
            value: caused as f64,
            must: Must::AtMost(0.0),
        },
    ]
}

fn patches(bed: &Bed, kubeconfig: &str) -> Row {
    let arguments = ["--spread", "0", "--min-interval", "0"];
    let receiver =
        Server::flux_recv_with(kubeconfig, &arguments).when_it_knows_all_objects().when_it_listens();
    let push = requests(&receiver.path(), 1, false).remove(0);
    let ours = || {
        let before = receiver.log().matches("reconciliation requested").count();
        let started = Instant::now();
        post_once(&receiver, &push);
        while receiver.log().matches("reconciliation requested").count() < before + OBJECTS {
            std::thread::sleep(Duration::from_millis(10));
        }
        OBJECTS as f64 / started.elapsed().as_secs_f64()
    };
    let bare = || OBJECTS as f64 / bed.block_on(patch_all(kubeconfig)).as_secs_f64();
    let rounds: Vec<(f64, f64)> = (0..5).map(|_| (ours(), bare())).collect();
    let ratio = median(rounds.iter().map(|(ours, bare)| ours / bare).collect());
    let figures = format!(
        "{:.0}/s : {:.0}/s",
        median(rounds.iter().map(|round| round.0).collect()),
        median(rounds.iter().map(|round| round.1).collect())
    );
    println!("patches when 1,000 objects match : a bare client with {IN_FLIGHT} in flight: {figures}");
    Row {
        what: "patches per second when 1,000 objects match : a bare client, 32 in flight",
        figures,
        value: ratio,
        must: Must::AtLeast(0.9),
    }
}

fn post_once(receiver: &Server, request: &[u8]) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", receiver.port)).expect("a connection");
    stream.write_all(request).expect("a request");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer[9..], b"202");
}

/// A bare client that patches the same objects in the same way.
async fn patch_all(kubeconfig: &str) -> Duration {
    let config: kube::config::Kubeconfig = serde_yaml::from_str(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("a config");
    let client = kube::Client::try_from(config).expect("a client");
    let info = Kind::GitRepository.info();
    let gvk = kube::core::GroupVersionKind::gvk(info.group, "v1", info.name);
    let resource = kube::core::ApiResource::from_gvk_with_plural(&gvk, info.plural);
    let api: kube::Api<kube::core::DynamicObject> = kube::Api::namespaced_with(client, "team-a", &resource);
    let started = Instant::now();
    let patches = (0..OBJECTS).map(|at| {
        let api = api.clone();
        async move {
            let patch =
                json!({"metadata": {"annotations": {REQUESTED_AT: jiff::Timestamp::now().to_string()}}});
            let patch = kube::api::Patch::Merge(patch);
            api.patch_metadata(&format!("many-{at}"), &kube::api::PatchParams::apply("bench"), &patch)
                .await
                .expect("a patch");
        }
    });
    futures::stream::iter(patches).buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
    started.elapsed()
}
