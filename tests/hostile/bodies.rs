//! Bodies that stall, or come too slowly.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::attack::{CONFIG, MIB, address, assert_others_are_served, read_head, socket};
use super::running::{FluxRecv, OBJECTS};

/// The beginning of a body of 8 MiB.
fn begin_of_a_large_body(running: &FluxRecv, endpoint: &str, bytes: usize) -> TcpStream {
    let path = running.path(endpoint);
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 8 * MIB);
    socket(&address(running), &[head.into_bytes(), vec![b' '; bytes]].concat())
}

/// A signed push of this size.
async fn deliver_large(running: &FluxRecv, endpoint: &str, length: usize) -> u16 {
    use super::running::{client, hub_signature, test_key};
    let mut body = super::attack::push();
    body.resize(length, b' ');
    let signature = hub_signature(&test_key(endpoint), &body);
    let request = client()
        .post(format!("{}{}", running.base, running.path(endpoint)))
        .header("X-GitHub-Event", "push")
        .header("X-Hub-Signature-256", signature)
        .body(body);
    request.send().await.expect("an answer").status().as_u16()
}

// The attack: four stalled bodies of 8 MiB at one known path made every other endpoint answer 503.
#[tokio::test]
async fn stalled_bodies_at_one_path_stop_no_other() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let stalled: Vec<TcpStream> =
        (0..6).map(|_| begin_of_a_large_body(&running, "github", 8 * MIB - 1)).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_others_are_served(&running, "stalled bodies").await;
    assert_eq!(deliver_large(&running, "other", 8 * MIB).await, 202, "large bodies of another endpoint");
    assert_eq!(deliver_large(&running, "github", 1000).await, 202, "small bodies of the same one");
    drop(stalled);
}

#[tokio::test]
async fn stalled_small_bodies_at_one_path_stop_no_other() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let path = running.path("github");
    let begin = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n");
    let begin = [begin.into_bytes(), vec![b' '; 65_000]].concat();
    let address = address(&running);
    let stalled: Vec<TcpStream> = (0..200).map(|_| socket(&address, &begin)).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_others_are_served(&running, "stalled small bodies").await;
    drop(stalled);
}

#[tokio::test]
async fn a_large_body_has_to_keep_coming() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    let mut stream = begin_of_a_large_body(&running, "github", 100_000);
    let answered = tokio::task::spawn_blocking(move || {
        let mut dripping = stream.try_clone().expect("a socket");
        std::thread::spawn(move || {
            while dripping.write_all(&[b' '; 1000]).is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let began = Instant::now();
        (read_head(&mut stream), began.elapsed())
    });
    let (answer, time) = answered.await.expect("a thread");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(time < Duration::from_secs(8), "{time:?}");
}
