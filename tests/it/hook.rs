//! `flux-recv hook` against doubles of the providers' APIs; the cluster suite has a real Gitea.

pub mod double;

use std::process::Output;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::common::leaks;
use super::running::{flux_recv, folder, stderr, stdout, test_key};
use double::{Double, ErrorAnswer, FLAVOURS, TOKEN, delivery};

const BASE: &str = "https://recv.example.com";

/// A folder whose config has an endpoint of this provider, with a key that is still accepted beside its own.
fn folder_of(source: &str) -> tempfile::TempDir {
    let folder = folder(&format!(
        "fluxRecvVersion: 1\nendpoints:\n- {{name: own, source: {source}, keyPath: own.key, acceptKeyPaths: [old.key]}}\n\
         - {{name: other, source: {source}, keyPath: other.key}}\n"
    ));
    std::fs::write(folder.path().join("old.key"), test_key("old")).expect("a key");
    folder
}

fn hook_url(key: &str) -> String {
    format!("{BASE}/hook/{}", hex::encode(Sha256::digest(test_key(key))))
}

/// Runs `flux-recv hook` with the token in the provider's variable. Nothing that it prints is secret.
fn hook(double: &Double, folder: &tempfile::TempDir, words: &[&str]) -> Output {
    let (command, rest) = words.split_first().expect("a command");
    let output = flux_recv()
        .args(["hook", command, "--endpoint", "own", "--base", BASE, "--api", &double.url, "--config"])
        .arg(folder.path().join("fluxrecv.yaml"))
        .args(rest)
        .env(double.flavour.token_variable, TOKEN)
        .output()
        .expect("hook runs");
    let printed = stdout(&output) + &stderr(&output);
    assert_eq!(leaks::find(&printed, folder.path()), None);
    assert!(!printed.contains(TOKEN), "the token in:\n{printed}");
    output
}

fn check_succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

#[test]
fn a_webhook_is_created_once_changed_and_deleted_at_every_provider() {
    for flavour in FLAVOURS {
        let scopes: [&[&str]; 3] = [&["--repo", "org/app"], &["--org", "org"], &["--instance"]];
        for (list, scope) in flavour.lists.iter().zip(scopes) {
            let double = Double::start(flavour.source);
            let folder = folder_of(flavour.source);
            let run =
                |command: &str, more: &[&str]| hook(&double, &folder, &[&[command], scope, more].concat());
            let Some(list) = *list else {
                let output = run("create", &["--yes"]);
                assert!(
                    !output.status.success() && stderr(&output).contains("use --org"),
                    "{}",
                    flavour.source
                );
                continue;
            };
            // Foreign webhooks on all pages, one of another endpoint, and one that only looks alike.
            let foreign = [
                "https://ci.example.com/trigger?token=abc".to_owned(),
                hook_url("other"),
                hook_url("own").replace("recv.", "other."),
                "https://chat.example.com/hook/services".to_owned(),
                format!("{BASE}/hook/{}", "0".repeat(64)),
            ];
            for url in &foreign {
                double.add(list, url);
            }
            let planned = check_succeeds(&run("create", &["--dry-run"]));
            assert!(planned.contains("would create"), "{planned}");
            assert_eq!(double.urls(list), foreign, "a plan changes nothing");

            let created = check_succeeds(&run("create", &["--yes"]));
            assert!(created.starts_with("SCOPE") && created.contains(" created "), "{created}");
            let mut expected = foreign.to_vec();
            expected.push(hook_url("own"));
            assert_eq!(double.urls(list), expected, "{} {list}", flavour.source);

            double.take_requests("");
            let again = check_succeeds(&run("create", &["--yes", "-o", "json"]));
            let again: Value = serde_json::from_str(&again).expect("JSON");
            assert_eq!((&again[0]["action"], again.as_array().map(Vec::len)), (&json!("updated"), Some(1)));
            assert_eq!(double.urls(list), expected, "never a second one");
            let updates = double.take_requests(flavour.update);
            assert_eq!(updates.len(), 1, "{} {list}", flavour.source);
            for (pointer, value) in flavour.form {
                let found = updates[0].body.pointer(pointer).map(Value::to_string);
                let is_list = value.starts_with('[');
                assert!(
                    is_list || found.as_deref() == Some(*value),
                    "the whole form: {pointer} is {found:?}"
                );
            }

            let listed = check_succeeds(&run("list", &[]));
            assert_eq!(listed.lines().count(), 1 + expected.len(), "{listed}");
            assert!(listed.contains("a hook path of no endpoint") && listed.contains(" other "), "{listed}");
            assert!(!listed.contains("abc") && !listed.contains("services"), "{listed}");
            let status = check_succeeds(&run("status", &[]));
            assert!(status.lines().nth(1).is_some_and(|line| line.ends_with(" yes")), "{status}");

            let deleted = check_succeeds(&run("delete", &["--yes"]));
            assert!(deleted.contains(" deleted "), "{deleted}");
            assert_eq!(double.urls(list), foreign, "only ours: {} {list}", flavour.source);
            check_succeeds(&run("delete", &["--yes"]));
            let absent = run("status", &[]);
            assert!(!absent.status.success() && stdout(&absent).contains("`flux-recv hook create` makes it"));
        }
    }
}

#[test]
fn a_webhook_of_a_former_key_is_moved_and_a_surplus_one_deleted() {
    for flavour in FLAVOURS {
        let double = Double::start(flavour.source);
        let folder = folder_of(flavour.source);
        let list = flavour.lists[0].expect("a list");
        double.add(list, "https://ci.example.com");
        double.add(list, &hook_url("old"));
        double.add(list, &hook_url("own").replace("https://", "http://"));
        let status = hook(&double, &folder, &["status", "--repo", "org/app"]);
        let text = stdout(&status);
        assert!(!status.status.success());
        assert!(text.contains("2 webhooks post to the endpoint") && text.contains("a former URL"), "{text}");
        let output = hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]);
        check_succeeds(&output);
        assert_eq!(
            double.urls(list),
            ["https://ci.example.com".to_owned(), hook_url("own")],
            "{}",
            flavour.source
        );
    }
}

#[test]
fn a_webhook_at_another_port_or_place_or_of_another_endpoint_is_left_alone() {
    let double = Double::start("GitHub");
    let folder = folder(
        "fluxRecvVersion: 1\nendpoints:\n- {name: own, source: GitHub, keyPath: own.key, acceptKeyPaths: [other.key]}\n\
         - {name: other, source: GitHub, keyPath: other.key}\n",
    );
    let list = "/repos/org/app/hooks";
    let others = [
        hook_url("own").replace(".com/", ".com:8443/"),
        hook_url("own").replace(".com/", ".com/staging/"),
        hook_url("other"),
    ];
    others.iter().for_each(|url| {
        double.add(list, url);
    });
    check_succeeds(&hook(&double, &folder, &["delete", "--repo", "org/app", "--yes"]));
    check_succeeds(&hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]));
    let mut expected = others.to_vec();
    expected.push(hook_url("own"));
    assert_eq!(double.urls(list), expected);
    let listed = check_succeeds(&hook(&double, &folder, &["list", "--repo", "org/app"]));
    assert_eq!(listed.matches("at another port or place").count(), 2, "{listed}");
}

#[test]
fn a_deletion_that_did_not_happen_is_not_called_one() {
    let double = Double::start("GitHub");
    let folder = folder_of("GitHub");
    double.add("/repos/org/app/hooks", &hook_url("own"));
    // A token that may read and not write.
    double.fail_next(ErrorAnswer { method: "DELETE", status: 404, headers: &[], body: "{}".to_owned() });
    let output = hook(&double, &folder, &["delete", "--repo", "org/app", "--yes"]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("webhook 101 was not deleted: "), "{}", stderr(&output));
}

#[test]
fn what_others_have_set_stays() {
    let double = Double::start("Gitea");
    let folder = folder_of("Gitea");
    let list = "/repos/org/app/hooks";
    double.add_webhook(
        list,
        json!({
            "active": false, "events": ["push", "release"], "branch_filter": "main",
            "authorization_header": "Bearer of-a-proxy", "config": {"url": hook_url("own"), "content_type": "form"},
        }),
    );
    let status = hook(&double, &folder, &["status", "--repo", "org/app"]);
    let text = stdout(&status);
    for problem in ["not active", "lacks the events create, delete, package", "branches `main` only"] {
        assert!(text.contains(problem), "{problem} in:\n{text}");
    }
    // The double wants `*`; a real Gitea takes any pattern.
    let output = hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]);
    assert!(!output.status.success());
    assert_eq!(double.urls(list).len(), 1, "the old one stays where the new one is refused");
    let form = &double.take_requests("POST")[0].body;
    assert_eq!(form["branch_filter"], "main");
    assert_eq!(form["authorization_header"], "Bearer of-a-proxy");
    assert_eq!(form["events"], json!(["create", "delete", "package", "push", "release"]));
    assert_eq!(form["active"], true);
}

#[test]
fn every_documented_error_is_one_line_that_says_what_to_do() {
    let too_many = r#"{"message":"Validation Failed","errors":[{"message":"The \"push\" event cannot have more than 20 hooks"}]}"#;
    for (method, status, headers, body, expected) in [
        (
            "GET",
            401,
            &[][..],
            r#"{"message":"Bad credentials"}"#,
            "does not accept the token (401); make a new one with",
        ),
        (
            "GET",
            403,
            &[],
            r#"{"message":"Resource not accessible"}"#,
            "may not manage the webhooks of repository org/app (403: Resource not accessible); it needs admin:repo_hook",
        ),
        (
            "GET",
            403,
            &[("x-ratelimit-remaining", "0")],
            "{}",
            "limits requests (403); run the command again later",
        ),
        (
            "GET",
            404,
            &[],
            r#"{"message":"Not Found"}"#,
            "does not show that of repository org/app (404); check the name",
        ),
        (
            "POST",
            422,
            &[],
            too_many,
            "allows no further webhook for repository org/app (422: Validation Failed",
        ),
        (
            "POST",
            422,
            &[],
            r#"{"message":"url is not reachable"}"#,
            "does not accept that (422: url is not reachable); check --base",
        ),
        ("GET", 429, &[("Retry-After", "37")], "{}", "limits requests (429); run the command again in 37 s"),
        (
            "GET",
            301,
            &[("Location", "https://elsewhere.example.com/")],
            "",
            "answers with a redirect (301), which is not followed; use the present name of repository org/app",
        ),
        ("GET", 502, &[], "<html>", "cannot answer now (502); try again later"),
        ("GET", 200, &[], "<html>", "does not answer like the API of GitHub; check --api"),
        ("GET", 200, &[], r#"{"a":1}"#, "does not answer like the API of GitHub; check --api"),
        ("GET", 418, &[], "tea", "answers 418; is it the API of GitHub? check --api"),
    ] {
        let double = Double::start("GitHub");
        let folder = folder_of("GitHub");
        double.fail_next(ErrorAnswer { method, status, headers, body: body.to_owned() });
        let output = hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]);
        assert_eq!(output.status.code(), Some(1), "{status}");
        let text = stderr(&output);
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{status} {expected}: {text}");
        assert_eq!(double.urls("/repos/org/app/hooks"), Vec::<String>::new());
    }
}

#[test]
fn an_api_that_repeats_secrets_does_not_get_them_printed() {
    let double = Double::start("GitHub");
    let folder = folder_of("GitHub");
    let digest = hook_url("other").rsplit_once('/').expect("a path").1.to_owned();
    let errors = json!([{"value": format!("\"{digest}\"")}]);
    let message = format!("bad: {} {} {TOKEN}\u{1b}[31m", hook_url("own"), test_key("own"));
    let body = json!({"message": message, "errors": errors});
    double.fail_next(ErrorAnswer { method: "POST", status: 422, headers: &[], body: body.to_string() });
    let output = hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]);
    assert!(
        stderr(&output).contains("(422: bad: https://recv.example.com/hook/… … …[31m, "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_test_is_waited_for_and_the_last_delivery_shown() {
    for source in ["GitHub", "GitLab"] {
        let double = Double::start(source);
        let folder = folder_of(source);
        check_succeeds(&hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]));
        double.set_deliveries(vec![delivery(double.flavour, 70, 401, "2026-01-02T03:04:04Z")]);
        let status = hook(&double, &folder, &["status", "--repo", "org/app"]);
        assert!(stdout(&status).contains("the last delivery failed: 401, the signature does not match"));
        assert!(!status.status.success());
        let tested = check_succeeds(&hook(&double, &folder, &["test", "--repo", "org/app", "-o", "json"]));
        let tested: Value = serde_json::from_str(&tested).expect("JSON");
        assert_eq!(tested["code"], 200);
        let status = check_succeeds(&hook(&double, &folder, &["status", "--repo", "org/app", "-o", "json"]));
        let status: Value = serde_json::from_str(&status).expect("JSON");
        assert_eq!(status[0]["lastDelivery"], json!({"at": "2026-01-02T03:04:05Z", "code": 200}));
    }
    for source in ["GitHub", "GitLab"] {
        let double = Double::start(source);
        let folder = folder_of(source);
        check_succeeds(&hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]));
        double.answer_tests_with(404);
        let output = hook(&double, &folder, &["test", "--repo", "org/app"]);
        assert!(!output.status.success(), "{source}");
        let expected = "the test failed: 404, no endpoint has this path there; compare with `flux-recv urls`";
        assert!(stderr(&output).contains(expected), "{source}: {}", stderr(&output));
    }
    let double = Double::start("BitbucketCloud");
    let folder = folder_of("BitbucketCloud");
    let output = hook(&double, &folder, &["test", "--repo", "org/app"]);
    assert!(stderr(&output).contains("its API cannot send a test; push, or use `flux-recv send`"));
}

#[test]
fn what_failed_lately_is_sent_again_and_limits_are_waited_for() {
    for source in ["GitHub", "GitLab"] {
        let double = Double::start(source);
        let folder = folder_of(source);
        let nothing = hook(&double, &folder, &["redeliver", "--repo", "org/app", "--yes"]);
        assert!(stderr(&nothing).contains("has no webhook for endpoint own"), "{}", stderr(&nothing));
        check_succeeds(&hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]));
        let minutes_ago =
            |minutes: i64| (jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes)).to_string();
        let past = |number, code, minutes| delivery(double.flavour, number, code, &minutes_ago(minutes));
        let mut repeated = past(8, 202, 2);
        let group = if source == "GitHub" { "/guid" } else { "/request_headers/Idempotency-Key" };
        *repeated.pointer_mut(group).expect("a group") = json!("guid-3");
        double.set_deliveries(vec![
            past(9, 202, 1),
            repeated,
            past(5, 0, 20),
            past(4, 503, 30),
            past(3, 503, 40),
            past(2, 500, 70),
            past(1, 500, 500),
        ]);
        double.fail_next(ErrorAnswer {
            method: "POST",
            status: 429,
            headers: &[("Retry-After", "1")],
            body: "{}".to_owned(),
        });
        double.take_requests("");
        let planned =
            hook(&double, &folder, &["redeliver", "--repo", "org/app", "--since", "1h", "--dry-run"]);
        check_succeeds(&planned);
        assert!(double.take_requests("POST").is_empty());
        let output = hook(
            &double,
            &folder,
            &["redeliver", "--repo", "org/app", "--since", "1h", "--yes", "-o", "json"],
        );
        let rows: Value = serde_json::from_str(&check_succeeds(&output)).expect("JSON");
        let sent: Vec<&Value> = rows.as_array().expect("a list").iter().map(|row| &row["id"]).collect();
        assert_eq!(sent, ["4", "5"], "the oldest first, neither what came through later nor what is older");
        assert!(stderr(&output).contains("waiting 1 s"), "{}", stderr(&output));
        assert_eq!(rows[0]["newCode"], if source == "GitLab" { json!(200) } else { Value::Null });
        let posts: Vec<String> =
            double.take_requests("POST").into_iter().map(|request| request.path).collect();
        assert_eq!(posts.len(), 3, "{posts:?}");
    }
    let double = Double::start("Gitea");
    let output = hook(&double, &folder_of("Gitea"), &["redeliver", "--repo", "org/app", "--yes"]);
    assert!(stderr(&output).contains("the API of Gitea cannot send deliveries again"));
}

#[test]
fn tokens_and_urls_are_held_to_what_is_safe() {
    let double = Double::start("GitHub");
    let folder = folder_of("GitHub");
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = flux_recv();
        command.args(["hook", "list", "--endpoint", "own", "--repo", "org/app", "--config"]);
        command.arg(folder.path().join("fluxrecv.yaml")).args(arguments);
        command.env_remove("GH_TOKEN").env_remove("GITHUB_TOKEN");
        if let Some(token) = token {
            command.env("GITHUB_TOKEN", token);
        }
        let output = command.output().expect("hook runs");
        (output.status.success(), stderr(&output))
    };
    let local = ["--base", BASE, "--api", &double.url];
    let file = folder.path().join("token");
    let named = ["--base", BASE, "--api", &double.url, "--token-file", &file.display().to_string()];
    assert!(run(&named, None).1.contains("--token-file: cannot read "));
    std::fs::write(&file, format!("{TOKEN}\n")).expect("a file");
    assert_eq!(run(&named, None), (true, String::new()));
    for (arguments, token, expected) in [
        (
            &local[..],
            None,
            "no token for GitHub: put one into GITHUB_TOKEN or GH_TOKEN, or into a file for --token-file; it needs admin:repo_hook",
        ),
        (&local, Some("a b"), "the token in GITHUB_TOKEN or GH_TOKEN holds characters"),
        (
            &["--base", "http://recv.example.com", "--api", &double.url],
            Some(TOKEN),
            "--base: `http://recv.example.com` is not https",
        ),
        (
            &["--base", BASE, "--api", "http://api.example.com"],
            Some(TOKEN),
            "--api: `http://api.example.com` is not https",
        ),
        (
            &["--base", BASE, "--api", "https://user:password@api.example.com"],
            Some(TOKEN),
            "the URL holds credentials",
        ),
        (&["--base", BASE, "--api", "api.example.com"], Some(TOKEN), "is not a scheme and a host"),
    ] {
        let (succeeded, text) = run(arguments, token);
        assert!(!succeeded && text.contains(expected), "{expected} in {text}");
    }
    assert!(double.take_requests("POST").is_empty());
}

#[test]
fn names_cannot_lead_elsewhere_and_nobody_is_asked_without_a_terminal() {
    let double = Double::start("GitHub");
    let folder = folder_of("GitHub");
    for name in
        ["app", "../../user", "org/app?x=1", "org//app", "https://github.com/org/app", "org/a b", "org/.."]
    {
        let output = hook(&double, &folder, &["list", "--repo", name]);
        assert!(stderr(&output).contains("write it like OWNER/NAME"), "{name}: {}", stderr(&output));
    }
    let output = hook(&double, &folder, &["list", "--repo", "a/b/c"]);
    assert!(stderr(&output).contains("a repository is written `owner/name`"), "{}", stderr(&output));
    check_succeeds(&hook(&double, &folder, &["list", "--repo", "org/app.git"]));
    let output = hook(&double, &folder, &["create", "--repo", "org/app"]);
    assert!(stderr(&output).contains("pass --yes"), "{}", stderr(&output));
    assert!(double.urls("/repos/org/app/hooks").is_empty());
    let output = hook(&double, &folder, &["list", "--repo", "org/app", "--org", "org"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn events_fit_what_the_endpoint_may_request() {
    let double = Double::start("GitHub");
    let folder = folder(
        "fluxRecvVersion: 1\nendpoints:\n- {name: own, source: GitHub, keyPath: own.key, resources: [{kind: GitRepository}]}\n",
    );
    let planned = |arguments: &[&str]| {
        let words = [&["create", "--repo", "org/app", "--dry-run", "-o", "json"], arguments].concat();
        let rows: Value =
            serde_json::from_str(&check_succeeds(&hook(&double, &folder, &words))).expect("JSON");
        rows[0]["events"].clone()
    };
    assert_eq!(planned(&[]), json!(["push"]));
    assert_eq!(planned(&["--pull-requests"]), json!(["push", "pull_request"]));
}

#[test]
fn a_signing_token_of_gitlab_goes_into_its_own_field() {
    let double = Double::start("GitLab");
    let folder = folder_of("GitLab");
    let key = format!("whsec_{}", "dGVzdC1rZXktbnVtYmVyLW9uZS1mb3ItZ2l0bGFi");
    std::fs::write(folder.path().join("own.key"), &key).expect("a key");
    // The double wants a secret token.
    hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]);
    let form = &double.take_requests("POST")[0].body;
    assert_eq!((&form["signing_token"], &form["token"]), (&json!(key), &Value::Null));
}

#[test]
fn an_endpoint_without_signatures_has_no_secret() {
    let double = Double::start("BitbucketCloud");
    let folder = folder(
        "fluxRecvVersion: 1\nendpoints:\n- {name: own, source: BitbucketCloud, keyPath: own.key, unsigned: true}\n",
    );
    hook(&double, &folder, &["create", "--repo", "org/app", "--yes"]);
    assert_eq!(double.take_requests("POST")[0].body["secret"], Value::Null);
}

#[test]
fn other_providers_get_what_urls_prints() {
    let folder = folder("fluxRecvVersion: 1\nendpoints:\n- {name: own, source: Harbor, keyPath: own.key}\n");
    let config = folder.path().join("fluxrecv.yaml");
    let run = |arguments: &[&str]| {
        flux_recv().args(arguments).arg("--config").arg(&config).output().expect("it runs")
    };
    let urls = run(&["urls", "--base", BASE]);
    let create = run(&["hook", "create", "--endpoint", "own", "--base", BASE, "--repo", "a/b"]);
    assert_eq!(check_succeeds(&create), stdout(&urls));
    assert!(stderr(&create).contains("does not manage webhooks of Harbor"), "{}", stderr(&create));
    let status = run(&["hook", "status", "--endpoint", "own", "--base", BASE, "--repo", "a/b"]);
    assert!(!status.status.success(), "nothing is known of it");
    let unknown = run(&["hook", "list", "--endpoint", "nobody", "--base", BASE, "--instance"]);
    assert!(stderr(&unknown).contains("no endpoint is called `nobody`; there are own"));
}
