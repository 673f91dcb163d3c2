//! Listening sockets, and servers that run on them.

use std::io;
use std::net::{SocketAddr, TcpListener};

use actix_web::dev::{Server, ServerHandle};

/// A server that runs until it is stopped.
pub struct Running {
    handle: ServerHandle,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

impl Running {
    /// Runs a server; has to be called within a Tokio runtime.
    pub fn start(server: Server) -> Running {
        let handle = server.handle();
        Running { handle, task: tokio::spawn(server) }
    }

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
