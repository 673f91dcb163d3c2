//! The manifests and examples, through the real API server's eyes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flux_recv::internals::KINDS;
use serde::Deserialize;
use serde_json::{Value, json};

use super::bed::Bed;
use super::common::copy_folder;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A copy of the manifests, so that generated files do not land in the project.
fn workspace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["kustomization", "example"] {
        copy_folder(&project().join(name), &folder.path().join(name));
    }
    std::fs::write(folder.path().join("example/config/github.key"), "test-key-0123456789abcdef")
        .expect("a key");
    std::fs::write(folder.path().join("example/ngrok/authtoken"), "test-token").expect("a token");
    for file in [
        "publisher/github.key",
        "publisher/signing.pem",
        "publisher/cluster-a.key",
        "publisher-nats/github.key",
        "publisher-nats/signing.pem",
        "publisher-nats/cluster-a.key",
        "publisher-nats/nats.creds",
        "publisher-nats/nats-ca.pem",
        "subscriber/cluster-a.key",
        "fleet/publisher/github.key",
        "fleet/publisher/signing.pem",
        "fleet/publisher/cluster-a.jwks.json",
        "fleet/publisher/cluster-b.jwks.json",
    ] {
        std::fs::write(folder.path().join("example").join(file), "test-key-0123456789abcdef")
            .expect("a file");
    }
    folder
}

/// Flux as `flux bootstrap` leaves it, as far as the sidecar is concerned.
fn write_flux(bed: &Bed, folder: &Path) {
    let flux = folder.join("flux");
    copy_folder(&bed.parts.cache.join("manifests"), &flux);
    let kustomization = "namespace: flux-system\nresources:\n- rbac/controller.yaml\n- policies\n\
                         - notification-controller/deployment.yaml\n- notification-controller/service.yaml\n\
                         - source-controller/deployment.yaml\n- source-controller/service.yaml\n";
    std::fs::write(flux.join("kustomization.yaml"), kustomization).expect("a kustomization");
    let gitops = folder.join("example/gitops");
    std::fs::write(gitops.join("gotk-components.yaml"), bed.kustomize(&flux)).expect("components");
    std::fs::write(
        gitops.join("gotk-sync.yaml"),
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: flux-system, namespace: flux-system}\n\
         spec: {interval: 1m, url: https://github.com/example-org/fleet, ref: {branch: main}}\n",
    )
    .expect("sync");
}

fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_str(text)
        .map(|document| Option::<Value>::deserialize(document).expect("YAML"));
    documents.flatten().collect()
}

fn of_kind(text: &str, kind: &str, name: &str) -> Value {
    let found = documents(text)
        .into_iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind}/{name} in:\n{text}"))
}

fn apply_dry(bed: &Bed, text: &str) {
    let file = bed.path("apply.yaml");
    std::fs::write(&file, text).expect("a file");
    bed.kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        &file.display().to_string(),
    ]);
}

/// Also installs the base for the scenarios that follow.
pub fn every_kustomization_and_example_passes_the_api_server(bed: &Bed) {
    let workspace = workspace();
    let folder = workspace.path();
    write_flux(bed, folder);
    let mut built = Vec::new();
    for name in [
        "kustomization",
        "example/config",
        "example/existing-secret",
        "example/sops",
        "example/ngrok",
        "example/gitops",
        "example/publisher",
        "example/publisher-nats",
        "example/subscriber",
        "example/fleet/publisher",
        "example/fleet/subscriber-a",
        "example/fleet/subscriber-b",
    ] {
        let text = bed.kustomize(&folder.join(name));
        apply_dry(bed, &text);
        built.push((name, text));
    }
    for component in [
        "ingress",
        "httproute",
        "volume-claim",
        "receivers",
        "receivers-in-namespace",
        "egress",
        "publisher",
        "publisher-nats",
        "publisher-ingress",
        "publisher-httproute",
        "subscribe-port",
        "subscriber",
    ] {
        let with = folder.join(format!("with-{component}"));
        std::fs::create_dir_all(&with).expect("a folder");
        let text =
            format!("resources: [../kustomization]\ncomponents: [../kustomization/components/{component}]\n");
        std::fs::write(with.join("kustomization.yaml"), text).expect("a kustomization");
        let text = bed.kustomize(&with);
        apply_dry(bed, &text);
        let tell_tale = match component {
            "volume-claim" => "claimName: flux-recv-journal",
            "egress" => "name: flux-recv-egress",
            "receivers" => "value: all",
            "publisher" | "subscribe-port" => "value: :8483",
            "publisher-nats" => "replicas: 2",
            "publisher-ingress" => "path: /subscribe",
            "publisher-httproute" => "request: 0s",
            "subscriber" => "audience: flux-recv",
            "receivers-in-namespace" => "namespace: apps\nrules:",
            _ => "/hook/",
        };
        assert!(text.contains(tell_tale), "{component} does what it is for");
        let has_claim = matches!(component, "volume-claim" | "publisher");
        assert_eq!(text.contains("sizeLimit"), !has_claim, "one volume for the journal");
    }
    for file in [
        "objects/objects.yaml",
        "sops/flux-kustomization.yaml",
        "flux-instance/flux-instance.yaml",
        "helm-release/helm-release.yaml",
    ] {
        let text = std::fs::read_to_string(folder.join("example").join(file)).expect("an example");
        let created = documents(&text)
            .iter()
            .filter_map(|object| object["metadata"]["namespace"].as_str().map(str::to_owned))
            .collect::<std::collections::BTreeSet<_>>();
        for namespace in created {
            let _ = bed.try_kubectl(&["create", "namespace", &namespace]);
        }
        apply_dry(bed, &text);
    }
    readmes_kubectl_lines_work(bed, folder);
    let (_, with_config) = &built[1];
    let secret = documents(with_config)
        .into_iter()
        .find(|object| object["kind"] == "Secret")
        .expect("the generated Secret");
    let deployment = of_kind(with_config, "Deployment", "flux-recv");
    assert_eq!(
        deployment["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"],
        secret["metadata"]["name"]
    );
    for (name, text) in &built {
        assert!(!text.contains(":latest"), "{name}");
    }
    let file = bed.path("base.yaml");
    std::fs::write(&file, &built[0].1).expect("a file");
    bed.kubectl(&["apply", "-f", &file.display().to_string()]);
}

/// Every kubectl line of the documents, but for what needs running Pods, without effect.
fn readmes_kubectl_lines_work(bed: &Bed, folder: &Path) {
    let pages = ["README.md", "docs/operations.md", "docs/troubleshooting.md", "docs/migration.md"];
    let readme = pages.map(|page| std::fs::read_to_string(project().join(page)).expect("a page")).join("\n");
    let mut run = 0;
    for line in readme
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("kubectl ") && !line.contains("NAMESPACE"))
        .filter(|line| !line.contains(" rollout ") && !line.contains(" port-forward "))
    {
        let mut words: Vec<String> = line.split_whitespace().skip(1).map(str::to_owned).collect();
        for word in &mut words {
            *word = word.replace('\'', "");
            if word.contains("example/") {
                *word = word.replace("example/", &format!("{}/example/", folder.display()));
            }
            if word == "--from-file=github.key" {
                *word = format!("--from-file={}/example/config/github.key", folder.display());
            }
        }
        words.truncate(words.iter().position(|word| word == ">").unwrap_or(words.len()));
        if words.first().is_none_or(|verb| verb != "get") {
            words.push("--dry-run=server".to_owned());
        }
        bed.kubectl(&words.iter().map(String::as_str).collect::<Vec<_>>());
        run += 1;
    }
    assert!(run >= 3, "the documents lost their kubectl lines");
}

pub fn pod_templates_pass_restricted_pod_security(bed: &Bed) {
    let workspace = workspace();
    write_flux(bed, workspace.path());
    bed.create(
        "/api/v1/namespaces",
        &json!({"metadata": {"name": "restricted", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}),
    );
    for (folder, name) in [
        ("kustomization", "flux-recv"),
        ("example/ngrok", "ngrok"),
        ("example/gitops", "notification-controller"),
    ] {
        let deployment = of_kind(&bed.kustomize(&workspace.path().join(folder)), "Deployment", name);
        let pod = |change: fn(&mut Value)| {
            let mut spec = deployment["spec"]["template"]["spec"].clone();
            spec["serviceAccountName"] = Value::Null;
            change(&mut spec);
            let text = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try", "namespace": "restricted"}, "spec": spec}).to_string();
            let file = bed.path("pod.json");
            std::fs::write(&file, text).expect("a file");
            bed.try_kubectl(&["create", "--dry-run=server", "-f", &file.display().to_string()])
        };
        pod(|_| {}).unwrap_or_else(|err| panic!("{name}: {err}"));
        let forbidden =
            pod(|spec| spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true));
        assert!(
            forbidden.is_err_and(|err| err.contains("violates PodSecurity")),
            "the policy is in force for {name}"
        );
    }
}

pub fn the_sidecar_goes_over_flux_and_beside_users_patches(bed: &Bed) {
    let workspace = workspace();
    write_flux(bed, workspace.path());
    let kustomization = workspace.path().join("example/gitops/kustomization.yaml");
    let mut text = std::fs::read_to_string(&kustomization).expect("the example");
    text.push_str(
        "patches:\n- target: {kind: Deployment, labelSelector: control-plane=controller}\n  patch: |\n    \
         - op: add\n      path: /spec/template/spec/containers/0/args/-\n      value: --concurrent=20\n",
    );
    std::fs::write(&kustomization, text).expect("the example");
    let built = bed.kustomize(&workspace.path().join("example/gitops"));
    apply_dry(bed, &built);
    for (name, containers) in
        [("notification-controller", vec!["manager", "flux-recv"]), ("source-controller", vec!["manager"])]
    {
        let deployment = of_kind(&built, "Deployment", name);
        let listed = deployment["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        let names: Vec<&str> = listed.iter().filter_map(|container| container["name"].as_str()).collect();
        assert_eq!(names, containers);
        let arguments = listed[0]["args"].as_array().expect("arguments");
        assert_eq!(arguments.last(), Some(&json!("--concurrent=20")), "the user's patch means the manager");
        if let Some(sidecar) = listed.get(1) {
            assert_eq!(sidecar["readinessProbe"], Value::Null);
            assert_eq!(sidecar["image"], "registry.example.com/flux-recv:0.1.0");
        }
    }
}

pub fn the_flux_instance_makes_the_same_sidecar(bed: &Bed) {
    let workspace = workspace();
    write_flux(bed, workspace.path());
    let text = std::fs::read_to_string(workspace.path().join("example/flux-instance/flux-instance.yaml"))
        .expect("the example");
    let instance = documents(&text).remove(0);
    let over_flux = workspace.path().join("instance");
    std::fs::create_dir_all(&over_flux).expect("a folder");
    let kustomization =
        json!({"resources": ["../flux"], "patches": instance["spec"]["kustomize"]["patches"]});
    std::fs::write(over_flux.join("kustomization.yaml"), kustomization.to_string()).expect("a kustomization");
    let by_instance = of_kind(&bed.kustomize(&over_flux), "Deployment", "notification-controller");
    let by_component = of_kind(
        &bed.kustomize(&workspace.path().join("example/gitops")),
        "Deployment",
        "notification-controller",
    );
    assert_eq!(by_instance["spec"], by_component["spec"]);
}

/// The resources that a ClusterRole grants, each with the verbs that serving needs.
fn granted(role: &Value) -> BTreeSet<String> {
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().expect("rules") {
        assert_eq!(rule["verbs"], json!(["get", "list", "watch", "patch"]));
        let group = rule["apiGroups"][0].as_str().unwrap_or_default();
        let resources = rule["resources"].as_array().expect("resources");
        granted.extend(resources.iter().filter_map(Value::as_str).map(|name| format!("{group}/{name}")));
    }
    granted
}

fn resources(are_of_payloads: bool) -> BTreeSet<String> {
    let kinds = KINDS.iter().filter(|info| info.kind.is_of_payloads() == are_of_payloads);
    kinds.map(|info| format!("{}/{}", info.group, info.plural)).collect()
}

pub fn the_manifests_rbac_is_the_table_of_kinds_and_no_more(bed: &Bed) {
    bed.install_manifests();
    let role = of_kind(&bed.kustomize(&project().join("kustomization")), "ClusterRole", "flux-recv");
    assert_eq!(granted(&role), resources(true));
    let workspace = workspace();
    let with = workspace.path().join("with-more-kinds");
    std::fs::create_dir_all(&with).expect("a folder");
    let text = "resources: [../kustomization]\ncomponents: [../kustomization/components/more-kinds]\n";
    std::fs::write(with.join("kustomization.yaml"), text).expect("a kustomization");
    let built = bed.kustomize(&with);
    apply_dry(bed, &built);
    assert_eq!(granted(&of_kind(&built, "ClusterRole", "flux-recv-more-kinds")), resources(false));
    let may = |verb: &str, resource: &str| {
        bed.try_kubectl(&[
            "auth",
            "can-i",
            verb,
            resource,
            "--as=system:serviceaccount:flux-system:flux-recv",
            "--all-namespaces",
        ])
        .is_ok()
    };
    assert!(may("patch", "gitrepositories.source.toolkit.fluxcd.io"));
    for (verb, resource) in [
        ("get", "secrets"),
        ("list", "secrets"),
        ("delete", "gitrepositories.source.toolkit.fluxcd.io"),
        ("create", "serviceaccounts/token"),
        ("patch", "deployments.apps"),
    ] {
        assert!(!may(verb, resource), "{verb} {resource}");
    }
}
