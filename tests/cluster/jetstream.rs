//! Publishers over a stream that three nats-servers hold copies of, and subscribers that patch the real API server:
//! servers, leaders and replicas are killed, and replicas roll, and nothing that was accepted is lost.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;

use super::bed::Bed;
use super::common::nats::{NatsServers, nats_server};
use super::costs::hook_url;
use super::faults::{Accepted, Load, is_long, pause, url};
use super::process::{free_port, wait_for};
use super::receive::{FluxRecv, git_repository, own_token, requested_at, test_key};

const PATIENCE: Duration = Duration::from_secs(60);

/// The longest time that a subscriber may be without a stream. The short form runs beside other work.
fn max_without_stream() -> Duration {
    Duration::from_secs(if is_long() { 10 } else { 40 })
}

/// Repositories that are pushed to; each subscriber has an object for each.
const REPOSITORIES: usize = 3;

/// Providers, and the longest pause between two pushes of one.
const SENDERS: usize = 4;
const MOST_PAUSE_MILLIS: u64 = 80;

/// The RFC 8032 test key, with its public key.
const SIGNING_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
const PUBLIC_KEY: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

/// Passes connections on to one backend after the other. One that does not listen is passed over.
struct RoundRobin {
    address: String,
    backends: Arc<Mutex<Vec<String>>>,
}

impl RoundRobin {
    fn start() -> RoundRobin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let backends: Arc<Mutex<Vec<String>>> = Arc::default();
        let (all, turn) = (Arc::clone(&backends), AtomicUsize::new(0));
        std::thread::spawn(move || {
            for inbound in listener.incoming().flatten() {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if !all.is_empty() {
                    let first = turn.fetch_add(1, Ordering::Relaxed) % all.len();
                    all.rotate_left(first);
                }
                if let Some(outbound) = all.iter().find_map(|backend| TcpStream::connect(backend).ok()) {
                    pass_on(&inbound, &outbound).expect("sockets");
                }
            }
        });
        RoundRobin { address, backends }
    }

    fn set(&self, backends: Vec<String>) {
        *self.backends.lock().unwrap_or_else(PoisonError::into_inner) = backends;
    }
}

/// Copies in both directions; where one side ends, so does the other.
fn pass_on(inbound: &TcpStream, outbound: &TcpStream) -> io::Result<()> {
    for (from, to) in [(inbound, outbound), (outbound, inbound)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
            let _ = from.shutdown(std::net::Shutdown::Both);
        });
    }
    Ok(())
}

/// A replica of the publisher, with a journal of its own.
struct Replica {
    running: FluxRecv,
    subscribe: String,
}

impl Replica {
    fn start(servers: &NatsServers, subscribers: usize) -> Replica {
        let folder = tempfile::tempdir().expect("a folder");
        let entries: String = (0..subscribers)
            .map(|number| format!("  - {{name: s{number}, endpoints: ['*'], keyPath: s{number}.key}}\n"))
            .collect();
        for number in 0..subscribers {
            let key = folder.path().join(format!("s{number}.key"));
            std::fs::write(key, test_key(&format!("s{number}"))).expect("a key");
        }
        let config = format!(
            "fluxRecvVersion: 1\nendpoints:\n- {{source: GitHub, keyPath: github.key}}\npublish:\n  signingKeyPaths: [signing.pem]\n  \
             nats: {{urls: [{}]}}\n  subscribers:\n{entries}",
            servers.urls()
        );
        std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
        std::fs::write(folder.path().join("signing.pem"), SIGNING_KEY).expect("a key");
        let subscribe = format!("127.0.0.1:{}", free_port());
        let arguments = ["--no-cluster", "--subscribe-listen", &subscribe, "--shutdown-delay", "2s"];
        let running = FluxRecv::start_in(folder, PathBuf::from("/nonexistent"), &arguments);
        let replica = Replica { running, subscribe };
        replica.wait_until_following();
        replica
    }

    fn wait_until_following(&self) {
        wait_for("the replica to follow", PATIENCE, || {
            self.running.process.has_logged("following the event log", &[]).then_some(())
        });
    }

    /// Its log without deliveries and subscribers.
    fn told(&self) -> String {
        let log = self.running.log();
        let is_told = |line: &&str| !line.contains("delivery accepted") && !line.contains("subscriber ");
        log.lines().filter(is_told).collect::<Vec<&str>>().join("\n")
    }

    fn address(&self) -> String {
        self.running.base.trim_start_matches("http://").to_owned()
    }
}

/// Subscribers of the publisher, each of a namespace of its own.
struct Subscribers {
    running: Vec<FluxRecv>,
}

fn namespace(number: usize) -> String {
    format!("nats-{number}")
}

impl Subscribers {
    fn start(bed: &Bed, publisher: &str, count: usize) -> Subscribers {
        bed.install_manifests();
        let running = (0..count).map(|number| {
            let namespace = namespace(number);
            let _ = bed.try_kubectl(&["create", "namespace", &namespace]);
            for repository in 0..REPOSITORIES {
                let name = format!("follows-{repository}");
                let path = format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/{namespace}/gitrepositories/{name}");
                if bed.try_get(&path).is_err() {
                    git_repository(bed, &namespace, &name, json!({"url": url(repository), "ref": {"branch": "main"}}));
                }
            }
            let folder = tempfile::tempdir().expect("a folder");
            let config = format!(
                "fluxRecvVersion: 1\nsubscribe:\n- name: hub\n  url: http://{publisher}\n  tokenPath: own.key\n  publicKeys: \
                 ['{PUBLIC_KEY}']\n  endpoints: {{github: {{}}}}\n"
            );
            std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
            std::fs::write(folder.path().join("own.key"), test_key(&format!("s{number}"))).expect("a key");
            let kubeconfig = folder.path().join("kubeconfig");
            std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
            let arguments = ["--listen", "none", "--spread", "0", "--namespaces", &namespace, "--min-interval", "500ms"];
            FluxRecv::start_in(folder, kubeconfig, &arguments)
        });
        let subscribers = Subscribers { running: running.collect() };
        for running in &subscribers.running {
            wait_for("the first catch-up", PATIENCE, || {
                running.process.has_logged("caught up: each object was requested once", &[]).then_some(())
            });
        }
        subscribers
    }

    /// The longest time that one of them was without a stream; none while one is.
    fn longest_without_stream(&self) -> Option<Duration> {
        let mut longest = Duration::ZERO;
        for running in &self.running {
            let mut since: Option<Timestamp> = None;
            for line in running.log_lines() {
                let Ok(time) = line.field("time").parse::<Timestamp>() else { continue };
                match line.message() {
                    "connected to the publisher" => {
                        let gap = since
                            .take()
                            .map_or(Duration::ZERO, |since| time.duration_since(since).unsigned_abs());
                        longest = longest.max(gap);
                    }
                    "disconnected from the publisher" | "publisher cannot be followed, retrying" => {
                        since.get_or_insert(time);
                    }
                    _ => {}
                }
            }
            if since.is_some() {
                return None;
            }
        }
        Some(longest)
    }

    /// The deliveries that one of them has not got.
    fn missing<'a>(&self, accepted: &'a [Accepted]) -> Vec<&'a str> {
        let mut missing = BTreeSet::new();
        for running in &self.running {
            let lines = running.log_lines();
            let events = lines.iter().filter(|line| line.message() == "event received from the publisher");
            let got: HashSet<String> = events.map(|line| line.field("trace")).collect();
            let traces = accepted.iter().map(|delivery| delivery.trace.as_str());
            missing.extend(traces.filter(|trace| !got.contains(*trace)));
        }
        missing.into_iter().collect()
    }

    /// What each of them says of its streams.
    fn told_of_streams(&self) -> String {
        let is_told = |line: &&str| line.contains("connected") || line.contains("cannot be followed");
        let told = self.running.iter().enumerate().map(|(number, running)| {
            let log = running.log();
            let lines: Vec<&str> = log.lines().filter(is_told).collect();
            format!("subscriber {number}:\n{}\n", lines.join("\n"))
        });
        told.collect()
    }

    fn resets(&self) -> usize {
        let resets =
            |running: &FluxRecv| running.logged("the event log cannot be continued; catching up", &[]);
        self.running.iter().map(resets).sum()
    }
}

/// When each object of a repository was last requested, the earliest of all subscribers.
fn requested(bed: &Bed, subscribers: usize) -> HashMap<usize, Option<Timestamp>> {
    let list = bed.get("/apis/source.toolkit.fluxcd.io/v1/gitrepositories");
    let objects = list["items"].as_array().expect("items");
    let at = |repository: usize, number: usize| -> Option<Timestamp> {
        let (name, namespace) = (format!("follows-{repository}"), namespace(number));
        let object = objects.iter().find(|object| {
            object["metadata"]["name"] == name.as_str()
                && object["metadata"]["namespace"] == namespace.as_str()
        });
        requested_at(object?)?.parse().ok()
    };
    (0..REPOSITORIES)
        .map(|repository| (repository, (0..subscribers).map(|number| at(repository, number)).min().flatten()))
        .collect()
}

/// Waits until every accepted delivery has its patch in every cluster, and says so in one line.
fn account(bed: &Bed, what: &str, accepted: &[Accepted], subscribers: &Subscribers) {
    let count = subscribers.running.len();
    let lost = || {
        let requested = requested(bed, count);
        let is_lost =
            |delivery: &&Accepted| requested[&delivery.repository].is_none_or(|at| at < delivery.sent);
        accepted.iter().filter(is_lost).count()
    };
    // The latest patch covers every delivery before it, so each is looked for by its trace as well. What a replica has
    // in its journal comes late.
    let started = Instant::now();
    while (lost() > 0 || !subscribers.missing(accepted).is_empty()) && started.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
    }
    let (lost, missing) = (lost(), subscribers.missing(accepted));
    println!(
        "{what}: accepted {}, {count} subscribers, lost {lost}, missing somewhere {}",
        accepted.len(),
        missing.len()
    );
    assert!(lost == 0 && missing.is_empty(), "{missing:?}");
    assert!(accepted.len() > 100, "the load was no load: {}", accepted.len());
}

fn start_servers() -> NatsServers {
    NatsServers::start(nats_server().expect("the suite has looked for it"), 3, "")
}

/// Waits until the copies of the stream are alike.
fn wait_until_current(servers: &NatsServers) {
    servers.wait_until_ready();
    wait_for("the copies of the stream", PATIENCE, || {
        let stream = servers.stream("flux-recv")?;
        let copies = stream["cluster"]["replicas"].as_array()?.clone();
        (copies.len() == 2 && copies.iter().all(|copy| copy["current"] == true)).then_some(())
    });
}

pub fn fault_jetstream_servers_leaders_and_replicas_are_killed(bed: &Bed) {
    let (kills, count) = if is_long() { (10, 20) } else { (2, 4) };
    let mut random = fastrand::Rng::with_seed(18);
    let mut servers = start_servers();
    let mut replicas = [Replica::start(&servers, count), Replica::start(&servers, count)];
    let (hooks, streams) = (RoundRobin::start(), RoundRobin::start());
    hooks.set(replicas.iter().map(Replica::address).collect());
    streams.set(replicas.iter().map(|replica| replica.subscribe.clone()).collect());
    let subscribers = Subscribers::start(bed, &streams.address, count);
    let resets = subscribers.resets();
    let hook = hook_url(&replicas[0].running, "github").replace(&replicas[0].address(), &hooks.address);
    let load = Load::at(bed, &hook, SENDERS, REPOSITORIES, MOST_PAUSE_MILLIS);
    for round in 0..kills {
        pause(&mut random, 2000);
        let leader = servers.leader("flux-recv");
        let other = (leader + 1 + round % 2) % 3;
        for server in [other, leader] {
            servers.kill(server);
            std::thread::sleep(Duration::from_secs(3));
            servers.start_again(server);
            wait_until_current(&servers);
        }
        let replica = &mut replicas[round % 2];
        replica.running.process.kill();
        pause(&mut random, 2000);
        replica.running.start_again();
        replica.wait_until_following();
    }
    pause(&mut random, 2000);
    let (accepted, statuses) = load.stop(bed);
    let without = wait_until_connected(&subscribers);
    println!(
        "JetStream: {kills} × kill -9 of a server, of the leader and of a replica: answers {statuses:?}, without a stream for {without:?} at most"
    );
    account(bed, "JetStream: kills", &accepted, &subscribers);
    let told = subscribers.told_of_streams();
    assert!(
        without <= max_without_stream(),
        "{without:?}\n{}\n\n{}\n\n{told}",
        replicas[0].told(),
        replicas[1].told()
    );
    assert_eq!(subscribers.resets(), resets, "nobody had to catch up");
}

fn wait_until_connected(subscribers: &Subscribers) -> Duration {
    wait_for("all subscribers to be connected", PATIENCE, || subscribers.longest_without_stream())
}

// A new replica is ready before an old one is told to end, as the manifests have it.
pub fn fault_jetstream_replicas_roll_three_times(bed: &Bed) {
    let count = if is_long() { 20 } else { 3 };
    let servers = start_servers();
    let mut replicas = vec![Replica::start(&servers, count), Replica::start(&servers, count)];
    let (hooks, streams) = (RoundRobin::start(), RoundRobin::start());
    let route = |replicas: &[Replica]| {
        hooks.set(replicas.iter().map(Replica::address).collect());
        streams.set(replicas.iter().map(|replica| replica.subscribe.clone()).collect());
    };
    route(&replicas);
    let subscribers = Subscribers::start(bed, &streams.address, count);
    let resets = subscribers.resets();
    let hook = hook_url(&replicas[0].running, "github").replace(&replicas[0].address(), &hooks.address);
    let load = Load::at(bed, &hook, SENDERS, REPOSITORIES, MOST_PAUSE_MILLIS);
    for _ in 0..3 {
        for _ in 0..2 {
            replicas.push(Replica::start(&servers, count));
            route(&replicas);
            std::thread::sleep(Duration::from_millis(500));
            let mut old = replicas.remove(0);
            // A Service takes it out once it is not ready, which it says before it ends.
            old.running.signal("-TERM");
            std::thread::sleep(Duration::from_millis(500));
            route(&replicas);
            assert_eq!(old.running.process.wait(), Some(0), "{}", old.running.log());
            assert!(!old.running.log().contains("entries that NATS has not taken"), "{}", old.running.log());
        }
    }
    std::thread::sleep(Duration::from_secs(1));
    let (accepted, statuses) = load.stop(bed);
    println!("JetStream: three rollouts: answers {statuses:?}");
    account(bed, "JetStream: three rollouts of two replicas", &accepted, &subscribers);
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&202], "no delivery was refused: {statuses:?}");
    assert_eq!(subscribers.resets(), resets, "nobody had to catch up");
}
