//! The binary against the API server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::bed::Bed;
pub use super::common::running::{FluxRecv, flux_recv, test_key};
use super::process::{free_port, wait_for};

pub const CONFIG: &str = "fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: github.key}
- {source: Harbor, keyPath: harbor.key}
- {source: Gitea, keyPath: gitea.key}
- {source: GitHub, keyPath: team.key, namespaces: [team-a]}
";

const KIND_FORBIDDEN: &str =
    "kind cannot be listed; grant the ClusterRole flux-recv (`flux-recv check` names the missing rights)";

const PATIENCE: Duration = Duration::from_secs(20);

impl FluxRecv {
    /// Starts with this token, and waits until all objects are known.
    pub fn start(bed: &Bed, token: &str, arguments: &[&str]) -> FluxRecv {
        let mut running = FluxRecv::start_unsynced(bed, token, arguments);
        running.wait_until_synced();
        running
    }

    pub fn start_unsynced(bed: &Bed, token: &str, arguments: &[&str]) -> FluxRecv {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("kubeconfig"), bed.kubeconfig(token, "flux-system"))
            .expect("a kubeconfig");
        let kubeconfig = folder.path().join("kubeconfig");
        FluxRecv::start_in(folder, kubeconfig, arguments)
    }

    /// Starts in a folder with the kubeconfig of this token, and with [`CONFIG`] unless there is another one.
    /// Its ports stay when it starts again.
    pub fn start_in(folder: tempfile::TempDir, kubeconfig: PathBuf, arguments: &[&str]) -> FluxRecv {
        let config = folder.path().join("fluxrecv.yaml");
        if !config.exists() {
            std::fs::write(&config, CONFIG).expect("a config");
        }
        for key in ["github", "harbor", "gitea", "team"] {
            std::fs::write(folder.path().join(format!("{key}.key")), test_key(key)).expect("a key");
        }
        let (listen, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let kubeconfig = kubeconfig.display().to_string();
        let environment =
            [("KUBECONFIG", &*kubeconfig), ("FLUX_RECV_LISTEN", &listen), ("FLUX_RECV_ADMIN_LISTEN", &admin)];
        FluxRecv::with_environment(folder, arguments, &environment)
    }

    pub fn wait_until_synced(&mut self) {
        wait_for("all objects to be known", PATIENCE, || {
            self.process.assert_runs();
            let lines = self.process.log_lines();
            lines.iter().any(|line| line.message().starts_with("inventory complete")).then_some(())
        });
    }

    /// A page of the listener for probes and metrics.
    pub fn admin_page(&self, bed: &Bed, path: &str) -> String {
        let page = reqwest::get(format!("{}{path}", self.admin));
        bed.block_on(async { page.await?.text().await }).expect("a page")
    }

    pub fn config(&self) -> String {
        self.folder.path().join("fluxrecv.yaml").display().to_string()
    }

    /// Sends through the command that users have; gives status and answer.
    pub fn send(&self, endpoint: &str, arguments: &[&str]) -> (u16, Value) {
        let mut command = flux_recv();
        command
            .arg("send")
            .args(["--config", &self.config(), "--to", &self.base, "--endpoint", endpoint])
            .args(arguments);
        let output = command.output().expect("send runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, body) = text
            .trim()
            .split_once(' ')
            .unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)));
        (status.parse().expect("a status"), serde_json::from_str(body).unwrap_or_default())
    }

    pub fn push(&self, endpoint: &str, repository: &str, reference: &str) -> (u16, Value) {
        self.send(endpoint, &["--repo", repository, "--ref", reference])
    }
}

const SOURCE: &str = "/apis/source.toolkit.fluxcd.io/v1";
const IMAGE: &str = "/apis/image.toolkit.fluxcd.io/v1";

pub fn git_repository(bed: &Bed, namespace: &str, name: &str, spec: Value) {
    create(bed, SOURCE, "GitRepository", "gitrepositories", namespace, name, spec);
}

pub fn create(bed: &Bed, api: &str, kind: &str, plural: &str, namespace: &str, name: &str, mut spec: Value) {
    spec["interval"] = json!("1h");
    let object = json!({"apiVersion": api.trim_start_matches("/apis/"), "kind": kind, "metadata": {"name": name}, "spec": spec});
    bed.create(&format!("{api}/namespaces/{namespace}/{plural}"), &object);
}

fn git_path(namespace: &str, name: &str) -> String {
    format!("{SOURCE}/namespaces/{namespace}/gitrepositories/{name}")
}

pub fn requested_at(object: &Value) -> Option<String> {
    object["metadata"]["annotations"]["reconcile.fluxcd.io/requestedAt"].as_str().map(str::to_owned)
}

/// When each GitRepository was last requested, by `namespace/name`.
fn requests(bed: &Bed) -> BTreeMap<String, Option<String>> {
    let list = bed.get(&format!("{SOURCE}/gitrepositories"));
    let items = list["items"].as_array().expect("items");
    let name = |item: &Value| {
        format!(
            "{}/{}",
            item["metadata"]["namespace"].as_str().unwrap_or_default(),
            item["metadata"]["name"].as_str().unwrap_or_default()
        )
    };
    items.iter().map(|item| (name(item), requested_at(item))).collect()
}

/// The GitRepositories that were requested since `before`, once the wanted number was.
fn requested_since(bed: &Bed, before: &BTreeMap<String, Option<String>>, expect: &[&str]) {
    let requested = || -> Vec<String> {
        let now = requests(bed);
        now.iter()
            .filter(|(name, at)| before.get(*name) != Some(*at) && at.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    };
    wait_for(&format!("{expect:?} to be requested"), PATIENCE, || {
        (requested().len() >= expect.len()).then_some(())
    });
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(requested(), expect);
}

/// A token of the ServiceAccount that `kustomization/` makes.
pub fn own_token(bed: &Bed) -> String {
    bed.install_manifests();
    bed.token("flux-system", "flux-recv")
}

pub fn a_push_annotates_exactly_its_objects(bed: &Bed) {
    let url = "https://github.com/example-org/exact";
    git_repository(bed, "apps", "exact-main", json!({"url": url, "ref": {"branch": "main"}}));
    git_repository(
        bed,
        "apps",
        "exact-ssh",
        json!({"url": "ssh://git@github.com/Example-Org/exact.git", "ref": {"branch": "main"}}),
    );
    git_repository(bed, "team-a", "exact-other-branch", json!({"url": url, "ref": {"branch": "next"}}));
    git_repository(bed, "team-b", "exact-range", json!({"url": url, "ref": {"semver": "1.x"}}));
    git_repository(
        bed,
        "apps",
        "exact-suspended",
        json!({"url": url, "ref": {"branch": "main"}, "suspend": true}),
    );
    git_repository(
        bed,
        "apps",
        "exactly-not",
        json!({"url": "https://github.com/example-org/exactly-not", "ref": {"branch": "main"}}),
    );
    let running = FluxRecv::start(bed, &own_token(bed), &[]);

    let before = requests(bed);
    let (status, answer) = running.push("github", url, "main");
    assert_eq!(status, 202, "{answer}");
    assert_eq!(answer["outcome"], "accepted");
    assert_eq!(answer["targets"], json!(["GitRepository/apps/exact-main", "GitRepository/apps/exact-ssh"]));
    assert_eq!(answer["skipped"][0]["target"], "GitRepository/apps/exact-suspended");
    requested_since(bed, &before, &["apps/exact-main", "apps/exact-ssh"]);

    let before = requests(bed);
    assert_eq!(running.push("github", url, "refs/tags/v1.2.3").0, 202);
    requested_since(bed, &before, &["team-b/exact-range"]);

    let before = requests(bed);
    assert_eq!(running.push("github", url, "nobody").0, 200);
    assert_eq!(running.push("github", "https://github.com/example-org/unknown", "main").0, 200);
    let (status, answer) = running.push("team", url, "main");
    assert_eq!((status, &answer["outcome"]), (200, &json!("unmatched")), "the endpoint is limited to team-a");
    requested_since(bed, &before, &[]);
}

pub fn a_call_asks_for_what_is_listed_by_label(bed: &Bed) {
    for name in ["listed", "unlisted", "relabelled"] {
        let url = format!("https://github.com/example-org/{name}");
        git_repository(bed, "apps", name, json!({"url": url, "ref": {"branch": "main"}}));
    }
    let label = |name: &str, value: Value| {
        bed.merge(&git_path("apps", name), &json!({"metadata": {"labels": {"hook": value}}}));
    };
    label("listed", json!("generic"));
    label("unlisted", json!("other"));
    let folder = tempfile::tempdir().expect("a folder");
    let config = "fluxRecvVersion: 1\nendpoints:\n\
                  - source: generic\n  keyPath: team.key\n  auth: bearer\n  resources:\n\
                  \x20 - {kind: GitRepository, name: '*', matchLabels: {hook: generic}}\n";
    std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
    let mut running = FluxRecv::start_in(folder, kubeconfig, &[]);
    running.wait_until_synced();

    let before = requests(bed);
    let (status, answer) = running.send("team", &["--event", "ping"]);
    assert_eq!((status, &answer["targets"]), (202, &json!(["GitRepository/apps/listed"])), "{answer}");
    requested_since(bed, &before, &["apps/listed"]);

    // Labels are followed like everything else.
    label("relabelled", json!("generic"));
    label("listed", Value::Null);
    let accepts =
        |expect: &Value| (running.send("team", &["--event", "ping"]).1["targets"] == *expect).then_some(());
    wait_for("the new labels to be seen", PATIENCE, || accepts(&json!(["GitRepository/apps/relabelled"])));
}

// Incident 34.
pub fn only_the_one_annotation_is_touched(bed: &Bed) {
    git_repository(
        bed,
        "apps",
        "untouched",
        json!({"url": "https://github.com/example-org/untouched", "ref": {"branch": "main"}}),
    );
    let path = git_path("apps", "untouched");
    bed.merge(
        &path,
        &json!({"metadata": {"annotations": {"example.com/mine": "stays"}, "labels": {"team": "a"}}}),
    );
    let before = bed.get(&path);
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    running.push("github", "https://github.com/example-org/untouched", "main");
    let after = wait_for("the annotation", PATIENCE, || {
        Some(bed.get(&path)).filter(|object| requested_at(object).is_some())
    });

    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(after["metadata"]["labels"], before["metadata"]["labels"]);
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
    let annotations = after["metadata"]["annotations"].as_object().expect("annotations");
    assert_eq!(
        annotations.keys().collect::<Vec<_>>(),
        ["example.com/mine", "reconcile.fluxcd.io/requestedAt"]
    );
    let managers = after["metadata"]["managedFields"].as_array().expect("managers");
    let ours = managers.iter().find(|manager| manager["manager"] == "flux-recv").expect("our field manager");
    let fields = ours["fieldsV1"]["f:metadata"]["f:annotations"].as_object().expect("fields");
    assert!(
        fields.keys().all(|field| field == "." || field == "f:reconcile.fluxcd.io/requestedAt"),
        "{ours}"
    );
    let at = requested_at(&after).expect("a time");
    assert!(at.parse::<jiff::Timestamp>().is_ok() && at.contains('.'), "{at}");
}

pub fn images_and_charts_annotate_their_kinds(bed: &Bed) {
    create(
        bed,
        IMAGE,
        "ImageRepository",
        "imagerepositories",
        "apps",
        "scan",
        json!({"image": "harbor.example.com/shop/api"}),
    );
    create(
        bed,
        SOURCE,
        "OCIRepository",
        "ocirepositories",
        "apps",
        "artifact",
        json!({"url": "oci://harbor.example.com/shop/api", "ref": {"tag": "1.2.3"}}),
    );
    create(
        bed,
        SOURCE,
        "HelmRepository",
        "helmrepositories",
        "apps",
        "charts",
        json!({"type": "oci", "url": "oci://harbor.example.com/shop"}),
    );
    let chart =
        json!({"chart": "api", "version": "1.x", "sourceRef": {"kind": "HelmRepository", "name": "charts"}});
    create(bed, SOURCE, "HelmChart", "helmcharts", "apps", "chart", chart);
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let (status, answer) = running.send("harbor", &["--image", "harbor.example.com/shop/api:1.2.3"]);
    assert_eq!(status, 202, "{answer}");
    let mut targets: Vec<&str> =
        answer["targets"].as_array().expect("targets").iter().filter_map(Value::as_str).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["HelmChart/apps/chart", "ImageRepository/apps/scan", "OCIRepository/apps/artifact"]);
    for path in [
        format!("{IMAGE}/namespaces/apps/imagerepositories/scan"),
        format!("{SOURCE}/namespaces/apps/ocirepositories/artifact"),
        format!("{SOURCE}/namespaces/apps/helmcharts/chart"),
    ] {
        wait_for(&path, PATIENCE, || requested_at(&bed.get(&path)));
    }
    let static_one = bed.get(&format!("{SOURCE}/namespaces/apps/helmrepositories/charts"));
    assert_eq!(requested_at(&static_one), None, "an OCI HelmRepository is never reconciled");
}

pub fn changes_of_objects_are_observed(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let url = "https://github.com/example-org/changing";
    let outcome = |reference| running.push("github", url, reference).1["outcome"].clone();
    assert_eq!(outcome("main"), "unmatched");
    git_repository(bed, "apps", "changing", json!({"url": url, "ref": {"branch": "main"}}));
    wait_for("the new object", PATIENCE, || (outcome("main") == "accepted").then_some(()));
    bed.merge(&git_path("apps", "changing"), &json!({"spec": {"ref": {"branch": "next"}}}));
    wait_for("the changed branch", PATIENCE, || (outcome("next") == "accepted").then_some(()));
    assert_eq!(outcome("main"), "unmatched");
    bed.delete(&git_path("apps", "changing"));
    wait_for("the deletion", PATIENCE, || (outcome("next") == "unmatched").then_some(()));
}

/// The ServiceAccount of notification-controller, with the rules of Flux's own `crd-controller`.
pub fn the_sidecars_token_does_the_job(bed: &Bed) {
    let rbac = bed.parts.cache.join("manifests/rbac/controller.yaml");
    bed.kubectl(&["apply", "-f", &rbac.display().to_string()]);
    bed.kubectl(&["create", "serviceaccount", "notification-controller", "-n", "flux-system"]);
    git_repository(
        bed,
        "team-b",
        "beside",
        json!({"url": "https://github.com/example-org/beside", "ref": {"branch": "main"}}),
    );
    let running = FluxRecv::start(bed, &bed.token("flux-system", "notification-controller"), &[]);
    let before = requests(bed);
    assert_eq!(running.push("github", "https://github.com/example-org/beside", "main").0, 202);
    requested_since(bed, &before, &["team-b/beside"]);
}

pub fn a_forbidden_cluster_falls_back_to_the_own_namespace(bed: &Bed) {
    bed.kubectl(&["create", "serviceaccount", "narrow", "-n", "flux-system"]);
    bed.kubectl(&[
        "create",
        "role",
        "narrow",
        "-n",
        "flux-system",
        "--verb=get,list,watch,patch",
        "--resource=gitrepositories.source.toolkit.fluxcd.io",
    ]);
    bed.kubectl(&[
        "create",
        "rolebinding",
        "narrow",
        "-n",
        "flux-system",
        "--role=narrow",
        "--serviceaccount=flux-system:narrow",
    ]);
    let url = "https://github.com/example-org/narrow";
    git_repository(bed, "flux-system", "narrow", json!({"url": url, "ref": {"branch": "main"}}));
    git_repository(bed, "apps", "narrow", json!({"url": url, "ref": {"branch": "main"}}));
    let running = FluxRecv::start(bed, &bed.token("flux-system", "narrow"), &[]);
    let (status, answer) = running.push("github", url, "main");
    assert_eq!(
        (status, &answer["targets"]),
        (202, &json!(["GitRepository/flux-system/narrow"])),
        "{}",
        running.process.output()
    );
    let (log, narrowed) =
        (&running.process, "kind cannot be listed in the whole cluster, watching the own namespace");
    assert!(log.has_logged(narrowed, &[("kind", "GitRepository")]), "{}", log.output());
    assert!(log.has_logged(KIND_FORBIDDEN, &[]), "the other kinds are forbidden there too: {}", log.output());
    let missing =
        "GitRepository cannot be listed outside of namespace flux-system; grant the ClusterRole flux-recv";
    let ready = running.admin_page(bed, "/readyz");
    assert!(ready.starts_with("ok\n") && ready.contains(missing), "{ready}");
    let (status, answer) = running.push("github", "https://github.com/example-org/elsewhere", "main");
    assert_eq!((status, &answer["outcome"]), (200, &json!("unmatched")));
    assert!(answer["reason"].as_str().is_some_and(|reason| reason.contains(missing)), "{answer}");
}

/// What cannot be listed is never called known, whatever else is there.
pub fn a_kind_that_cannot_be_listed_is_never_called_known(bed: &Bed) {
    let url = "https://github.com/example-org/unseen";
    git_repository(bed, "apps", "unseen", json!({"url": url, "ref": {"branch": "main"}}));
    let namespace = ["-n", "flux-system"];
    for name in ["blind", "half-blind"] {
        bed.kubectl(&[["create", "serviceaccount", name].as_slice(), &namespace].concat());
    }
    let others = "--resource=ocirepositories.source.toolkit.fluxcd.io,helmrepositories.source.toolkit.fluxcd.io,\
                  helmcharts.source.toolkit.fluxcd.io,buckets.source.toolkit.fluxcd.io,\
                  imagerepositories.image.toolkit.fluxcd.io";
    bed.kubectl(&["create", "clusterrole", "half-blind", "--verb=get,list,watch,patch", others]);
    let account = "--serviceaccount=flux-system:half-blind";
    bed.kubectl(&["create", "clusterrolebinding", "half-blind", "--clusterrole=half-blind", account]);
    for (account, listed) in [("blind", 0), ("half-blind", 1)] {
        let running = FluxRecv::start(bed, &bed.token("flux-system", account), &[]);
        let missing = "GitRepository cannot be listed in the whole cluster; grant the ClusterRole flux-recv";
        let (_, answer) = running.push("github", url, "main");
        assert_eq!(answer["outcome"], "unmatched", "{answer}");
        assert!(answer["reason"].as_str().is_some_and(|reason| reason.contains(missing)), "{answer}");
        assert!(running.admin_page(bed, "/readyz").contains(missing));
        let metrics = running.admin_page(bed, "/metrics");
        for (metric, kind, value) in [
            ("synced", "GitRepository", 0),
            ("listable", "GitRepository", 0),
            ("synced", "OCIRepository", listed),
            ("listable", "OCIRepository", listed),
        ] {
            let line = format!("flux_recv_inventory_{metric}{{kind=\"{kind}\"}} {value}\n");
            assert!(metrics.contains(&line), "{account}: no {line}in {metrics}");
        }
        let log = &running.process;
        assert!(
            !log.has_logged("inventory complete; matching deliveries as they arrive", &[]),
            "{}",
            log.output()
        );
        assert!(!log.has_logged("kind listed", &[("kind", "GitRepository")]), "{}", log.output());
        let record = bed
            .block_on(async { reqwest::get(format!("{}/deliveries", running.debug())).await?.text().await });
        assert!(record.expect("a page").contains(missing));
        // The first look at the page says it, too.
        let page = bed.block_on(async { reqwest::get(running.debug()).await?.text().await }).expect("a page");
        let attention =
            page.split("id=\"attention\"").nth(1).and_then(|rest| rest.split("</section>").next());
        assert!(attention.is_some_and(|text| text.contains(missing)), "{page}");
    }
    // The right comes: objects that pushes could not reach meanwhile are requested.
    let running = FluxRecv::start(bed, &bed.token("flux-system", "half-blind"), &[]);
    let right = "--resource=gitrepositories.source.toolkit.fluxcd.io";
    bed.kubectl(&["create", "clusterrole", "sighted", "--verb=get,list,watch,patch", right]);
    let account = "--serviceaccount=flux-system:half-blind";
    bed.kubectl(&["create", "clusterrolebinding", "sighted", "--clusterrole=sighted", account]);
    wait_for("the object to be requested", Duration::from_secs(100), || {
        requested_at(&bed.get(&git_path("apps", "unseen"))).map(drop)
    });
    let metrics = running.admin_page(bed, "/metrics");
    assert!(metrics.contains("flux_recv_inventory_listable{kind=\"GitRepository\"} 1\n"), "{metrics}");
    assert!(!running.admin_page(bed, "/readyz").contains("GitRepository"));
}

/// A namespace that is forbidden does not stop the watch of one that is not.
pub fn a_forbidden_namespace_does_not_stop_the_others(bed: &Bed) {
    let url = "https://github.com/example-org/partly";
    git_repository(bed, "flux-system", "partly", json!({"url": url, "ref": {"branch": "main"}}));
    let running =
        FluxRecv::start(bed, &bed.token("flux-system", "narrow"), &["--namespaces", "flux-system,apps"]);
    assert_eq!(running.push("github", url, "main").0, 202, "{}", running.process.output());
    bed.merge(&git_path("flux-system", "partly"), &json!({"spec": {"ref": {"branch": "next"}}}));
    wait_for("the changed branch", PATIENCE, || (running.push("github", url, "next").0 == 202).then_some(()));
    assert!(running.process.has_logged(KIND_FORBIDDEN, &[]), "{}", running.process.output());
}

pub fn namespaces_limit_what_is_watched(bed: &Bed) {
    let url = "https://github.com/example-org/limited";
    for namespace in ["team-a", "team-b", "apps"] {
        git_repository(bed, namespace, "limited", json!({"url": url, "ref": {"branch": "main"}}));
    }
    let running = FluxRecv::start(bed, &own_token(bed), &["--namespaces", "team-a,team-b"]);
    let (_, answer) = running.push("github", url, "main");
    let mut targets: Vec<&str> =
        answer["targets"].as_array().expect("targets").iter().filter_map(Value::as_str).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["GitRepository/team-a/limited", "GitRepository/team-b/limited"]);
}

/// A 401 makes flux-recv read its credentials again.
pub fn a_stale_token_is_read_again(bed: &Bed) {
    let url = "https://github.com/example-org/stale";
    git_repository(bed, "apps", "stale", json!({"url": url, "ref": {"branch": "main"}}));
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bed.kubeconfig("not-a-token", "flux-system")).expect("a kubeconfig");
    let mut running = FluxRecv::start_in(folder, kubeconfig.clone(), &[]);
    let (status, answer) = running.push("github", url, "main");
    assert_eq!((status, &answer["outcome"]), (202, &json!("queued")));
    let refused = [("why", "*401*")];
    wait_for("a 401 in the log", PATIENCE, || {
        let mut lines = running.process.log_lines().into_iter();
        lines.any(|line| line.is(line.message(), &refused)).then_some(())
    });
    let before = requests(bed);
    std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
    running.wait_until_synced();
    requested_since(bed, &before, &["apps/stale"]);
}

/// The API server is out of reach until a port opens that leads to it.
pub fn deliveries_before_the_sync_are_queued(bed: &Bed) {
    let url = "https://github.com/example-org/early";
    git_repository(bed, "apps", "early", json!({"url": url, "ref": {"branch": "main"}}));
    let port = free_port();
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    let direct = bed.kubeconfig(&own_token(bed), "flux-system");
    std::fs::write(&kubeconfig, direct.replace(&bed.server, &format!("https://127.0.0.1:{port}")))
        .expect("a kubeconfig");
    let mut running = FluxRecv::start_in(folder, kubeconfig, &[]);
    let before = requests(bed);
    for _ in 0..3 {
        let (status, answer) = running.push("github", url, "main");
        assert_eq!((status, &answer["outcome"]), (202, &json!("queued")));
    }
    let api_server = bed.server.trim_start_matches("https://").to_owned();
    let relay = bed.spawn(relay(port, api_server));
    running.wait_until_synced();
    requested_since(bed, &before, &["apps/early"]);
    relay.abort();
}

/// Passes connections on, byte for byte.
async fn relay(port: u16, to: String) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port");
    while let Ok((mut near, _)) = listener.accept().await {
        let to = to.clone();
        tokio::spawn(async move {
            let mut far = tokio::net::TcpStream::connect(to).await.expect("the API server");
            let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

// Incident 31.
pub fn sigterm_asks_for_what_was_accepted(bed: &Bed) {
    let url = "https://github.com/example-org/last";
    for at in 0..5 {
        git_repository(bed, "apps", &format!("last-{at}"), json!({"url": url, "ref": {"branch": "main"}}));
    }
    let mut running = FluxRecv::start(bed, &own_token(bed), &["--min-interval", "3s"]);
    assert_eq!(running.push("github", url, "main").0, 202);
    std::thread::sleep(Duration::from_millis(300));
    let before = requests(bed);
    assert_eq!(running.push("github", url, "main").0, 202);
    assert_eq!(running.process.terminate(), Some(0), "{}", running.process.output());
    let requested = requests(bed).iter().filter(|(name, at)| before.get(*name) != Some(*at)).count();
    assert_eq!(requested, 5, "the second request waits for its interval and is sent before the end");
}

pub fn check_tells_rights_and_counts(bed: &Bed) {
    git_repository(
        bed,
        "team-a",
        "seen-by-check",
        json!({"url": "https://github.com/example-org/seen-by-check"}),
    );
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let check_as = |token: &str, more: &[&str]| {
        let kubeconfig = running.folder.path().join("check.kubeconfig");
        std::fs::write(&kubeconfig, bed.kubeconfig(token, "flux-system")).expect("a kubeconfig");
        let output = flux_recv()
            .arg("check")
            .args(["--config", &running.config()])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(more)
            .output();
        let output = output.expect("check runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let check = |token: &str| check_as(token, &[]);
    let (code, text) = check(&own_token(bed));
    assert_eq!(code, Some(0), "{text}");
    let objects = requests(bed).len();
    let words = |text: &str, kind: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with(&format!("{kind} ")));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(
        words(&text, "GitRepository"),
        ["GitRepository", "v1", "-", &objects.to_string(), "-"],
        "{text}"
    );
    assert_eq!(words(&text, "github"), ["github", "GitHub", "yes"], "{text}");
    assert!(text.contains("as system:serviceaccount:flux-system:flux-recv (context test)"), "{text}");
    for (name, url) in
        [("inside", "http://gitea-http.gitea.svc:3000/o/a"), ("outside", "https://git.example.com/o/a")]
    {
        git_repository(bed, "apps", name, json!({"url": url}));
    }
    let (_, text) = check(&own_token(bed));
    let hint = "hint: GitRepository/apps/inside references o/a at gitea-http.gitea.svc, GitRepository/apps/outside has it at \
                git.example.com; if both are one forge, add `gitHosts: [gitea-http.gitea.svc]` to its endpoint (";
    assert!(text.contains(hint), "{text}");
    bed.kubectl(&["create", "serviceaccount", "without-rights", "-n", "flux-system"]);
    let (code, text) = check(&bed.token("flux-system", "without-rights"));
    assert_eq!(code, Some(1), "{text}");
    assert!(
        words(&text, "GitRepository").ends_with(&["list,", "watch,", "patch"].map(str::to_owned)),
        "{text}"
    );

    // An administrator can look with the eyes of either.
    let admin = super::bed::ADMIN_TOKEN;
    let (code, text) = check_as(admin, &["--as", "system:serviceaccount:flux-system:flux-recv"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("as system:serviceaccount:flux-system:flux-recv (context test)"), "{text}");
    let (code, text) = check_as(admin, &["--as", "system:serviceaccount:flux-system:without-rights"]);
    assert_eq!(code, Some(1), "{text}");

    // What does not exist can never match.
    let misspelt = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key, namespaces: app, \
                    resources: [{kind: GitRepository, name: insid}]}\n";
    std::fs::write(running.folder.path().join("fluxrecv.yaml"), misspelt).expect("a config");
    let (code, text) = check(&own_token(bed));
    assert_eq!(code, Some(1), "{text}");
    let namespaces =
        "warning: endpoint github: namespaces: no Flux object is in namespace app; did you mean `apps`?";
    let resources =
        "warning: endpoint github: resources: there is no GitRepository/insid; did you mean `inside`?";
    assert!(text.contains(namespaces) && text.contains(resources), "{text}");
}
