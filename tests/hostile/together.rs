//! All attacks at one time, from strangers, providers and tenants.

use std::net::TcpStream;
use std::time::Duration;

use super::attack::{MIB, address, assert_others_are_served, memory, socket};
use super::double::{Double, ListedKind};
use super::objects::{large, with_patterns};
use super::receivers::{receivers, secret, wait_until_served};
use super::running::{FluxRecv, client};

const RECEIVERS: usize = 1000;

/// Whether the binary that the image ships is tested, to which the limit applies. Without optimization code
/// and buffers are larger.
fn is_release() -> bool {
    std::env::var_os("FLUX_RECV_TEST_BINARY").is_some()
}

/// Endpoints of an attacker who knows their paths, and one of somebody else.
fn config() -> String {
    let hostile = (0..8).map(|at| format!("- {{source: DockerHub, keyPath: hub{at}.key}}\n"));
    let git = (0..8).map(|at| format!("- {{source: GitHub, keyPath: git{at}.key}}\n"));
    format!(
        "fluxRecvVersion: 1\nendpoints:\n- {{source: GitHub, keyPath: other.key}}\n{}{}",
        hostile.collect::<String>(),
        git.collect::<String>()
    )
}

/// The beginning of a body of this length, but for its last byte.
fn stalled_body(running: &FluxRecv, endpoint: &str, length: usize, is_chunked: bool) -> TcpStream {
    let path = running.path(endpoint);
    let framing = match is_chunked {
        true => format!("Transfer-Encoding: chunked\r\n\r\n{length:x}"),
        false => format!("Content-Length: {length}\r\n"),
    };
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{framing}\r\n");
    socket(&address(running), &[head.into_bytes(), vec![b' '; length - 1]].concat())
}

/// Deliveries with as many events as fit, for objects that are not known: they wait.
async fn fill_the_backlog(running: &FluxRecv) -> usize {
    let (mut queued, client) = (0, client());
    for endpoint in 0..8 {
        let url = format!("{}{}", running.base, running.path(&format!("hub{endpoint}")));
        for number in 0..1100 {
            let tag = format!("{number}-{}", "t".repeat(120));
            let name = "n".repeat(250);
            let body = format!(
                "{{\"push_data\": {{\"tag\": \"{tag}\"}}, \"repository\": {{\"repo_name\": \"org/{name}\"}}}}"
            );
            let answer = client.post(&url).body(body).send().await.expect("an answer");
            match answer.status().as_u16() {
                202 => queued += 1,
                503 => break,
                other => panic!("{other}"),
            }
        }
    }
    queued
}

/// Objects of a megabyte, of which one tracks what the other provider pushes.
fn repository(at: usize) -> String {
    large(at).replace("org/r0\"", "org/app\",\"ref\":{\"branch\":\"main\"}")
}

#[actix_web::test]
async fn all_attacks_together_fit_into_the_container() {
    let group = "source.toolkit.fluxcd.io";
    let patterns = ListedKind {
        group: "image.toolkit.fluxcd.io",
        plural: "imagerepositories",
        objects: 100,
        object: with_patterns,
        changes: 50,
    };
    let double = Double {
        kinds: vec![
            receivers(RECEIVERS),
            patterns,
            ListedKind { group, plural: "gitrepositories", objects: 100, object: repository, changes: 3 },
        ],
        secret: Some(secret),
        hangs: Some((group, "ocirepositories")),
        ..Double::default()
    };
    let max_megabytes = if is_release() { 110 } else { 160 };
    let running = double.start(&config(), &["--receivers", "--min-interval", "0"]);
    let report = |after: &str| println!("{after}: {} MiB at most", memory(&running).peak / MIB);
    report("at the start");
    wait_until_served(&running, RECEIVERS - 1).await;
    report("Receivers");
    let queued = fill_the_backlog(&running).await;
    assert!(queued > 2000, "{queued} deliveries wait");
    report("the backlog");
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
    head.resize(16_000, b'x');
    let target = address(&running);
    let half_heads = move || (0..700).map(|_| socket(&target, &head)).collect::<Vec<_>>();
    let half_heads = tokio::task::spawn_blocking(half_heads).await.expect("a thread");
    report("half heads");
    let small: Vec<_> =
        (0..100).map(|at| stalled_body(&running, &format!("git{}", at % 8), 64 * 1024, false)).collect();
    report("small bodies");
    let large: Vec<_> =
        (0..12).map(|at| stalled_body(&running, &format!("git{}", at % 8), 8 * MIB, at % 2 == 0)).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    report("large bodies");
    drop(large);
    // Four that come to their end at one time, read by a provider that takes more than others.
    let payload = format!(
        "{{\"push_data\": {{}}, \"repository\": {{\"repo_name\": \"{}\"}}}}",
        "é".repeat(4 * MIB - 100)
    );
    let complete = (0..4).map(|at| {
        let url = format!("{}{}", running.base, running.path(&format!("hub{at}")));
        client().post(url).body(payload.clone()).send()
    });
    for answer in futures::future::join_all(complete).await {
        let status = answer.expect("an answer").status();
        assert!(matches!(status.as_u16(), 200 | 400 | 503), "{status}");
    }
    report("complete bodies");
    assert_others_are_served(&running, "all attacks together").await;
    let peak = memory(&running).peak;
    assert!(peak < max_megabytes * 1_000_000, "{} MB at most", peak / 1_000_000);
    drop((half_heads, small));
}
