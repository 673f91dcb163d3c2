//! Played at 3 a.m.: prepared failures, each looked at with nothing but the page, then with nothing but the terminal.
//! The first look names the cause, the second one the details. `cluster::receive` has the missing right.

use super::running::{FluxRecv, client, flux_recv, hub_signature, stdout, test_key};

const CONFIG: &str = "fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: github.key}
- {name: team, source: GitHub, keyPath: team.key, namespaces: team}
";

const OBJECTS: &str = "
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: app, namespace: apps}
spec: {url: https://github.com/org/app, ref: {branch: main}}
---
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: frozen, namespace: apps}
spec: {url: https://github.com/org/frozen, ref: {branch: main}, suspend: true}
";

/// A failure: where the push goes, how it is signed, and the words that name the cause.
struct Failure {
    what: &'static str,
    endpoint: &'static str,
    key: &'static str,
    repository: &'static str,
    branch: &'static str,
    cause: &'static str,
}

const FAILURES: [Failure; 4] = [
    Failure {
        what: "a wrong secret at the provider",
        endpoint: "github",
        key: "the-secret-of-somebody-else",
        repository: "app",
        branch: "main",
        cause: "the signature in X-Hub-Signature-256 is not that of this body under the key",
    },
    Failure {
        what: "a wrong branch",
        endpoint: "github",
        key: "github",
        repository: "app",
        branch: "mian",
        cause: "does not track branch mian: GitRepository/apps/app tracks branch main",
    },
    Failure {
        what: "a suspended object",
        endpoint: "github",
        key: "github",
        repository: "frozen",
        branch: "main",
        cause: "left alone: GitRepository/apps/frozen (suspended)",
    },
    Failure {
        what: "an object outside of the endpoint's namespaces",
        endpoint: "team",
        key: "team",
        repository: "app",
        branch: "main",
        cause: "GitRepository/apps/app references it, but endpoint team is limited to namespaces team",
    },
];

async fn push(running: &FluxRecv, failure: &Failure) {
    let url = format!("https://github.com/org/{}.git", failure.repository);
    let body = serde_json::json!({"ref": format!("refs/heads/{}", failure.branch), "repository": {"clone_url": url}});
    let body = body.to_string();
    let key = if failure.key.contains('-') { failure.key.to_owned() } else { test_key(failure.key) };
    let sent = client()
        .post(format!("{}{}", running.base, running.path(failure.endpoint)))
        .header("X-GitHub-Event", "push")
        .header("X-Hub-Signature-256", hub_signature(&key, body.as_bytes()))
        .body(body);
    sent.send().await.expect("an answer");
}

#[tokio::test]
async fn each_failure_is_understood_at_the_first_look() {
    for failure in &FAILURES {
        let running = FluxRecv::with_objects(CONFIG, OBJECTS);
        push(&running, failure).await;
        let page =
            client().get(running.debug()).send().await.expect("an answer").text().await.expect("a page");
        let attention =
            page.split("id=\"attention\"").nth(1).and_then(|rest| rest.split("</section>").next());
        let attention = attention.expect("what needs someone");
        assert!(attention.contains(failure.cause), "{}, on the page: {attention}", failure.what);
        let link = attention.split("href=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a link");
        let second = client().get(format!("{}{link}", running.debug())).send().await.expect("an answer");
        assert_eq!(second.status(), 200, "{}", failure.what);

        let debug = running.debug();
        let output =
            flux_recv().args(["deliveries", "--instance", &debug]).output().expect("deliveries runs");
        let table = stdout(&output);
        assert!(table.contains(failure.cause), "{}, in the terminal: {table}", failure.what);
        let id = table.lines().last().and_then(|row| row.split_whitespace().next()).expect("an identifier");
        let explained = flux_recv().args(["explain", "--instance", &debug, "--delivery", id]).output();
        let explained = explained.expect("explain runs");
        assert!(!stdout(&explained).is_empty() || failure.key.contains('-'), "{}", failure.what);
    }
}
