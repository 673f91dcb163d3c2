//! What a fleet costs: from the publisher's answer to each subscriber, and memory for each of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::load::{WITH_COMMITS, requests_of};
use super::server::{Fleet, Server};
use super::table::{Must, Row, median};

/// Pushes for each row.
const PUSHES: usize = 20;

/// Pushes for the latency of a whole subscriber, whose 99th percentile counts.
const LATENCY_PUSHES: usize = 200;

/// Entries for the row about the log on disk.
const LOG_ENTRIES: u64 = 100_000;

pub fn fleet() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut rows = runtime.block_on(async {
        let mut rows = sent(1_000, 100.0).await;
        rows.extend(sent(10_000, 1_000.0).await);
        rows.push(one_after_another(1_000).await);
        rows
    });
    rows.extend(to_the_patch());
    rows.push(runtime.block_on(log_on_disk()));
    rows
}

/// A stream that has had its `hello` and `reset`.
async fn stream(fleet: &Fleet, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", fleet.subscribe_port)).await.expect("a connection");
    let head = format!(
        "GET /subscribe HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nLast-Event-ID: {}\r\n\r\n",
        Fleet::key(number),
        "0000000000000000.0"
    );
    stream.write_all(head.as_bytes()).await.expect("a request");
    read_until(&mut stream, "event: reset").await;
    stream
}

async fn read_until(stream: &mut TcpStream, what: &str) -> Instant {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let bytes = stream.read(&mut buffer).await.expect("a frame");
        assert!(bytes > 0, "the stream has ended after {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..bytes]);
        // Chunks end behind their frames.
        let ends = read.ends_with(b"\n\n\r\n");
        if ends && read.windows(what.len()).any(|part| part == what.as_bytes()) {
            return Instant::now();
        }
    }
}

async fn post(port: u16, request: &[u8]) -> Instant {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    connection.write_all(request).await.expect("a request");
    let mut buffer = [0; 4096];
    let bytes = connection.read(&mut buffer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&buffer[..bytes]);
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    Instant::now()
}

/// From the answer to the last of so many subscribers, and the memory of each.
async fn sent(subscribers: usize, most_millis: f64) -> Vec<Row> {
    let fleet = Fleet::start(subscribers);
    let before = fleet.publisher.resident_kib();
    let mut streams = Vec::new();
    for number in 0..subscribers {
        streams.push(stream(&fleet, number).await);
    }
    let each = (fleet.publisher.resident_kib() - before) as f64 / subscribers as f64;
    let requests = requests_of(WITH_COMMITS, &fleet.publisher.path(), 1, false);
    let mut times = Vec::new();
    for _ in 0..PUSHES {
        let mut reading = JoinSet::new();
        for mut stream in streams.drain(..) {
            reading.spawn(async move {
                let at = read_until(&mut stream, "event: event").await;
                (at, stream)
            });
        }
        let answered = post(fleet.publisher.port, &requests[0]).await;
        let mut last = answered;
        while let Some(read) = reading.join_next().await {
            let (at, stream) = read.expect("a stream");
            last = last.max(at);
            streams.push(stream);
        }
        times.push((last - answered).as_secs_f64() * 1e3);
    }
    let time = median(times);
    let (what, memory) = match subscribers {
        1_000 => (
            "ms from the answer to the last of 1,000 subscribers",
            "memory of each of 1,000 subscribers in KB",
        ),
        _ => (
            "ms from the answer to the last of 10,000 subscribers",
            "memory of each of 10,000 subscribers in KB",
        ),
    };
    println!("{subscribers} subscribers: {time:.1} ms, {each:.1} KiB each");
    vec![
        Row { what, figures: format!("{time:.1} ms"), value: time, must: Must::AtMost(most_millis) },
        Row { what: memory, figures: format!("{each:.1} KB"), value: each, must: Must::AtMost(40.0) },
    ]
}

/// The ancestor's way, for comparison: the whole payload, to one subscriber after another.
async fn one_after_another(subscribers: usize) -> Row {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..subscribers {
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        clients.push(client.expect("a connection"));
        servers.push(server.expect("a connection").0);
    }
    let payload = vec![b'x'; 8 << 10];
    let started = Instant::now();
    for server in &mut servers {
        server.write_all(&payload).await.expect("a write");
    }
    let mut buffer = vec![0; 8 << 10];
    for client in &mut clients {
        client.read_exact(&mut buffer).await.expect("a payload");
    }
    let time = started.elapsed().as_secs_f64() * 1e3;
    println!(
        "the ancestor's way, 8 KiB to 1,000 sockets one after another, without TLS and signature: {time:.1} ms"
    );
    Row {
        what: "ms for 8 KiB to 1,000 sockets one after another (the least that the ancestor's way takes)",
        figures: format!("{time:.1} ms"),
        value: time,
        must: Must::AtMost(1_000.0),
    }
}

/// From the publisher's answer to the successful patch of a subscriber, beside 99 other streams.
fn to_the_patch() -> Vec<Row> {
    let (half, most) = answer_to_patch(&Fleet::start(100));
    println!("from the answer to the patch: median {half:.1} ms, 99th percentile {most:.1} ms");
    vec![
        Row {
            what: "ms from the answer to a subscriber's patch, median, 100 subscribers",
            figures: format!("{half:.1} ms"),
            value: half,
            must: Must::AtMost(20.0),
        },
        Row {
            what: "the same, 99th percentile",
            figures: format!("{most:.1} ms"),
            value: most,
            must: Must::AtMost(100.0),
        },
    ]
}

/// Median and 99th percentile of the time from the answer to the patch, in milliseconds, of a fleet of 100.
pub fn answer_to_patch(fleet: &Fleet) -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let api = Server::api_double(1000);
    let subscriber = fleet.subscriber(&api, 0).when_it_knows_all_objects();
    let (streams, requests) = runtime.block_on(async {
        let mut streams = Vec::new();
        for number in 1..100 {
            streams.push(stream(fleet, number).await);
        }
        (streams, requests_of(WITH_COMMITS, &fleet.publisher.path(), 1000, false))
    });
    std::thread::sleep(Duration::from_secs(25));
    let mut times = Vec::new();
    for (number, request) in requests.iter().take(LATENCY_PUSHES).enumerate() {
        let before = patches(&subscriber.log()).len();
        let answered = runtime.block_on(async {
            post(fleet.publisher.port, request).await;
            SystemTime::now()
        });
        let started = Instant::now();
        let patched = loop {
            let all = patches(&subscriber.log());
            if let Some(patch) = all.get(before) {
                break *patch;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "push {number} led to no patch");
            std::thread::sleep(Duration::from_millis(1));
        };
        let answered = answered.duration_since(UNIX_EPOCH).expect("a time").as_secs_f64();
        times.push((patched - answered) * 1e3);
    }
    drop(streams);
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// When each patch succeeded, in seconds since 1970.
fn patches(log: &str) -> Vec<f64> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let requested = lines.filter(|line| line["message"] == "reconciliation requested");
    requested
        .filter_map(|line| {
            let time: jiff::Timestamp = line["time"].as_str()?.parse().ok()?;
            Some(time.as_nanosecond() as f64 / 1e9)
        })
        .collect()
}

/// The memory that 100,000 entries on disk add.
async fn log_on_disk() -> Row {
    let fleet = Fleet::start(1);
    let requests = requests_of(WITH_COMMITS, &fleet.publisher.path(), 100, false);
    let post_some = async |count: u64| {
        let mut connections = JoinSet::new();
        for connection in 0..32_u64 {
            let (port, requests) = (fleet.publisher.port, requests.clone());
            connections.spawn(async move {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
                let mut buffer = [0; 4096];
                for number in 0..count / 32 {
                    let request = &requests[(number * 32 + connection) as usize % requests.len()];
                    stream.write_all(request).await.expect("a request");
                    let bytes = stream.read(&mut buffer).await.expect("an answer");
                    assert!(
                        buffer[..bytes].starts_with(b"HTTP/1.1 202"),
                        "{}",
                        String::from_utf8_lossy(&buffer)
                    );
                }
            });
        }
        while connections.join_next().await.is_some() {}
    };
    // The last entries are in memory, whatever is on disk.
    post_some(3_200).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = fleet.publisher.resident_kib();
    post_some(LOG_ENTRIES - 3_200).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let added = fleet.publisher.resident_kib().saturating_sub(before) as f64 / 1024.0;
    println!("100,000 entries on disk add {added:.1} MB");
    Row {
        what: "memory in MB that 100,000 entries on disk add",
        figures: format!("{added:.1} MB"),
        value: added,
        must: Must::AtMost(4.0),
    }
}
