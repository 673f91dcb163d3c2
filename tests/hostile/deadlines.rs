//! Deadlines of connections, with short ones handed in.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, web};
use flux_recv::internals::listener::{self, ConnectionCounters, Deadlines, ListenerOptions, RunningServer};

use super::attack::{read_head, socket};

const SHORT: Deadlines = Deadlines {
    head: Duration::from_millis(500),
    body: Duration::from_millis(500),
    answer: Duration::from_millis(500),
    idle: Duration::from_secs(2),
};

/// A server that answers with a body of this many bytes and reads none.
fn serve(answer_bytes: usize) -> (RunningServer, String) {
    let listener = listener::bind("127.0.0.1:0").expect("a port");
    let address = listener::local_address(&listener).expect("an address").to_string();
    let options = ListenerOptions {
        workers: 1,
        max_connections: 100,
        max_without_stream: 100,
        deadlines: SHORT,
        peer_timeout: None,
        stop_timeout: Duration::from_secs(1),
    };
    let app = move || {
        let answer = move || async move { HttpResponse::Ok().body(vec![b'x'; answer_bytes]) };
        App::new().default_service(web::to(answer))
    };
    (listener::serve(listener, options, ConnectionCounters::default(), app).expect("a server"), address)
}

/// After how long the server ends the connection.
fn time_to_end(mut stream: TcpStream) -> Duration {
    let began = Instant::now();
    let _ = stream.read_to_end(&mut Vec::new());
    began.elapsed()
}

#[actix_web::test]
async fn slow_clients_are_let_go() {
    let (running, address) = serve(0);
    let times = tokio::task::spawn_blocking(move || {
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let after_a_request = |bytes: &[u8]| {
            let mut stream = socket(&address, request);
            assert!(read_head(&mut stream).starts_with("HTTP/1.1 200"));
            stream.write_all(bytes).expect("the connection is kept alive");
            time_to_end(stream)
        };
        let half_head = time_to_end(socket(&address, b"GET / HTTP/1.1\r\n"));
        let silent = time_to_end(socket(&address, b""));
        [half_head, after_a_request(b"G"), silent, after_a_request(b"")]
    });
    let [half_head, second_half_head, silent, idle] = times.await.expect("a thread");
    for (what, time) in [("half a head", half_head), ("a second half head", second_half_head)] {
        assert!(time > Duration::from_millis(400) && time < Duration::from_millis(1800), "{what}: {time:?}");
    }
    for (what, time) in [("silent", silent), ("idle", idle)] {
        assert!(time > Duration::from_millis(1800) && time < Duration::from_secs(10), "{what}: {time:?}");
    }
    running.stop().await;
}

#[actix_web::test]
async fn a_client_that_reads_no_answer_is_let_go() {
    let (running, address) = serve(64 << 20);
    let rest = tokio::task::spawn_blocking(move || {
        let stream = socket(&address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        std::thread::sleep(Duration::from_secs(2));
        let mut answer = Vec::new();
        let _ = (&stream).read_to_end(&mut answer);
        answer.len()
    });
    assert!(rest.await.expect("a thread") < 64 << 20, "the connection ended before the answer did");
    running.stop().await;
}

#[actix_web::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let (running, address) = serve(0);
    let stream = tokio::task::spawn_blocking(move || {
        let mut stream = socket(&address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        read_head(&mut stream);
        stream
    });
    let stream = stream.await.expect("a thread");
    let began = Instant::now();
    running.stop().await;
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    drop(stream);
}
