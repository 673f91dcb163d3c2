//! Sockets that send too little or too much.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use super::attack::{CONFIG, MIB, address, assert_others_are_served, growth, memory, read_head, socket};
use super::running::{FluxRecv, OBJECTS};

const SOCKETS: usize = 2000;

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

/// Opens the sockets in a thread of their own, while the receiver goes on.
async fn attack_with(
    running: &FluxRecv,
    open: impl Fn(&str) -> TcpStream + Send + 'static,
) -> Vec<TcpStream> {
    let address = address(running);
    let open_all = move || (0..SOCKETS).map(|_| open(&address)).collect();
    tokio::task::spawn_blocking(open_all).await.expect("a thread")
}

#[tokio::test]
async fn silent_sockets_keep_nobody_out() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let sockets = attack_with(&running, |address| socket(address, b"")).await;
    assert_others_are_served(&running, "silent sockets").await;
    let displaced = running.metric("flux_recv_ended_connections_total{reason=\"displaced\"}").await;
    assert!(displaced.is_some_and(|connections| connections > 100.0), "{displaced:?}");
    drop(sockets);
}

// The attack: `GET /health`, read the answer, send one byte. Its deadline held for first requests only.
#[tokio::test]
async fn sockets_with_a_byte_after_a_request_keep_nobody_out() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let sockets = attack_with(&running, |address| {
        let mut stream = socket(address, HEALTH);
        read_head(&mut stream);
        let _ = stream.write_all(b"P");
        stream
    });
    let sockets = sockets.await;
    assert_others_are_served(&running, "a byte after a request").await;
    drop(sockets);
}

#[tokio::test]
async fn idle_sockets_keep_nobody_out() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let sockets = attack_with(&running, |address| {
        let mut stream = socket(address, HEALTH);
        read_head(&mut stream);
        stream
    });
    let sockets = sockets.await;
    assert_others_are_served(&running, "idle after a request").await;
    drop(sockets);
}

#[tokio::test]
async fn half_heads_and_half_bodies_keep_nobody_out() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let half_head = b"POST /hook/x HTTP/1.1\r\nHost: x\r\n";
    let sockets = attack_with(&running, move |address| socket(address, half_head)).await;
    assert_others_are_served(&running, "half a head").await;
    drop(sockets);
    let half_body = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf of it",
        running.path("github")
    );
    let sockets = attack_with(&running, move |address| socket(address, half_body.as_bytes())).await;
    assert_others_are_served(&running, "half a body").await;
    drop(sockets);
}

#[tokio::test]
async fn sockets_with_a_byte_now_and_then_keep_nobody_out() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let mut sockets = attack_with(&running, |address| socket(address, b"P")).await;
    for byte in [b"O", b"S"] {
        tokio::time::sleep(Duration::from_millis(2500)).await;
        sockets.iter_mut().for_each(|socket| drop(socket.write_all(byte)));
        assert_others_are_served(&running, "a byte now and then").await;
    }
}

#[tokio::test]
async fn unread_answers_keep_nobody_out() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let requests = HEALTH.repeat(100);
    let sockets = attack_with(&running, move |address| socket(address, &requests)).await;
    assert_others_are_served(&running, "unread answers").await;
    drop(sockets);
}

// The attack: 1,000 unfinished heads of 120 KB held 139 MB.
#[tokio::test]
async fn unfinished_heads_take_little_memory() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    assert_others_are_served(&running, "none yet").await;
    let before = memory(&running);
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
    head.resize(120_000, b'x');
    let sockets = attack_with(&running, move |address| socket(address, &head)).await;
    let grown = growth(&running, before);
    assert!(grown < 40 * MIB, "{} MiB for heads of 120 KB", grown / MIB);
    drop(sockets);
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
    head.resize(16_000, b'x');
    let sockets = attack_with(&running, move |address| socket(address, &head)).await;
    let grown = growth(&running, before);
    assert!(grown < 40 * MIB, "{} MiB for heads of 16 KB", grown / MIB);
    assert_others_are_served(&running, "long heads").await;
    drop(sockets);
}

#[tokio::test]
async fn a_head_is_limited_exactly_enough() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let address = address(&running);
    let head = |length: usize| {
        let mut head = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec();
        head.resize(length, b'x');
        head.extend_from_slice(b"\r\n\r\n");
        head
    };
    let answers = tokio::task::spawn_blocking(move || {
        [12_000, 20_000].map(|length| read_head(&mut socket(&address, &head(length))))
    });
    let [fits, too_long] = answers.await.expect("a thread");
    assert!(fits.starts_with("HTTP/1.1 200"), "{fits}");
    assert_eq!(too_long, "", "the connection ends without an answer");
}

// The attack: every POST with a body to an unknown path cost a connection.
#[tokio::test]
async fn an_unknown_path_with_a_body_keeps_its_connection() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let address = address(&running);
    let post = |path: &str, length: usize| {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; length]].concat()
    };
    let encoded = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 9000\r\n\r\n{}",
        running.path("github"),
        "x".repeat(9000)
    );
    let put = post(&running.path("github"), 9000).as_slice()[4..].to_vec();
    let put = [b"PUT".as_slice(), put.as_slice()].concat();
    let answers = tokio::task::spawn_blocking(move || {
        let mut stream = socket(&address, &post("/hook/unknown", 8192));
        let mut answers = vec![read_head(&mut stream)];
        for request in [post("/hook/unknown", 65_536), encoded.into_bytes(), put] {
            stream.write_all(&request).expect("the connection is still there");
            answers.push(read_head(&mut stream));
        }
        let _ = stream.write_all(&post("/hook/unknown", 70_000));
        answers.push(read_head(&mut stream));
        answers
    });
    let answers = answers.await.expect("a thread");
    let expect = ["404", "404", "415", "405", "404"];
    for (answer, status) in answers.iter().zip(expect) {
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{status}: {answer}");
    }
    let closes = |answer: &String| answer.to_lowercase().contains("connection: close");
    assert!(!answers[..4].iter().any(closes), "{answers:?}");
    assert!(closes(&answers[4]), "a longer body ends the connection: {answers:?}");
}

// Libraries log each broken request as an error, without a limit.
#[tokio::test]
async fn broken_requests_leave_the_log_alone() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let before = running.log_lines().len();
    let address = address(&running);
    let send = move || {
        for broken in [b"\x16\x03\x01\r\n\r\n".as_slice(), b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nx\r\n\r\n"] {
            let _ = read_head(&mut socket(&address, broken));
        }
        let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
        long.resize(200_000, b'x');
        let _ = read_head(&mut socket(&address, &long));
    };
    tokio::task::spawn_blocking(send).await.expect("a thread");
    assert_others_are_served(&running, "broken requests").await;
    let lines = running.log_lines().split_off(before);
    let mut others = lines.iter().filter(|line| line.field("endpoint") != "other");
    assert!(others.all(|line| line.message().ends_with("(dry run)")), "{lines:?}");
}
