//! Load: ready-made requests over a few connections, as fast as they are answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server::{KEY, Server, url};

pub const CONNECTIONS: usize = 16;

/// A push of 8 KiB, as GitHub sends it with a few commits.
pub const WITH_COMMITS: Size = Size { commits: 24, bytes: 8 << 10 };
/// The shortest there is.
pub const SHORT: Size = Size { commits: 1, bytes: 0 };

/// What a push consists of.
#[derive(Clone, Copy)]
pub struct Size {
    commits: usize,
    /// The least length of the body.
    bytes: usize,
}

fn push(repository: usize, size: Size) -> String {
    let commit = |at: usize| json!({"id": format!("{at:040x}"), "message": "Change something", "timestamp": "2026-01-01T00:00:00Z", "author": {"name": "A", "email": "a@example.com"}, "added": [], "removed": [], "modified": ["apps/values.yaml"]});
    let mut body = json!({
        "ref": "refs/heads/main", "before": "0".repeat(39) + "1", "after": format!("{:040x}", repository + 1),
        "repository": {"id": 1, "full_name": "example-org/repository", "clone_url": url(repository), "ssh_url": "git@github.com:example-org/x.git", "html_url": url(repository), "default_branch": "main"},
        "pusher": {"name": "a", "email": "a@example.com"}, "commits": [], "head_commit": commit(repository),
    });
    let commits: Vec<_> = (0..size.commits).map(commit).collect();
    body["commits"] = json!(commits);
    let text = body.to_string();
    body["padding"] = json!("x".repeat(size.bytes.saturating_sub(text.len())));
    body.to_string()
}

/// Requests to a path: verified ones about each of the repositories in turn, or forged ones.
pub fn requests(path: &str, repositories: usize, forged: bool) -> Vec<Vec<u8>> {
    requests_of(WITH_COMMITS, path, repositories, forged)
}

pub fn requests_of(size: Size, path: &str, repositories: usize, forged: bool) -> Vec<Vec<u8>> {
    let key = if forged { "another-key" } else { KEY };
    let request = |repository| {
        let body = push(repository, size);
        let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(key.as_bytes()).expect("a key");
        mac.update(body.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        format!(
            "POST {path} HTTP/1.1\r\nHost: recv.example.com\r\nContent-Type: application/json\r\nUser-Agent: GitHub-Hookshot/1\r\n\
             X-GitHub-Event: push\r\nX-GitHub-Delivery: 00000000-0000-0000-0000-000000000000\r\n\
             X-Hub-Signature-256: sha256={signature}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    (0..repositories).map(request).collect()
}

/// Requests to a path that nobody knows.
pub fn unknown() -> Vec<Vec<u8>> {
    vec![b"POST /hook/nobody HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_vec(); CONNECTIONS]
}

/// The same with a body of 8 KiB.
pub fn unknown_with_body(path: &str) -> Vec<Vec<u8>> {
    let body = "x".repeat(8 << 10);
    let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    vec![request.into_bytes(); CONNECTIONS]
}

/// A signed push whose payload keeps an expensive filter busy.
pub fn push_with_a_list(path: &str) -> Vec<u8> {
    let list: Vec<String> = (0..2000).map(|at| at.to_string()).collect();
    let body =
        json!({"ref": "refs/heads/main", "list": list, "repository": {"clone_url": url(0)}}).to_string();
    signed(path, "push", &body)
}

/// A signed test of the connection.
pub fn ping(path: &str) -> Vec<u8> {
    signed(path, "ping", &json!({"zen": "Keep it logically awesome."}).to_string())
}

fn signed(path: &str, event: &str, body: &str) -> Vec<u8> {
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(KEY.as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nX-GitHub-Event: {event}\r\nX-Hub-Signature-256: sha256={signature}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The times of pings over one connection, while so many clients post something else without a pause.
pub fn ping_times(port: u16, ping: &[u8], others: usize, other: &[u8], length: Duration) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        for _ in 0..others {
            let other = other.to_vec();
            tokio::task::spawn_local(async move {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
                while exchange(&mut stream, &other).await.is_some() {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let (started, mut times) = (Instant::now(), Vec::new());
        while started.elapsed() < length {
            let sent = Instant::now();
            exchange(&mut stream, ping).await.expect("an answer");
            times.push(sent.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times
    })
}

async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Option<()> {
    stream.write_all(request).await.ok()?;
    let mut answer = vec![0; 64 << 10];
    let mut length = 0;
    while !is_whole(&answer[..length]) {
        match stream.read(&mut answer[length..]).await {
            Ok(read) if read > 0 => length += read,
            _ => return None,
        }
    }
    Some(())
}

/// What came out of a round of load.
pub struct Round {
    pub requests: u64,
    pub elapsed: Duration,
    /// CPU time of the server.
    pub cpu: Duration,
}

impl Round {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Requests per second of the server's CPU: the same on an idle machine, and not disturbed by
    /// who else needs the core.
    pub fn per_cpu_second(&self) -> f64 {
        self.requests as f64 / self.cpu.as_secs_f64()
    }
}

/// Posts until `stop` says so, which is told how many answers there were.
pub fn run(
    server: &Server,
    requests: &[Vec<u8>],
    expect: u16,
    stop: impl Fn(u64, Duration) -> bool,
) -> Round {
    run_over(CONNECTIONS, true, server, requests, expect, stop)
}

/// The same over so many connections. The load's core sleeps between answers where others need it.
pub fn run_over(
    connections: usize,
    is_awake: bool,
    server: &Server,
    requests: &[Vec<u8>],
    expect: u16,
    stop: impl Fn(u64, Duration) -> bool,
) -> Round {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let (started, cpu_before) = (Instant::now(), server.cpu());
    let (count, stopped) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
    local.block_on(&runtime, async {
        let connections = (0..connections).map(|connection| {
            let requests: Vec<Vec<u8>> =
                requests.iter().skip(connection % CONNECTIONS).step_by(CONNECTIONS).cloned().collect();
            let (count, stopped, port) = (Rc::clone(&count), Rc::clone(&stopped), server.port);
            tokio::task::spawn_local(async move { connect(port, requests, expect, &count, &stopped).await })
        });
        let connections: Vec<_> = connections.collect();
        let awake = is_awake.then(|| tokio::task::spawn_local(stay_awake()));
        while !stop(count.get(), started.elapsed()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stopped.set(true);
        for connection in connections {
            connection.await.expect("a connection");
        }
        awake.iter().for_each(|awake| awake.abort());
    });
    Round { requests: count.get(), elapsed: started.elapsed(), cpu: server.cpu() - cpu_before }
}

/// Keeps the load's core from sleeping between answers: waking it would be paid by the server, and the
/// more, the more time the server takes for an answer.
async fn stay_awake() {
    loop {
        tokio::task::yield_now().await;
    }
}

async fn connect(port: u16, requests: Vec<Vec<u8>>, expect: u16, count: &Cell<u64>, stopped: &Cell<bool>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let mut answer = vec![0; 64 << 10];
    for request in requests.iter().cycle() {
        if stopped.get() {
            return;
        }
        stream.write_all(request).await.expect("a request goes out");
        let mut length = 0;
        loop {
            let read = stream.read(&mut answer[length..]).await.expect("an answer comes in");
            assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&answer[..length]));
            length += read;
            if is_whole(&answer[..length]) {
                break;
            }
        }
        assert_eq!(
            &answer[9..12],
            expect.to_string().as_bytes(),
            "{}",
            String::from_utf8_lossy(&answer[..length])
        );
        count.set(count.get() + 1);
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let length = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
    answer.len() >= end + 4 + length.unwrap_or(0)
}
