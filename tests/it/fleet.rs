//! Publishers and subscribers, through the binary: each promise with its test, and what strangers try.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use flux_recv::internals::fleet::{
    Cursor, FrameType, Hello, OfferedEndpoint, Reset, SigningKey, WIRE_VERSION, write,
};
use futures::StreamExt;
use serde_json::{Value, json};

use super::common::process::{free_port, wait_for};
use super::google::{header, key_set, now, token};
use super::running::{FluxRecv, client, flux_recv, folder, hub_signature, stdout, test_key, write_config};

const DRY_RUN: &str = "reconciliation would be requested (dry run)";

/// The trace of every push here.
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Long enough for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The RFC 8032 test key, so that the test can sign as a publisher.
pub(super) const SIGNING_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

fn signing_key() -> SigningKey {
    SigningKey::from_pem(SIGNING_KEY.as_bytes()).expect("a key")
}

/// A publisher with a port of its own for subscribers, so that it can start again.
pub(super) struct Publisher {
    pub(super) running: FluxRecv,
    pub(super) url: String,
}

impl Publisher {
    /// Serves one endpoint of GitHub's, with this `publish`.
    pub(super) fn start(publish: &str) -> Publisher {
        Publisher::with_endpoints("- {source: GitHub, keyPath: github.key}", publish, &[])
    }

    pub(super) fn with_endpoints(endpoints: &str, publish: &str, arguments: &[&str]) -> Publisher {
        let folder = folder(&publisher_config(endpoints, publish));
        std::fs::write(folder.path().join("signing.pem"), SIGNING_KEY).expect("a key");
        std::fs::write(folder.path().join("jwks.json"), key_set().to_string()).expect("a key set");
        let address = format!("127.0.0.1:{}", free_port());
        let environment =
            [("FLUX_RECV_SUBSCRIBE_LISTEN", address.as_str()), ("FLUX_RECV_NO_CLUSTER", "true")];
        let running = FluxRecv::with_environment(folder, arguments, &environment);
        Publisher { running, url: format!("http://{address}") }
    }

    pub(super) fn change(&self, publish: &str) {
        write_config(
            self.running.folder.path(),
            &publisher_config("- {source: GitHub, keyPath: github.key}", publish),
        );
        self.running.signal("-HUP");
    }

    async fn push(&self, repository: &str, branch: &str) -> (u16, Value) {
        self.push_as(&test_key("github"), repository, branch).await
    }

    async fn push_as(&self, key: &str, repository: &str, branch: &str) -> (u16, Value) {
        let body = json!({
            "ref": format!("refs/heads/{branch}"), "after": "1".repeat(40), "pusher": {"name": "ann", "email": "not-for-the-wire"},
            "repository": {"clone_url": repository},
        });
        self.deliver(&self.running.path("github"), key, "push", &body).await
    }

    /// Delivers what GitHub sends of an event.
    pub(super) async fn deliver(&self, path: &str, key: &str, event: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string().into_bytes();
        let signature = hub_signature(key, &body);
        let request = client()
            .post(format!("{}{path}", self.running.base))
            .header("X-GitHub-Event", event)
            .header("X-Hub-Signature-256", signature)
            .header("traceparent", TRACE);
        let response = request.body(body).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    async fn entries(&self) -> f64 {
        self.running.metric("flux_recv_event_log_entries").await.expect("a metric")
    }
}

fn publisher_config(endpoints: &str, publish: &str) -> String {
    format!(
        "fluxRecvVersion: 1\nendpoints:\n{endpoints}\npublish:\n  signingKeyPaths: [signing.pem]\n{publish}"
    )
}

/// Two subscribers with a key each.
const TWO: &str = "  subscribers:
  - {name: one, endpoints: ['*'], keyPath: one.key}
  - {name: two, endpoints: [github], keyPath: two.key}
";

fn subscription(url: &str, name: &str, more: &str) -> String {
    let public_key = signing_key().public_key();
    format!(
        "fluxRecvVersion: 1\nsubscribe:\n- name: hub\n  url: {url}\n  tokenPath: {name}.token\n  publicKeys: ['{public_key}']\n{more}"
    )
}

const ALL_OF_GITHUB: &str = "  endpoints: {github: {}}\n";

/// An object that tracks a branch of a repository.
fn object(name: &str, branch: &str) -> String {
    format!(
        "---\napiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: {name}, namespace: apps}}\n\
         spec: {{url: https://github.com/org/{name}, ref: {{branch: {branch}}}}}\n"
    )
}

/// A subscriber over manifests, with the key of this name as its token.
fn subscriber(config: &str, name: &str, objects: &str) -> FluxRecv {
    subscriber_with_token(config, name, &test_key(name), objects)
}

fn subscriber_with_token(config: &str, name: &str, token: &str, objects: &str) -> FluxRecv {
    let folder = folder(config);
    std::fs::write(folder.path().join(format!("{name}.token")), token).expect("a token");
    let manifests = folder.path().join("objects");
    std::fs::create_dir(&manifests).expect("a folder");
    std::fs::write(manifests.join("objects.yaml"), objects).expect("objects");
    let manifests = manifests.display().to_string();
    FluxRecv::with_environment(folder, &["--manifests", &manifests], &[("FLUX_RECV_LISTEN", "none")])
}

fn connected(subscriber: &FluxRecv) {
    wait_for("the subscriber to be connected", PATIENCE, || {
        (subscriber.logged("connected to the publisher", &[]) > 0).then_some(())
    });
}

/// The requests for an object since the process started.
fn requests(subscriber: &FluxRecv, object: &str) -> usize {
    subscriber.logged(DRY_RUN, &[("object", &format!("GitRepository/apps/{object}"))])
}

async fn requested(subscriber: &FluxRecv, object: &str, times: usize) {
    let target = format!("GitRepository/apps/{object}");
    subscriber.wait_for_logs(DRY_RUN, &[("object", &target)], times, PATIENCE).await;
}

const REPOSITORY: &str = "https://github.com/org/app";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_reaches_exactly_those_that_track_it() {
    let publisher = Publisher::start(TWO);
    let one = subscriber(&subscription(&publisher.url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
    let narrowed = "  endpoints:\n    github: {refs: [release]}\n";
    let two = subscriber(&subscription(&publisher.url, "two", narrowed), "two", &object("app", "main"));
    connected(&one);
    connected(&two);
    // Both catch up once: nobody knows what came before.
    requested(&one, "app", 1).await;
    requested(&two, "app", 1).await;
    let (status, answer) = publisher.push(REPOSITORY, "main").await;
    assert_eq!((status, &answer["outcome"], &answer["published"]), (202, &json!("accepted"), &json!(true)));
    requested(&one, "app", 2).await;
    // The other one has got it as well, and lets it be.
    let (status, _) = publisher.push(REPOSITORY, "release").await;
    assert_eq!(status, 202);
    wait_for("the head to arrive", PATIENCE, || {
        let page =
            stdout(&flux_recv().args(["subscribers", "--instance", &two.debug()]).output().expect("it runs"));
        page.contains(".2").then_some(())
    });
    assert_eq!((requests(&one, "app"), requests(&two, "app")), (2, 1));
}

// A thousand deliveries about one ref cost a subscriber that was away a handful of writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_continues_and_requests_once() {
    let publisher = Publisher::start(TWO);
    let config = subscription(&publisher.url, "one", ALL_OF_GITHUB);
    let mut one = subscriber(&config, "one", &object("app", "main"));
    requested(&one, "app", 1).await;
    one.process.kill();
    let pushes = futures::stream::iter(0..1000).map(|_| publisher.push(REPOSITORY, "main"));
    let statuses: Vec<u16> = pushes.buffer_unordered(50).map(|(status, _)| status).collect().await;
    assert!(statuses.iter().all(|status| *status == 202), "{statuses:?}");
    one.start_again();
    requested(&one, "app", 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(requests(&one, "app") <= 10, "{}", requests(&one, "app"));
    assert_eq!(one.logged("the event log cannot be continued; catching up", &[]), 0, "{}", one.log());
}

// What the log no longer has is caught up with: each object once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trimmed_log_leads_to_one_catch_up() {
    let publish = format!("  retention: {{entries: 5}}\n{TWO}");
    let publisher = Publisher::start(&publish);
    let config = subscription(&publisher.url, "one", ALL_OF_GITHUB);
    let objects = [object("app", "main"), object("other", "main")].concat();
    let mut one = subscriber(&config, "one", &objects);
    requested(&one, "other", 1).await;
    one.process.kill();
    for _ in 0..10 {
        assert_eq!(publisher.push(REPOSITORY, "main").await.0, 202);
    }
    assert_eq!(publisher.entries().await, 5.0);
    one.start_again();
    one.wait_for_log("caught up: each object was requested once", &[("objects", "2")]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let reason = [("reason", "the event log does not go back that far")];
    assert_eq!(one.logged("the event log cannot be continued; catching up", &reason), 1, "{}", one.log());
    // One more where the journal still held a request of the process that was killed.
    assert!(
        (1..=2).contains(&requests(&one, "app")) && (1..=2).contains(&requests(&one, "other")),
        "{}",
        one.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_is_gone_costs_its_webhooks_and_nothing_else() {
    let mut publisher = Publisher::start(TWO);
    let one = subscriber(&subscription(&publisher.url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
    requested(&one, "app", 1).await;
    publisher.running.process.kill();
    let (status, page) = wait_for_async(async || {
        let (status, page) = one.get_admin("/readyz").await;
        page.contains("not connected").then_some((status, page))
    })
    .await;
    assert_eq!(status, 200, "ready all the same: {page}");
    assert!(page.contains("publisher hub: not connected"), "{page}");
    publisher.running.start_again();
    assert_eq!(publisher.push(REPOSITORY, "main").await.0, 202);
    requested(&one, "app", 2).await;
    assert_eq!(one.logged("the event log cannot be continued; catching up", &[]), 1, "the first one alone");
    assert_eq!(one.metric("flux_recv_subscribe_connected{publisher=\"hub\"}").await, Some(1.0));
}

async fn wait_for_async<T>(mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The answer to a request to subscribe: its status and what comes of the body within a second.
async fn subscribe(url: &str, authorization: Option<&str>) -> (u16, String) {
    let mut request = client().get(format!("{url}/subscribe"));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let mut response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let mut body = String::new();
    let until = tokio::time::Instant::now() + Duration::from_secs(1);
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout_at(until, response.chunk()).await {
        body.push_str(&String::from_utf8_lossy(&chunk));
    }
    (status, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_forgeries_reach_nobody() {
    let publisher = Publisher::start(TWO);
    for authorization in [
        None,
        Some("Bearer "),
        Some("Bearer wrong"),
        Some("Basic test"),
        Some(&*format!(
            "Bearer {}",
            token(&header(), &json!({"iss": "https://other.example.com", "exp": now() + 60}))
        )),
    ] {
        assert_eq!(subscribe(&publisher.url, authorization).await, (401, String::new()), "{authorization:?}");
    }
    assert_eq!(publisher.running.metric("flux_recv_subscriber_strangers").await, Some(5.0));
    assert_eq!(client().get(&publisher.url).send().await.expect("an answer").status(), 404);
    let (status, _) = publisher.push_as("another-key", REPOSITORY, "main").await;
    assert_eq!(status, 401);
    assert_eq!(publisher.entries().await, 0.0);
    let (status, stream) = subscribe(&publisher.url, Some(&format!("Bearer {}", test_key("one")))).await;
    assert_eq!(status, 200);
    assert!(
        stream.starts_with("id: ") && stream.contains("event: hello\n") && stream.contains("event: reset\n"),
        "{stream}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_on_the_wire_was_not_named() {
    let endpoints = "- {source: GitHub, keyPath: github.key, forward: [req.pusher.name]}";
    let publisher = Publisher::with_endpoints(endpoints, TWO, &[]);
    let filtered = "  endpoints:\n    github: {filter: \"req.pusher.name == 'ann'\"}\n";
    let one = subscriber(&subscription(&publisher.url, "one", filtered), "one", &object("app", "main"));
    requested(&one, "app", 1).await;
    let bearer = format!("Bearer {}", test_key("two"));
    let listening = tokio::spawn({
        let url = publisher.url.clone();
        async move { subscribe(&url, Some(&bearer)).await.1 }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(publisher.push(REPOSITORY, "main").await.0, 202);
    requested(&one, "app", 2).await;
    let stream = listening.await.expect("a stream");
    assert!(stream.contains("event: event\n") && stream.contains("\"req.pusher.name\":\"ann\""), "{stream}");
    assert!(stream.contains(&format!("\"traceparent\":\"{TRACE}\"")), "{stream}");
    one.wait_for_log("event received from the publisher", &[("trace", TRACE)]);
    for secret in ["not-for-the-wire", "sha256=", "/hook/", "test-key", "x-github-event"] {
        assert!(!stream.to_lowercase().contains(secret), "{secret} in {stream}");
    }
    // A filter over a field that never comes is a mistake, and not false.
    let reads_more = "  endpoints:\n    github: {filter: \"req.pusher.email != ''\"}\n";
    let two = subscriber(&subscription(&publisher.url, "two", reads_more), "two", &object("app", "main"));
    let why = "endpoint github: a filter reads req.pusher.email, which the publisher does not forward; add it to `forward` of its \
               endpoint";
    two.wait_for_log("publisher cannot be followed, retrying", &[("why", why)]);
    assert_eq!(requests(&two, "app"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_is_removed_or_gets_another_key_is_cut_off_at_once() {
    let publisher = Publisher::start(TWO);
    let one = subscriber(&subscription(&publisher.url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
    let two = subscriber(&subscription(&publisher.url, "two", ALL_OF_GITHUB), "two", &object("app", "main"));
    connected(&one);
    connected(&two);
    publisher.change("  subscribers:\n  - {name: two, endpoints: [github], keyPath: two.key}\n");
    publisher.running.wait_for_log("config reloaded", &[]);
    let reloaded = Instant::now();
    wait_for("the stream to end", PATIENCE, || {
        (publisher.running.logged("subscriber disconnected", &[("subscriber", "one")]) > 0).then_some(())
    });
    assert!(reloaded.elapsed() < Duration::from_secs(1), "{:?}", reloaded.elapsed());
    let why = [("why", "*does not know the token; compare the key*")];
    one.wait_for_log("publisher cannot be followed, retrying", &why);
    assert_eq!(publisher.running.logged("subscriber disconnected", &[("subscriber", "two")]), 0);
    // `publish` itself needs a restart to go.
    let folder = publisher.running.folder.path();
    write_config(folder, "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key}\n");
    publisher.running.signal("-HUP");
    publisher
        .running
        .wait_for_log("config mistake", &[("mistake", "*publish: cannot come or go while serving*")]);
}

const TOKENS: &str = "  subscribers:
  - name: cluster
    endpoints: ['*']
    oidc:
      issuerURL: https://kubernetes.default.svc.cluster.local
      audience: hooks.example.com
      subject: system:serviceaccount:flux-system:flux-recv
      jwksPath: jwks.json
";

fn cluster_claims() -> Value {
    json!({
        "iss": "https://kubernetes.default.svc.cluster.local", "aud": ["hooks.example.com"],
        "sub": "system:serviceaccount:flux-system:flux-recv", "iat": now(), "exp": now() + 300,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_cluster_are_checked_against_its_keys() {
    let publisher = Publisher::start(TOKENS);
    let answer = async |change: &dyn Fn(&mut Value)| {
        let mut claims = cluster_claims();
        change(&mut claims);
        subscribe(&publisher.url, Some(&format!("Bearer {}", token(&header(), &claims)))).await
    };
    assert_eq!(answer(&|_| {}).await.0, 200);
    for (change, why) in [
        (&(|claims: &mut Value| claims["aud"] = json!("other")) as &dyn Fn(&mut Value), "hooks.example.com"),
        (&|claims: &mut Value| claims["exp"] = json!(now() - 5), "expired"),
        (&|claims: &mut Value| claims["nbf"] = json!(now() + 3600), "not valid yet"),
        (&|claims: &mut Value| claims["sub"] = json!("system:serviceaccount:other:other"), "`sub`"),
    ] {
        let (status, body) = answer(change).await;
        assert!(status == 403 && body.contains(why), "{status} {body} for {why}");
    }
    // Signed by nobody whom the config names.
    let mut forged = token(&header(), &cluster_claims());
    let last = if forged.ends_with('A') { 'B' } else { 'A' };
    forged.replace_range(20..21, &last.to_string());
    assert_eq!(subscribe(&publisher.url, Some(&format!("Bearer {forged}"))).await, (401, String::new()));
    let unsigned = json!({"alg": "none", "kid": "test-1"});
    assert_eq!(
        subscribe(&publisher.url, Some(&format!("Bearer {}", token(&unsigned, &cluster_claims())))).await.0,
        401
    );
    // The stream ends with its token.
    let mut claims = cluster_claims();
    claims["exp"] = json!(now() + 3);
    let started = Instant::now();
    let request = client().get(format!("{}/subscribe", publisher.url));
    let response =
        request.header("Authorization", format!("Bearer {}", token(&header(), &claims))).send().await;
    let body = response.expect("an answer").text().await.expect("the end of the stream");
    assert!(
        body.contains("event: hello") && started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_delays_nobody() {
    let publisher = Publisher::start(TWO);
    let one = subscriber(&subscription(&publisher.url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
    requested(&one, "app", 1).await;
    let address = publisher.url.trim_start_matches("http://");
    let stuck: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            let head = format!(
                "GET /subscribe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
                test_key("two")
            );
            stream.write_all(head.as_bytes()).expect("a request");
            stream
        })
        .collect();
    let long = "x".repeat(400);
    for number in 0..300 {
        let (status, _) = publisher.push(&format!("https://github.com/org/{long}-{number}"), "main").await;
        assert_eq!(status, 202);
    }
    publisher.push(REPOSITORY, "main").await;
    let sent = Instant::now();
    requested(&one, "app", 2).await;
    assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    drop(stuck);
}

/// A publisher made by the test: it signs with the right key, and says what it likes.
fn fake_publisher(frames: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().take(50) {
            let mut stream = stream.expect("a connection");
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let nonce =
                head.split("flux-recv-nonce: ").nth(1).and_then(|rest| rest.split('\r').next()).unwrap_or("");
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{}", frames(nonce));
            let _ = stream.write_all(answer.as_bytes());
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    url
}

fn at(sequence: u64) -> Cursor {
    Cursor { epoch: 5, sequence }
}

fn hello(nonce: &str, wire_version: u32) -> String {
    hello_with(nonce, wire_version, &[])
}

fn hello_offering(nonce: &str, forward: &[&str]) -> String {
    hello_with(nonce, WIRE_VERSION, forward)
}

fn hello_with(nonce: &str, wire_version: u32, forward: &[&str]) -> String {
    let forward = forward.iter().map(|path| (*path).to_owned()).collect();
    let offered = OfferedEndpoint { source: "GitHub".to_owned(), forward };
    let hello = Hello {
        nonce: nonce.to_owned(),
        flux_recv: "9.9.9".to_owned(),
        wire_version,
        subscriber: "one".to_owned(),
        endpoints: BTreeMap::from([("github".to_owned(), offered)]),
        stagger_millis: 0,
    };
    write(&signing_key(), FrameType::Hello, at(1), &serde_json::to_string(&hello).expect("JSON"))
}

fn reset(nonce: &str) -> String {
    let reset = Reset { nonce: nonce.to_owned(), reason: "a test".to_owned() };
    write(&signing_key(), FrameType::Reset, at(1), &serde_json::to_string(&reset).expect("JSON"))
}

/// An entry as a publisher writes it.
fn event(sequence: u64, repository: &str) -> String {
    let entry = json!({
        "specversion": "1.0", "id": "1", "source": "/endpoints/github", "type": "io.fluxcd.flux-recv.event.v1", "time": "2026-01-01T00:00:00Z",
        "data": {"endpoint": "github", "provider": "GitHub", "eventType": "push", "git": {"urls": [repository], "refs": [{"name": "refs/heads/main"}]}},
    });
    write(&signing_key(), FrameType::Event, at(sequence), &entry.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_pinned_key_has_signed_for_this_stream_is_not_taken() {
    let cannot = "publisher cannot be followed, retrying";
    for (frames, why) in [
        (
            Box::new(|nonce: &str| hello(nonce, WIRE_VERSION).replace("9.9.9", "9.9.8"))
                as Box<dyn Fn(&str) -> String + Send>,
            "*no pinned public key has signed this*",
        ),
        (Box::new(|_: &str| hello("an-older-nonce", WIRE_VERSION)), "*somebody has replayed an older one*"),
        (
            Box::new(|nonce: &str| hello(nonce, WIRE_VERSION) + &reset("an-older-nonce")),
            "*somebody has replayed an older one*",
        ),
        (Box::new(|nonce: &str| hello(nonce, WIRE_VERSION + 1)), "*upgrade this instance*"),
        (Box::new(|_: &str| "<html>".to_owned() + "\n"), "*not a stream of flux-recv*"),
    ] {
        let url = fake_publisher(frames);
        let one = subscriber(&subscription(&url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
        one.wait_for_log(cannot, &[("why", why)]);
        assert_eq!(requests(&one, "app"), 0, "{why}");
    }
}

// A replayed event costs nothing and moves no cursor back; one of another log is passed over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_event_is_passed_over() {
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let url = fake_publisher(move |nonce| {
        let heartbeat = |cursor| write(&signing_key(), FrameType::Heartbeat, cursor, "{}");
        let entry = |sequence| event(sequence, REPOSITORY);
        let begin = match is_first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            true => hello(nonce, WIRE_VERSION) + &reset(nonce),
            false => hello(nonce, WIRE_VERSION),
        };
        let another_log = heartbeat(Cursor { epoch: 6, sequence: 99 });
        [begin, entry(5), entry(5), entry(2), heartbeat(at(7)), heartbeat(at(3)), entry(6), another_log]
            .concat()
    });
    let one = subscriber(&subscription(&url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
    one.wait_for_log("event received from the publisher", &[]);
    wait_for("another connection", PATIENCE, || {
        (one.logged("connected to the publisher", &[]) > 1).then_some(())
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let page = client().get(format!("{}/subscribers", one.debug())).send().await.expect("a page");
    let page: Value = page.json().await.expect("JSON");
    assert_eq!(page["publishers"][0]["cursor"], json!(at(7).to_string()), "{page}");
    assert_eq!(one.logged("event received from the publisher", &[]), 1, "{}", one.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_cannot_be_read_leads_to_a_catch_up_and_never_to_a_stop() {
    let url = fake_publisher(|nonce| {
        let newer = write(
            &signing_key(),
            FrameType::Event,
            at(2),
            "{\"type\":\"io.fluxcd.flux-recv.event.v9\",\"specversion\":\"1.0\",\"id\":\"x\",\"source\":\"/\",\"time\":\"x\",\"data\":{}}",
        );
        hello(nonce, WIRE_VERSION) + &reset(nonce) + &newer + &event(3, REPOSITORY)
    });
    let one = subscriber(&subscription(&url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
    one.wait_for_log("an entry cannot be read; catching up", &[("why", "*is the publisher newer?*")]);
    one.wait_for_log("event received from the publisher", &[("outcome", "accepted")]);
    requested(&one, "app", 1).await;
}

#[tokio::test]
async fn check_says_on_either_side_who_is_connected_or_why_not() {
    let publisher = Publisher::start(TWO);
    let check = |subscriber: &tempfile::TempDir| {
        let config = subscriber.path().join("fluxrecv.yaml");
        let output = flux_recv()
            .args(["check", "--config"])
            .arg(config)
            .args(["--kubeconfig", "/nonexistent"])
            .output();
        stdout(&output.expect("it runs"))
    };
    let prepared = |config: &str, token: &str| {
        let folder = folder(config);
        std::fs::write(folder.path().join("one.token"), token).expect("a token");
        folder
    };
    let good = prepared(&subscription(&publisher.url, "one", ALL_OF_GITHUB), &test_key("one"));
    let text = check(&good);
    assert!(text.contains("hub: connected as subscriber one to flux-recv 0.1.0; offers github"), "{text}");
    let wrong = prepared(&subscription(&publisher.url, "one", ALL_OF_GITHUB), "another");
    assert!(
        check(&wrong).contains("NOT CONNECTED: the publisher does not know the token"),
        "{}",
        check(&wrong)
    );
    let not_offered =
        prepared(&subscription(&publisher.url, "one", "  endpoints: {gitlab: {}}\n"), &test_key("one"));
    assert!(check(&not_offered).contains("endpoint gitlab is not offered"), "{}", check(&not_offered));
    let other_key = subscription(&publisher.url, "one", ALL_OF_GITHUB)
        .replace(&signing_key().public_key().to_string(), &format!("{}=", "A".repeat(43)));
    assert!(check(&prepared(&other_key, &test_key("one"))).contains("no pinned public key has signed this"));
    let nobody = prepared(&subscription("http://127.0.0.1:1", "one", ALL_OF_GITHUB), &test_key("one"));
    assert!(check(&nobody).contains("cannot be reached"), "{}", check(&nobody));
    let no_stream = prepared(&subscription(&publisher.running.base, "one", ALL_OF_GITHUB), &test_key("one"));
    assert!(check(&no_stream).contains("answers with 404 instead of a stream"), "{}", check(&no_stream));
    let output = publisher.running.command(&["check", "--no-cluster"]);
    assert!(
        stdout(&output)
            .contains(&format!("public key for `publicKeys` of subscribers: {}", signing_key().public_key()))
    );
    let running = publisher.running.command(&[
        "check",
        "--kubeconfig",
        "/nonexistent",
        "--instance",
        &publisher.running.debug(),
    ]);
    assert!(stdout(&running).contains("two         never connected since the start"), "{}", stdout(&running));
}

#[test]
fn a_publisher_needs_a_journal_of_its_own() {
    let publisher = Publisher::start(TWO);
    let folder = publisher.running.folder.path();
    let start = |journal: &str| {
        let mut command = flux_recv();
        command
            .arg("--config")
            .arg(folder.join("fluxrecv.yaml"))
            .arg("--no-cluster")
            .args(["--journal", journal]);
        command.args(["--listen", "127.0.0.1:0", "--subscribe-listen", "127.0.0.1:0"]);
        String::from_utf8_lossy(&command.output().expect("it runs").stderr).into_owned()
    };
    assert!(start("none").contains("`publish` keeps its event log in the journal"));
    let second = start(&folder.join("journal").display().to_string());
    assert!(
        second.contains("a publisher is one process") && second.contains("in use by another process"),
        "{second}"
    );
}

// What providers were refused meanwhile they do not send again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_was_away_makes_everybody_catch_up() {
    let endpoints = "- {source: GitHub, keyPath: github.key}";
    let mut publisher = Publisher::with_endpoints(endpoints, TWO, &["--catch-up-after", "6s"]);
    let one = subscriber(&subscription(&publisher.url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
    requested(&one, "app", 1).await;
    // A restart is not an absence.
    tokio::time::sleep(Duration::from_secs(2)).await;
    publisher.running.process.kill();
    publisher.running.start_again();
    assert_eq!(publisher.push(REPOSITORY, "main").await.0, 202);
    requested(&one, "app", 2).await;
    assert_eq!(one.logged("the publisher was away; catching up", &[]), 0, "{}", one.log());
    tokio::time::sleep(Duration::from_secs(2)).await;
    publisher.running.process.kill();
    tokio::time::sleep(Duration::from_secs(9)).await;
    publisher.running.start_again();
    // The subscriber pauses for up to a minute while nobody answers.
    one.wait_for_logs("the publisher was away; catching up", &[], 1, Duration::from_secs(80)).await;
    requested(&one, "app", 3).await;
    assert_eq!(
        one.logged("the event log cannot be continued; catching up", &[]),
        1,
        "the first connection alone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forwarded_is_offered_anew_when_it_changes() {
    let publisher = Publisher::start(TWO);
    let filtered = "  endpoints:\n    github: {filter: \"req.pusher.name == 'ann'\"}\n";
    let one = subscriber(&subscription(&publisher.url, "one", filtered), "one", &object("app", "main"));
    let two = subscriber(&subscription(&publisher.url, "two", ALL_OF_GITHUB), "two", &object("app", "main"));
    connected(&two);
    one.wait_for_log("publisher cannot be followed, retrying", &[("why", "*does not forward*")]);
    let endpoints = "- {source: GitHub, keyPath: github.key, forward: [req.pusher.name]}";
    write_config(publisher.running.folder.path(), &publisher_config(endpoints, TWO));
    publisher.running.signal("-HUP");
    wait_for("the stream to be renewed", PATIENCE, || {
        (two.logged("connected to the publisher", &[]) > 1).then_some(())
    });
    connected(&one);
    requested(&one, "app", 1).await;
    assert_eq!(publisher.push(REPOSITORY, "main").await.0, 202);
    requested(&one, "app", 2).await;
}

// A field that is too long to be forwarded is not an absent one: the filter cannot be decided.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_that_was_not_forwarded_leads_to_a_catch_up() {
    let url = fake_publisher(|nonce| {
        hello_offering(nonce, &["req.pusher"]) + &reset(nonce) + &event(2, REPOSITORY)
    });
    let filtered = "  endpoints:\n    github: {filter: \"has(req.pusher) && req.pusher.name == 'ann'\"}\n";
    let one = subscriber(&subscription(&url, "one", filtered), "one", &object("app", "main"));
    one.wait_for_log(
        "an event came without a field that a filter reads; catching up",
        &[("field", "req.pusher")],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_subscriber_are_few() {
    let publisher = Publisher::start(TWO);
    let open = async || {
        let request = client().get(format!("{}/subscribe", publisher.url));
        request
            .header("Authorization", format!("Bearer {}", test_key("one")))
            .send()
            .await
            .expect("an answer")
    };
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = open().await;
        assert!(stream.chunk().await.is_ok_and(|chunk| chunk.is_some()));
        streams.push(stream);
    }
    // The oldest one gives way.
    let mut newest = open().await;
    assert!(newest.chunk().await.is_ok_and(|chunk| chunk.is_some()));
    let ended = tokio::time::timeout(Duration::from_secs(3), async {
        while matches!(streams[0].chunk().await, Ok(Some(_))) {}
    });
    assert!(ended.await.is_ok(), "the oldest stream goes on");
    // A client that is gone is noticed before the next frame.
    drop((streams, newest));
    wait_for_async(async || {
        let open = publisher.running.metric("flux_recv_subscriber_connected{subscriber=\"one\"}").await;
        (open == Some(0.0)).then_some(())
    })
    .await;
}

/// The metrics of a publisher and of a subscriber that has got an event from it.
pub async fn metrics_of_both_sides() -> String {
    let publisher = Publisher::start(TWO);
    let one = subscriber(&subscription(&publisher.url, "one", ALL_OF_GITHUB), "one", &object("app", "main"));
    requested(&one, "app", 1).await;
    assert_eq!(publisher.push(REPOSITORY, "main").await.0, 202);
    requested(&one, "app", 2).await;
    publisher.running.get_admin("/metrics").await.1 + &one.get_admin("/metrics").await.1
}
