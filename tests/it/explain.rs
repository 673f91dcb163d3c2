//! `flux-recv explain`: a reason for each object, from a folder and from a running instance alike.

use serde_json::{Value, json};

use super::running::{FluxRecv, flux_recv, folder, stderr, stdout};

const CONFIG: &str = "fluxRecvVersion: 1
endpoints:
- {name: all, source: GitHub, keyPath: all.key}
- {name: limited, source: GitHub, keyPath: limited.key, namespaces: apps, refs: [main, dev]}
- {name: filtered, source: GitHub, keyPath: filtered.key, resources: [{kind: GitRepository, name: '*', filter: \"res.metadata.labels.env == 'prod'\"}]}
- {name: conditional, source: GitHub, keyPath: conditional.key, filter: \"event.refs.exists(r, r.branch == 'dev')\"}
";

const OBJECTS: &str = "
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: app, namespace: apps, labels: {env: prod}}
spec: {url: https://github.com/org/app, ref: {branch: main}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: dev, namespace: apps, labels: {env: dev}}
spec: {url: ssh://git@github.com/org/app, ref: {branch: dev}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: paused, namespace: apps, labels: {env: prod}}
spec: {url: https://github.com/org/app, ref: {branch: main}, suspend: true}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: elsewhere, namespace: team, labels: {env: dev}}
spec: {url: https://github.com/org/app, ref: {branch: main}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: mirrored, namespace: team}
spec: {url: https://git.example.com/org/app, ref: {branch: main}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: OCIRepository
metadata: {name: image, namespace: apps}
spec: {url: oci://ghcr.io/org/manifests, ref: {tag: latest}}
";

/// Explains from the folder and from the instance; both say the same.
fn explain(running: &FluxRecv, arguments: &[&str]) -> Value {
    let config = running.folder.path().join("fluxrecv.yaml").display().to_string();
    let manifests = running.folder.path().join("objects").display().to_string();
    let debug = running.debug();
    let run = |place: &[&str]| {
        let output = flux_recv().arg("explain").args(arguments).args(place).args(["-o", "json"]).output();
        let output = output.expect("explain runs");
        let report: Value = serde_json::from_str(&stdout(&output))
            .unwrap_or_else(|err| panic!("{arguments:?} {place:?}: {err}: {}", stderr(&output)));
        (output.status.success(), report)
    };
    let from_folder = run(&["--config", &config, "--manifests", &manifests]);
    let from_instance = run(&["--instance", &debug]);
    assert_eq!(from_folder, from_instance);
    let requested = from_folder.1["candidates"].as_array().expect("a list");
    assert_eq!(from_folder.0, requested.iter().any(|row| row["verdict"] == "tracks"), "the exit code");
    from_folder.1
}

/// Each object with its verdict and reason.
fn rows(report: &Value) -> Vec<[String; 3]> {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let rows = report["candidates"].as_array().expect("a list").iter();
    rows.map(|row| ["object", "verdict", "reason"].map(|field| text(row, field))).collect()
}

#[track_caller]
fn check(report: &Value, expected: &[[&str; 3]]) {
    let expected: Vec<[String; 3]> = expected.iter().map(|row| row.map(str::to_owned)).collect();
    assert_eq!(rows(report), expected);
}

const APP: &str = "https://github.com/org/app";

#[test]
fn every_candidate_has_its_reason() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let other_host = "references org/app at git.example.com, the event names github.com; if both are one forge, add \
                      `gitHosts: [git.example.com]` to the endpoint";
    check(
        &explain(&running, &["--endpoint", "all", "--repo", APP]),
        &[
            ["GitRepository/apps/app", "tracks", "tracks branch main"],
            ["GitRepository/team/elsewhere", "tracks", "tracks branch main"],
            ["GitRepository/apps/paused", "suspended", "`spec.suspend` is true; `flux resume` it"],
            ["GitRepository/apps/dev", "tracksSomethingElse", "tracks branch dev"],
            ["GitRepository/team/mirrored", "otherHost", other_host],
        ],
    );
    check(
        &explain(&running, &["--endpoint", "limited", "--repo", APP, "--ref", "dev"]),
        &[
            ["GitRepository/apps/dev", "tracks", "tracks branch dev"],
            ["GitRepository/apps/app", "tracksSomethingElse", "tracks branch main"],
            ["GitRepository/apps/paused", "tracksSomethingElse", "tracks branch main"],
            [
                "GitRepository/team/elsewhere",
                "notInNamespaces",
                "endpoint limited is limited to namespaces apps",
            ],
            ["GitRepository/team/mirrored", "otherHost", other_host],
        ],
    );
    let filtered = explain(&running, &["--endpoint", "filtered", "--repo", APP]);
    assert_eq!(
        rows(&filtered)[3],
        [
            "GitRepository/team/elsewhere".to_owned(),
            "filterIsFalse".to_owned(),
            "`res.metadata.labels.env == 'prod'` is false: res.metadata.labels.env = \"dev\"".to_owned(),
        ],
        "{filtered:#}"
    );
    let ignored = explain(&running, &["--endpoint", "limited", "--repo", APP, "--ref", "refs/tags/v1"]);
    assert_eq!(
        ignored["ignored"],
        "push to github.com/org/app refs/tags/v1: the endpoint's `refs` are main, dev"
    );
    let ignored = explain(&running, &["--endpoint", "conditional", "--repo", APP]);
    let filter = "push to github.com/org/app main: the endpoint's `filter` is false: event.refs.exists(r, r.branch == 'dev')";
    assert_eq!((&ignored["ignored"], rows(&ignored).len()), (&json!(filter), 0));
}

#[test]
fn a_typo_is_found_and_images_are_explained() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let typo = explain(&running, &["--endpoint", "all", "--repo", "https://github.com/org/ap"]);
    let reason = "references github.com/org/app, the event names github.com/org/ap; is one of them misspelt?";
    assert_eq!(rows(&typo)[0], ["GitRepository/apps/app", "similar", reason].map(str::to_owned));
    check(&explain(&running, &["--endpoint", "all", "--repo", "https://github.com/other/thing"]), &[]);
    check(
        &explain(&running, &["--endpoint", "all", "--image", "ghcr.io/org/manifests:latest"]),
        &[["OCIRepository/apps/image", "tracks", "tracks tag latest"]],
    );
    check(
        &explain(&running, &["--endpoint", "all", "--image", "ghcr.io/org/manifests:v2"]),
        &[["OCIRepository/apps/image", "tracksSomethingElse", "tracks tag latest"]],
    );
}

#[test]
fn what_cannot_be_explained_says_why() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let debug = running.debug();
    for (arguments, expected) in [
        (
            &["--endpoint", "nobody", "--repo", APP, "--instance", &debug][..],
            "no endpoint is called `nobody`",
        ),
        (&["--endpoint", "all", "--repo", "not a url", "--instance", &debug], "repo: "),
        (&["--endpoint", "all", "--repo", APP, "--instance", "http://127.0.0.1:9"], "port-forward"),
        (&["--endpoint", "all", "--repo", APP, "--image", "a"], "cannot be used with"),
        (&["--endpoint", "all"], "required"),
    ] {
        let output = flux_recv().arg("explain").args(arguments).output().expect("explain runs");
        assert!(!output.status.success());
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    let config = folder(CONFIG);
    let output = flux_recv()
        .args(["explain", "--endpoint", "all", "--repo", APP, "--manifests", "/nonexistent", "--config"])
        .arg(config.path().join("fluxrecv.yaml"))
        .output()
        .expect("explain runs");
    assert!(stderr(&output).contains("cannot read the folder /nonexistent"), "{}", stderr(&output));
}

#[test]
fn reasons_name_objects_in_answers_and_log() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let config = running.folder.path().join("fluxrecv.yaml").display().to_string();
    let send = |endpoint: &str, reference: &str| {
        let output = flux_recv()
            .args(["send", "--config", &config, "--to", &running.base, "--endpoint", endpoint, "--repo", APP])
            .args(["--ref", reference])
            .output()
            .expect("send runs");
        stdout(&output)
    };
    let answer = send("all", "topic");
    let reason = "4 objects reference this repository; none tracks branch topic: GitRepository/apps/app tracks branch main, \
                  GitRepository/apps/dev tracks branch dev, GitRepository/apps/paused tracks branch main and 1 more";
    assert!(answer.contains(reason), "{answer}");
    running.wait_for_log("delivery matches no object", &[("detail", &format!("*{reason}*"))]);
    let answer = send("limited", "refs/heads/other");
    assert!(answer.contains("the endpoint's `refs` are main, dev"), "{answer}");
}

#[test]
fn deliveries_are_remembered_and_explained() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let config = running.folder.path().join("fluxrecv.yaml").display().to_string();
    let debug = running.debug();
    let send = |endpoint: &str, reference: &str| {
        let output = flux_recv()
            .args(["send", "--config", &config, "--to", &running.base, "--endpoint", endpoint, "--repo", APP])
            .args(["--ref", reference, "--commit", "1111111111111111111111111111111111111111"])
            .output();
        assert!(output.expect("send runs").status.success());
    };
    send("all", "main");
    send("limited", "dev");
    send("limited", "topic");
    let list = |arguments: &[&str]| {
        let output = flux_recv().arg("deliveries").args(["--instance", &debug]).args(arguments).output();
        let output = output.expect("deliveries runs");
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let json = |arguments: &[&str]| -> Value {
        serde_json::from_str(&list(&[arguments, &["-o", "json"]].concat())).expect("JSON")
    };
    let all = json(&[]);
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    let first = &all[0];
    assert_eq!((&first["endpoint"], &first["outcome"]), (&json!("all"), &json!("accepted")));
    let moved = json!([{"name": "refs/heads/main", "commit": "1111111111111111111111111111111111111111"}]);
    assert_eq!((&first["events"][0]["type"], &first["events"][0]["refs"]), (&json!("git"), &moved));
    assert_eq!(json(&["--endpoint", "limited"]).as_array().map(Vec::len), Some(2));
    assert_eq!(json(&["--since", "0"]).as_array().map(Vec::len), Some(0));
    // Without a cluster nothing handles a request.
    super::common::process::wait_for("the requests", std::time::Duration::from_secs(10), || {
        let objects = json(&["--endpoint", "all"])[0]["objects"].to_string();
        (objects.matches("\"state\":\"requested\"").count() == 2).then_some(())
    });
    let table = list(&[]);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[0].starts_with("ID") && rows[1].contains("2 requested"), "{table}");
    assert!(
        rows[3].contains("ignored") && rows[3].contains("the endpoint's `refs` are main, dev"),
        "{table}"
    );

    let id = first["id"].as_str().expect("an identifier");
    let explained = explain_delivery(&debug, id);
    check(
        &explained,
        &[
            ["GitRepository/apps/app", "tracks", "tracks branch main"],
            ["GitRepository/team/elsewhere", "tracks", "tracks branch main"],
            ["GitRepository/apps/paused", "suspended", "`spec.suspend` is true; `flux resume` it"],
            ["GitRepository/apps/dev", "tracksSomethingElse", "tracks branch dev"],
            [
                "GitRepository/team/mirrored",
                "otherHost",
                "references org/app at git.example.com, the event names github.com; if both are one forge, add `gitHosts: \
                 [git.example.com]` to the endpoint",
            ],
        ],
    );
    let unknown = flux_recv().args(["explain", "--instance", &debug, "--delivery", "all-99"]).output();
    assert!(stderr(&unknown.expect("explain runs")).contains("no delivery `all-99` is remembered"));
}

fn explain_delivery(debug: &str, id: &str) -> Value {
    let output = flux_recv().args(["explain", "--instance", debug, "--delivery", id, "-o", "json"]).output();
    let output = output.expect("explain runs");
    serde_json::from_str(&stdout(&output)).unwrap_or_else(|err| panic!("{err}: {}", stderr(&output)))
}
