//! Flux's own Receivers: the same objects, the same requests, to notification-controller 1.9.3 and
//! to flux-recv on one API server, one after the other; what was annotated is compared. Where
//! flux-recv differs on purpose, the table of docs/receivers.md says so, and only there.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};

use super::bed::Bed;
use super::common::leaks;
use super::issuer::Issuer;
use super::process::{Process, free_port, wait_for};
use super::receive::{FluxRecv, flux_recv, git_repository, own_token, requested_at};

const PATIENCE: Duration = Duration::from_secs(30);
pub const TOKEN: &str = "test-token-of-the-receivers";
pub const RECEIVERS: &str = "/apis/notification.toolkit.fluxcd.io/v1/namespaces/apps/receivers";

/// Which objects come behind the one that fails is up to the order in which notification-controller's
/// cache lists them.
const BY_CHANCE: &str = "A filter that fails for one object";

/// Only Receivers are served here, but a config lists at least one endpoint.
const CONFIG: &str = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key}\n";

/// A request, sent to both.
struct Request {
    receiver: &'static str,
    what: &'static str,
    method: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The row of the table that says why the two annotate different objects.
    differs: Option<&'static str>,
}

fn request(receiver: &'static str, what: &'static str, headers: &[(&str, String)], body: &Value) -> Request {
    let mut all = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Request {
        receiver,
        what,
        method: "POST",
        headers: all,
        body: body.to_string().into_bytes(),
        differs: None,
    }
}

impl Request {
    fn differs(self, row: &'static str) -> Request {
        Request { differs: Some(row), ..self }
    }

    fn method(self, method: &'static str) -> Request {
        Request { method, ..self }
    }

    fn body(self, body: &[u8]) -> Request {
        Request { body: body.to_vec(), ..self }
    }
}

fn hex_of<M: Mac + KeyInit>(key: &str, body: &Value) -> String {
    let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes()).expect("a key");
    mac.update(body.to_string().as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    leaks::remember(&signature);
    signature
}

fn sha256(key: &str, body: &Value) -> String {
    format!("sha256={}", hex_of::<Hmac<sha2::Sha256>>(key, body))
}

/// What each Receiver requests, but for those that say otherwise.
fn usual_resources() -> Value {
    json!([{"kind": "GitRepository", "name": "one"}, {"kind": "GitRepository", "name": "*", "matchLabels": {"tier": "web"}}])
}

pub fn receiver(name: &str, of_type: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut spec =
        json!({"type": of_type, "secretRef": {"name": "webhook-token"}, "resources": usual_resources()});
    change(&mut spec);
    json!({"apiVersion": "notification.toolkit.fluxcd.io/v1", "kind": "Receiver", "metadata": {"name": name, "namespace": "apps"}, "spec": spec})
}

fn receivers(issuer: &Issuer) -> Vec<Value> {
    let plain = |name: &str, of_type: &str| receiver(name, of_type, |_| {});
    let with = |name: &str, of_type: &str, field: &'static str, value: Value| {
        receiver(name, of_type, move |spec| spec[field] = value)
    };
    vec![
        plain("generic", "generic"),
        plain("generic-hmac", "generic-hmac"),
        receiver("generic-oidc", "generic-oidc", |spec| {
            spec.as_object_mut().expect("a mapping").remove("secretRef");
            spec["oidcProviders"] = json!([{
                "issuerURL": issuer.url, "audience": "flux",
                "variables": [{"name": "org", "expression": "claims.repository.split('/').first().value()"}],
                "validations": [{"expression": "vars.org == 'example-org'", "message": "another organisation"}],
            }]);
            spec["resourceFilter"] = json!("claims.repository == 'example-org/' + res.metadata.name");
        }),
        with("github", "github", "events", json!(["ping", "push"])),
        plain("github-all", "github"),
        with("gitlab", "gitlab", "events", json!(["Push Hook", "tag push hook"])),
        with("bitbucket", "bitbucket", "events", json!(["repo:refs_changed"])),
        plain("harbor", "harbor"),
        plain("dockerhub", "dockerhub"),
        plain("quay", "quay"),
        with("gcr", "gcr", "secretRef", json!({"name": "gcr-token"})),
        plain("nexus", "nexus"),
        plain("acr", "acr"),
        with("cdevents", "cdevents", "events", json!(["dev.cdevents.change.merged.0.2.0"])),
        receiver("filtered", "github", |spec| {
            spec["resourceFilter"] = json!("req.repository.name == res.metadata.?labels['app'].orValue('')");
            spec["resources"] = json!([
                {"kind": "GitRepository", "name": "*", "matchLabels": {"tier": "web"}, "filter": "res.metadata.name != 'three'"},
                {"kind": "GitRepository", "name": "one"},
            ]);
        }),
        receiver("failing-filter", "github", |spec| {
            spec["resources"] = json!([
                {"kind": "GitRepository", "name": "*", "matchLabels": {"tier": "web"}, "filter": "res.metadata.annotations['team'] == 'a'"},
                {"kind": "GitRepository", "name": "one"},
            ]);
        }),
        with("suspended", "github", "suspend", json!(true)),
        with(
            "elsewhere",
            "generic",
            "resources",
            json!([
                {"kind": "GitRepository", "name": "far", "namespace": "team-a"},
                {"kind": "GitRepository", "name": "*", "namespace": "team-a", "matchLabels": {"tier": "far"}},
            ]),
        ),
        with(
            "missing-first",
            "generic",
            "resources",
            json!([
                {"kind": "GitRepository", "name": "not-there"},
                {"kind": "GitRepository", "name": "one"},
            ]),
        ),
        with(
            "labels-of-a-named-one",
            "generic",
            "resources",
            json!([
                {"kind": "GitRepository", "name": "one", "matchLabels": {"tier": "other"}},
                {"kind": "GitRepository", "name": "*"},
            ]),
        ),
        with(
            "kinds",
            "generic",
            "resources",
            json!([
                {"kind": "Kustomization", "name": "k", "apiVersion": "kustomize.toolkit.fluxcd.io/v1"},
                {"kind": "Bucket", "name": "b"},
            ]),
        ),
        with("kind-without-version", "generic", "resources", json!([{"kind": "Kustomization", "name": "k"}])),
        with(
            "at-rest",
            "generic",
            "resources",
            json!([
                {"kind": "GitRepository", "name": "asleep"},
                {"kind": "HelmRepository", "name": "static"},
            ]),
        ),
    ]
}

fn push() -> Value {
    json!({"ref": "refs/heads/main", "before": "1", "after": "2", "repository": {"name": "web", "clone_url": "https://github.com/example-org/unknown"}})
}

fn requests_to_both(issuer: &Issuer) -> Vec<Request> {
    let push = push();
    let github = |receiver: &'static str, what: &'static str, event: &str, key: &str, body: &Value| {
        request(
            receiver,
            what,
            &[("X-GitHub-Event", event.to_owned()), ("X-Hub-Signature-256", sha256(key, body))],
            body,
        )
    };
    let bearer = |claims: Value| {
        let token = issuer.token(&claims);
        leaks::remember(&token);
        vec![("Authorization", format!("Bearer {token}"))]
    };
    let claims = |repository: &str| json!({"repository": repository, "aud": "flux"});
    let gitlab = |what: &'static str, event: &str, token: &str| {
        request(
            "gitlab",
            what,
            &[("X-Gitlab-Event", event.to_owned()), ("X-Gitlab-Token", token.to_owned())],
            &push,
        )
    };
    let bitbucket = |what: &'static str, event: &str, key: &str| {
        let headers = [("X-Event-Key", event.to_owned()), ("X-Hub-Signature", sha256(key, &push))];
        request("bitbucket", what, &headers, &push)
    };
    let change = |kind: &str| {
        json!({"context": {"version": "0.4.1", "id": "a", "source": "/ci", "type": kind, "timestamp": "2026-01-01T00:00:00Z"},
            "subject": {"id": "a", "source": "/ci", "type": "change", "content": {"repository": {"id": "o/r", "source": "https://example.com"}}}})
    };
    let merged = change("dev.cdevents.change.merged.0.2.0");
    let hub = json!({"push_data": {"tag": "v1"}, "repository": {"repo_name": "org/app", "repo_url": "https://hub.docker.com/r/org/app"}});
    let quay = json!({"docker_url": "quay.io/org/app", "updated_tags": ["v1"]});
    let nexus = json!({"action": "CREATED", "repositoryName": "docker", "component": {"format": "docker", "name": "app", "version": "1"}});
    let nexus_signature = |key: &str| ("X-Nexus-Webhook-Signature", hex_of::<Hmac<sha1::Sha1>>(key, &nexus));
    let form = format!(
        "payload={}",
        url::form_urlencoded::byte_serialize(push.to_string().as_bytes()).collect::<String>()
    );
    let mut signed_form = Hmac::<sha2::Sha256>::new_from_slice(TOKEN.as_bytes()).expect("a key");
    signed_form.update(form.as_bytes());
    let mut github_form =
        request("filtered", "a form", &[], &json!({})).body(form.as_bytes()).differs("A body that is a form");
    github_form.headers = vec![
        ("Content-Type".to_owned(), "application/x-www-form-urlencoded".to_owned()),
        ("X-GitHub-Event".to_owned(), "push".to_owned()),
        (
            "X-Hub-Signature-256".to_owned(),
            format!("sha256={}", hex::encode(signed_form.finalize().into_bytes())),
        ),
    ];
    let team_a = json!({"repository": {"name": "web"}});
    vec![
        request("generic", "a delivery", &[], &json!({})),
        request("generic", "a GET", &[], &json!({})).method("GET"),
        request("generic", "no JSON", &[], &json!({})).body(b"hello"),
        request("generic-hmac", "sha256", &[("X-Signature", sha256(TOKEN, &push))], &push),
        request(
            "generic-hmac",
            "sha1",
            &[("X-Signature", format!("sha1={}", hex_of::<Hmac<sha1::Sha1>>(TOKEN, &push)))],
            &push,
        ),
        request(
            "generic-hmac",
            "sha512",
            &[("X-Signature", format!("sha512={}", hex_of::<Hmac<sha2::Sha512>>(TOKEN, &push)))],
            &push,
        ),
        request("generic-hmac", "forged", &[("X-Signature", sha256("another-key", &push))], &push),
        request("generic-hmac", "unsigned", &[], &push),
        request("generic-oidc", "a job of `one`", &bearer(claims("example-org/one")), &json!({})),
        request("generic-oidc", "a job of a stranger", &bearer(claims("evil-org/one")), &json!({})),
        request(
            "generic-oidc",
            "for another audience",
            &bearer(json!({"repository": "example-org/one", "aud": "x"})),
            &json!({}),
        ),
        request("generic-oidc", "without a token", &[], &json!({})),
        request(
            "generic-oidc",
            "a token without signature",
            &[("Authorization", format!("Bearer {}", unsigned(issuer)))],
            &json!({}),
        ),
        github("github", "push", "push", TOKEN, &push),
        github("github", "ping", "ping", TOKEN, &json!({"zen": "x"})),
        github("github", "an event that is not listed", "issues", TOKEN, &push),
        github("github", "forged", "push", "another-key", &push),
        request("github", "unsigned", &[("X-GitHub-Event", "push".to_owned())], &push),
        github("github-all", "any event", "issues", TOKEN, &json!({"action": "opened"})),
        github("github-all", "ping", "ping", TOKEN, &json!({"zen": "x"})),
        github(
            "github-all",
            "a deleted branch",
            "push",
            TOKEN,
            &json!({"ref": "refs/heads/x", "deleted": true, "after": "0000", "repository": {"clone_url": "https://github.com/o/r"}}),
        ),
        request("github-all", "no event header", &[("X-Hub-Signature-256", sha256(TOKEN, &push))], &push),
        request(
            "github-all",
            "only the older signature",
            &[
                ("X-GitHub-Event", "push".to_owned()),
                ("X-Hub-Signature", format!("sha1={}", hex_of::<Hmac<sha1::Sha1>>(TOKEN, &push))),
            ],
            &push,
        ),
        gitlab("push", "Push Hook", TOKEN),
        gitlab("a tag, listed in lower case", "Tag Push Hook", TOKEN),
        gitlab("an event that is not listed", "Issue Hook", TOKEN),
        gitlab("forged", "Push Hook", "another-key"),
        request("gitlab", "without token", &[("X-Gitlab-Event", "Push Hook".to_owned())], &push),
        gitlab("no JSON", "Push Hook", TOKEN).body(b"hello"),
        gitlab("nothing, with GET", "Push Hook", TOKEN).body(b"").method("GET"),
        bitbucket("push", "repo:refs_changed", TOKEN),
        bitbucket("an event that is not listed", "pr:opened", TOKEN),
        bitbucket("forged", "repo:refs_changed", "another-key"),
        request("harbor", "no body", &[("Authorization", TOKEN.to_owned())], &json!({})).body(b""),
        request("harbor", "push", &[("Authorization", TOKEN.to_owned())], &json!({"type": "PUSH_ARTIFACT"})),
        request(
            "harbor",
            "a scan",
            &[("Authorization", TOKEN.to_owned())],
            &json!({"type": "SCANNING_COMPLETED"}),
        ),
        request(
            "harbor",
            "forged",
            &[("Authorization", "another-key".to_owned())],
            &json!({"type": "PUSH_ARTIFACT"}),
        ),
        request("dockerhub", "push", &[], &hub),
        request("dockerhub", "an empty object", &[], &json!({})),
        request("dockerhub", "cut short", &[], &hub).body(b"{\"push_data\": {"),
        request("quay", "push", &[], &quay),
        request("quay", "cut short", &[], &quay).body(b"{\"docker_url\""),
        request("gcr", "without token", &[], &json!({"message": {"data": "e30="}})),
        request(
            "gcr",
            "with something that is no token",
            &[("Authorization", "Bearer x".to_owned())],
            &json!({"message": {"data": "e30="}}),
        ),
        request(
            "nexus",
            "component",
            &[("X-Nexus-Webhook-Id", "rm:repository:component".to_owned()), nexus_signature(TOKEN)],
            &nexus,
        ),
        request("nexus", "forged", &[nexus_signature("another-key")], &nexus),
        request("nexus", "unsigned", &[], &nexus),
        request(
            "acr",
            "push",
            &[],
            &json!({"action": "push", "target": {"repository": "app", "tag": "v1"}, "request": {"host": "r.azurecr.io"}}),
        ),
        request("acr", "cut short", &[], &json!({})).body(b"{\"action\""),
        request("cdevents", "merged", &[("Ce-Type", "dev.cdevents.change.merged.0.2.0".to_owned())], &merged),
        request(
            "cdevents",
            "an event that is not listed",
            &[("Ce-Type", "dev.cdevents.change.created.0.2.0".to_owned())],
            &merged,
        ),
        request(
            "cdevents",
            "no CDEvent",
            &[("Ce-Type", "dev.cdevents.change.merged.0.2.0".to_owned())],
            &json!({"a": 1}),
        )
        .differs("A payload that is JSON, but not of the provider's form"),
        github("filtered", "for the label `web`", "push", TOKEN, &push),
        github("filtered", "for no label", "push", TOKEN, &json!({"repository": {"name": "nobody"}})),
        github_form,
        github("failing-filter", "push", "push", TOKEN, &team_a).differs(BY_CHANCE),
        github("suspended", "push", "push", TOKEN, &push),
        request("elsewhere", "a delivery", &[], &json!({})),
        request("missing-first", "a delivery", &[], &json!({})),
        request("labels-of-a-named-one", "a delivery", &[], &json!({})),
        request("kinds", "a delivery", &[], &json!({})),
        request("kind-without-version", "a delivery", &[], &json!({})).differs("A kind without `apiVersion`"),
        request("at-rest", "a delivery", &[], &json!({})).differs("Objects that Flux leaves alone"),
    ]
}

fn unsigned(issuer: &Issuer) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.",
        part(json!({"alg": "none"})),
        part(
            json!({"iss": issuer.url, "aud": "flux", "repository": "example-org/one", "exp": 4_000_000_000_u64})
        )
    )
}

/// When each object was last requested, by kind, namespace and name.
fn snapshot(bed: &Bed) -> BTreeMap<String, Option<String>> {
    let mut all = BTreeMap::new();
    for (path, kind) in [
        ("/apis/source.toolkit.fluxcd.io/v1/gitrepositories", "GitRepository"),
        ("/apis/source.toolkit.fluxcd.io/v1/buckets", "Bucket"),
        ("/apis/source.toolkit.fluxcd.io/v1/helmrepositories", "HelmRepository"),
        ("/apis/kustomize.toolkit.fluxcd.io/v1/kustomizations", "Kustomization"),
    ] {
        for item in bed.get(path)["items"].as_array().into_iter().flatten() {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default().to_owned();
            all.insert(format!("{kind}/{}/{}", text("namespace"), text("name")), requested_at(item));
        }
    }
    all
}

fn requested_between(
    before: &BTreeMap<String, Option<String>>,
    after: &BTreeMap<String, Option<String>>,
) -> BTreeSet<String> {
    after.iter().filter(|(name, at)| before.get(*name) != Some(*at)).map(|(name, _)| name.clone()).collect()
}

async fn send(base: &str, path: &str, request: &Request) -> u16 {
    let method: reqwest::Method = request.method.parse().expect("a method");
    let mut sent = reqwest::Client::new().request(method, format!("{base}{path}")).body(request.body.clone());
    for (name, value) in &request.headers {
        sent = sent.header(name, value);
    }
    sent.send().await.expect("an answer").status().as_u16()
}

fn make_objects(bed: &Bed) {
    for (namespace, name) in [
        ("apps", "one"),
        ("apps", "two"),
        ("apps", "three"),
        ("apps", "asleep"),
        ("team-a", "far"),
        ("team-a", "farther"),
    ] {
        git_repository(
            bed,
            namespace,
            name,
            json!({"url": format!("https://git.example.com/{name}"), "suspend": name == "asleep"}),
        );
    }
    bed.kubectl(&["-n", "apps", "label", "gitrepository", "two", "three", "tier=web", "app=web"]);
    bed.kubectl(&["-n", "apps", "annotate", "gitrepository", "three", "team=a"]);
    bed.kubectl(&["-n", "team-a", "label", "gitrepository", "farther", "tier=far"]);
    let file = bed.path("objects-of-receivers.yaml");
    std::fs::write(
        &file,
        "apiVersion: source.toolkit.fluxcd.io/v1\nkind: Bucket\nmetadata: {name: b, namespace: apps}\nspec: {bucketName: b, endpoint: s3.example.com, interval: 1h}\n---\n\
         apiVersion: source.toolkit.fluxcd.io/v1\nkind: HelmRepository\nmetadata: {name: static, namespace: apps}\nspec: {type: oci, url: 'oci://registry.example.com/charts'}\n---\n\
         apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: k, namespace: apps}\nspec: {interval: 1h, prune: true, sourceRef: {kind: GitRepository, name: one}}\n",
    )
    .expect("a file");
    bed.kubectl(&["apply", "-f", &file.display().to_string()]);
    for (name, extra) in [
        ("webhook-token", ""),
        ("gcr-token", "  email: push@example.com\n  audience: https://recv.example.com\n"),
    ] {
        let file = bed.path("secret.yaml");
        let text = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: apps}}\nstringData:\n  token: {TOKEN}\n{extra}"
        );
        std::fs::write(&file, text).expect("a file");
        bed.kubectl(&["apply", "-f", &file.display().to_string()]);
    }
}

fn path_of(bed: &Bed, receiver: &str) -> Option<String> {
    bed.get(&format!("{RECEIVERS}/{receiver}"))["status"]["webhookPath"].as_str().map(str::to_owned)
}

pub fn component(name: &str) -> String {
    format!("{}/kustomization/components/{name}/rbac.yaml", env!("CARGO_MANIFEST_DIR"))
}

fn start_notification_controller(bed: &Bed) -> (Process, String) {
    let port = free_port();
    let address = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new(bed.parts.cache.join("bin/notification-controller"));
    command
        .env("RUNTIME_NAMESPACE", "flux-system")
        .env("KUBECONFIG", bed.path("admin.kubeconfig"))
        .args(["--receiverAddr", &address(port), "--events-addr", &address(free_port())])
        .args(["--health-addr", &address(free_port()), "--metrics-addr", &address(free_port())]);
    let process = Process::spawn(&mut command, &bed.path("notification-controller.log"));
    (process, format!("http://{}", address(port)))
}

pub fn start_flux_recv(bed: &Bed, arguments: &[&str]) -> FluxRecv {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("fluxrecv.yaml"), CONFIG).expect("a config");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
    let mut running = FluxRecv::start_in(folder, kubeconfig, arguments);
    running.wait_until_synced();
    running
}

/// Posts an empty JSON object; gives the status.
pub fn post_to(bed: &Bed, running: &FluxRecv, path: &str) -> u16 {
    bed.block_on(send(&running.base, path, &request("x", "x", &[], &json!({}))))
}

fn wait_until_idle(bed: &Bed, running: &FluxRecv) {
    wait_for("flux-recv to rest", PATIENCE, || {
        let text = bed.block_on(async {
            let answer = reqwest::get(format!("{}/metrics", running.admin)).await.ok()?;
            answer.text().await.ok()
        })?;
        let is_zero = |name: &str| text.lines().any(|line| line == format!("{name} 0"));
        (is_zero("flux_recv_pending_objects") && is_zero("flux_recv_waiting_deliveries")).then_some(())
    });
}

pub fn receivers_are_served_as_notification_controller_serves_them(bed: &Bed) {
    bed.kubectl(&["apply", "-f", &component("receivers"), "-f", &component("more-kinds")]);
    let issuer = Issuer::start(bed);
    make_objects(bed);
    for receiver in receivers(&issuer) {
        bed.create(RECEIVERS, &receiver);
    }
    let (mut controller, base) = start_notification_controller(bed);
    let names: Vec<String> = receivers(&issuer)
        .iter()
        .map(|receiver| receiver["metadata"]["name"].as_str().expect("a name").to_owned())
        .collect();
    let ready: Vec<&String> = names.iter().filter(|name| *name != "suspended").collect();
    wait_for("the paths of all Receivers", Duration::from_secs(60), || {
        controller.assert_runs();
        ready.iter().all(|name| path_of(bed, name).is_some()).then_some(())
    });
    let running = start_flux_recv(
        bed,
        &[
            "--receivers",
            "--cross-namespace-refs",
            "--allow-issuer",
            &issuer.url,
            "--min-interval",
            "0",
            "--spread",
            "0",
        ],
    );
    wait_for("the Receivers", PATIENCE, || {
        running.process.has_logged("Receivers updated", &[]).then_some(())
    });

    let design =
        std::fs::read_to_string(format!("{}/docs/receivers.md", env!("CARGO_MANIFEST_DIR"))).expect("a page");
    let table: BTreeSet<&str> = design
        .lines()
        .skip_while(|line| !line.starts_with("| a Receiver |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| line.trim_matches('|').split(" | ").next().map(str::trim))
        .collect();
    let (mut used, mut wrong) = (BTreeSet::new(), Vec::new());
    for request in requests_to_both(&issuer) {
        let Request { receiver, what, differs, .. } = &request;
        let path = path_of(bed, receiver).unwrap_or_else(|| computed_path(receiver));
        let before = snapshot(bed);
        let theirs = bed.block_on(send(&base, &path, &request));
        let between = snapshot(bed);
        let ours = bed.block_on(send(&running.base, &path, &request));
        wait_until_idle(bed, &running);
        let after = snapshot(bed);
        let (by_them, by_us) = (requested_between(&before, &between), requested_between(&between, &after));
        println!("  {receiver}: {what}: {theirs} {} : {ours} {}", by_them.len(), by_us.len());
        match differs {
            Some(row) if table.contains(row) && (by_them != by_us || *row == BY_CHANCE) => {
                used.insert(*row);
            }
            None if by_them == by_us => {}
            _ => wrong.push(format!(
                "{receiver}: {what}: {theirs} {by_them:?}, flux-recv {ours} {by_us:?}, {differs:?}"
            )),
        }
        // Statuses differ on purpose, in ways that the table lists.
        let row = match (theirs, ours, by_us.is_empty()) {
            (400, 401, true) => "Authentication that is missing or wrong",
            (400, 200, true) => "An event that is not in `events`",
            (503 | 404, 200, true) => "`suspend: true`",
            (200, 202, false) => "Objects are requested",
            (200, 200, true) => "A filter that is false for every object",
            (400, 400, true) => "A body that is not JSON",
            (500, 202, false) => "An object that is not there, or a filter that fails",
            _ if differs.is_some() => continue,
            _ => {
                wrong.push(format!("{receiver}: {what}: statuses {theirs} and {ours}"));
                continue;
            }
        };
        used.insert(row);
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), running.process.output());
    assert_eq!(used, table, "the rows of docs/receivers.md");
    // While the one is there who has put finalizers on them.
    bed.kubectl(&["-n", "apps", "delete", "receiver", "--all"]);
}

/// notification-controller gives a suspended Receiver no path.
pub fn computed_path(receiver: &str) -> String {
    use sha2::Digest;
    format!("/hook/{}", hex::encode(sha2::Sha256::digest(format!("{TOKEN}{receiver}apps"))))
}

/// The life of a Receiver, without notification-controller: made, its token rotated, changed, gone;
/// and one that cannot be served beside it.
pub fn receivers_and_their_secrets_are_observed(bed: &Bed) {
    bed.kubectl(&["apply", "-f", &component("receivers")]);
    git_repository(bed, "apps", "followed", json!({"url": "https://git.example.com/followed"}));
    let secret = |token: &str| {
        let text = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rotated", "namespace": "apps"},
            "data": {"token": STANDARD.encode(token), "unrelated": STANDARD.encode("test-unrelated-value")}});
        let file = bed.path("rotated.json");
        std::fs::write(&file, text.to_string()).expect("a file");
        bed.kubectl(&["apply", "-f", &file.display().to_string()]);
    };
    secret("test-first-token-0123456789");
    let running = start_flux_recv(bed, &["--receivers=apps", "--min-interval", "0"]);
    let post = |path: &str, key: &str| {
        let body = json!({"a": 1});
        let request = request("x", "x", &[("X-Signature", sha256(key, &body))], &body);
        bed.block_on(send(&running.base, path, &request))
    };
    let path = |token: &str| {
        use sha2::Digest;
        let path = format!("/hook/{}", hex::encode(sha2::Sha256::digest(format!("{token}followedapps"))));
        leaks::remember(&path);
        path
    };
    let (first, second) = (path("test-first-token-0123456789"), path("test-second-token-0123456789"));
    assert_eq!(post(&first, "test-first-token-0123456789"), 404);
    let followed = receiver("followed", "generic-hmac", |spec| {
        spec["secretRef"] = json!({"name": "rotated"});
        spec["resources"] = json!([{"kind": "GitRepository", "name": "followed"}]);
    });
    bed.create(RECEIVERS, &followed);
    let broken = receiver("broken", "github", |spec| spec["resourceFilter"] = json!("res.metadata.name =="));
    bed.create(RECEIVERS, &broken);
    wait_for("the Receiver to be served", PATIENCE, || {
        (post(&first, "test-first-token-0123456789") == 202).then_some(())
    });
    assert_eq!(post(&first, "another-token"), 401);
    wait_for("a line about the other", PATIENCE, || {
        let broken = [("receiver", "Receiver/apps/broken")];
        running.process.has_logged("Receiver is not served", &broken).then_some(())
    });
    wait_until_idle(bed, &running);
    let path_of_object = "/apis/source.toolkit.fluxcd.io/v1/namespaces/apps/gitrepositories/followed";
    assert!(requested_at(&bed.get(path_of_object)).is_some());

    // The URL that notification-controller has told stays good with the new token.
    bed.kubectl(&[
        "-n",
        "apps",
        "patch",
        "receiver",
        "followed",
        "--subresource=status",
        "--type=merge",
        "-p",
        &json!({"status": {"webhookPath": first}}).to_string(),
    ]);
    secret("test-second-token-0123456789");
    wait_for("the new token", PATIENCE, || {
        (post(&second, "test-second-token-0123456789") == 202).then_some(())
    });
    assert_eq!(post(&first, "test-second-token-0123456789"), 202, "the path of the status");
    assert_eq!(post(&first, "test-first-token-0123456789"), 401);

    bed.kubectl(&[
        "-n",
        "apps",
        "patch",
        "receiver",
        "followed",
        "--type=merge",
        "-p",
        "{\"spec\":{\"suspend\":true}}",
    ]);
    wait_for("the suspension", PATIENCE, || {
        (post(&second, "test-second-token-0123456789") == 200).then_some(())
    });
    bed.kubectl(&[
        "-n",
        "apps",
        "patch",
        "receiver",
        "followed",
        "--type=merge",
        "-p",
        "{\"spec\":{\"suspend\":false}}",
    ]);
    wait_for("the resumption", PATIENCE, || {
        (post(&second, "test-second-token-0123456789") == 202).then_some(())
    });
    bed.kubectl(&["-n", "apps", "delete", "secret", "rotated"]);
    wait_for("the Secret to be gone", PATIENCE, || {
        (post(&second, "test-second-token-0123456789") == 404).then_some(())
    });
    bed.kubectl(&["-n", "apps", "delete", "receiver", "followed", "broken", "--wait=false"]);

    let reads = bed.requests_of("flux-recv");
    assert!(
        !reads.iter().any(|request| request == "get secrets"),
        "Secrets are watched, not read per request"
    );
}

/// The variant that opens the Secrets of one namespace by their names.
pub fn a_role_that_names_its_secrets_is_enough(bed: &Bed) {
    let _ = bed.try_kubectl(&["delete", "clusterrole", "flux-recv-receivers"]);
    bed.kubectl(&["apply", "-f", &component("receivers-in-namespace")]);
    git_repository(bed, "apps", "named", json!({"url": "https://git.example.com/named"}));
    let secrets = [("webhook-token", TOKEN), ("other-token", "test-other-token-0123456789")];
    for (name, token) in secrets {
        let text = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "apps"}, "stringData": {"token": token}});
        let file = bed.path("named.json");
        std::fs::write(&file, text.to_string()).expect("a file");
        bed.kubectl(&["apply", "-f", &file.display().to_string()]);
    }
    let resources = json!([{"kind": "GitRepository", "name": "named"}]);
    for (name, secret) in [("named", "webhook-token"), ("closed", "other-token")] {
        let made = receiver(name, "generic", |spec| {
            spec["secretRef"] = json!({"name": secret});
            spec["resources"] = resources.clone();
        });
        bed.create(RECEIVERS, &made);
    }
    let running = start_flux_recv(bed, &["--receivers=apps"]);
    let post = |path: &str| bed.block_on(send(&running.base, path, &request("x", "x", &[], &json!({}))));
    wait_for("the Receiver to be served", PATIENCE, || (post(&computed_path("named")) == 202).then_some(()));
    assert_eq!(post(&computed_path("closed")), 404);
    assert!(
        running.process.has_logged("Receiver is not served", &[("receiver", "Receiver/apps/closed")]),
        "{}",
        running.process.output()
    );

    let output = flux_recv()
        .args(["check", "--config", &running.config(), "--receivers=apps", "--kubeconfig"])
        .arg(running.folder.path().join("kubeconfig"))
        .output()
        .expect("check runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("Receiver/apps/named (generic): is served"), "{text}");
    assert!(text.contains("Receiver/apps/closed: is NOT served: spec.secretRef: "), "{text}");
    assert_eq!(output.status.code(), Some(1));
    bed.kubectl(&["-n", "apps", "delete", "receiver", "--all", "--wait=false"]);
}
