//! What becomes of a delivery when JetStream takes its event, and when it does not.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::nats::{NatsServers, nats_server};
use super::common::process::wait_for;
use super::running::{FluxRecv, client, folder, hub_signature, test_key};

/// The RFC 8032 test key.
const SIGNING_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

pub const PATIENCE: Duration = Duration::from_secs(20);

pub const KEPT: &str = "event log does not acknowledge an entry; entries wait in the journal until it does";
pub const PUBLISHED: &str = "entries of the journal are in the event log";
pub const FOLLOWS: &str = "following the event log";
pub const CATCH_UP_TYPE: &str = "io.fluxcd.flux-recv.catch-up.v1";

/// Servers with these further lines of config; none where the suite is skipped.
pub fn servers(count: usize, more: &str) -> Option<NatsServers> {
    let Some(binary) = nats_server() else {
        println!("skipped: nats-server is not built; tests/testbed/build builds it");
        assert!(std::env::var("CI").is_ok_and(|ci| ci != "true") || std::env::var("CI").is_err());
        return None;
    };
    Some(NatsServers::start(binary, count, more))
}

/// A publisher of one endpoint with its log in a stream.
pub struct Publisher {
    pub running: FluxRecv,
}

impl Publisher {
    /// `nats` are the fields of `publish.nats`, `publish` further ones of `publish`.
    pub fn start(nats: &str, publish: &str, arguments: &[&str]) -> Publisher {
        let folder = publisher_folder(nats, publish);
        let all = [&["--no-cluster", "--subscribe-listen", "127.0.0.1:0"], arguments].concat();
        Publisher { running: FluxRecv::in_folder(folder, &all) }
    }

    /// One that follows its log.
    pub fn following(nats: &str) -> Publisher {
        let publisher = Publisher::start(nats, "", &[]);
        publisher.running.wait_for_log(FOLLOWS, &[]);
        publisher
    }

    /// One that connects with the key of a user.
    pub fn of_user(servers: &NatsServers, key: &nkeys::KeyPair) -> Publisher {
        let nats = format!("urls: [{}], replicas: 1, nkeyPath: user.nk", servers.urls());
        let folder = publisher_folder(&nats, "");
        let seed = format!("{}\n", key.seed().expect("a seed"));
        std::fs::write(folder.path().join("user.nk"), seed).expect("a file");
        let arguments = ["--no-cluster", "--subscribe-listen", "127.0.0.1:0"];
        Publisher { running: FluxRecv::in_folder(folder, &arguments) }
    }

    /// Delivers a push with this GUID; gives status, answer and the time that it took.
    pub async fn push(&self, guid: &str) -> (u16, Value, Duration) {
        let body = json!({"ref": "refs/heads/main", "after": "1".repeat(40), "repository": {"clone_url": "https://github.com/org/app"}});
        let body = body.to_string().into_bytes();
        let signature = hub_signature(&test_key("github"), &body);
        let request = client()
            .post(format!("{}{}", self.running.base, self.running.path("github")))
            .header("X-GitHub-Event", "push")
            .header("X-GitHub-Delivery", guid)
            .header("X-Hub-Signature-256", signature);
        let started = Instant::now();
        let response = request.body(body).send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default(), started.elapsed())
    }

    pub async fn pushed(&self) {
        let (status, answer, _) = self.push("some").await;
        assert_eq!(
            (status, &answer["outcome"], &answer["published"]),
            (202, &json!("accepted"), &json!(true))
        );
    }

    pub async fn refuses_streams(&self) {
        let refused = client().get(self.subscribe_url()).bearer_auth(test_key("one")).send().await;
        assert_eq!(refused.expect("an answer").status(), 503);
    }

    pub async fn wait_for_metric(&self, name: &str, value: f64) {
        let started = Instant::now();
        while self.running.metric(name).await != Some(value) {
            assert!(started.elapsed() < PATIENCE, "{name} is not {value}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn subscribe_url(&self) -> String {
        format!("{}/subscribe", self.running.base_of("listening for subscribers").expect("a listener"))
    }
}

pub fn publisher_folder(nats: &str, publish: &str) -> tempfile::TempDir {
    let folder = folder(&format!(
        "fluxRecvVersion: 1\nendpoints:\n- {{source: GitHub, keyPath: github.key}}\npublish:\n  signingKeyPaths: [signing.pem]\n  \
         nats: {{{nats}}}\n{publish}  subscribers:\n  - {{name: one, endpoints: ['*'], keyPath: one.key}}\n"
    ));
    std::fs::write(folder.path().join("signing.pem"), SIGNING_KEY).expect("a key");
    folder
}

/// The number of messages that the stream has, once it has this number.
pub fn messages(servers: &NatsServers, expect: u64) {
    let mut found = None;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        found = servers.stream("flux-recv").and_then(|stream| stream["state"]["messages"].as_u64());
        if found == Some(expect) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{found:?} messages, expected {expect}");
}

// JetStream stores what it gets late, and the journal publishes it again: with the same ID.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_is_published_twice_is_there_once_and_a_redelivery_is_another() {
    let Some(servers) = servers(1, "") else { return };
    let publisher = Publisher::following(&format!("urls: [{}], replicas: 1", servers.urls()));
    publisher.pushed().await;
    messages(&servers, 1);
    servers.signal(0, "-STOP");
    let (status, answer, took) = publisher.push("frozen").await;
    assert_eq!((status, &answer["outcome"]), (202, &json!("accepted")));
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(5), "{took:?}");
    // Nobody waits for what has just failed.
    let (status, _, took) = publisher.push("frozen too").await;
    assert!(status == 202 && took < Duration::from_secs(1), "{status} after {took:?}");
    publisher.running.wait_for_log(KEPT, &[("stream", "flux-recv")]);
    assert_eq!(publisher.running.metric("flux_recv_unpublished_entries").await, Some(2.0));
    servers.signal(0, "-CONT");
    publisher.running.wait_for_log(PUBLISHED, &[]);
    assert_eq!(publisher.running.metric("flux_recv_unpublished_entries").await, Some(0.0));
    messages(&servers, 3);
    // The provider sends one again: it is meant to act again.
    let (status, _, _) = publisher.push("frozen").await;
    assert_eq!(status, 202);
    messages(&servers, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_it_is_503_and_with_one_it_outlives_the_process() {
    let Some(mut servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let without = Publisher::start(&nats, "", &["--journal", "none"]);
    without.running.wait_for_log(FOLLOWS, &[]);
    let mut with = Publisher::following(&nats);
    without.pushed().await;
    servers.kill(0);
    let (status, answer, _) = without.push("a").await;
    assert_eq!((status, &answer["outcome"]), (503, &json!("unavailable")), "{answer}");
    assert_eq!(answer["reason"], "NATS acknowledges no entry, and the journal has no room or is not there");
    let (status, _, _) = with.push("b").await;
    assert_eq!(status, 202);
    with.running.process.kill();
    // Also without a server at the start.
    with.running.start_again();
    let message = "event log is not there; deliveries are accepted into the journal, and subscribers wait";
    with.running.wait_for_log(message, &[("why", "JetStream does not answer: nats: IO error")]);
    let (status, _, _) = with.push("c").await;
    assert_eq!(status, 202);
    assert_eq!(with.running.metric("flux_recv_unpublished_entries").await, Some(2.0));
    assert_eq!(with.running.metric("flux_recv_event_log_available").await, Some(0.0));
    servers.start_again(0);
    with.running.wait_for_log(PUBLISHED, &[("entries", "2")]);
    // What was refused may be there all the same, as what was accepted is.
    let count = servers.stream("flux-recv").and_then(|stream| stream["state"]["messages"].as_u64());
    assert!(matches!(count, Some(3 | 4)), "{count:?}");
    let (status, answer, _) = wait_until_accepted(&without).await;
    assert_eq!(status, 202, "{answer}");
}

async fn wait_until_accepted(publisher: &Publisher) -> (u16, Value, Duration) {
    let started = Instant::now();
    loop {
        let answer = publisher.push("again").await;
        if answer.0 == 202 || started.elapsed() > PATIENCE {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A user of these rights, with the seed of its key.
pub fn user(rights: &str) -> (nkeys::KeyPair, String) {
    let key = nkeys::KeyPair::new_user();
    let user = format!("{{nkey: {}, permissions: {{{rights}}}}}", key.public_key());
    (key, format!("authorization: {{users: [{user}]}}"))
}

/// What docs/multicluster.md says that flux-recv needs.
pub fn documented_rights() -> String {
    let page =
        std::fs::read_to_string(super::running::project().join("docs/multicluster.md")).expect("a page");
    let (_, block) = page.split_once("```text\npublish: ").expect("the rights");
    let (block, _) = block.split_once("```").expect("an end");
    let (publish, subscribe) = block.split_once("subscribe:").expect("subjects to subscribe to");
    let list = |subjects: &str| {
        let quoted: Vec<String> = subjects.split_whitespace().map(|subject| format!("'{subject}'")).collect();
        quoted.join(", ")
    };
    format!("publish: [{}], subscribe: [{}]", list(publish), list(subscribe))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_are_enough_and_without_that_to_publish_entries_wait() {
    let rights = documented_rights();
    let (key, with_rights) = user(&rights);
    let without = with_rights.replace("'flux-recv.events', ", "");
    assert_ne!(with_rights, without);
    let Some(mut servers) = servers(1, &without) else { return };
    let publisher = Publisher::of_user(&servers, &key);
    publisher.running.wait_for_log(FOLLOWS, &[]);
    publisher.pushed().await;
    let lines = publisher.running.log_lines();
    let line = lines.iter().find(|line| line.message() == KEPT).expect("a line");
    assert!(
        line.field("why").contains("Permissions Violation for Publish to \"flux-recv.events\""),
        "{}",
        line.field("why")
    );
    publisher.pushed().await;
    servers.reload(0, |config| config.replace(&without, &with_rights));
    publisher.running.wait_for_log(PUBLISHED, &[("entries", "2")]);
    messages(&servers, 2);
    publisher.pushed().await;
    // Nor does it take others to connect again.
    for restart in 2..5 {
        servers.kill(0);
        servers.start_again(0);
        publisher.running.wait_for_logs("connected to NATS", &[], restart, PATIENCE).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!servers.log(0).contains("Violation"), "{}", servers.log(0));
    }
    assert!(!publisher.running.log().contains(&key.seed().expect("a seed")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_and_one_that_is_deleted_recover_by_themselves() {
    let Some(servers) = servers(1, "") else { return };
    let publisher = Publisher::following(&format!("urls: [{}], replicas: 1", servers.urls()));
    publisher.pushed().await;
    let context =
        async_nats::jetstream::new(async_nats::connect(servers.urls()).await.expect("a connection"));
    let mut stream = context.get_stream("flux-recv").await.expect("a stream");
    let good = stream.info().await.expect("its config").config.clone();
    let mut full = good.clone();
    (full.max_messages, full.discard) = (1, async_nats::jetstream::stream::DiscardPolicy::New);
    context.update_stream(full).await.expect("an update");
    publisher.pushed().await;
    let lines = publisher.running.log_lines();
    let line = lines.iter().find(|line| line.message() == KEPT).expect("a line");
    assert!(line.field("why").starts_with("maximum messages exceeded"), "{}", line.field("why"));
    wait_for("the difference to be named", PATIENCE, || {
        let why =
            "the stream `flux-recv` is another one than the config says: discard is New there and Old here";
        let lines = publisher.running.log_lines();
        lines.iter().any(|line| line.field("why").starts_with(why)).then_some(())
    });
    context.update_stream(good).await.expect("an update");
    publisher.running.wait_for_log(PUBLISHED, &[("entries", "1")]);
    publisher.running.wait_for_logs(FOLLOWS, &[], 2, PATIENCE).await;
    let mut connected = super::replicas::Stream::connect(&publisher, None).await;
    let (_, before) = connected.next().await;

    context.delete_stream("flux-recv").await.expect("it goes");
    publisher.pushed().await;
    publisher.running.wait_for_logs("made the stream of the event log", &[], 2, PATIENCE).await;
    messages(&servers, 1);
    publisher.running.wait_for_log("the stream was made anew; subscribers catch up", &[]);
    connected.ended().await;
    publisher.running.wait_for_logs(FOLLOWS, &[], 3, PATIENCE).await;
    let mut again = super::replicas::Stream::connect(&publisher, Some(&before)).await;
    assert_eq!(again.next().await.0, "hello");
    let (name, data) = again.next().await;
    assert!(name == "reset" && data.contains("the event log is another one"), "{name} {data}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_stream_takes_is_not_published() {
    let Some(servers) = servers(1, "") else { return };
    let context =
        async_nats::jetstream::new(async_nats::connect(servers.urls()).await.expect("a connection"));
    let other = async_nats::jetstream::stream::Config {
        name: "other".to_owned(),
        subjects: vec!["flux-recv.>".to_owned()],
        ..Default::default()
    };
    context.create_stream(other).await.expect("a stream");
    let publisher = Publisher::start(&format!("urls: [{}], replicas: 1", servers.urls()), "", &[]);
    publisher.pushed().await;
    assert_eq!(publisher.running.metric("flux_recv_unpublished_entries").await, Some(1.0));
    let lines = publisher.running.log_lines();
    assert!(lines.iter().any(|line| line.field("why").contains("overlap")), "{}", publisher.running.log());
    context.delete_stream("other").await.expect("it goes");
    publisher.running.wait_for_log(PUBLISHED, &[("entries", "1")]);
    messages(&servers, 1);
}
