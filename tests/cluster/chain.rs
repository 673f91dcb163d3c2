//! The main job on real input: `git push` → Gitea's webhook → flux-recv → the annotation →
//! source-controller fetches → the artifact holds the pushed commit.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bed::{Bed, Parts};
use super::common::log::LogLine;
use super::costs::hook_url;
use super::fleet::{direct, publisher, subscriber};
use super::gitea::{Gitea, USER};
use super::process::{Process, free_port, wait_for};
use super::receive::{FluxRecv, git_repository, own_token, test_key};

const PUSHES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

pub fn twenty_pushes_to_gitea_reach_the_artifact(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let gitea = Gitea::start(bed);
    let _source_controller = start_source_controller(bed);
    let hook = hook_url(&running, "gitea");
    let app = gitea.repository(bed, "app", &hook, &test_key("gitea"));
    let other = gitea.repository(bed, "other", &hook, &test_key("gitea"));
    let url = format!("{}/{USER}/app.git", gitea.base);
    git_repository(bed, "flux-system", "chain", json!({"url": url, "ref": {"branch": "main"}}));
    wait_for("the first artifact", PATIENCE, || revision(&chain(bed)));

    let (mut to_patch, mut to_artifact) = (Vec::new(), Vec::new());
    for at in 0..PUSHES {
        let commit = app.commit(&format!("push {at}"));
        let (received, patched) = (deliveries(&running).len(), patches(&running).len());
        app.git(&["push", "--quiet", "origin", "main"]);
        let pushed = Instant::now();
        wait_for(&format!("push {at} in the artifact"), PATIENCE, || {
            revision(&chain(bed)).filter(|revision| revision.ends_with(&commit))
        });
        to_artifact.push(pushed.elapsed());
        to_patch.push(webhook_to_patch(deliveries(&running)[received], patches(&running)[patched]));
    }
    println!(
        "{PUSHES} pushes to Gitea, every one seen in the artifact; median from webhook to patch {:?}, from push to artifact {:?}",
        median(to_patch),
        median(to_artifact)
    );

    // Nothing of what follows concerns the object.
    wait_for("the last request to be handled", PATIENCE, || {
        let object = chain(bed);
        (object["status"]["lastHandledReconcileAt"] == requested_at(&object)).then_some(())
    });
    let before = requested_at(&chain(bed));
    let seen = deliveries(&running).len();
    app.git(&["checkout", "--quiet", "-b", "unrelated"]);
    app.commit("on another branch");
    app.git(&["push", "--quiet", "origin", "unrelated"]);
    app.git(&["push", "--quiet", "origin", "--delete", "unrelated"]);
    other.commit("in another repository");
    other.git(&["push", "--quiet", "origin", "main"]);
    wait_for("the deliveries", PATIENCE, || (deliveries(&running).len() >= seen + 3).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(requested_at(&chain(bed)), before, "{:#?}", deliveries(&running));
}

/// Gitea and a publisher beside one cluster, a subscriber and source-controller beside another one.
pub fn twenty_pushes_through_a_publisher_reach_another_cluster(bed: &Bed) {
    let first = Bed::start(Parts::find().expect("the parts of this suite"));
    first.install_manifests();
    let route = direct();
    let publisher = publisher(&first, "- {source: Gitea, keyPath: gitea.key}", "", &route);
    let subscriber = subscriber(bed, &publisher, &route, "gitea: {}", &[]);
    let gitea = Gitea::start(bed);
    let _source_controller = start_source_controller(bed);
    let app = gitea.repository(bed, "fleet", &hook_url(&publisher.running, "gitea"), &test_key("gitea"));
    let url = format!("{}/{USER}/fleet.git", gitea.base);
    git_repository(bed, "flux-system", "fleet", json!({"url": url, "ref": {"branch": "main"}}));
    wait_for("the first artifact", PATIENCE, || revision(&object(bed, "fleet")));
    let (mut to_patch, mut to_artifact) = (Vec::new(), Vec::new());
    for at in 0..PUSHES {
        let commit = app.commit(&format!("push {at}"));
        let (received, patched) = (deliveries(&publisher.running).len(), patches(&subscriber).len());
        app.git(&["push", "--quiet", "origin", "main"]);
        let pushed = Instant::now();
        wait_for(&format!("push {at} in the artifact"), PATIENCE, || {
            revision(&object(bed, "fleet")).filter(|revision| revision.ends_with(&commit))
        });
        to_artifact.push(pushed.elapsed());
        to_patch
            .push(webhook_to_patch(deliveries(&publisher.running)[received], patches(&subscriber)[patched]));
    }
    println!(
        "{PUSHES} pushes through a publisher into another cluster, every one seen in the artifact; median from the publisher's answer \
         to the patch {:?}, from push to artifact {:?}",
        median(to_patch),
        median(to_artifact)
    );
}

const REPOSITORIES: usize = 10;
const QUICK_PUSHES: usize = 100;
/// After an outage the watches of source-controller themselves may pause for a minute.
const LONG_PATIENCE: Duration = Duration::from_secs(240);

/// Nothing else would make Flux fetch: the interval of the objects is an hour.
pub fn quick_pushes_survive_restarts_of_the_api_server(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let gitea = Gitea::start(bed);
    let _source_controller = start_source_controller(bed);
    let hook = hook_url(&running, "gitea");
    let name = |at: usize| format!("quick-{at}");
    let clones: Vec<_> =
        (0..REPOSITORIES).map(|at| gitea.repository(bed, &name(at), &hook, &test_key("gitea"))).collect();
    for at in 0..REPOSITORIES {
        let url = format!("{}/{USER}/{}.git", gitea.base, name(at));
        git_repository(bed, "flux-system", &name(at), json!({"url": url, "ref": {"branch": "main"}}));
    }
    for at in 0..REPOSITORIES {
        wait_for("the first artifact", PATIENCE, || revision(&object(bed, &name(at))));
    }
    let mut last = vec![String::new(); REPOSITORIES];
    for push in 0..QUICK_PUSHES {
        let at = push % REPOSITORIES;
        last[at] = clones[at].commit(&format!("push {push}"));
        clones[at].git(&["push", "--quiet", "origin", "main"]);
        if push == QUICK_PUSHES / 3 || push == QUICK_PUSHES * 2 / 3 {
            bed.stop_api_server();
        }
        if push == QUICK_PUSHES / 3 + 10 || push == QUICK_PUSHES * 2 / 3 + 10 {
            bed.start_api_server();
        }
    }
    let pushed = Instant::now();
    for (at, commit) in last.iter().enumerate() {
        let started = Instant::now();
        while !revision(&object(bed, &name(at))).is_some_and(|revision| revision.ends_with(commit)) {
            if started.elapsed() > LONG_PATIENCE {
                let mut log = running.process.log_lines();
                log.retain(|line| line.field("object").ends_with(&name(at)));
                panic!("{} is not at {commit}: {:#} {log:#?}", name(at), object(bed, &name(at)));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    println!(
        "{QUICK_PUSHES} pushes to {REPOSITORIES} repositories over two restarts of the API server: all at their last commit, {:?} after the last push",
        pushed.elapsed()
    );
}

pub fn a_webhook_before_its_ref_is_followed_to_the_artifact(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let gitea = Gitea::start(bed);
    let _source_controller = start_source_controller(bed);
    // The hook points nowhere: the delivery is sent by hand, before the push.
    let early = gitea.repository(bed, "early", "http://127.0.0.1:9/", "unused");
    let url = format!("{}/{USER}/early.git", gitea.base);
    git_repository(bed, "flux-system", "early", json!({"url": url, "ref": {"branch": "main"}}));
    wait_for("the first artifact", PATIENCE, || revision(&object(bed, "early")));
    let commit = early.commit("announced before it is there");
    let (status, answer) = running.send("gitea", &["--repo", &url, "--ref", "main", "--commit", &commit]);
    assert_eq!((status, &answer["targets"]), (202, &json!(["GitRepository/flux-system/early"])));
    wait_for("Flux to look too early", PATIENCE, || {
        let again = "Flux has not observed the revision yet, requesting reconciliation again";
        running.process.has_logged(again, &[]).then_some(())
    });
    early.git(&["push", "--quiet", "origin", "main"]);
    let pushed = Instant::now();
    wait_for("the push in the artifact", PATIENCE, || {
        revision(&object(bed, "early")).filter(|revision| revision.ends_with(&commit))
    });
    let took = pushed.elapsed();
    println!("a webhook before its ref: in the artifact {took:?} after the ref was there");
    assert!(took < Duration::from_secs(20), "{took:?}");
    wait_for("the outcome", PATIENCE, || {
        running.process.has_logged("Flux shows a new revision", &[("result", "seen")]).then_some(())
    });
    let list =
        bed.block_on(async { reqwest::get(format!("{}/deliveries", running.debug())).await?.text().await });
    let list: Value = serde_json::from_str(&list.expect("an answer")).expect("JSON");
    assert_eq!(list["gitea"][0]["objects"][0]["revision"]["result"], "seen", "{list:#}");
}

/// The commit of a test does not exist: Flux is asked once, and nobody waits for it to arrive.
pub fn a_test_delivery_is_waited_for_once_and_not_followed_up(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let gitea = Gitea::start(bed);
    let _source_controller = start_source_controller(bed);
    gitea.repository(bed, "tried", "http://127.0.0.1:9/", "unused");
    let url = format!("{}/{USER}/tried.git", gitea.base);
    git_repository(bed, "flux-system", "tried", json!({"url": url, "ref": {"branch": "main"}}));
    wait_for("the first artifact", PATIENCE, || revision(&object(bed, "tried")));
    let output = super::receive::flux_recv()
        .args([
            "send",
            "--config",
            &running.config(),
            "--to",
            &running.base,
            "--endpoint",
            "gitea",
            "--repo",
            &url,
        ])
        .args(["--wait", "--kubeconfig", &bed.path("admin.kubeconfig").display().to_string()])
        .output()
        .expect("send runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let row = text.lines().last().unwrap_or_default();
    assert!(row.starts_with("GitRepository/flux-system/tried  yes      True"), "{text}");
    // A push whose commit does not arrive would be requested again by now.
    std::thread::sleep(Duration::from_secs(10));
    let again = "Flux has not observed the revision yet, requesting reconciliation again";
    assert!(!running.process.has_logged(again, &[]), "{}", running.process.output());
}

/// source-controller does not watch what a GitRepository includes: `base` is in `middle`, that in `top`.
pub fn what_includes_a_repository_shows_its_push(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let gitea = Gitea::start(bed);
    let _source_controller = start_source_controller(bed);
    let hook = hook_url(&running, "gitea");
    let clones = ["base", "middle", "top"]
        .map(|name| gitea.repository(bed, &format!("in-{name}"), &hook, &test_key("gitea")));
    let include = |name: &str| json!([{"repository": {"name": format!("in-{name}")}, "toPath": name}]);
    for (name, include) in [("base", json!(null)), ("middle", include("base")), ("top", include("middle"))] {
        let url = format!("{}/{USER}/in-{name}.git", gitea.base);
        let spec = json!({"url": url, "ref": {"branch": "main"}, "include": include});
        git_repository(bed, "flux-system", &format!("in-{name}"), spec);
    }
    let included = |name: &str| object(bed, name)["status"]["includedArtifacts"][0].clone();
    let digest = |name: &str| object(bed, name)["status"]["artifact"]["digest"].clone();
    // At first they find each other after a pause of source-controller's own.
    wait_for("the first artifacts", LONG_PATIENCE, || {
        let is_there = ["in-base", "in-middle", "in-top"].iter().all(|name| digest(name).is_string());
        (is_there && included("in-top")["digest"] == digest("in-middle")).then_some(())
    });
    // A watch begins with what has changed while its list was read.
    std::thread::sleep(Duration::from_secs(6));
    let commit = clones[0].commit("in all three");
    clones[0].git(&["push", "--quiet", "origin", "main"]);
    let pushed = Instant::now();
    wait_for("the push in what includes it", PATIENCE, || {
        let revision = included("in-middle")["revision"].as_str().map(str::to_owned);
        revision.filter(|revision| revision.ends_with(&commit))
    });
    wait_for("the push in what includes that", PATIENCE, || {
        (included("in-top")["digest"] == digest("in-middle")).then_some(())
    });
    println!("a push two inclusions away: in the last artifact {:?} after the push", pushed.elapsed());
    std::thread::sleep(Duration::from_secs(3));
    let log = running.process.log_lines();
    let requested = |name: &str| {
        let object = format!("GitRepository/flux-system/{name}");
        let message = "included repository changed, requesting reconciliation";
        log.iter().filter(|line| line.is(message, &[("object", &object)])).count()
    };
    assert_eq!(["in-base", "in-middle", "in-top"].map(requested), [0, 1, 1], "each once: {log:#?}");
}

/// The ref of a pull request moves with an event of its own, and no other push concerns it.
pub fn a_pull_request_reaches_its_ref(bed: &Bed) {
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let gitea = Gitea::start(bed);
    let _source_controller = start_source_controller(bed);
    let hook = hook_url(&running, "gitea");
    let clone = gitea.repository(bed, "reviewed", &hook, &test_key("gitea"));
    clone.git(&["checkout", "--quiet", "-b", "topic"]);
    clone.commit("proposed");
    clone.git(&["push", "--quiet", "origin", "topic"]);
    let pull_request = json!({"title": "Topic", "head": "topic", "base": "main"});
    gitea.api(bed, "POST", &format!("/repos/{USER}/reviewed/pulls"), pull_request);
    let url = format!("{}/{USER}/reviewed.git", gitea.base);
    git_repository(bed, "flux-system", "reviewed", json!({"url": url, "ref": {"name": "refs/pull/1/head"}}));
    wait_for("the first artifact", PATIENCE, || revision(&object(bed, "reviewed")));
    std::thread::sleep(Duration::from_secs(6));
    let before = requested_at(&object(bed, "reviewed"));
    clone.git(&["checkout", "--quiet", "main"]);
    clone.commit("on main");
    clone.git(&["push", "--quiet", "origin", "main"]);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(requested_at(&object(bed, "reviewed")), before, "a push to another ref");
    clone.git(&["checkout", "--quiet", "topic"]);
    let commit = clone.commit("proposed anew");
    clone.git(&["push", "--quiet", "origin", "topic"]);
    wait_for("the new head in the artifact", PATIENCE, || {
        revision(&object(bed, "reviewed")).filter(|revision| revision.ends_with(&commit))
    });
}

pub fn start_source_controller(bed: &Bed) -> Process {
    let storage = bed.path("artifacts");
    std::fs::create_dir_all(&storage).expect("a folder");
    let address = || format!("127.0.0.1:{}", free_port());
    let storage_address = address();
    let mut command = Command::new(bed.parts.cache.join("bin/source-controller"));
    command.env("RUNTIME_NAMESPACE", "flux-system").env("KUBECONFIG", bed.path("admin.kubeconfig"));
    command.arg("--storage-path").arg(storage);
    command.args([
        "--storage-addr",
        &storage_address,
        "--storage-adv-addr",
        &storage_address,
        "--events-addr",
        "",
    ]);
    command.args(["--health-addr", &address(), "--metrics-addr", &address()]);
    Process::spawn(&mut command, &bed.path("source-controller.log"))
}

fn chain(bed: &Bed) -> Value {
    object(bed, "chain")
}

/// The object, also while the API server is starting.
fn object(bed: &Bed, name: &str) -> Value {
    let path = format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/flux-system/gitrepositories/{name}");
    wait_for("the API server", PATIENCE, || bed.try_get(&path).ok())
}

fn revision(object: &Value) -> Option<String> {
    object["status"]["artifact"]["revision"].as_str().map(str::to_owned)
}

fn requested_at(object: &Value) -> Value {
    object["metadata"]["annotations"]["reconcile.fluxcd.io/requestedAt"].clone()
}

/// The times at which deliveries were answered.
fn deliveries(running: &FluxRecv) -> Vec<jiff::Timestamp> {
    let lines = running.process.log_lines();
    lines.iter().filter(|line| !line.field("micros").is_empty()).map(time).collect()
}

/// The times of the patches so far.
fn patches(running: &FluxRecv) -> Vec<jiff::Timestamp> {
    let lines = running.process.log_lines();
    lines.iter().filter(|line| line.message() == "reconciliation requested").map(time).collect()
}

fn time(line: &LogLine) -> jiff::Timestamp {
    line.field("time").parse().expect("a time")
}

/// From the log line of a delivery to that of its patch. The answer is logged after the patch was
/// requested, so on a busy machine the patch may be the first of the two.
fn webhook_to_patch(delivery: jiff::Timestamp, patch: jiff::Timestamp) -> Duration {
    patch.duration_since(delivery).try_into().unwrap_or_default()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
