//! What an event log in NATS JetStream costs, beside a bare publisher and beside the log in the journal.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::fleet_rows::answer_to_patch;
use super::load::{SHORT, requests_of, run_over};
use super::nats::{NatsServers, nats_server};
use super::server::{Fleet, SERVER_CORE};
use super::table::{Must, Row, median};

/// Rounds of each side, in turns.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);

/// Entries on their way at a time: enough for JetStream to have work while others are between client and receiver.
const IN_FLIGHT: usize = 256;

/// Bytes of an entry of a short push.
const ENTRY_BYTES: usize = 600;

const REPOSITORIES: usize = 64;

pub fn nats() -> Vec<Row> {
    let Some(binary) = nats_server() else {
        println!("nats: skipped, tests/testbed/build builds nats-server");
        return Vec::new();
    };
    let mut rows = vec![acknowledged(&binary)];
    rows.extend(to_the_patch(&binary));
    rows
}

fn publish_nats(servers: &NatsServers) -> String {
    format!("  nats: {{urls: [{}], replicas: 1}}\n", servers.urls())
}

/// Events that are acknowledged in a second, over connections that each wait for their answer.
fn acknowledged(binary: &std::path::Path) -> Row {
    let servers = NatsServers::start(binary.to_owned(), 1, "");
    let fleet = Fleet::start_with(1, &publish_nats(&servers));
    let requests = requests_of(SHORT, &fleet.publisher.path(), REPOSITORIES, false);
    let mut bare = BarePublisher::start(&servers.urls());
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let round =
            run_over(IN_FLIGHT, false, &fleet.publisher, &requests, 202, |_, elapsed| elapsed >= ROUND);
        let bare = bare.round();
        ratios.push(round.per_second() / bare);
        ours.push(round.per_second());
        theirs.push(bare);
    }
    let figures = format!("{:.0}/s : {:.0}/s", median(ours), median(theirs));
    println!("events acknowledged, flux-recv : bare publisher: {figures}");
    Row {
        what: "events acknowledged by JetStream, flux-recv : bare publisher",
        figures,
        value: median(ratios),
        must: Must::AtLeast(0.8),
    }
}

/// From the answer to the patch, with either log.
fn to_the_patch(binary: &std::path::Path) -> Vec<Row> {
    let journal = answer_to_patch(&Fleet::start(100));
    let servers = NatsServers::start(binary.to_owned(), 1, "");
    let stream = answer_to_patch(&Fleet::start_with(100, &publish_nats(&servers)));
    let figures = format!("{:.1} ms : {:.1} ms", stream.0, journal.0);
    println!("from the answer to the patch, median, JetStream : journal: {figures}");
    vec![Row {
        what: "ms from the answer to a subscriber's patch that JetStream adds, median, 100 subscribers",
        figures,
        value: stream.0 - journal.0,
        must: Must::AtMost(20.0),
    }]
}

/// The bench itself, publishing to the same server on the core of what is measured.
struct BarePublisher {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl BarePublisher {
    fn start(url: &str) -> BarePublisher {
        let own: PathBuf = std::env::current_exe().expect("the bench's own path");
        let mut child = Command::new("taskset")
            .args(["-c", SERVER_CORE])
            .arg(own)
            .args(["publish-bare", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("taskset runs");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        BarePublisher { child, out }
    }

    /// Publishes for a round; gives the acknowledgements of a second.
    fn round(&mut self) -> f64 {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"go\n").expect("a line");
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line.trim().parse().expect("a number")
    }
}

impl Drop for BarePublisher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes for as long as a round takes, for each line that it is told; tells how many a second were acknowledged.
pub fn publish_bare(url: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(url).await.expect("a connection");
        let context = async_nats::jetstream::new(client);
        for _ in std::io::stdin().lines() {
            let (started, count) = (Instant::now(), Arc::new(AtomicU64::new(0)));
            let publishers = (0..IN_FLIGHT).map(|_| {
                let (context, count) = (context.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    while started.elapsed() < ROUND {
                        let mut headers = async_nats::HeaderMap::new();
                        headers.insert("Nats-Msg-Id", format!("{:032x}", fastrand::u128(..)).as_str());
                        let payload = vec![b'x'; ENTRY_BYTES].into();
                        let sent = context.publish_with_headers("flux-recv.events", headers, payload).await;
                        sent.expect("it is sent").await.expect("an acknowledgement");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            for publisher in publishers.collect::<Vec<_>>() {
                publisher.await.expect("no panic");
            }
            println!("{}", count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64());
        }
    });
}
