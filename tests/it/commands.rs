//! The commands, their words and their exit codes.

use std::os::unix::fs::PermissionsExt;

use super::running::{CONFIG, FluxRecv, OBJECTS, flux_recv, folder, project, stderr, stdout};

#[test]
fn the_demo_of_a_fleet_ends_well_by_itself() {
    let output = flux_recv().args(["demo", "--fleet"]).current_dir("/").output().expect("demo runs");
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", super::running::stderr(&output));
    for line in ["✓ a push to shop ", "✓ lab is back ", "✓ east has lost its volume ", "and no others.\n"]
    {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn the_demo_ends_well_by_itself() {
    let output = flux_recv().arg("demo").current_dir("/").output().expect("demo runs");
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    for part in [
        "a forged push",
        "401",
        "a ping",
        "200 pong",
        "a branch that nothing tracks",
        "413 too_large",
        "GitRepository/shop/shop",
        "HelmChart/shop/shop-web",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
    assert!(!text.contains('✗'), "{text}");
}

#[test]
fn keygen_makes_a_private_key_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("new.key");
    assert!(flux_recv().arg("keygen").arg(&file).status().expect("keygen runs").success());
    let key = std::fs::read_to_string(&file).expect("a key");
    assert!(
        key.len() == 40 && key.chars().all(|digit| digit.is_ascii_hexdigit()),
        "{} characters",
        key.len()
    );
    assert_eq!(std::fs::metadata(&file).expect("metadata").permissions().mode() & 0o777, 0o600);
    let again = flux_recv().arg("keygen").arg(&file).output().expect("keygen runs");
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).starts_with("error: cannot make "), "{}", stderr(&again));
    assert_eq!(std::fs::read_to_string(&file).expect("a key"), key, "never overwritten");
}

#[test]
fn urls_say_what_to_paste_where() {
    let folder = folder(CONFIG);
    let config = folder.path().join("fluxrecv.yaml");
    let output = flux_recv()
        .args(["urls", "--base", "https://recv.example.org/", "--config"])
        .arg(config)
        .output()
        .expect("urls runs");
    let text = stdout(&output);
    assert!(output.status.success());
    let url = text.lines().find(|line| line.trim().starts_with("URL:")).expect("a URL");
    assert!(url.contains(" https://recv.example.org/hook/") && url.trim().len() > 100, "{url}");
    for part in [
        "github (GitHub)",
        "application/json",
        "the content of ",
        "Pushes; for images also Packages",
        "Docker Hub cannot sign",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
}

#[test]
fn an_api_server_that_is_down_is_named_once() {
    let folder = folder(CONFIG);
    let kubeconfig = folder.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n\
                clusters: [{name: a, cluster: {server: 'https://127.0.0.1:9'}}]\nusers: [{name: a, user: {token: a}}]\n";
    std::fs::write(&kubeconfig, text).expect("a kubeconfig");
    let output = flux_recv()
        .args(["check", "--config"])
        .arg(folder.path().join("fluxrecv.yaml"))
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .output()
        .expect("check runs");
    assert_eq!(output.status.code(), Some(1));
    let printed = stdout(&output);
    assert!(printed.contains("\ncluster: cannot examine https://127.0.0.1:9: "), "{printed}");
    assert_eq!(printed.matches("Connection refused").count(), 1, "{printed}");
    assert_eq!(stderr(&output), "", "nothing of the library's own");
}

#[test]
fn urls_are_printed_for_scripts() {
    let folder = folder(CONFIG);
    let config = folder.path().join("fluxrecv.yaml");
    let printed = |format: &str| {
        let output = flux_recv()
            .args(["urls", "--base", "https://recv.example.org", "-o", format, "--config"])
            .arg(&config)
            .output()
            .expect("urls runs");
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let json: serde_json::Value = serde_json::from_str(&printed("json")).expect("JSON");
    let yaml: serde_json::Value = serde_yaml::from_str(&printed("yaml")).expect("YAML");
    assert_eq!(json, yaml);
    assert_eq!((&json[0]["endpoint"], &json[0]["provider"]), (&"github".into(), &"GitHub".into()));
    let url = json[0]["url"].as_str().expect("a URL");
    assert!(url.starts_with("https://recv.example.org/hook/") && printed("text").contains(url), "{url}");
    assert!(json[0]["secret"]["keyPath"].as_str().is_some_and(|path| path.ends_with(".key")), "{json}");
    assert!(json[1]["secret"].as_str().is_some_and(|how| how.contains("Docker Hub cannot sign")), "{json}");
}

#[test]
fn send_signs_and_tells_the_answer() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let send = |arguments: &[&str]| running.command(&[&["send", "--to", &running.base], arguments].concat());
    let accepted = send(&["--endpoint", "github", "--repo", "git@github.com:org/app.git", "--ref", "main"]);
    assert!(stdout(&accepted).starts_with("202 {"), "{}{}", stdout(&accepted), stderr(&accepted));
    assert!(accepted.status.success());
    let body = running.folder.path().join("body.json");
    std::fs::write(&body, "{\"zen\":1}").expect("a body");
    let ping = send(&["--endpoint", "github", "--event", "ping", "--body", &body.display().to_string()]);
    assert!(stdout(&ping).starts_with("200 {\"outcome\":\"pong\"}"), "{}", stdout(&ping));
    let unreadable = send(&["--endpoint", "github", "--body", &body.display().to_string()]);
    assert!(stdout(&unreadable).starts_with("400 "), "{}", stdout(&unreadable));
    assert_eq!(unreadable.status.code(), Some(1));
    let unknown = send(&["--endpoint", "gitlab", "--event", "ping"]);
    assert_eq!(stderr(&unknown).trim(), "error: no endpoint is called `gitlab`; there are github, hub");
    let bodiless =
        send(&["--endpoint", "github", "--event", "delete", "--repo", "https://github.com/org/app"]);
    assert!(stderr(&bodiless).contains("the event `delete` needs a payload"), "{}", stderr(&bodiless));
    let pointless = send(&["--endpoint", "hub", "--repo", "https://github.com/org/app"]);
    assert_eq!(
        stderr(&pointless).trim(),
        "error: this provider knows images, not Git repositories: give --image"
    );
}

#[test]
fn a_wrong_config_ends_with_all_of_its_mistakes() {
    let folder = folder(
        "fluxRecvVersion: 1\nendpoints:\n- {source: Githup, keyPath: a.key}\n- {source: GitHub, keyPath: b.key, nmae: x}\n",
    );
    for command in [vec![], vec!["urls"], vec!["check"]] {
        let output = flux_recv()
            .args(&command)
            .arg("--config")
            .arg(folder.path().join("fluxrecv.yaml"))
            .output()
            .expect("flux-recv runs");
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let text = stderr(&output);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].ends_with(
                "fluxrecv.yaml: endpoint 1 (a.key): source: `Githup` is unknown; did you mean `GitHub`?"
            ),
            "{text}"
        );
        assert!(
            lines[1].ends_with("endpoint 2 (b.key): nmae: is an unknown field; did you mean `name`?"),
            "{text}"
        );
    }
}

// Incident 17b.
// Incident 31.
/// A config and a kubeconfig for an API server that nobody runs.
fn without_api_server() -> tempfile::TempDir {
    let folder = folder(CONFIG);
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters: [{name: t, cluster: {server: \"http://127.0.0.1:9\"}}]\n\
         users: [{name: t, user: {}}]\ncontexts: [{name: t, context: {cluster: t, user: t}}]\n";
    std::fs::write(folder.path().join("kubeconfig"), text).expect("a kubeconfig");
    folder
}

fn start_without_api_server(folder: tempfile::TempDir, arguments: &[&str]) -> FluxRecv {
    let kubeconfig = folder.path().join("kubeconfig").display().to_string();
    let mut all = vec!["--kubeconfig", &kubeconfig, "--drain", "1500ms"];
    all.extend_from_slice(arguments);
    FluxRecv::in_folder(folder, &all)
}

fn send_a_push(running: &FluxRecv) -> String {
    let repository = "https://github.com/org/app";
    stdout(&running.command(&["send", "--to", &running.base, "--endpoint", "github", "--repo", repository]))
}

const QUEUED: &str = "202 {\"event\":\"push to github.com/org/app main\",\"outcome\":\"queued\"}";

#[test]
fn sigterm_before_the_sync_waits_for_it_and_says_what_is_lost_without_a_journal() {
    let mut running = start_without_api_server(without_api_server(), &["--journal", "none"]);
    assert_eq!(
        running.logged("no journal: pending reconcile requests are lost when the process ends", &[]),
        1
    );
    let sent = send_a_push(&running);
    assert!(sent.starts_with(QUEUED), "{sent}");
    let started = std::time::Instant::now();
    assert_eq!(running.terminate(), Some(1));
    assert!(started.elapsed() >= std::time::Duration::from_millis(1500), "the drain is used");
    let lost = [("delivery", "push to github.com/org/app main")];
    assert_eq!(running.logged("delivery lost: the inventory never became complete", &lost), 1);
}

#[test]
fn the_journal_keeps_what_came_before_the_sync() {
    let mut running = start_without_api_server(without_api_server(), &[]);
    let sent = send_a_push(&running);
    assert!(sent.starts_with(QUEUED), "{sent}");
    assert_eq!(running.terminate(), Some(0));
    let left = "pending reconcile requests stay in the journal for the next start";
    assert_eq!(running.logged(left, &[("deliveries", "1"), ("targets", "0")]), 1, "{}", running.log());
    let running = start_without_api_server(running.into_folder(), &[]);
    let resumed = "resuming pending reconcile requests of an earlier process";
    assert_eq!(running.logged(resumed, &[("objects", "0"), ("deliveries", "1")]), 1);
}

#[test]
fn a_journal_that_is_in_use_stops_the_start() {
    let running = start_without_api_server(without_api_server(), &[]);
    let output = flux_recv()
        .arg("--config")
        .arg(running.folder.path().join("fluxrecv.yaml"))
        .args(["--listen", "127.0.0.1:0", "--kubeconfig"])
        .arg(running.folder.path().join("kubeconfig"))
        .arg("--journal")
        .arg(running.folder.path().join("journal"))
        .output()
        .expect("flux-recv runs");
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("is in use by another process; give each flux-recv a --journal of its own"),
        "{text}"
    );
}

#[test]
fn a_taken_port_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = folder(CONFIG);
    let output = flux_recv()
        .arg("--config")
        .arg(folder.path().join("fluxrecv.yaml"))
        .args(["--listen", &address])
        .output()
        .expect("flux-recv runs");
    assert_eq!(output.status.code(), Some(1));
    let expect = format!("error: --listen {address}: cannot listen there");
    assert!(stderr(&output).contains(&expect), "{}", stderr(&output));
    assert!(stderr(&output).contains("is another flux-recv running?"), "{}", stderr(&output));
}

#[test]
fn serving_without_a_cluster_says_what_to_do() {
    let folder = folder(CONFIG);
    let output = flux_recv()
        .arg("--config")
        .arg(folder.path().join("fluxrecv.yaml"))
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .expect("flux-recv runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no cluster to talk to"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--manifests"), "{}", stderr(&output));
}

#[test]
fn check_tells_proofs_and_is_strict() {
    let good = folder(
        "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key}\n- {source: Quay, keyPath: quay.key}\n",
    );
    let check = |folder: &tempfile::TempDir| {
        let config = folder.path().join("fluxrecv.yaml");
        flux_recv().args(["check", "--no-cluster", "--config"]).arg(config).output().expect("check runs")
    };
    let output = check(&good);
    assert!(output.status.success(), "{}", stdout(&output));
    let expected = "ENDPOINT  PROVIDER  AUTHENTICATED\ngithub    GitHub    yes\nquay      Quay      no, protected by the secret path alone\n";
    assert_eq!(stdout(&output), expected);
    let json = flux_recv()
        .args(["check", "--offline", "-o", "json", "--config"])
        .arg(good.path().join("fluxrecv.yaml"))
        .output()
        .expect("check runs");
    let json: serde_json::Value = serde_json::from_str(&stdout(&json)).expect("JSON");
    assert_eq!((&json["good"], &json["endpoints"][1]["authenticated"]), (&true.into(), &false.into()));
    std::fs::write(good.path().join("quay.key"), "short\n").expect("a key");
    let output = check(&good);
    assert_eq!(output.status.code(), Some(1), "not all is well");
    assert!(stdout(&output).contains("warning: endpoint quay: the key in "), "{}", stdout(&output));
}

#[test]
fn keys_may_be_elsewhere_where_a_config_is_checked_offline() {
    let folder = folder("fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key}\n");
    let check = || {
        let config = folder.path().join("fluxrecv.yaml");
        flux_recv().args(["check", "--offline", "--config"]).arg(config).output().expect("check runs")
    };
    std::fs::remove_file(folder.path().join("github.key")).expect("a key");
    let output = check();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("github.key is not here, so the key was not checked"),
        "{}",
        stdout(&output)
    );
    std::fs::write(folder.path().join("github.key"), "").expect("a key");
    assert!(stderr(&check()).contains("is empty"), "one that is there has to be good");
}

#[test]
fn check_warns_of_what_can_never_match() {
    let folder = folder(
        "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key, events: [push, releases.published, wiki], \
         refs: [main, refs/head/main, tags/v1, refs/tags/v*, release/*]}\n",
    );
    let output = flux_recv()
        .args(["check", "--offline", "--config"])
        .arg(folder.path().join("fluxrecv.yaml"))
        .output()
        .expect("check runs");
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    let warnings: Vec<&str> = text.lines().filter(|line| line.starts_with("warning: ")).collect();
    let expected = [
        "events: GitHub has no event type `releases.published` that flux-recv acts on; did you mean `release`?",
        "events: GitHub has no event type `wiki` that flux-recv acts on; known are ping, push, create, delete, release, \
         pull_request, package, registry_package",
        "refs: no ref is called `refs/head/main`; branches are `main` or `refs/heads/main`, tags `refs/tags/v1`: did you mean \
         `refs/heads/main`?",
        "refs: no ref is called `tags/v1`; branches are `main` or `refs/heads/main`, tags `refs/tags/v1`: did you mean `refs/tags/v1`?",
    ];
    assert_eq!(warnings, expected.map(|warning| format!("warning: endpoint github: {warning}")));
}

#[test]
fn completions_and_help_are_there() {
    for shell in ["bash", "zsh", "fish"] {
        let output = flux_recv().args(["completions", shell]).output().expect("completions run");
        assert!(output.status.success() && stdout(&output).contains("flux-recv"), "{shell}");
    }
    let help = stdout(&flux_recv().arg("--help").output().expect("help runs"));
    for part in [
        "--config",
        "fluxrecv.yaml",
        "FLUX_RECV_LISTEN",
        ":8080",
        "--drain",
        "8s",
        "--min-interval",
        "--manifests",
        "send",
        "demo",
    ] {
        assert!(help.contains(part), "{part} in:\n{help}");
    }
    assert_eq!(flux_recv().arg("--nonsense").output().expect("it runs").status.code(), Some(2));
    assert!(stdout(&flux_recv().arg("--version").output().expect("it runs")).starts_with("flux-recv "));
}

#[test]
fn sigterm_ends_with_success_and_json_logs_are_json() {
    let folder = folder(CONFIG);
    let objects = project().join("example/objects");
    let mut running = FluxRecv::in_folder(folder, &["--manifests", &objects.display().to_string()]);
    assert_eq!(running.terminate(), Some(0), "{}", running.log());
    let drains = "shutting down: draining pending reconcile requests";
    assert_eq!(running.logged(drains, &[("signal", "SIGTERM")]), 1, "{}", running.log());

    let folder = super::running::folder(CONFIG);
    let output = flux_recv()
        .arg("--config")
        .arg(folder.path().join("fluxrecv.yaml"))
        .args(["--listen", "127.0.0.1:0", "--log-format", "json", "--manifests", "/nonexistent"])
        .output()
        .expect("flux-recv runs");
    assert!(stderr(&output).contains("cannot read the folder /nonexistent"), "{}", stderr(&output));
}

#[test]
fn startup_tells_each_endpoint_and_what_is_different() {
    let endpoints =
        "endpoints:\n- {source: GitLab, keyPath: gitlab.key}\n- {source: BitbucketCloud, keyPath: bb.key}\n";
    let start = |head: &str, arguments: &[&str]| {
        let folder = folder(&format!("fluxRecvVersion: 1\n{head}{endpoints}"));
        let key = folder.path().join("bb.key");
        std::fs::write(&key, "test-key-with-a-newline-at-its-end\n").expect("a key");
        FluxRecv::in_folder(folder, arguments)
    };
    let objects = project().join("example/objects").display().to_string();
    let running = start("", &["--manifests", &objects]);
    assert_eq!(running.logged("config note", &[]), 0, "nothing of Flux v1 without it: {}", running.log());

    let running = start("api: http://127.0.0.1:9/api/flux\n", &[]);
    let log = running.log();
    assert_eq!(
        running.logged("serving endpoint", &[("endpoint", "gitlab"), ("source", "GitLab")]),
        1,
        "{log}"
    );
    for note in [
        "*(gitlab, bb): events that are of no interest are answered with 200 now*",
        "*(bb): deliveries have to be signed now*",
    ] {
        assert_eq!(running.logged("config note", &[("note", note)]), 1, "{note}: {log}");
    }
    let warning = [("warning", "*ends in a line break; at the provider paste the key without it*")];
    assert_eq!(running.logged("config warning", &warning), 1, "{log}");
}

// Each of these was tried as a new user would, and answered with something else than the fix.
#[test]
fn mistakes_of_the_first_hour_are_told_with_the_fix() {
    let folder = super::running::folder(CONFIG);
    let run = |arguments: &[&str]| {
        let output = flux_recv().args(arguments).current_dir(folder.path()).output().expect("it runs");
        stderr(&output)
    };
    let manifests = folder.path().display().to_string();
    for (arguments, expect) in [
        (vec!["--listen", "8080", "--manifests", &manifests], "--listen 8080: cannot listen there"),
        (vec!["--listen", "8080", "--manifests", &manifests], "write the port with a colon, like :8080"),
        (
            vec!["send", "--endpoint", "github", "--to", "127.0.0.1:45080", "--event", "ping"],
            "--to: `127.0.0.1:45080` is not a scheme and a host",
        ),
        (vec!["urls", "--base", "recv.example.com"], "--base: `recv.example.com` is not a scheme and a host"),
        (vec!["urls", "--base", "https://"], "--base: `https://` is not a scheme and a host"),
    ] {
        let text = run(&arguments);
        assert!(text.contains(expect), "{arguments:?}: {text}");
    }
}

// Flux's command line completes its plugins through Cobra's protocol.
#[test]
fn words_are_completed_for_flux() {
    let complete =
        |words: &[&str]| stdout(&flux_recv().arg("__complete").args(words).output().expect("it runs"));
    let commands = complete(&[""]);
    assert!(
        commands.contains("check\t") && commands.contains("urls\t") && commands.ends_with(":4\n"),
        "{commands}"
    );
    assert!(!commands.contains("__complete"), "{commands}");
    assert!(
        complete(&["ch"]).starts_with("check\tCheck the config, the keys and the rights in the cluster\n")
    );
    let options = complete(&["check", "--of"]);
    assert_eq!(options, ":4\n", "an alias is not offered twice");
    assert!(complete(&["check", "--no"]).contains("--no-cluster\t"));
    assert_eq!(complete(&["check", "--config", ""]), ":0\n", "files");
    assert_eq!(complete(&["subscribers", "--output", "j"]), "json\n:4\n");
    let version = stdout(&flux_recv().arg("version").output().expect("it runs"));
    assert_eq!(version, concat!("flux-recv ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_wrong_url_is_said_on_both_sides() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let other = folder(CONFIG);
    std::fs::write(other.path().join("github.key"), "a-key-that-nobody-serves-here").expect("a key");
    let output = flux_recv()
        .args([
            "send",
            "--to",
            &running.base,
            "--endpoint",
            "github",
            "--repo",
            "https://github.com/org/app",
            "--config",
        ])
        .arg(other.path().join("fluxrecv.yaml"))
        .output()
        .expect("send runs");
    assert!(!output.status.success());
    let hint = "no endpoint has this path there; compare with `flux-recv urls`";
    assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    running.wait_for_log("no endpoint has this hook path", &[("from", "127.0.0.1")]);
}
