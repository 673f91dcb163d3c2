//! A publisher without a cluster, and a subscriber that patches the real API server: nothing that was accepted
//! is lost, whatever is killed, cut, trimmed or deleted in between.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::bed::Bed;
use super::common::copy_folder;
use super::common::running::stdout;
use super::faults::{Load, REPOSITORIES, account, is_long, patches, pause, prepare};
use super::process::{free_port, wait_for};
use super::receive::{FluxRecv, flux_recv, git_repository, own_token, requested_at, test_key};

const PATIENCE: Duration = Duration::from_secs(30);

/// The least time between two patches of an object.
const MIN_INTERVAL: Duration = Duration::from_millis(200);

/// A publisher and a subscriber, with what stands between them.
struct Fleet {
    publisher: FluxRecv,
    subscriber: FluxRecv,
}

/// The URL at which the subscriber finds the publisher.
pub struct Route {
    address: String,
    through: Option<String>,
}

/// A publisher, and the public key that subscribers pin.
pub struct Publisher {
    pub running: FluxRecv,
    public_key: String,
}

/// A publisher of these endpoints, beside an API server.
pub fn publisher(bed: &Bed, endpoints: &str, publish: &str, route: &Route) -> Publisher {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
    start_publisher(folder, kubeconfig, endpoints, publish, &["--subscribe-listen", &route.address])
}

fn start_publisher(
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    endpoints: &str,
    publish: &str,
    arguments: &[&str],
) -> Publisher {
    let signing = folder.path().join("signing.pem");
    let made = flux_recv().args(["keygen", "--ed25519"]).arg(&signing).output().expect("it runs");
    let config = format!(
        "fluxRecvVersion: 1\nendpoints:\n{endpoints}\npublish:\n  signingKeyPaths: [signing.pem]\n{publish}  subscribers:\n  - {{name: \
         cluster, endpoints: ['*'], keyPath: team.key}}\n"
    );
    std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
    let arguments = [&["--shutdown-delay", "0"], arguments].concat();
    let running = FluxRecv::start_in(folder, kubeconfig, &arguments);
    Publisher { running, public_key: stdout(&made).trim().to_owned() }
}

/// A subscriber that patches this API server, once it has caught up.
pub fn subscriber(
    bed: &Bed,
    publisher: &Publisher,
    route: &Route,
    endpoints: &str,
    arguments: &[&str],
) -> FluxRecv {
    bed.install_manifests();
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!(
        "fluxRecvVersion: 1\nsubscribe:\n- name: hub\n  url: http://{}\n  tokenPath: team.key\n  publicKeys: ['{}']\n  endpoints: {{{endpoints}}}\n",
        route.through.as_ref().unwrap_or(&route.address),
        publisher.public_key
    );
    std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
    let arguments = [&["--listen", "none", "--spread", "0"], arguments].concat();
    let mut subscriber = FluxRecv::start_in(folder, kubeconfig, &arguments);
    subscriber.wait_until_synced();
    wait_for("the first catch-up", PATIENCE, || {
        subscriber.process.has_logged("caught up: each object was requested once", &[]).then_some(())
    });
    subscriber
}

impl Fleet {
    fn start(bed: &Bed, publish: &str, route: &Route) -> Fleet {
        Fleet::with_interval(bed, publish, route, MIN_INTERVAL)
    }

    fn with_interval(bed: &Bed, publish: &str, route: &Route, min_interval: Duration) -> Fleet {
        let endpoints = "- {source: GitHub, keyPath: github.key}";
        let arguments = ["--no-cluster", "--subscribe-listen", &route.address];
        let folder = tempfile::tempdir().expect("a folder");
        let publisher =
            start_publisher(folder, PathBuf::from("/nonexistent"), endpoints, publish, &arguments);
        let interval = format!("{}ms", min_interval.as_millis());
        let subscriber = subscriber(bed, &publisher, route, "github: {}", &["--min-interval", &interval]);
        Fleet { publisher: publisher.running, subscriber }
    }

    /// Loads the publisher while `disturb` does its work, then sees to it that nothing was lost.
    fn disturb(&mut self, bed: &Bed, what: &str, disturb: impl FnOnce(&mut Fleet, &mut fastrand::Rng)) {
        let mut random = fastrand::Rng::with_seed(15);
        let (writes, started) = (patches(bed), Instant::now());
        let load = Load::start(bed, &self.publisher);
        disturb(self, &mut random);
        pause(&mut random, 1000);
        let (accepted, _) = load.stop(bed);
        account(bed, what, &accepted, writes);
        // However often events come again, objects are patched once an interval, and each replay once more.
        let intervals = started.elapsed().as_millis() / MIN_INTERVAL.as_millis() + 1;
        let most = 2 * REPOSITORIES * intervals as usize;
        assert!(patches(bed) - writes <= most, "{} writes of at most {most}", patches(bed) - writes);
    }
}

pub fn direct() -> Route {
    Route { address: format!("127.0.0.1:{}", free_port()), through: None }
}

pub fn fault_fleet_publisher_and_subscriber_are_killed(bed: &Bed) {
    prepare(bed);
    let kills = if is_long() { 50 } else { 4 };
    let mut fleet = Fleet::start(bed, "", &direct());
    fleet.disturb(bed, &format!("fleet: {kills} × kill -9 of each side"), |fleet, random| {
        for _ in 0..kills {
            pause(random, 1500);
            fleet.publisher.process.kill();
            pause(random, 300);
            fleet.publisher.start_again();
            pause(random, 1500);
            fleet.subscriber.process.kill();
            pause(random, 300);
            fleet.subscriber.start_again();
        }
    });
}

pub fn fault_fleet_the_subscribers_api_server_is_down(bed: &Bed) {
    prepare(bed);
    let outage = Duration::from_secs(if is_long() { 60 } else { 6 });
    let mut fleet = Fleet::start(bed, "", &direct());
    fleet.disturb(bed, &format!("fleet: API server down for {} s", outage.as_secs()), |fleet, random| {
        pause(random, 1000);
        bed.stop_api_server();
        std::thread::sleep(outage / 2);
        // Without an API server it knows no objects: events wait, in the journal too.
        fleet.subscriber.process.kill();
        fleet.subscriber.start_again();
        std::thread::sleep(outage / 2);
        bed.start_api_server();
    });
}

/// Passes connections on, and cuts all of them whenever it is told.
fn cutting_proxy(to: String, stop: Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        let mut cut_at = Instant::now() + Duration::from_secs(1);
        while !stop.load(Ordering::Relaxed) {
            if let Ok((inbound, _)) = listener.accept()
                && let Ok(outbound) = TcpStream::connect(&to)
            {
                inbound.set_nonblocking(false).expect("a socket");
                for (from, to) in [(&inbound, &outbound), (&outbound, &inbound)] {
                    let (mut from, mut to) =
                        (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.flush();
                    });
                }
                open.extend([inbound, outbound]);
            }
            if Instant::now() >= cut_at {
                open.drain(..).for_each(|stream| drop(stream.shutdown(std::net::Shutdown::Both)));
                cut_at = Instant::now() + Duration::from_secs(1);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    address
}

pub fn fault_fleet_the_connection_is_cut_every_second(bed: &Bed) {
    prepare(bed);
    let stop = Arc::new(AtomicBool::new(false));
    let address = format!("127.0.0.1:{}", free_port());
    let through = Some(cutting_proxy(address.clone(), Arc::clone(&stop)));
    let mut fleet = Fleet::start(bed, "", &Route { address, through });
    fleet.disturb(bed, "fleet: connection cut every second", |_, _| {
        std::thread::sleep(Duration::from_secs(if is_long() { 120 } else { 12 }));
    });
    stop.store(true, Ordering::Relaxed);
}

pub fn fault_fleet_the_log_is_trimmed_and_the_journal_deleted(bed: &Bed) {
    prepare(bed);
    let mut fleet = Fleet::start(bed, "  retention: {entries: 20}\n", &direct());
    let rounds = if is_long() { 10 } else { 2 };
    fleet.disturb(
        bed,
        &format!("fleet: {rounds} × log trimmed, {rounds} × journal deleted"),
        |fleet, random| {
            for _ in 0..rounds {
                fleet.subscriber.process.kill();
                // Some hundred entries, of which the log keeps twenty.
                std::thread::sleep(Duration::from_secs(2));
                fleet.subscriber.start_again();
                pause(random, 3000);
                fleet.subscriber.process.kill();
                std::fs::remove_dir_all(fleet.subscriber.folder.path().join("journal")).expect("a journal");
                fleet.subscriber.start_again();
                pause(random, 3000);
            }
        },
    );
    let resets = "the event log cannot be continued; catching up";
    assert!(
        fleet.subscriber.logged(resets, &[("reason", "first connection")]) > 0,
        "{}",
        fleet.subscriber.log()
    );
}

/// A thousand deliveries about one ref, while the subscriber is away.
pub fn who_was_away_costs_its_api_server_a_handful_of_writes(bed: &Bed) {
    prepare(bed);
    // The default of `--min-interval`.
    let interval = Duration::from_secs(1);
    let mut fleet = Fleet::with_interval(bed, "", &direct(), interval);
    // A kill would leave objects of the first catch-up in the journal, which are requested again: those are
    // no cost of being away.
    assert_eq!(fleet.subscriber.terminate(), Some(0), "{}", fleet.subscriber.log());
    let writes = patches(bed);
    let load = Load::over(bed, &fleet.publisher, 1);
    let accepted = || fleet.publisher.logged("delivery accepted", &[]);
    wait_for("a thousand deliveries", PATIENCE, || (accepted() >= 1000).then_some(()));
    let (accepted, _) = load.stop(bed);
    let back = Instant::now();
    fleet.subscriber.start_again();
    account(bed, "fleet: away for a thousand deliveries", &accepted, writes);
    std::thread::sleep(2 * interval);
    // The object is patched once an interval for as long as the replay takes, and once after it.
    let most = back.elapsed().as_secs() as usize + 2;
    let written = patches(bed) - writes;
    assert!(written <= most, "{written} writes of at most {most}:\n{}", fleet.subscriber.log());
}

/// `example/fleet`, with the tokens that its manifests ask for and the key set of this cluster.
pub fn the_fleet_example_runs_with_the_tokens_that_it_makes(bed: &Bed) {
    bed.install_manifests();
    git_repository(
        bed,
        "apps",
        "fleet-app",
        json!({"url": "https://github.com/example-org/fleet-app", "ref": {"branch": "main"}}),
    );
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("example/fleet");
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&example.join("publisher"), folder.path());
    let public_key = stdout(
        &flux_recv()
            .args(["keygen", "--ed25519"])
            .arg(folder.path().join("signing.pem"))
            .output()
            .expect("it runs"),
    );
    for cluster in ["a", "b"] {
        let key_set = bed.kubectl(&["get", "--raw", "/openid/v1/jwks"]);
        std::fs::write(folder.path().join(format!("cluster-{cluster}.jwks.json")), key_set)
            .expect("a key set");
        let file = folder.path().join(format!("subscriber-{cluster}.yaml"));
        let text = std::fs::read_to_string(&file).expect("a subscriber");
        // Clusters have issuers of their own; this one is called `https://kubernetes`. Here both are one cluster,
        // so their accounts differ.
        let text = text.replace("https://kubernetes.default.svc.cluster.local", "https://kubernetes");
        let account = if cluster == "a" { "flux-system:flux-recv" } else { "flux-system:another" };
        std::fs::write(&file, text.replace("flux-system:flux-recv", account)).expect("a subscriber");
    }
    let address = format!("127.0.0.1:{}", free_port());
    let arguments = ["--no-cluster", "--subscribe-listen", &address];
    let publisher = FluxRecv::start_in(folder, PathBuf::from("/nonexistent"), &arguments);

    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(example.join("subscriber-a/fluxrecv.yaml")).expect("a config");
    let pinned = text.split(['[', ']']).nth(1).expect("a public key").to_owned();
    let token_path = folder.path().join("token");
    let config = text
        .replace("https://subscribe.example.com", &format!("http://{address}"))
        .replace("/var/run/secrets/flux-recv/token", &token_path.display().to_string())
        .replace(&pinned, public_key.trim());
    std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
    let token =
        bed.kubectl(&["create", "token", "flux-recv", "-n", "flux-system", "--audience", "flux-recv"]);
    std::fs::write(&token_path, token).expect("a token");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, bed.kubeconfig(&own_token(bed), "flux-system")).expect("a kubeconfig");
    let mut subscriber = FluxRecv::start_in(folder, kubeconfig, &["--listen", "none"]);
    subscriber.wait_until_synced();
    wait_for("the first catch-up", PATIENCE, || {
        subscriber.process.has_logged("caught up: each object was requested once", &[]).then_some(())
    });
    let path = "/apis/source.toolkit.fluxcd.io/v1/namespaces/apps/gitrepositories/fleet-app";
    let before = wait_for("the catch-up's request", PATIENCE, || requested_at(&bed.get(path)));
    std::thread::sleep(Duration::from_millis(1100));
    let (status, answer) = publisher.push("github", "https://github.com/example-org/fleet-app", "main");
    assert_eq!((status, &answer["published"]), (202, &json!(true)), "{answer}");
    wait_for("the request", PATIENCE, || requested_at(&bed.get(path)).filter(|at| *at != before));
    // A token for somebody else is told so, and one of the API server's own audience is somebody else's.
    std::fs::write(&token_path, own_token(bed)).expect("a token");
    let config = subscriber.config();
    let output = flux_recv().args(["check", "--config", &config, "--kubeconfig", "/nonexistent"]).output();
    let text = stdout(&output.expect("check runs"));
    assert!(text.contains("the token is for another audience; it has to be for flux-recv"), "{text}");
    assert!(!text.contains(&test_key("github")));
}
