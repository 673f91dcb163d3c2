//! What tenants of a cluster can write, on the real API server: nobody else notices.

use std::time::Duration;

use serde_json::{Value, json};

use super::bed::Bed;
use super::process::wait_for;
use super::receive::{git_repository, requested_at};
use super::receivers::{RECEIVERS, component, computed_path, post_to, receiver, start_flux_recv};

const PATIENCE: Duration = Duration::from_secs(30);

fn secret(bed: &Bed, name: &str, token: &str) {
    let text = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "apps"}, "stringData": {"token": token}});
    let file = bed.path("tenant-secret.json");
    std::fs::write(&file, text.to_string()).expect("a file");
    bed.kubectl(&["apply", "-f", &file.display().to_string()]);
}

fn patch(bed: &Bed, name: &str, spec: &Value) {
    let patch = json!({"spec": spec}).to_string();
    bed.kubectl(&["-n", "apps", "patch", "receiver", name, "--type=merge", "-p", &patch]);
}

/// A tenant who names another forbidden Secret every second holds up no change of anyone else, and goes on
/// being served as before; references to other namespaces are closed.
pub fn hostile_receivers_hold_up_no_others(bed: &Bed) {
    let _ = bed.try_kubectl(&["delete", "clusterrole", "flux-recv-receivers"]);
    bed.kubectl(&["apply", "-f", &component("receivers-in-namespace")]);
    secret(bed, "webhook-token", super::receivers::TOKEN);
    git_repository(bed, "apps", "calm", json!({"url": "https://git.example.com/calm"}));
    git_repository(bed, "team-a", "far-away", json!({"url": "https://git.example.com/far-away"}));
    let resources = json!([
        {"kind": "GitRepository", "name": "calm"},
        {"kind": "GitRepository", "name": "far-away", "namespace": "team-a"},
    ]);
    for name in ["good", "flipping"] {
        let made = receiver(name, "generic", |spec| spec["resources"] = resources.clone());
        bed.create(RECEIVERS, &made);
    }
    let running = start_flux_recv(bed, &["--receivers=apps", "--min-interval", "0", "--spread", "0"]);
    let post = |name: &str| post_to(bed, &running, &computed_path(name));
    wait_for("both Receivers", PATIENCE, || (post("good") == 202 && post("flipping") == 202).then_some(()));
    let object = |namespace: &str, name: &str| {
        bed.get(&format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/{namespace}/gitrepositories/{name}"))
    };
    wait_for("the request", PATIENCE, || requested_at(&object("apps", "calm")).map(drop));
    assert!(requested_at(&object("team-a", "far-away")).is_none(), "other namespaces are closed");
    let log = running.process.output();
    let fields = [("receiver", "Receiver/apps/good"), ("why", "*--cross-namespace-refs*")];
    assert!(running.process.has_logged("part of the Receiver has no effect", &fields), "{log}");
    let paths = log.lines().filter(|line| line.contains("/hook/"));
    assert_eq!(paths.count(), 1, "only the path of the config's endpoint: {log}");

    for round in 0..8 {
        patch(bed, "flipping", &json!({"secretRef": {"name": format!("forbidden-{round}")}}));
        patch(bed, "good", &json!({"suspend": round % 2 == 0}));
        let expect = if round % 2 == 0 { 200 } else { 202 };
        wait_for("the change of the other Receiver", Duration::from_secs(5), || {
            (post("good") == expect).then_some(())
        });
    }
    assert_eq!(post("flipping"), 202, "it keeps its last good endpoint");
    bed.kubectl(&["-n", "apps", "delete", "receiver", "--all", "--wait=false"]);
}

/// Two Receivers without a Secret whose names and namespaces make one digest: the older one has the path.
pub fn a_path_cannot_be_taken_by_a_younger_receiver(bed: &Bed) {
    bed.kubectl(&["apply", "-f", &component("receivers")]);
    let _ = bed.try_kubectl(&["create", "namespace", "webapps"]);
    git_repository(bed, "apps", "taken", json!({"url": "https://git.example.com/taken"}));
    let oidc = |namespace: &str, name: &str| {
        let mut made = receiver(name, "generic-oidc", |spec| {
            spec.as_object_mut().expect("a mapping").remove("secretRef");
            spec["resources"] = json!([{"kind": "GitRepository", "name": "taken"}]);
            spec["oidcProviders"] = json!([{
                "issuerURL": "https://issuer.example.com", "audience": "flux",
                "validations": [{"expression": "claims.sub == 'a'", "message": "another subject"}],
            }]);
        });
        made["metadata"]["namespace"] = json!(namespace);
        let path = format!("/apis/notification.toolkit.fluxcd.io/v1/namespaces/{namespace}/receivers");
        bed.create(&path, &made);
    };
    oidc("webapps", "deploy");
    std::thread::sleep(Duration::from_millis(1100));
    oidc("apps", "deployweb");
    let running = start_flux_recv(bed, &["--receivers"]);
    wait_for("the conflict", PATIENCE, || {
        let lines = running.process.log_lines();
        let conflict = "Receiver is not served: another endpoint has its path or name";
        let line = lines.iter().find(|line| line.message() == conflict)?;
        let names = ["endpoint", "conflict", "holder"].map(|field| line.field(field));
        assert_eq!(names, ["Receiver/apps/deployweb", "path", "Receiver/webapps/deploy"]);
        Some(())
    });
    bed.kubectl(&["-n", "webapps", "delete", "receiver", "--all", "--wait=false"]);
    bed.kubectl(&["-n", "apps", "delete", "receiver", "--all", "--wait=false"]);
}

/// 600 bytes of YAML that the API server takes, and that once took 244 MB and 7 s at each change.
pub fn patterns_of_a_tenant_take_no_time(bed: &Bed) {
    let patterns: Vec<String> = (0..25).map(|at| format!("(?:\\pL{{1,{}}}){{1,9}}x", 80 + at)).collect();
    let object = json!({
        "apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImageRepository",
        "metadata": {"name": "greedy", "namespace": "team-a"},
        "spec": {"image": "registry.example.com/greedy", "interval": "1h", "exclusionList": patterns},
    });
    let url = "/apis/image.toolkit.fluxcd.io/v1/namespaces/team-a/imagerepositories";
    bed.create(url, &object);
    git_repository(bed, "apps", "beside", json!({"url": "https://git.example.com/beside"}));
    let running = start_flux_recv(bed, &[]);
    for label in 0..20 {
        let patch = json!({"metadata": {"labels": {"change": label.to_string()}}}).to_string();
        bed.kubectl(&["-n", "team-a", "patch", "imagerepository", "greedy", "--type=merge", "-p", &patch]);
    }
    let resident = bed.block_on(async {
        let page = reqwest::get(format!("{}/metrics", running.admin)).await.expect("an answer");
        let page = page.text().await.expect("a page");
        let line = page.lines().find(|line| line.starts_with("flux_recv_resident_memory_bytes "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).expect("a figure")
    });
    assert!(resident < 110e6, "{resident}");
    bed.kubectl(&["-n", "team-a", "delete", "imagerepository", "greedy"]);
}

/// With the token of the ServiceAccount that the manifests make: the annotation passes and nothing else.
pub fn the_admission_policy_lets_one_annotation_pass(bed: &Bed) {
    git_repository(bed, "apps", "guarded", json!({"url": "https://git.example.com/guarded"}));
    let token = super::receive::own_token(bed);
    let object = "/apis/source.toolkit.fluxcd.io/v1/namespaces/apps/gitrepositories/guarded";
    let annotation =
        json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "2026-01-01T00:00:00Z"}}});
    // The API server takes a moment to know a policy, and lets pass what changes nothing.
    let mut tries = 0;
    wait_for("the policy", PATIENCE, || {
        tries += 1;
        let patch = json!({"spec": {"timeout": format!("{}s", 60 + tries)}});
        (bed.patch_as(&token, object, &patch) == 403).then_some(())
    });
    assert_eq!(bed.patch_as(&token, object, &annotation), 200);
    for denied in [
        json!({"spec": {"url": "https://git.example.com/other"}}),
        json!({"spec": {"ref": {"branch": "other"}}}),
        json!({"metadata": {"annotations": {"other": "x"}}}),
        json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now", "other": "x"}}}),
        json!({"metadata": {"labels": {"other": "x"}}}),
        json!({"metadata": {"finalizers": ["example.com/x"]}}),
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}]}}),
    ] {
        assert_eq!(bed.patch_as(&token, object, &denied), 403, "{denied}");
    }
    assert_eq!(
        bed.patch_as(&token, &format!("{object}/status"), &json!({"status": {"observedGeneration": 9}})),
        403
    );
    // Events, where the right is granted: its own can be counted up, and nothing else of them or of others.
    let component =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kustomization/components/events/rbac.yaml");
    bed.kubectl(&["apply", "-f", &component.display().to_string()]);
    let events = "/api/v1/namespaces/apps/events";
    for (name, component) in [("own", "flux-recv"), ("foreign", "kustomize-controller")] {
        let event = json!({
            "metadata": {"name": name}, "reason": "x", "message": "x", "source": {"component": component},
            "involvedObject": {"kind": "GitRepository", "namespace": "apps", "name": "guarded"},
        });
        bed.create(events, &event);
    }
    let counted = json!({"count": 2, "message": "y"});
    wait_for("the right", PATIENCE, || {
        (bed.patch_as(&token, &format!("{events}/own"), &counted) == 200).then_some(())
    });
    assert_eq!(bed.patch_as(&token, &format!("{events}/foreign"), &counted), 403);
    for trace in [json!("a"), json!("b"), json!(null)] {
        let traced =
            json!({"metadata": {"annotations": {"flux-recv.fluxcd.io/traceparent": trace}}, "count": 3});
        assert_eq!(bed.patch_as(&token, &format!("{events}/own"), &traced), 200, "{traced}");
    }
    for more in [
        json!({"annotations": {"example.com/a": "b"}}),
        json!({"labels": {"a": "b"}}),
        json!({"finalizers": ["example.com/a"]}),
    ] {
        assert_eq!(bed.patch_as(&token, &format!("{events}/own"), &json!({"metadata": more})), 403, "{more}");
    }
    let traced = json!({"metadata": {"annotations": {"flux-recv.fluxcd.io/traceparent": "a"}}});
    for other in [&*format!("{events}/foreign"), object] {
        assert_eq!(bed.patch_as(&token, other, &traced), 403, "{other}");
    }
    let moved = json!({"involvedObject": {"name": "other"}});
    assert_eq!(bed.patch_as(&token, &format!("{events}/own"), &moved), 403);
    bed.kubectl(&["delete", "-f", &component.display().to_string()]);

    // A status within a patch of the object itself is dropped before an admission webhook sees it.
    let before = bed.get(object)["status"].clone();
    bed.patch_as(&token, object, &json!({"status": {"observedGeneration": 9}}));
    assert_eq!(bed.get(object)["status"], before);

    let folder = tempfile::tempdir().expect("a folder");
    let root = env!("CARGO_MANIFEST_DIR");
    std::fs::create_dir(folder.path().join("other")).expect("a folder");
    super::common::copy_folder(
        &std::path::Path::new(root).join("kustomization"),
        &folder.path().join("kustomization"),
    );
    std::fs::write(
        folder.path().join("other/kustomization.yaml"),
        "namespace: elsewhere\nresources: [../kustomization]\n",
    )
    .expect("a kustomization");
    let text = bed.kustomize(&folder.path().join("kustomization"));
    assert!(text.contains("'system:serviceaccount:flux-system:flux-recv'"), "{text}");
    let mut base =
        std::fs::read_to_string(folder.path().join("kustomization/kustomization.yaml")).expect("a file");
    base = base.replace("namespace: flux-system", "namespace: elsewhere");
    std::fs::write(folder.path().join("kustomization/kustomization.yaml"), base).expect("a file");
    let text = bed.kustomize(&folder.path().join("kustomization"));
    assert!(text.contains("system:serviceaccount:elsewhere:flux-recv'"), "{text}");
}
