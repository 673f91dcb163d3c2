//! Nothing that was accepted is lost: the process killed, the API server down, the disk full, all
//! under load on the real API server. Each scenario ends in one line.
//!
//! The short form runs in CI; `FLUX_RECV_FAULTS=long cargo test --test cluster -- fault` is the long one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::bed::Bed;
use super::costs::{hook_url, signature};
use super::process::wait_for;
use super::receive::{FluxRecv, flux_recv, git_repository, own_token};

const SENDERS: usize = 16;
const MOST_PAUSE_MILLIS: u64 = 20;
pub const REPOSITORIES: usize = 40;
const NAMESPACE: &str = "team-b";
const PATIENCE: Duration = Duration::from_secs(90);

pub fn is_long() -> bool {
    std::env::var("FLUX_RECV_FAULTS").is_ok_and(|form| form == "long")
}

/// A delivery that was answered with 202, by the moment before it was sent.
pub struct Accepted {
    pub repository: usize,
    pub sent: Timestamp,
    /// Its trace, by which subscribers tell it from others.
    pub trace: String,
}

/// How often each status was answered; 0 is no answer.
pub type Statuses = HashMap<u16, usize>;

/// Providers that post until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<tokio::task::JoinHandle<(Vec<Accepted>, Statuses)>>,
}

/// A repository that many objects follow, by long names: a push to it needs room on the disk.
const WIDE: usize = REPOSITORIES;
const FOLLOWERS: usize = 300;

pub fn url(repository: usize) -> String {
    format!("https://github.com/fault-org/repository-{repository}")
}

/// The objects that follow a repository.
fn followers(repository: usize) -> Vec<String> {
    match repository {
        WIDE => (0..FOLLOWERS).map(|at| format!("wide-{at}-{}", "x".repeat(180))).collect(),
        _ => vec![format!("fault-{repository}")],
    }
}

impl Load {
    pub fn start(bed: &Bed, running: &FluxRecv) -> Load {
        Load::over(bed, running, REPOSITORIES)
    }

    pub fn over(bed: &Bed, running: &FluxRecv, repositories: usize) -> Load {
        Load::at(bed, &hook_url(running, "github"), SENDERS, repositories, MOST_PAUSE_MILLIS)
    }

    /// So many providers at a URL, each with pauses up to this length.
    pub fn at(bed: &Bed, hook: &str, senders: usize, repositories: usize, most_pause_millis: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let senders = (0..senders).map(|sender| {
            let (stop, hook) = (Arc::clone(&stop), hook.to_owned());
            bed.spawn(post_until_stopped(sender, hook, stop, repositories, most_pause_millis))
        });
        Load { stop: Arc::clone(&stop), senders: senders.collect() }
    }

    /// Stops the providers; gives what was accepted, and what was answered.
    pub fn stop(self, bed: &Bed) -> (Vec<Accepted>, Statuses) {
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut statuses) = (Vec::new(), HashMap::new());
        for sender in self.senders {
            let (accepted, answered) = bed.block_on(sender).expect("a provider");
            all.extend(accepted);
            answered.into_iter().for_each(|(status, count)| *statuses.entry(status).or_default() += count);
        }
        (all, statuses)
    }
}

async fn post_until_stopped(
    sender: usize,
    hook: String,
    stop: Arc<AtomicBool>,
    repositories: usize,
    most_pause_millis: u64,
) -> (Vec<Accepted>, Statuses) {
    let client =
        reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build().expect("a client");
    let mut random = fastrand::Rng::with_seed(sender as u64);
    let (mut accepted, mut statuses) = (Vec::new(), HashMap::new());
    while !stop.load(Ordering::Relaxed) {
        let repository = random.usize(..repositories);
        let commit = format!("{:040x}", random.u128(..));
        let body =
            json!({"ref": "refs/heads/main", "after": commit, "repository": {"clone_url": url(repository)}});
        let body = body.to_string();
        let signature = signature(&body);
        let sent = Timestamp::now();
        let trace = format!("00-{:032x}-00000000000000aa-01", random.u128(1..));
        let request = client
            .post(&hook)
            .header("X-GitHub-Event", "push")
            .header("X-Hub-Signature-256", signature)
            .header("traceparent", &trace);
        let status = match request.body(body).send().await {
            Ok(response) => response.status().as_u16(),
            Err(_) => 0,
        };
        *statuses.entry(status).or_default() += 1;
        if status == 202 {
            accepted.push(Accepted { repository, sent, trace });
        }
        let pause = if status == 0 { 50 } else { random.u64(1..most_pause_millis) };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    (accepted, statuses)
}

pub fn prepare(bed: &Bed) {
    for repository in 0..REPOSITORIES {
        let name = format!("fault-{repository}");
        let path = format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/{NAMESPACE}/gitrepositories/{name}");
        if bed.try_get(&path).is_err() {
            git_repository(bed, NAMESPACE, &name, json!({"url": url(repository), "ref": {"branch": "main"}}));
        }
    }
}

/// When each repository was last requested, by the annotation that a successful patch has left.
fn requested(bed: &Bed) -> HashMap<String, Timestamp> {
    let list = bed.get(&format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/{NAMESPACE}/gitrepositories"));
    let objects = list["items"].as_array().expect("items").iter();
    let times = objects.filter_map(|object| {
        let annotation = object["metadata"]["annotations"]["reconcile.fluxcd.io/requestedAt"].as_str()?;
        Some((object["metadata"]["name"].as_str()?.to_owned(), annotation.parse().ok()?))
    });
    times.collect()
}

pub fn patches(bed: &Bed) -> usize {
    bed.requests_of("flux-recv").iter().filter(|request| request.starts_with("patch ")).count()
}

/// Waits until every accepted delivery has its patch, and says so in one line.
pub fn account(bed: &Bed, what: &str, accepted: &[Accepted], writes_before: usize) {
    let mut last: HashMap<usize, Timestamp> = HashMap::new();
    for Accepted { repository, sent, .. } in accepted {
        let latest = last.entry(*repository).or_insert(*sent);
        *latest = (*latest).max(*sent);
    }
    let lost = || {
        let requested = requested(bed);
        // Since when each repository has not been requested in all of its followers.
        let requested_all =
            |repository: &usize| followers(*repository).iter().map(|name| requested.get(name).copied()).min();
        let requested_all: HashMap<usize, Option<Timestamp>> =
            last.keys().map(|repository| (*repository, requested_all(repository).flatten())).collect();
        let is_lost =
            |delivery: &&Accepted| requested_all[&delivery.repository].is_none_or(|at| at < delivery.sent);
        accepted.iter().filter(is_lost).count()
    };
    let started = Instant::now();
    while lost() > 0 && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
    }
    let lost = lost();
    std::thread::sleep(Duration::from_millis(500));
    println!(
        "{what}: accepted {}, patched successfully since received {}, lost {lost}, API writes {}",
        accepted.len(),
        accepted.len() - lost,
        patches(bed) - writes_before
    );
    assert_eq!(lost, 0);
    assert!(accepted.len() > 50, "the load was no load: {}", accepted.len());
}

pub fn pause(random: &mut fastrand::Rng, most_millis: u64) {
    std::thread::sleep(Duration::from_millis(random.u64(20..most_millis)));
}

// Incident 31.
pub fn fault_killed_at_random_moments(bed: &Bed) {
    prepare(bed);
    let kills = if is_long() { 60 } else { 6 };
    let mut random = fastrand::Rng::with_seed(4);
    let mut running = FluxRecv::start(bed, &own_token(bed), &["--min-interval", "200ms"]);
    let writes = patches(bed);
    let load = Load::start(bed, &running);
    for _ in 0..kills {
        // Sometimes before the objects are known again, sometimes long after.
        pause(&mut random, 2500);
        running.process.kill();
        pause(&mut random, 200);
        running.start_again();
    }
    pause(&mut random, 1000);
    let (accepted, _) = load.stop(bed);
    running.process.kill();
    running.start_again();
    account(bed, &format!("{kills} × kill -9"), &accepted, writes);
}

// Incident 30.
pub fn fault_the_api_server_is_down(bed: &Bed) {
    prepare(bed);
    let outage = Duration::from_secs(if is_long() { 60 } else { 8 });
    let running = FluxRecv::start(bed, &own_token(bed), &[]);
    let writes = patches(bed);
    let load = Load::start(bed, &running);
    std::thread::sleep(Duration::from_secs(1));
    bed.stop_api_server();
    std::thread::sleep(outage);
    let ready = bed.block_on(reqwest::get(format!("{}/readyz", running.admin))).expect("an answer");
    assert_eq!(ready.status(), 200, "an outage of the API server takes nobody out of service");
    bed.start_api_server();
    std::thread::sleep(Duration::from_secs(1));
    let (accepted, statuses) = load.stop(bed);
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&202], "every delivery was taken");
    account(bed, &format!("API server down for {} s", outage.as_secs()), &accepted, writes);
}

pub fn fault_killed_while_the_api_server_is_down(bed: &Bed) {
    prepare(bed);
    let kills = if is_long() { 10 } else { 2 };
    let mut random = fastrand::Rng::with_seed(5);
    let mut running = FluxRecv::start(bed, &own_token(bed), &[]);
    let writes = patches(bed);
    let load = Load::start(bed, &running);
    std::thread::sleep(Duration::from_secs(1));
    bed.stop_api_server();
    for _ in 0..kills {
        pause(&mut random, 1500);
        running.process.kill();
        pause(&mut random, 200);
        // Without an API server it knows no objects: deliveries wait, in the journal too.
        running.start_again();
    }
    pause(&mut random, 1000);
    bed.start_api_server();
    std::thread::sleep(Duration::from_secs(2));
    let (accepted, _) = load.stop(bed);
    account(bed, &format!("{kills} × kill -9 while the API server is down"), &accepted, writes);
}

// Incident 31.
pub fn fault_sigterm_under_load(bed: &Bed) {
    prepare(bed);
    let mut running = FluxRecv::start(bed, &own_token(bed), &[]);
    let writes = patches(bed);
    let load = Load::start(bed, &running);
    for _ in 0..if is_long() { 10 } else { 2 } {
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(running.process.terminate(), Some(0), "{}", running.process.output());
        assert!(
            running.process.has_logged("drained; no reconcile request is pending", &[]),
            "{}",
            running.process.output()
        );
        running.start_again();
    }
    std::thread::sleep(Duration::from_millis(500));
    let (accepted, _) = load.stop(bed);
    account(bed, "SIGTERM under load", &accepted, writes);
}

/// A file system of its own, a few MiB large.
struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    fn mount(folder: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(folder).expect("a folder");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(folder).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then(|| SmallDisk { folder: folder.to_owned() })
    }

    fn fill(&self) -> PathBuf {
        let filler = self.folder.join("filler");
        let full = std::fs::write(&filler, vec![1; 8 << 20]);
        assert!(full.is_err(), "the disk is full");
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).output();
    }
}

pub fn fault_the_disk_is_full(bed: &Bed) {
    prepare(bed);
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(&folder.path().join("journal")) else {
        println!("fault_the_disk_is_full: skipped, mounting a tmpfs is not allowed here");
        return;
    };
    let journal = disk.folder.display().to_string();
    for name in followers(WIDE) {
        git_repository(bed, NAMESPACE, &name, json!({"url": url(WIDE), "ref": {"branch": "main"}}));
    }
    let arguments = ["--journal", &journal, "--min-interval", "0", "--spread", "0"];
    let mut running = FluxRecv::start(bed, &own_token(bed), &arguments);
    let writes = patches(bed);
    let filler = disk.fill();
    let load = Load::over(bed, &running, REPOSITORIES + 1);
    wait_for("the journal to notice", PATIENCE, || {
        running.process.has_logged("journal cannot be written; answering 503 until it can", &[]).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    std::fs::remove_file(filler).expect("the filler goes");
    let readyz = format!("{}/readyz", running.admin);
    wait_for("the journal to be writable", PATIENCE, || {
        let ready = bed.block_on(reqwest::get(readyz.as_str())).expect("an answer").status();
        ready.is_success().then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    let (accepted, statuses) = load.stop(bed);
    running.process.kill();
    running.start_again();
    account(bed, "the disk full and free again", &accepted, writes);
    assert!(statuses.contains_key(&503), "{statuses:?}");
    assert!(statuses.keys().all(|status| [202, 503].contains(status)), "{statuses:?}");
    assert!(accepted.iter().any(|delivery| delivery.repository == WIDE), "{statuses:?}");
    drop(running);
    bed.kubectl(&["delete", "gitrepositories", "--all", "-n", NAMESPACE, "--wait=false"]);
}

pub fn fault_a_read_only_disk_stops_the_start(bed: &Bed) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(disk) = SmallDisk::mount(&folder.path().join("journal")) else {
        println!("fault_a_read_only_disk_stops_the_start: skipped, mounting a tmpfs is not allowed here");
        return;
    };
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.folder).status();
    assert!(remounted.is_ok_and(|status| status.success()));
    std::fs::write(folder.path().join("kubeconfig"), bed.kubeconfig("none", "default"))
        .expect("a kubeconfig");
    std::fs::write(folder.path().join("github.key"), "test-key-0123456789abcdef").expect("a key");
    let config = folder.path().join("fluxrecv.yaml");
    std::fs::write(&config, "fluxRecvVersion: 1\nendpoints: [{source: GitHub, keyPath: github.key}]\n")
        .expect("a config");
    let output = flux_recv()
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config"])
        .arg(&config)
        .arg("--kubeconfig")
        .arg(folder.path().join("kubeconfig"))
        .arg("--journal")
        .arg(&disk.folder)
        .output()
        .expect("flux-recv runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot be written") && text.contains("--journal none"), "{text}");
    println!("a read-only disk at the start: {}", text.lines().last().unwrap_or_default());
}
