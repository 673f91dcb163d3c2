//! Listening sockets and HTTP servers on them. Every client is bounded in connections, time and bytes.
//!
//! actix-web's own server bounds the head of the first request of a connection and nothing after it,
//! so its service is run over a stream that knows what its client is doing.

mod connection;
mod pool;
mod stream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::{Server, ServerHandle};
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, apply_fn_factory, fn_service, map_config,
};
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::{Error, HttpMessage};
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpStream;

pub use self::connection::{Connection, Deadlines};
use self::pool::ConnectionPool;
use self::stream::GuardedStream;

/// How a listener is served.
#[derive(Debug, Clone, Copy)]
pub struct ListenerOptions {
    pub workers: usize,
    /// Connections at a time, over all workers.
    pub max_connections: usize,
    /// Those of them whose answer is not a stream, over all workers.
    pub max_without_stream: usize,
    /// How long a client may take.
    pub deadlines: Deadlines,
    /// How long the other end may leave what was sent unacknowledged, where answers are streams: nothing else
    /// tells soon that a machine is gone.
    pub peer_timeout: Option<Duration>,
    /// How long requests may go on after [`RunningServer::stop`].
    pub stop_timeout: Duration,
}

/// Counts the connections that were ended for what their clients did.
#[derive(Debug, Clone, Default)]
pub struct ConnectionCounters {
    /// A deadline was over.
    pub late: Counter,
    /// The one without a complete request for longest, when nine tenths of the limit were used.
    pub displaced: Counter,
    /// New ones, when all others were busy.
    pub refused: Counter,
    /// A head was longer than [`connection::MAX_HEAD_BYTES`].
    pub head_too_long: Counter,
}

/// How long a client is given to read an answer that ends its connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What actix holds beyond our own limit: sockets that wait to be closed.
const MAX_ACTIX_CONNECTIONS: usize = 1 << 16;

/// Serves an app on a bound listener; `app` makes it for each worker, `counters` count what was ended. Has to be called within a Tokio
/// runtime.
///
/// # Errors
/// When the listener cannot be used.
pub fn serve<A, I, S, B>(
    listener: TcpListener,
    options: ListenerOptions,
    counters: ConnectionCounters,
    app: A,
) -> io::Result<RunningServer>
where
    A: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Service: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let builder = Server::build();
    let stopping = builder.graceful_shutdown_signal();
    let connections_per_worker = options.max_connections.div_ceil(options.workers);
    let without_stream_per_worker = options.max_without_stream.div_ceil(options.workers);
    let server = builder
        .workers(options.workers)
        .max_concurrent_connections(MAX_ACTIX_CONNECTIONS)
        .shutdown_timeout(options.stop_timeout.as_secs())
        .disable_signals()
        .listen("http", listener, move || {
            let pool = ConnectionPool::new(
                connections_per_worker,
                without_stream_per_worker,
                options.deadlines,
                counters.clone(),
            );
            let accept = fn_service(move |stream: TcpStream| {
                pool.check_deadlines();
                let member = pool.admit(Instant::now());
                if let Some(timeout) = options.peer_timeout {
                    // Where it cannot be set, the socket lives as long as its buffer takes frames.
                    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, timeout.as_millis() as u32);
                }
                async move {
                    let member = member.ok_or(actix_http::error::DispatchError::DisconnectTimeout)?;
                    let peer = stream.peer_addr().ok();
                    Ok((GuardedStream::new(stream, member), peer))
                }
            });
            let app = map_config(app().into_factory().map_err(|err| err.into().error_response()), |()| {
                AppConfig::default()
            });
            let watched = apply_fn_factory(app, |request: Request, app: &_| {
                let connection = request.conn_data::<Rc<Connection>>().cloned();
                if let Some(connection) = &connection {
                    connection.request_began(has_body(&request));
                }
                let response = Service::call(app, request);
                async move {
                    let response = response.await;
                    if let Some(connection) = connection {
                        connection.request_ended();
                    }
                    response
                }
            });
            let stopping = stopping.clone();
            let http = HttpService::build()
                // Our own deadlines end what actix-http leaves open, so it needs no timers of its own.
                .keep_alive(KeepAlive::Os)
                .client_request_timeout(Duration::ZERO)
                .client_disconnect_timeout(CLOSE_TIMEOUT)
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .on_connect_ext(|stream: &GuardedStream, data| {
                    data.insert(Rc::clone(&stream.member.connection));
                })
                .h1(watched);
            accept.and_then(http)
        })?
        .run();
    Ok(RunningServer::start(server))
}

/// Whether bytes follow the head.
fn has_body(request: &Request) -> bool {
    let headers = request.headers();
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

/// A server that runs until it is stopped.
pub struct RunningServer {
    handle: ServerHandle,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl RunningServer {
    fn start(server: Server) -> RunningServer {
        let handle = server.handle();
        RunningServer { handle, task: tokio::spawn(server) }
    }

    /// Accepts no more and waits for the requests that are being handled.
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

/// Binds `host:port`, or `:port` for every address of the machine.
///
/// # Errors
/// When the port is taken, or the text is not an address.
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
    // std asks for 128, which a burst of connections fills before anyone has a turn.
    rustix::net::listen(&listener, MAX_UNACCEPTED)?;
    // Answers are short; what a client does not read waits in the kernel, and counts for the container.
    rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER_BYTES)?;
    Ok(listener)
}

/// Connections that wait to be accepted.
const MAX_UNACCEPTED: i32 = 1024;

/// Bytes of an answer that the kernel holds for a connection; Linux reserves twice as many.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

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
