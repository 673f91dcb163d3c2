//! The Helm chart, with the real helm against the real API server: it says the same as the kustomization, and what
//! does not fit together is refused with a sentence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bed::Bed;
use super::process::{Process, free_port, wait_for};

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/flux-recv")
}

/// Runs helm as cluster-admin; gives what it prints, or its error.
fn helm(bed: &Bed, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(bed.parts.cache.join("bin/helm"))
        .args(arguments)
        .env("KUBECONFIG", bed.path("admin.kubeconfig"))
        .env("HOME", bed.folder.path())
        .output()
        .expect("helm runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Renders the chart with values; gives the objects.
fn rendered(bed: &Bed, values: &Value) -> Result<Vec<Value>, String> {
    let file = bed.path("values.json");
    std::fs::write(&file, values.to_string()).expect("values");
    let chart = chart().display().to_string();
    let values = file.display().to_string();
    let text = helm(bed, &["template", "flux-recv", &chart, "-n", "flux-system", "-f", &values])?;
    let documents = serde_yaml::Deserializer::from_str(&text)
        .map(|document| Option::<Value>::deserialize(document).expect("YAML"));
    Ok(documents.flatten().collect())
}

fn config() -> Value {
    json!({"fluxRecvVersion": 1, "endpoints": [{"source": "GitHub", "keyPath": "github.key"}]})
}

/// Without names, labels and what only one of them has to say.
fn comparable(mut object: Value) -> Value {
    fn clean(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for name in ["labels", "matchLabels", "namespace", "selector"] {
                    fields.remove(name);
                }
                // The default of the API server for an image with a tag.
                fields.remove("imagePullPolicy");
                fields.values_mut().for_each(clean);
            }
            Value::Array(list) => list.iter_mut().for_each(clean),
            Value::String(text) => {
                *text =
                    text.replace("flux-system-flux-recv", "flux-recv").replace("flux-recv-config", "CONFIG");
            }
            _ => {}
        }
    }
    clean(&mut object);
    object
}

pub fn chart_and_kustomization_say_the_same(bed: &Bed) {
    let text = bed.kustomize(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kustomization"));
    let documents = serde_yaml::Deserializer::from_str(&text)
        .map(|document| Option::<Value>::deserialize(document).expect("YAML"));
    let by_kind = |objects: Vec<Value>| -> BTreeMap<String, Value> {
        let named = objects
            .into_iter()
            .map(|object| (object["kind"].as_str().expect("a kind").to_owned(), comparable(object)));
        named.collect()
    };
    let kustomized = by_kind(documents.flatten().collect());
    let mut charted = by_kind(rendered(bed, &json!({})).expect("the defaults"));
    // The kustomizations of users bring it.
    assert!(charted.remove("Secret").is_some());
    assert_eq!(charted.keys().collect::<Vec<_>>(), kustomized.keys().collect::<Vec<_>>());
    for (kind, object) in &kustomized {
        assert_eq!(&charted[kind], object, "{kind}");
    }
}

pub fn the_chart_refuses_what_does_not_fit_together(bed: &Bed) {
    let publish = json!({"signingKeyPaths": ["s.pem"], "subscribers": [{"name": "a", "endpoints": ["*"], "keyPath": "a.key"}]});
    let subscribe = json!([{"name": "hub", "url": "https://a.example.com", "tokenPath": "t", "publicKeys": ["x"], "endpoints": {"github": {}}}]);
    let with = |mut config: Value, field: &str, value: &Value| {
        config[field] = value.clone();
        config
    };
    for (values, sentence) in [
        (json!({"publisher": {"enabled": true}}), "`config` has no `publish`"),
        (json!({"config": with(config(), "publish", &publish)}), "set publisher.enabled to true"),
        (json!({"subscriber": {"enabled": true}, "config": config()}), "`config` has no `subscribe`"),
        (
            json!({"subscriber": {"enabled": true}, "config": with(config(), "subscribe", &subscribe)}),
            "set subscriber.takesWebhooks to true",
        ),
        (
            json!({"publisher": {"enabled": true}, "volumeClaim": {"enabled": true}, "config": with(config(), "publish", &with(publish.clone(), "nats", &json!({"urls": ["nats://nats:4222"]})))}),
            "volumeClaim.enabled keeps one journal on one volume",
        ),
        (json!({"existingSecret": "a", "keys": {"b": "c"}}), "existingSecret and keys are both set"),
        (json!({"httpRoute": {"enabled": true}}), "httpRoute.enabled needs httpRoute.parentRefs"),
    ] {
        let refused = rendered(bed, &values).expect_err(sentence);
        assert!(refused.contains(sentence), "{sentence} in {refused}");
    }
}

/// Values that people use, each checked by the API server.
pub fn the_chart_with_values_of_every_kind_passes_the_api_server(bed: &Bed) {
    let mut aliased = config();
    aliased["endpoints"][0]["alias"] = json!("/webhook");
    let all = json!({
        "config": aliased, "existingSecret": "keys", "moreKinds": true, "events": true, "volumeClaim": {"enabled": true},
        "receivers": {"enabled": true, "namespaces": ["apps", "team-a"], "secretNames": ["webhook-token"]},
        "ingress": {"enabled": true, "className": "nginx", "host": "recv.example.com", "tlsSecret": "recv-tls"},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "gateway"}], "hostnames": ["recv.example.com"]},
        "commonLabels": {"team": "platform"}, "commonAnnotations": {"example.com/a": "b"},
        "global": {"imageRegistry": "registry.example.com"}, "image": {"repository": "ghcr.io/org/flux-recv", "tag": "1"},
        "dashboard": {"enabled": true}, "tolerations": [{"operator": "Exists"}], "extraEnv": [{"name": "RUST_LOG", "value": "info"}],
    });
    let publisher = json!({
        "config": {"fluxRecvVersion": 1, "endpoints": [{"source": "GitHub", "keyPath": "github.key"}], "publish": {"signingKeyPaths": ["s.pem"], "subscribersPath": "s-*.yaml"}},
        "publisher": {"enabled": true, "ingress": {"enabled": true, "tlsSecret": "t"}, "httpRoute": {"enabled": true, "parentRefs": [{"name": "gateway"}]}},
    });
    let mut with_nats = publisher.clone();
    with_nats["config"]["publish"]["nats"] =
        json!({"urls": ["tls://nats.nats:4222"], "credentialsPath": "nats.creds"});
    with_nats["publisher"]["replicas"] = json!(3);
    assert_eq!(rolling(bed, &with_nats), (json!(3), json!("RollingUpdate"), false, true));
    assert_eq!(rolling(bed, &publisher), (json!(1), json!("Recreate"), true, false));
    let subscriber = json!({
        "config": {"fluxRecvVersion": 1, "subscribe": [{"name": "hub", "url": "https://a.example.com", "tokenPath": "/var/run/secrets/flux-recv/token", "publicKeys": ["x"], "endpoints": {"github": {}}}]},
        "subscriber": {"enabled": true},
    });
    for mut values in [all, publisher, with_nats, documented_values(), subscriber] {
        // Another scenario has applied the manifests, whose Deployment these would be merged with.
        values["fullnameOverride"] = json!("every-kind");
        let objects = rendered(bed, &values).unwrap_or_else(|err| panic!("{values}: {err}"));
        let text: Vec<String> = objects.iter().map(|object| format!("---\n{object:#}\n")).collect();
        let file = bed.path("chart.yaml");
        std::fs::write(&file, text.concat()).expect("a file");
        let file = file.display().to_string();
        bed.kubectl(&[
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "--force-conflicts",
            "-f",
            &file,
        ]);
        let text = text.concat();
        assert!(!text.contains("subPath"));
        // The routes let an alias in.
        let has_alias = values["config"]["endpoints"][0]["alias"] == "/webhook";
        let routed = objects.iter().filter(|object| {
            matches!(object["kind"].as_str(), Some("Ingress" | "HTTPRoute"))
                && object.to_string().contains("\"/webhook\"")
        });
        assert_eq!(routed.count(), if has_alias { 2 } else { 0 }, "{text}");
    }
    let image = rendered(
        bed,
        &json!({"global": {"imageRegistry": "r.example.com"}, "image": {"repository": "ghcr.io/org/flux-recv"}}),
    );
    let image = image.expect("objects").iter().map(ToString::to_string).collect::<String>();
    assert!(image.contains("r.example.com/org/flux-recv:0.1.0"), "{image}");
}

/// Install, upgrade, rollback and uninstall, twice side by side.
pub fn the_chart_is_installed_upgraded_and_removed(bed: &Bed) {
    let chart = chart().display().to_string();
    let endpoints = "config.endpoints=[{\"source\":\"GitHub\",\"keyPath\":\"github.key\"}]";
    for (release, namespace) in [("recv-one", "apps"), ("recv-one", "team-a")] {
        let notes = helm(
            bed,
            &[
                "install",
                release,
                &chart,
                "-n",
                namespace,
                "--set",
                "existingSecret=keys",
                "--set-json",
                endpoints,
            ],
        );
        let notes = notes.expect("the release is installed");
        assert!(
            notes.contains(&format!("kubectl -n {namespace} rollout status deployment/recv-one-flux-recv")),
            "{notes}"
        );
    }
    let roles = bed.kubectl(&["get", "clusterroles", "-o", "name"]);
    for role in ["apps-recv-one-flux-recv", "team-a-recv-one-flux-recv"] {
        assert!(roles.contains(role), "{roles}");
    }
    let claim = || {
        bed.try_kubectl(&[
            "-n",
            "apps",
            "get",
            "pvc",
            "recv-one-flux-recv-journal",
            "-o",
            "jsonpath={.metadata.uid}",
        ])
    };
    let upgrade = |more: &[&str]| {
        helm(bed, &[&["upgrade", "recv-one", &chart, "-n", "apps", "--reuse-values"], more].concat())
    };
    upgrade(&["--set", "volumeClaim.enabled=true"]).expect("an upgrade");
    let before = claim().expect("a claim");
    upgrade(&["--set", "log.format=text"]).expect("an upgrade");
    assert_eq!(claim(), Ok(before.clone()), "the journal stays");
    helm(bed, &["rollback", "recv-one", "1", "-n", "apps"]).expect("a rollback");
    assert_eq!(claim(), Ok(before), "also where the first revision had none");
    for namespace in ["apps", "team-a"] {
        helm(bed, &["uninstall", "recv-one", "-n", namespace]).expect("it goes");
    }
    let left =
        bed.kubectl(&["get", "clusterroles,clusterrolebindings,validatingadmissionpolicies", "-o", "name"]);
    assert!(!left.contains("recv-one"), "{left}");
}

/// The values that docs/multicluster.md has for a publisher over NATS.
fn documented_values() -> Value {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/multicluster.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let values = page.split("```yaml\n").find(|block| block.starts_with("existingSecret:")).expect("values");
    serde_yaml::from_str(values.split("```").next().expect("a block")).expect("YAML")
}

/// Replicas and strategy of the Deployment, and whether there are a volume claim and a disruption budget.
fn rolling(bed: &Bed, values: &Value) -> (Value, Value, bool, bool) {
    let objects = rendered(bed, values).expect("manifests");
    let has = |kind: &str| objects.iter().any(|object| object["kind"] == kind);
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").expect("a Deployment");
    let spec = &deployment["spec"];
    (
        spec["replicas"].clone(),
        spec["strategy"]["type"].clone(),
        has("PersistentVolumeClaim"),
        has("PodDisruptionBudget"),
    )
}

/// As an OCI artifact, to a registry and back.
pub fn the_chart_goes_through_a_registry(bed: &Bed) {
    let (port, folder) = (free_port(), bed.path("chart-registry"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let config = folder.join("config.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
        folder.join("data").display()
    );
    std::fs::write(&config, text).expect("a config");
    let mut command = Command::new(bed.parts.cache.join("bin/registry"));
    let _registry = Process::spawn(command.arg("serve").arg(&config), &bed.path("chart-registry.log"));
    wait_for("the registry", std::time::Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let packages = folder.display().to_string();
    helm(bed, &["package", &chart().display().to_string(), "-d", &packages]).expect("a package");
    let package = folder.join("flux-recv-0.1.0.tgz").display().to_string();
    let repository = format!("oci://127.0.0.1:{port}/charts");
    helm(bed, &["push", &package, &repository, "--plain-http"]).expect("it is pushed");
    let chart = format!("{repository}/flux-recv");
    let pulled =
        helm(bed, &["template", "recv", &chart, "--version", "0.1.0", "--plain-http"]).expect("it is pulled");
    assert!(pulled.contains("kind: ValidatingAdmissionPolicy"), "{pulled}");
}

/// The chart's README is made by helm-docs, and its alerts and dashboard are those of the examples.
pub fn what_the_chart_has_from_elsewhere_is_current(bed: &Bed) {
    let folder = tempfile::tempdir().expect("a folder");
    super::common::copy_folder(&chart(), folder.path());
    let made = Command::new(bed.parts.cache.join("bin/helm-docs"))
        .arg("--chart-search-root")
        .arg(folder.path())
        .output();
    assert!(made.expect("helm-docs runs").status.success());
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let readme = read(&folder.path().join("README.md"));
    if std::env::var_os("FLUX_RECV_BLESS").is_some() {
        std::fs::write(chart().join("README.md"), &readme).expect("a README");
    }
    assert_eq!(readme, read(&chart().join("README.md")), "run helm-docs in chart/flux-recv");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("example/monitoring");
    for file in ["alerts.yaml", "dashboard.json"] {
        assert_eq!(read(&examples.join(file)), read(&chart().join("files").join(file)), "{file}: copy it");
    }
}

/// helm checks values against the schema: what the parser takes passes, and what it refuses for its shape does not.
pub fn the_charts_schema_and_the_parser_agree(bed: &Bed) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    for example in [
        "config",
        "publisher",
        "publisher-nats",
        "subscriber",
        "fleet/publisher",
        "fleet/subscriber-a",
        "fleet/subscriber-b",
    ] {
        let file = project.join("example").join(example).join("fluxrecv.yaml");
        let text = std::fs::read_to_string(file).expect("an example");
        let config: Value = serde_yaml::from_str(&text).expect("YAML");
        assert_eq!(refused_by_the_schema(bed, &config), None, "{example}");
    }
    let endpoint = |fields: Value| {
        let mut endpoint = json!({"source": "generic", "keyPath": "a.key", "auth": "bearer", "resources": [{"kind": "Bucket", "name": "b"}]});
        endpoint.as_object_mut().expect("fields").extend(fields.as_object().expect("fields").clone());
        json!({"fluxRecvVersion": 1, "endpoints": [endpoint]})
    };
    for good in [
        json!({"namespaces": "apps", "maxBody": "25MiB", "maxPerMinute": 5, "suspend": true}),
        json!({"resources": [{"kind": "GitRepository", "name": "*", "matchLabels": {"a": "b"}, "filter": "true"}], "auth": {"header": "x-key"}}),
        json!({"alias": "/webhook"}),
        json!({"alias": "/api/web-hook_1"}),
        json!({"name": null, "match": "all", "acceptKeyPaths": null, "maxBody": 1024}),
    ] {
        let config = endpoint(good);
        assert_eq!(refused_by_the_parser(&config), None, "{config}");
        assert_eq!(refused_by_the_schema(bed, &config), None, "{config}");
    }
    for bad in [
        endpoint(json!({"refss": ["main"]})),
        endpoint(json!({"namespaces": 5})),
        endpoint(json!({"namespaces": []})),
        endpoint(json!({"resources": [{"kind": "Pod", "name": "b"}]})),
        endpoint(json!({"resources": [{"kind": "Bucket", "names": "b"}]})),
        endpoint(json!({"auth": "digest"})),
        endpoint(json!({"auth": {"header": "a", "basic": "b"}})),
        endpoint(json!({"match": "some"})),
        endpoint(json!({"maxBody": "many"})),
        endpoint(json!({"maxPerMinute": 0})),
        endpoint(json!({"suspend": "yes"})),
        endpoint(json!({"alias": "webhook"})),
        endpoint(json!({"alias": "/a/"})),
        endpoint(json!({"alias": "/a/../b"})),
        endpoint(json!({"alias": format!("/{}", "a".repeat(128))})),
        endpoint(json!({"source": "Git"})),
        endpoint(json!({"forward": ["req"]})),
        json!({"fluxRecvVersion": 2, "endpoints": []}),
        json!({"fluxRecvVersion": 1, "endpoints": [{"source": "GitHub"}]}),
        json!({"fluxRecvVersion": 1, "publish": {"stagger": "fast", "signingKeyPaths": "a.key", "subscribers": [{"name": "a", "endpoints": "*", "keyPath": "a.key"}]}}),
        json!({"fluxRecvVersion": 1, "publish": {"signingKeyPaths": "a.key", "subscribers": [{"name": "a", "keyPath": "a.key"}]}}),
        json!({"fluxRecvVersion": 1, "publish": {"signingKeyPaths": "a.key", "nats": {"urls": ["https://nats"]}, "subscribers": [{"name": "a", "endpoints": "*", "keyPath": "a.key"}]}}),
        json!({"fluxRecvVersion": 1, "publish": {"signingKeyPaths": "a.key", "nats": {"stream": "log"}, "subscribers": [{"name": "a", "endpoints": "*", "keyPath": "a.key"}]}}),
        json!({"fluxRecvVersion": 1, "publish": {"signingKeyPaths": "a.key", "nats": {"urls": "nats://nats", "replicas": 6}, "subscribers": [{"name": "a", "endpoints": "*", "keyPath": "a.key"}]}}),
        json!({"fluxRecvVersion": 1, "publish": {"signingKeyPaths": "a.key", "autoreconciler": {"secretKeyPath": "a.key"}}}),
        json!({"fluxRecvVersion": 1, "subscribe": [{"name": "a b", "url": "https://a.example.com", "tokenPath": "a.key", "publicKeys": "x", "endpoints": {"a": {}}}]}),
        json!({"fluxRecvVersion": 1, "subscribe": [{"name": "a", "url": "https://a.example.com", "tokenPath": "a.key", "publicKeys": "x", "endpoints": {"a": {"source": "GitHub"}}}]}),
    ] {
        assert!(refused_by_the_parser(&bad).is_some(), "the parser takes {bad}");
        assert!(refused_by_the_schema(bed, &bad).is_some(), "the schema takes {bad}");
    }
}

fn refused_by_the_schema(bed: &Bed, config: &Value) -> Option<String> {
    let publisher = config["publish"].is_object();
    let subscriber = config["subscribe"].is_array();
    let values =
        json!({"config": config, "publisher": {"enabled": publisher}, "subscriber": {"enabled": subscriber}});
    rendered(bed, &values).err()
}

fn refused_by_the_parser(config: &Value) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.key"), "test-key-of-the-chart-0123456789").expect("a key");
    let file = folder.path().join("fluxrecv.yaml");
    std::fs::write(&file, config.to_string()).expect("a config");
    let output = super::receive::flux_recv().args(["check", "--no-cluster", "--config"]).arg(&file).output();
    let errors = String::from_utf8_lossy(&output.expect("it runs").stderr).into_owned();
    errors.contains("error: ").then_some(errors)
}
