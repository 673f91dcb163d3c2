//! The public listener: HTTP in, [`Outcome`] out as HTTP. Serves `/hook/…` and `/health`, nothing
//! else.

mod answer;
mod body;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use actix_web::http::Method;
use actix_web::http::header::HeaderMap;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use tokio::sync::Semaphore;

use self::answer::{answer, plain};
use crate::delivery::{Delivery, Headers};
use crate::endpoint::{Endpoint, Endpoints};
use crate::outcome::Outcome;
use crate::receive::Receiver;

/// What a listener serves.
pub struct Service {
    /// The endpoints.
    pub endpoints: Endpoints,
    /// Takes their deliveries.
    pub receiver: Receiver,
    /// Bounds of what is taken.
    pub limits: Limits,
}

/// Bounds of what the listener takes from strangers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest body, in bytes.
    pub body: usize,
    /// All bodies that are read at a time, in bytes.
    pub bodies_in_flight: usize,
    /// How long a body may take to arrive.
    pub body_time: Duration,
    /// How long the head of a request may take to arrive.
    pub head_time: Duration,
    /// Connections at a time.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // GitHub sends up to 25 MB, but a push of a hundred commits has some 100 KiB.
            body: 8 * 1024 * 1024,
            bodies_in_flight: 32 * 1024 * 1024,
            body_time: Duration::from_secs(30),
            head_time: Duration::from_secs(10),
            connections: 1024,
        }
    }
}

/// A server that runs until it is stopped.
pub struct Running {
    handle: ServerHandle,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

/// More would not help: the work per delivery is some 20 µs.
const MOST_WORKERS: usize = 4;

/// Binds `host:port`, or `:port` for every address of the machine.
///
/// # Errors
/// When the port is taken, or the text is no address.
pub fn bind(listen: &str) -> io::Result<TcpListener> {
    let listener = match listen.strip_prefix(':') {
        // Where IPv6 is off, the second address works.
        Some(port) => TcpListener::bind(format!("[::]:{port}")).or_else(|err| match err.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(err),
            _ => TcpListener::bind(format!("0.0.0.0:{port}")),
        }),
        None => TcpListener::bind(listen),
    }?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves on a bound listener. Has to be called within a Tokio runtime.
///
/// # Errors
/// When the listener cannot be used.
pub fn start(listener: TcpListener, service: Arc<Service>) -> io::Result<Running> {
    let limits = service.limits;
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_WORKERS);
    let shares = web::Data::from(body::shares(&limits));
    let service = web::Data::from(service);
    let app = move || {
        let app = App::new().app_data(service.clone()).app_data(shares.clone());
        app.default_service(web::to(handle))
    };
    let server = HttpServer::new(app)
        .workers(workers)
        .max_connections(limits.connections.div_ceil(workers))
        .client_request_timeout(limits.head_time)
        .shutdown_timeout(limits.body_time.as_secs())
        .disable_signals()
        .listen(listener)?
        .run();
    let handle = server.handle();
    Ok(Running { handle, task: tokio::spawn(server) })
}

impl Running {
    /// Accepts no more and waits for the requests that are being answered.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        let _ = self.task.await;
    }

    /// Ends when the server has ended by itself, which it should not.
    pub async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Ok(())) => "it stopped".to_owned(),
            Ok(Err(err)) => err.to_string(),
            Err(err) => err.to_string(),
        }
    }
}

/// The address that a listener is bound to, as others on this machine reach it.
///
/// # Errors
/// When the socket has none.
pub fn local_address(listener: &TcpListener) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    Ok(match address.ip().is_unspecified() {
        true => SocketAddr::from(([127, 0, 0, 1], address.port())),
        false => address,
    })
}

async fn handle(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<Service>,
    shares: web::Data<Semaphore>,
) -> HttpResponse {
    let received = Instant::now();
    let path = request.uri().path();
    if path == "/health" {
        return plain("OK");
    }
    let Some(endpoint) = service.endpoints.at_path(path) else {
        log::debug!("a request for a path that nobody serves");
        return answer(&Outcome::UnknownPath);
    };
    let outcome = match *request.method() {
        Method::POST => match body::read(&request, payload, service.limits, &shares).await {
            Ok(body) => {
                let delivery = Delivery { headers: request.headers(), body: &body.bytes };
                service.receiver.receive(endpoint, delivery).await
            }
            Err(outcome) => outcome,
        },
        _ => Outcome::WrongMethod,
    };
    let response = answer(&outcome);
    log_delivery(endpoint, &outcome, &response, received);
    response
}

fn log_delivery(endpoint: &Endpoint, outcome: &Outcome, response: &HttpResponse, received: Instant) {
    let level = if outcome.wants_attention() { log::Level::Warn } else { log::Level::Info };
    log::log!(
        level,
        endpoint:% = endpoint.name,
        source = endpoint.provider.name,
        outcome = outcome.label(),
        status = response.status().as_u16(),
        micros = received.elapsed().as_micros() as u64;
        "delivery: {}",
        outcome.detail()
    );
}

impl Headers for HeaderMap {
    fn visit<'h>(&'h self, name: &str, visit: &mut dyn FnMut(&'h [u8])) {
        for value in self.get_all(name) {
            visit(value.as_bytes());
        }
    }
}
