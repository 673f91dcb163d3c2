//! The `api:` mode against a server that records what it is sent. What flux-recv for Flux v1 sent
//! for the same deliveries is known from its own tests; bodies are compared to the byte where JSON
//! has an order, and as JSON otherwise.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::running::{FluxRecv, stdout};

/// Request line and body of each request; answers with this status.
fn record(status: u16, delay: Duration) -> (String, Receiver<(String, Value)>) {
    let (sender, receiver) = channel();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a socket");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = Vec::new();
                let (head, body) = loop {
                    let mut chunk = [0; 4096];
                    let read = stream.read(&mut chunk).await.expect("a request");
                    text.extend_from_slice(&chunk[..read]);
                    let so_far = String::from_utf8_lossy(&text).into_owned();
                    let Some((head, body)) = so_far.split_once("\r\n\r\n") else { continue };
                    let length = head.lines().find_map(|line| {
                        line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned)
                    });
                    if length.is_some_and(|length| length.trim() == body.len().to_string()) {
                        break (head.to_owned(), body.to_owned());
                    }
                };
                let line = head.lines().next().unwrap_or_default().to_owned();
                let _ = sender.send((line, serde_json::from_str(&body).expect("JSON")));
                tokio::time::sleep(delay).await;
                let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
    });
    (format!("http://{address}/api/flux"), receiver)
}

fn config(api: &str) -> String {
    format!(
        "fluxRecvVersion: 1\napi: {api}\nendpoints:\n- {{source: GitHub, keyPath: github.key}}\n- {{source: GitLab, keyPath: gitlab.key}}\n\
         - {{source: BitbucketCloud, keyPath: cloud.key}}\n- {{source: DockerHub, keyPath: hub.key}}\n- {{source: Quay, keyPath: quay.key}}\n\
         - {{source: Harbor, keyPath: harbor.key}}\n- {{source: Nexus, keyPath: nexus.key, registryHost: container.example.com}}\n\
         - {{source: BitbucketServer, keyPath: server.key}}\n"
    )
}

fn git(url: &str, branch: &str) -> Value {
    json!({"Kind": "git", "Source": {"URL": url, "Branch": branch}})
}

fn image(domain: &str, image: &str) -> Value {
    json!({"Kind": "image", "Source": {"Name": {"Domain": domain, "Image": image}}})
}

#[test]
fn events_are_forwarded_in_the_form_of_flux_v1() {
    let (api, received) = record(200, Duration::ZERO);
    let running = FluxRecv::in_folder(super::running::folder(&config(&api)), &[]);
    let body = running.folder.path().join("body.json");
    let check = |endpoint: &str, event: &str, payload: Value, expect: Value| {
        std::fs::write(&body, payload.to_string()).expect("a body");
        let sent = running.command(&[
            "send",
            "--to",
            &running.base,
            "--endpoint",
            endpoint,
            "--event",
            event,
            "--body",
            &body.display().to_string(),
        ]);
        assert!(stdout(&sent).starts_with("200 {"), "{endpoint}: {}", stdout(&sent));
        assert!(stdout(&sent).contains("\"outcome\":\"forwarded\""), "{endpoint}: {}", stdout(&sent));
        let (line, told) = received.recv_timeout(Duration::from_secs(5)).expect("a request");
        assert_eq!(line, "POST /api/flux/v11/notify HTTP/1.1");
        assert_eq!(told, expect, "{endpoint}");
    };
    let github = |name: &str| json!({"ref": name, "repository": {"ssh_url": "git@github.com:Codertocat/Hello-World.git", "clone_url": "https://github.com/Codertocat/Hello-World.git"}});
    check(
        "github",
        "push",
        github("refs/heads/main"),
        git("git@github.com:Codertocat/Hello-World.git", "main"),
    );
    check(
        "github",
        "push",
        github("refs/tags/simple-tag"),
        git("git@github.com:Codertocat/Hello-World.git", "refs/tags/simple-tag"),
    );
    let gitlab =
        json!({"ref": "refs/heads/master", "project": {"git_ssh_url": "git@example.com:mike/diaspora.git"}});
    check("gitlab", "Push Hook", gitlab, git("git@example.com:mike/diaspora.git", "master"));
    let cloud = json!({"repository": {"full_name": "mbridgen/dummy"}, "push": {"changes": [{"new": {"type": "branch", "name": "master"}}]}});
    check("cloud", "repo:push", cloud, git("git@bitbucket.org:mbridgen/dummy.git", "master"));
    let links = json!({"clone": [{"href": "https://bitbucket.example.com/scm/~a/t.git", "name": "http"}, {"href": "ssh://git@bitbucket.example.com/~a/t.git", "name": "ssh"}]});
    let server = json!({"repository": {"links": links}, "changes": [{"ref": {"id": "refs/heads/master", "type": "BRANCH"}, "type": "UPDATE"}]});
    check("server", "repo:refs_changed", server, git("ssh://git@bitbucket.example.com/~a/t.git", "master"));
    let hub = json!({"repository": {"repo_name": "svendowideit/testhook"}, "push_data": {"tag": "latest"}});
    check("hub", "", hub, image("", "svendowideit/testhook"));
    let quay = json!({"docker_url": "quay.io/hiddeco/foo", "updated_tags": ["latest"]});
    check("quay", "", quay, image("quay.io", "hiddeco/foo"));
    let harbor = json!({"type": "pushImage", "event_data": {"resources": [{"resource_url": "demo.goharbor.io/test123/alpine:3.10", "tag": "3.10"}]}});
    check("harbor", "", harbor, image("demo.goharbor.io", "test123/alpine"));
    let nexus = json!({"action": "CREATED", "component": {"format": "docker", "name": "app1/alpine", "version": "3.10"}});
    check("nexus", "rm:repository:component", nexus, image("container.example.com", "app1/alpine"));
}

#[test]
fn deletions_are_forwarded_no_more() {
    let (api, received) = record(200, Duration::ZERO);
    let running = FluxRecv::in_folder(super::running::folder(&config(&api)), &[]);
    let body = running.folder.path().join("body.json");
    std::fs::write(
        &body,
        json!({"ref": "refs/heads/x", "deleted": true, "repository": {"ssh_url": "git@github.com:o/r.git"}})
            .to_string(),
    )
    .expect("a body");
    let sent = running.command(&[
        "send",
        "--to",
        &running.base,
        "--endpoint",
        "github",
        "--body",
        &body.display().to_string(),
    ]);
    assert!(stdout(&sent).starts_with("200 {\"outcome\":\"ignored\""), "{}", stdout(&sent));
    assert!(received.recv_timeout(Duration::from_millis(300)).is_err());
}

#[test]
fn a_fluxd_that_does_not_take_it_is_told_to_the_sender() {
    let (api, received) = record(500, Duration::ZERO);
    let running = FluxRecv::in_folder(super::running::folder(&config(&api)), &[]);
    let sent = running.command(&["send", "--to", &running.base, "--endpoint", "hub", "--image", "org/app:1"]);
    assert!(stdout(&sent).starts_with("503 {\"outcome\":\"unavailable\""), "{}", stdout(&sent));
    assert!(received.recv_timeout(Duration::from_secs(5)).is_ok());
    let why = [("why", "*answers with status 500*")];
    assert_eq!(running.logged("Flux v1 rejected an event", &why), 1, "{}", running.log());
}

#[test]
fn a_fluxd_that_hangs_is_given_ten_seconds() {
    let (api, _received) = record(200, Duration::from_secs(60));
    let running = FluxRecv::in_folder(super::running::folder(&config(&api)), &[]);
    let started = std::time::Instant::now();
    let sent = running.command(&["send", "--to", &running.base, "--endpoint", "hub", "--image", "org/app:1"]);
    assert!(stdout(&sent).starts_with("503 "), "{}", stdout(&sent));
    assert!(started.elapsed() >= Duration::from_secs(10));
}
