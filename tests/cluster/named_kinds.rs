//! Kinds that no payload is about: watched and requested only where an endpoint names them.

use std::time::Duration;

use serde_json::{Value, json};

use super::bed::Bed;
use super::process::wait_for;
use super::receive::{FluxRecv, create, flux_recv, own_token, requested_at};

const PATIENCE: Duration = Duration::from_secs(30);

const KUSTOMIZE: &str = "/apis/kustomize.toolkit.fluxcd.io/v1";
const HELM: &str = "/apis/helm.toolkit.fluxcd.io/v2";

const CONFIG: &str = "fluxRecvVersion: 1
endpoints:
- source: generic
  keyPath: github.key
  unsigned: true
  resources: [{kind: Kustomization, name: web, namespace: apps}]
";

const ONE_MORE: &str = "- source: GitHub
  keyPath: harbor.key
  match: all
  resources: [{kind: HelmRelease, namespace: apps, filter: 'res.spec.chart.spec.chart == \"web\"'}]
";

fn was_requested(bed: &Bed, path: &str) -> bool {
    requested_at(&bed.get(path)).is_some()
}

fn check(running: &FluxRecv) -> (Option<i32>, String) {
    let kubeconfig = running.folder.path().join("kubeconfig");
    let output = flux_recv()
        .arg("check")
        .args(["--config", &running.config()])
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .output();
    let output = output.expect("check runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn post(bed: &Bed, running: &FluxRecv, endpoint: &str) -> (u16, Value) {
    let urls =
        flux_recv().arg("urls").args(["--config", &running.config(), "--base", &running.base]).output();
    let urls = String::from_utf8_lossy(&urls.expect("urls runs").stdout).into_owned();
    let of_endpoint =
        urls.split("\n\n").find(|text| text.trim_start().starts_with(endpoint)).expect("the endpoint");
    let url = of_endpoint.split_whitespace().find(|word| word.starts_with("http")).expect("a URL").to_owned();
    bed.block_on(async {
        let response = reqwest::Client::new().post(url).body("{}").send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    })
}

pub fn kinds_that_an_endpoint_names_are_watched_and_requested(bed: &Bed) {
    let source = json!({"kind": "GitRepository", "name": "web"});
    super::receive::git_repository(
        bed,
        "team-a",
        "of-the-team",
        json!({"url": "https://github.com/example-org/of-the-team"}),
    );
    for name in ["web", "other"] {
        let spec = json!({"sourceRef": source, "prune": true, "path": "./"});
        create(bed, KUSTOMIZE, "Kustomization", "kustomizations", "apps", name, spec);
        let spec = json!({"chart": {"spec": {"chart": name, "sourceRef": {"kind": "HelmRepository", "name": "charts"}}}});
        create(bed, HELM, "HelmRelease", "helmreleases", "apps", name, spec);
    }
    let kustomization = |name: &str| format!("{KUSTOMIZE}/namespaces/apps/kustomizations/{name}");
    let release = |name: &str| format!("{HELM}/namespaces/apps/helmreleases/{name}");

    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("fluxrecv.yaml"), CONFIG).expect("a config");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
    let running = FluxRecv::start_in(folder, kubeconfig, &[]);
    let (code, text) = check(&running);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(" list, watch, patch (kustomization/components/more-kinds gives the right)"),
        "{text}"
    );
    assert!(!text.contains("HelmRelease"), "nobody names it: {text}");
    let (status, answer) = post(bed, &running, "github");
    assert_eq!((status, &answer["outcome"]), (202, &json!("queued")), "it waits until the kind is known");

    let component = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("kustomization/components/more-kinds/rbac.yaml");
    bed.kubectl(&["apply", "-f", &component.display().to_string()]);
    wait_for("the Kustomization to be requested", Duration::from_secs(90), || {
        was_requested(bed, &kustomization("web")).then_some(())
    });
    assert!(!was_requested(bed, &kustomization("other")));

    std::fs::write(running.folder.path().join("fluxrecv.yaml"), format!("{CONFIG}{ONE_MORE}"))
        .expect("a config");
    wait_for("the reload", PATIENCE, || running.process.has_logged("config reloaded", &[]).then_some(()));
    let (status, _) = running.push("harbor", "https://github.com/org/elsewhere", "main");
    assert_eq!(status, 202);
    wait_for("the HelmRelease to be requested", PATIENCE, || {
        was_requested(bed, &release("web")).then_some(())
    });
    assert!(!was_requested(bed, &release("other")), "its filter does not hold");
    let (code, text) = check(&running);
    let line: Vec<&str> = text
        .lines()
        .find(|line| line.starts_with("HelmRelease"))
        .into_iter()
        .flat_map(str::split_whitespace)
        .collect();
    assert_eq!(line, ["HelmRelease", "v2", "-", "2", "-"], "{text}");
    assert_eq!(code, Some(1), "an endpoint rests on its path alone, which is warned about");
}
