//! What attackers and their victims do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::running::{FluxRecv, client, hub_signature, test_key};

/// Two endpoints that verify and one where the path is all that is needed.
pub const CONFIG: &str = "fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: github.key}
- {source: GitHub, keyPath: other.key}
- {source: DockerHub, keyPath: hub.key}
";

pub fn push() -> Vec<u8> {
    let repository = json!({"clone_url": "https://github.com/org/app.git"});
    json!({"ref": "refs/heads/main", "after": "1111", "repository": repository}).to_string().into_bytes()
}

/// `host:port` of the public listener.
pub fn address(running: &FluxRecv) -> String {
    running.base.trim_start_matches("http://").to_owned()
}

/// A socket on which this was sent.
pub fn socket(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // A socket that the server has closed meanwhile is as good as one that it never answered.
    let _ = stream.write_all(bytes);
    stream
}

/// Reads an answer to its end; gives its head.
pub fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|bytes| bytes > 0) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let _ = stream.read_exact(&mut vec![0; length.unwrap_or(0)]);
    head
}

/// Posts a signed push over a new connection; gives the status and how long it took.
pub async fn deliver(running: &FluxRecv, endpoint: &str, limit: Duration) -> Option<(u16, Duration)> {
    let body = push();
    let signature = hub_signature(&test_key(endpoint), &body);
    let request = client()
        .post(format!("{}{}", running.base, running.path(endpoint)))
        .header("X-GitHub-Event", "push")
        .header("X-Hub-Signature-256", signature)
        .timeout(limit)
        .body(body);
    let began = Instant::now();
    let response = request.send().await.ok()?;
    Some((response.status().as_u16(), began.elapsed()))
}

/// Others are still served: a signed delivery over a new connection and a probe, each within a second.
/// The machine may be slow once, an attack that works is not over after three seconds.
pub async fn assert_others_are_served(running: &FluxRecv, attack: &str) {
    let second = Duration::from_secs(1);
    let mut delivered = None;
    for _ in 0..3 {
        delivered = deliver(running, "other", second).await;
        if delivered.is_some() {
            break;
        }
    }
    assert_eq!(delivered.map(|(status, _)| status), Some(202), "{attack}: a delivery within a second");
    let probe = client().get(format!("{}/livez", running.admin)).timeout(second).send().await;
    assert_eq!(probe.map(|answer| answer.status().as_u16()).ok(), Some(200), "{attack}: the probe");
}

/// What the process has in memory now and had at most, in bytes.
pub fn memory(running: &FluxRecv) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).expect("a status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    };
    Memory { resident: field("VmRSS:"), peak: field("VmHWM:") }
}

#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub resident: usize,
    pub peak: usize,
}

/// By how many bytes the memory of the process has grown at most since `before`.
pub fn growth(running: &FluxRecv, before: Memory) -> usize {
    memory(running).peak.saturating_sub(before.resident)
}

pub const MIB: usize = 1024 * 1024;
