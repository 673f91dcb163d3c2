//! Clients of flux-webhook-autoreconciler, on sockets of their own: what they get, byte for byte, and what their
//! secret does not open.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::process::wait_for;
use super::fleet::Publisher;
use super::running::{client, flux_recv, stderr, stdout, test_key, write_config};

const PUBLISH: &str = "  autoreconciler: {secretKeyPath: clients.key, endpoints: [github]}\n";

/// One endpoint at the path that the ancestor's webhook has.
const AT_WEBHOOK: &str = "- {source: GitHub, keyPath: github.key, alias: /webhook}";

/// Long enough for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opcodes of RFC 6455.
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A package event as GitHub sends it.
fn package(action: &str, name: &str, tag: &str) -> Value {
    json!({"action": action, "package": {
        "name": name, "namespace": "Acme", "package_type": "CONTAINER",
        "package_version": {
            "name": "sha256:ab", "package_url": format!("ghcr.io/Acme/{name}:{tag}"),
            "container_metadata": {"tag": {"name": tag}},
        },
    }})
}

async fn publish(publisher: &Publisher, name: &str, tag: &str) {
    let body = package("published", name, tag);
    let (status, answer) = publisher.deliver("/webhook", &test_key("github"), "package", &body).await;
    assert_eq!((status, &answer["published"]), (202, &json!(true)), "{answer}");
}

/// A client as the ancestor's: reads frames, and answers pings.
struct Client {
    stream: TcpStream,
}

impl Client {
    /// Asks for a WebSocket with this query, and returns the status with the socket.
    fn ask(publisher: &Publisher, query: &str) -> (u16, Client) {
        let address = publisher.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let request = format!(
            "GET /subscribe{query} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("a write");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        if status == 101 {
            // The key of RFC 6455, section 1.3, and what it says to answer.
            assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        }
        (status, Client { stream })
    }

    fn connect(publisher: &Publisher) -> Client {
        let (status, client) = Client::ask(publisher, &format!("?authSecret={}", test_key("clients")));
        assert_eq!(status, 101);
        client
    }

    /// Reads one frame: its opcode and payload. None at the end of the stream.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(err) if err.kind() == ErrorKind::WouldBlock => panic!("no frame within {PATIENCE:?}"),
            Err(_) => return None,
        }
        assert_eq!((head[0] & 0xf0, head[1] & 0x80), (0x80, 0), "one frame for a message, not masked");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).expect("a length");
                usize::from(u16::from_be_bytes(length))
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).expect("a payload");
        Some((head[0] & 0x0f, payload))
    }

    /// Sends a frame, masked as those of clients have to be.
    fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame =
            vec![0x80 | opcode, 0x80 | u8::try_from(payload.len()).expect("a short one"), 0, 0, 0, 0];
        frame.extend(payload);
        self.stream.write_all(&frame).expect("a write");
    }

    /// Reads the next message, and answers pings before it.
    fn message(&mut self) -> String {
        loop {
            match self.frame().expect("a stream") {
                (PING, payload) => self.send(PONG, &payload),
                (BINARY, payload) => return String::from_utf8(payload).expect("text"),
                (opcode, _) => panic!("a frame of type {opcode}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_published_images_as_the_ancestor_sends_them() {
    let publisher = Publisher::with_endpoints(AT_WEBHOOK, PUBLISH, &[]);
    let mut clients = [Client::connect(&publisher), Client::connect(&publisher)];
    // Nothing of a push, of what is deleted or of another registry.
    let push = json!({"ref": "refs/heads/main", "after": "1".repeat(40), "repository": {"clone_url": "https://github.com/acme/app"}});
    publisher.deliver("/webhook", &test_key("github"), "push", &push).await;
    let (status, _) =
        publisher.deliver("/webhook", &test_key("github"), "package", &package("deleted", "app", "v0")).await;
    assert_eq!(status, 200);
    let (status, _) =
        publisher.deliver("/webhook", "another key", "package", &package("published", "app", "v0")).await;
    assert_eq!(status, 401);
    publish(&publisher, "app", "v1").await;
    publish(&publisher, "other", "v2").await;
    for client in &mut clients {
        assert_eq!(client.message(), r#"{"oci_url":"oci://ghcr.io/Acme/app","tag":"v1"}"#);
        assert_eq!(client.message(), r#"{"oci_url":"oci://ghcr.io/Acme/other","tag":"v2"}"#);
    }
    assert_eq!(publisher.running.metric("flux_recv_autoreconciler_clients").await, Some(2.0));
    let output = flux_recv()
        .args(["subscribers", "--instance", &publisher.running.debug()])
        .output()
        .expect("it runs");
    assert!(stdout(&output).contains("clients of flux-webhook-autoreconciler: 2\n"), "{}", stdout(&output));
    // Answers of the page and log lines know no secret; the harness compares all keys of the folder.
    drop(clients);
    wait_for("the clients to be gone", PATIENCE, || {
        (publisher.running.logged("client of flux-webhook-autoreconciler disconnected", &[]) == 2)
            .then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_pinged_and_their_pings_are_answered() {
    let publisher = Publisher::with_endpoints(AT_WEBHOOK, PUBLISH, &[]);
    let mut client = Client::connect(&publisher);
    let since = Instant::now();
    client.send(PING, b"hello");
    assert_eq!(client.frame(), Some((PONG, b"hello".to_vec())));
    // Text is nothing that anyone waits for.
    client.send(1, b"{}");
    assert_eq!(client.frame(), Some((PING, Vec::new())));
    let pause = since.elapsed();
    assert!((8..14).contains(&pause.as_secs()), "{pause:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_opens_nothing_else_and_nothing_else_opens_this() {
    let publish = format!("{PUBLISH}  subscribers:\n  - {{name: one, endpoints: ['*'], keyPath: one.key}}\n");
    let publisher = Publisher::with_endpoints(AT_WEBHOOK, &publish, &[]);
    let secret = test_key("clients");
    for query in [
        String::new(),
        "?authSecret=".to_owned(),
        "?authSecret=wrong".to_owned(),
        format!("?authSecret={}", test_key("one")),
        format!("?authSecret={}", test_key("github")),
        format!("?authsecret={secret}"),
        format!("?authSecret={secret}&authSecret={secret}"),
        format!("?authSecret={secret}%0a"),
    ] {
        assert_eq!(Client::ask(&publisher, &query).0, 401, "{query}");
    }
    for (url, bearer) in [
        (format!("{}/subscribe?authSecret={secret}", publisher.url), None),
        (format!("{}/subscribe", publisher.url), Some(&secret)),
        (format!("{}/subscribe?authSecret={secret}", publisher.url), Some(&secret)),
    ] {
        let request = client().get(&url);
        let request =
            bearer.map_or(request.try_clone().expect("no body"), |bearer| request.bearer_auth(bearer));
        assert_eq!(request.send().await.expect("an answer").status(), 401, "{url}");
    }
    let (status, _) =
        publisher.deliver("/webhook", &secret, "package", &package("published", "app", "v1")).await;
    assert_eq!(status, 401);
    // A client connects all the same, and nothing of all this is in the log.
    drop(Client::connect(&publisher));
    assert!(!publisher.running.log().contains("authSecret"), "{}", publisher.running.log());
}

/// A secret that stands in URLs is refused as the key of anything else.
#[test]
fn the_secret_is_a_key_of_its_own() {
    let folder = super::running::folder("");
    std::fs::write(folder.path().join("signing.pem"), super::fleet::SIGNING_KEY).expect("a key");
    for (publish, expected) in [
        (
            "{signingKeyPaths: [signing.pem], autoreconciler: {secretKeyPath: github.key, endpoints: ['*']}}",
            "publish: autoreconciler: secretKeyPath: the secret is the key of endpoint `github`",
        ),
        (
            "{signingKeyPaths: [signing.pem], autoreconciler: {secretKeyPath: one.key, endpoints: ['*']}, subscribers: [{name: one, keyPath: one.key, endpoints: ['*']}]}",
            "publish: autoreconciler: secretKeyPath: the secret is the key of subscriber `one`",
        ),
        (
            "{signingKeyPaths: [signing.pem], autoreconciler: {secretKeyPath: clients.key, endpoints: [githib]}}",
            "publish: autoreconciler: endpoints: `githib` is not an endpoint of this config; did you mean `github`?",
        ),
        (
            "{signingKeyPaths: [signing.pem], autoreconciler: {endpoints: [github]}}",
            "publish: autoreconciler: secretKeyPath: is missing",
        ),
    ] {
        let config = format!(
            "fluxRecvVersion: 1\nendpoints: [{{source: GitHub, keyPath: github.key}}]\npublish: {publish}\n"
        );
        write_config(folder.path(), &config);
        let file = folder.path().join("fluxrecv.yaml");
        let output =
            flux_recv().args(["check", "--no-cluster", "--config"]).arg(&file).output().expect("it runs");
        assert!(stderr(&output).contains(expected), "{publish}: {}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_stuck_delay_nobody_and_are_let_go() {
    let publisher = Publisher::with_endpoints(AT_WEBHOOK, PUBLISH, &[]);
    // These never read, and their kernel takes little for them.
    let stuck: Vec<Client> = (0..5).map(|_| Client::connect(&publisher)).collect();
    for client in &stuck {
        rustix::net::sockopt::set_socket_recv_buffer_size(&client.stream, 4096).expect("an option");
    }
    let mut reading = Client::connect(&publisher);
    let long = "x".repeat(120);
    // Half a MB for each, more than the sockets hold.
    for round in 0..100 {
        let pushes = (0..30).map(|number| {
            let (publisher, tag) = (&publisher, format!("{long}-{round}-{number}"));
            async move { publish(publisher, "app", &tag).await }
        });
        futures::future::join_all(pushes).await;
        for _ in 0..30 {
            let message = reading.message();
            assert!(message.contains(&format!("{long}-{round}-")), "{message}");
        }
    }
    wait_for("the stuck clients to be let go", Duration::from_secs(60), || {
        // As its own client does.
        reading.send(PONG, b"");
        let gone = publisher.running.logged("client of flux-webhook-autoreconciler disconnected", &[]);
        (gone == stuck.len()).then_some(())
    });
    publish(&publisher, "app", "at-last").await;
    assert!(reading.message().contains("at-last"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_end_with_their_secret_and_with_the_process() {
    let mut publisher = Publisher::start(PUBLISH);
    let mut one = Client::connect(&publisher);
    // Another change is none of theirs.
    publisher.change(&format!("{PUBLISH}  stagger: 1s\n"));
    wait_for("the reload", PATIENCE, || (publisher.running.logged("config reloaded", &[]) > 0).then_some(()));
    assert_eq!(one.frame(), Some((PING, Vec::new())));
    std::fs::write(publisher.running.folder.path().join("clients.key"), "another-secret-of-the-clients")
        .expect("a key");
    publisher.running.signal("-HUP");
    assert!(matches!(one.frame(), Some((CLOSE, _)) | None));
    assert_eq!(Client::ask(&publisher, &format!("?authSecret={}", test_key("clients"))).0, 401);
    let (status, mut two) = Client::ask(&publisher, "?authSecret=another-secret-of-the-clients");
    assert_eq!(status, 101);
    assert_eq!(publisher.running.terminate(), Some(0));
    assert!(matches!(two.frame(), Some((CLOSE, _)) | None));
}
