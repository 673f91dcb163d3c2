//! `flux-recv hook` against a real Gitea.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};

use super::bed::Bed;
use super::common::leaks;
use super::gitea::{Gitea, USER};
use super::process::wait_for;
use super::receive::{FluxRecv, flux_recv, git_repository, own_token, requested_at};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `flux-recv hook` for the endpoint gitea of a running flux-recv.
fn hook(running: &FluxRecv, gitea: &Gitea, token: &str, words: &[&str]) -> Output {
    let (command, rest) = words.split_first().expect("a command");
    let output = flux_recv()
        .args([
            "hook",
            command,
            "--config",
            &running.config(),
            "--endpoint",
            "gitea",
            "--base",
            &running.base,
        ])
        .args(["--api", &gitea.base])
        .args(rest)
        .env("GITEA_TOKEN", token)
        .output()
        .expect("hook runs");
    let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(leaks::find(&printed, running.folder.path()), None);
    assert!(!printed.contains(token), "{printed}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn rows(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|err| panic!("{err}: {}{}", text(&output.stdout), text(&output.stderr)))
}

fn object(bed: &Bed, name: &str) -> Value {
    bed.get(&format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/apps/gitrepositories/{name}"))
}

pub fn webhooks_at_gitea_are_created_changed_tested_and_deleted(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let gitea = Gitea::start(bed);
    let token = gitea.token(bed, "hooks");
    gitea.api(bed, "POST", "/orgs", json!({"username": "team"}));
    let scopes = [
        (["--repo", "tester/hooked"].as_slice(), USER, "hooked", "/repos/tester/hooked/hooks"),
        (&["--org", "team"], "team", "of-team", "/orgs/team/hooks"),
        (&["--instance"], USER, "of-instance", "/admin/hooks"),
    ];
    for (scope, owner, name, list) in scopes {
        let run = |command: &str, more: &[&str]| {
            hook(&running, &gitea, &token, &[&[command], scope, more, &["-o", "json"]].concat())
        };
        let clone = gitea.repository_without_webhook(bed, owner, name);
        let url = format!("{}/{owner}/{name}.git", gitea.base);
        git_repository(bed, "apps", name, json!({"url": url, "ref": {"branch": "main"}}));
        // More than a page of others, so that ours is on another one.
        for at in 0..60 {
            let other = json!({"type": "gitea", "active": false, "events": ["push"], "config": {"url": format!("http://127.0.0.1:9/{at}"), "content_type": "json", "is_system_webhook": "true"}});
            gitea.api(bed, "POST", list, other);
        }
        let created = rows(&run("create", &["--yes"]));
        assert_eq!((&created[0]["action"], &created[0]["id"].is_string()), (&json!("created"), &true));
        let id = created[0]["id"].as_str().expect("an identifier").to_owned();
        let again = rows(&run("create", &["--yes"]));
        assert_eq!(again[0]["action"], "updated", "{list}");
        let id = again[0]["id"].as_str().unwrap_or(&id).to_owned();
        assert!(run("status", &[]).status.success(), "{}", rows(&run("status", &[])));

        // Somebody breaks it by hand, and the command mends it.
        let broken = json!({"active": false, "events": ["push"], "branch_filter": "*", "config": {"content_type": "form"}});
        gitea.api(bed, "PATCH", &format!("{list}/{id}"), broken);
        let status = run("status", &[]);
        let problems = rows(&status)[0]["problems"].to_string();
        assert!(!status.status.success());
        assert!(problems.contains("not active") && problems.contains("lacks the events"), "{problems}");
        rows(&run("create", &["--yes", "--pull-requests"]));
        rows(&run("create", &["--yes"]));
        let status = run("status", &[]);
        assert!(status.status.success(), "{}", rows(&status));
        let mut events: Vec<String> =
            serde_json::from_value(rows(&status)[0]["events"].clone()).expect("names");
        events.sort();
        let wanted = ["create", "delete", "package", "pull_request_only", "pull_request_sync", "push"];
        assert_eq!(events, wanted, "no more than was asked for, however often");

        let tested = run("test", &[]);
        if list.starts_with("/repos") {
            assert!(tested.status.success(), "{}", text(&tested.stderr));
            wait_for("the test", PATIENCE, || requested_at(&object(bed, name)));
        } else {
            assert!(text(&tested.stderr).contains("only webhooks of repositories can be tested"));
        }
        let before = requested_at(&object(bed, name));
        clone.commit(&format!("for {name}"));
        clone.git(&["push", "--quiet", "origin", "main"]);
        wait_for("the push", PATIENCE, || {
            requested_at(&object(bed, name)).filter(|at| before.as_ref() != Some(at))
        });
        assert_eq!(running.logged("delivery refused", &[]), 0, "signed");

        let deleted = rows(&run("delete", &["--yes"]));
        assert_eq!((&deleted[0]["action"], deleted.as_array().map(Vec::len)), (&json!("deleted"), Some(1)));
        let left = rows(&run("list", &[]));
        assert_eq!(left.as_array().map(Vec::len), Some(60), "it is gone, and no other");
    }
    // A key that was rotated reaches the provider.
    let rotated = ["create", "--repo", "tester/hooked", "--yes"];
    hook(&running, &gitea, &token, &rotated);
    let accepted = super::receive::CONFIG.replace("keyPath: gitea.key", "keyPath: new.key, name: gitea");
    std::fs::write(running.folder.path().join("new.key"), "the-next-test-key-for-gitea-1234").expect("a key");
    std::fs::write(running.folder.path().join("fluxrecv.yaml"), accepted).expect("a config");
    running.wait_for_log("config reloaded", &[]);
    hook(&running, &gitea, &token, &rotated);
    let before = requested_at(&object(bed, "hooked"));
    let tested = hook(&running, &gitea, &token, &["test", "--repo", "tester/hooked"]);
    assert!(tested.status.success(), "{}", text(&tested.stderr));
    wait_for("the test under the new key", PATIENCE, || {
        requested_at(&object(bed, "hooked")).filter(|at| before.as_ref() != Some(at))
    });

    let wrong = hook(&running, &gitea, "not-a-token-of-this-gitea", &["list", "--repo", "tester/hooked"]);
    assert!(text(&wrong.stderr).contains("Gitea does not accept the token (401)"), "{}", text(&wrong.stderr));
    let unknown = hook(&running, &gitea, &token, &["list", "--repo", "tester/nowhere"]);
    assert!(text(&unknown.stderr).contains("does not show that of repository tester/nowhere (404)"));
}

pub fn what_no_webhook_covers_is_found(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let gitea = Gitea::start(bed);
    let token = gitea.token(bed, "hooks");
    for organization in ["covered", "bare"] {
        gitea.api(bed, "POST", "/orgs", json!({"username": organization}));
    }
    for (owner, name) in [("covered", "missing-a"), ("bare", "missing-b"), ("bare", "missing-c")] {
        gitea.repository_without_webhook(bed, owner, name);
        let url = format!("{}/{owner}/{name}.git", gitea.base);
        git_repository(bed, "team-b", name, json!({"url": url}));
    }
    let kubeconfig = bed.path("admin.kubeconfig").display().to_string();
    let cluster = ["--missing", "--kubeconfig", &kubeconfig, "--namespaces", "team-b", "-o", "json"];
    let uncovered = || {
        let output = hook(&running, &gitea, &token, &[&["status"], &cluster[..]].concat());
        let scopes: Vec<String> = rows(&output)
            .as_array()
            .expect("rows")
            .iter()
            .map(|row| row["scope"].as_str().expect("a scope").to_owned())
            .filter(|scope| scope.contains("missing-"))
            .collect();
        (scopes, output.status.success())
    };
    hook(&running, &gitea, &token, &["create", "--org", "covered", "--yes"]);
    hook(&running, &gitea, &token, &["create", "--repo", "bare/missing-c", "--yes"]);
    assert_eq!(uncovered(), (vec!["repository bare/missing-b".to_owned()], false));
    hook(&running, &gitea, &token, &[&["create"], &cluster[..], &["--yes"]].concat());
    assert_eq!(uncovered(), (Vec::new(), true));

    // What belongs to others, or leads elsewhere, is named and stops nothing.
    let spec = |path: &str| json!({"url": format!("{}/{path}", gitea.base)});
    git_repository(bed, "team-b", "missing-x", spec("nobody/nothing"));
    git_repository(bed, "team-b", "missing-y", spec("%2e%2e/user"));
    gitea.repository_without_webhook(bed, "bare", "missing-d");
    git_repository(bed, "team-b", "missing-d", spec("bare/missing-d"));
    let output = hook(&running, &gitea, &token, &[&["create"], &cluster[..], &["--yes"]].concat());
    assert!(!output.status.success(), "not everything could be looked at");
    let said = text(&output.stderr);
    assert!(said.contains("repository nobody/nothing is left out"), "{said}");
    assert!(said.contains("created webhook") && said.contains("bare/missing-d"), "{said}");
    let own = gitea.api(bed, "GET", "/user/hooks", Value::Null);
    assert_eq!(own.as_array().map(Vec::len), Some(0), "{own}");
    for name in ["missing-a", "missing-b", "missing-c", "missing-d", "missing-x", "missing-y"] {
        bed.delete(&format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/team-b/gitrepositories/{name}"));
    }
}
