//! The connection to NATS: connects again for as long as the process lives, to whichever server answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{AuthError, Client, ConnectOptions, Event, ServerAddr};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::credentials::{self, CredentialsError};
use super::stream_config::StreamFault;
use crate::bounded_text::BoundedText;
use crate::fleet::options::NatsOptions;

/// The event log cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("publish: nats: urls: {0}")]
    Url(std::io::Error),
    #[error("publish: nats: {0}")]
    Credentials(#[from] CredentialsError),
    #[error("publish: nats: cannot connect: {0}")]
    Connect(async_nats::ConnectError),
    #[error("publish: nats: {0}")]
    Stream(StreamFault),
}

/// What was last wrong with the connection.
#[derive(Clone, Default)]
pub(super) struct ConnectionErrors(Arc<LastErrors>);

#[derive(Default)]
struct LastErrors {
    /// What a server has complained about: it refuses what a client may not do without an answer to it.
    complaint: LastError,
    /// Why there is no connection.
    connecting: LastError,
    /// Told when the connection has ended.
    disconnected: Notify,
}

#[derive(Default)]
struct LastError(Mutex<Option<SeenError>>);

struct SeenError {
    text: BoundedText,
    seen: Instant,
    logged: Instant,
}

/// A server that is gone is found out after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(2);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause between two tries to connect; each try is another server's turn.
const MAX_CONNECT_DELAY: Duration = Duration::from_secs(1);

/// How long a complaint is taken to be the reason of what fails.
const ERROR_AGE: Duration = Duration::from_secs(10);

/// The time between two log lines about the same error, which may come for every entry and every try.
const ERROR_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Connects: in the background for as long as it takes, or once.
pub(super) async fn connect(
    options: &NatsOptions,
    errors: ConnectionErrors,
    is_retried: bool,
) -> Result<Client, ConnectError> {
    let addresses = options.urls.iter().map(|url| url.parse()).collect::<Result<Vec<ServerAddr>, _>>();
    let addresses = addresses.map_err(ConnectError::Url)?;
    let mut connect = with_credentials(options)?
        .name("flux-recv")
        // A server that offers none, and those that it names, would otherwise be spoken to in the clear.
        .require_tls(options.ca.is_some() || options.urls.iter().any(|url| url.starts_with("tls:")))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(super::REQUEST_TIMEOUT))
        .reconnect_delay_callback(|attempts| {
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            Duration::from_millis(100).saturating_mul(attempts).min(MAX_CONNECT_DELAY)
        })
        .event_callback(move |event| {
            errors.take(&event);
            async {}
        });
    if is_retried {
        connect = connect.retry_on_initial_connect();
    }
    if let Some(ca) = &options.ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    connect.connect(addresses).await.map_err(ConnectError::Connect)
}

/// Options that read the credentials anew for each connection, so that they can be renewed.
fn with_credentials(options: &NatsOptions) -> Result<ConnectOptions, CredentialsError> {
    let Some(credentials) = options.credentials.clone() else { return Ok(ConnectOptions::new()) };
    // A file that cannot be used is said at the start.
    credentials::authenticate(&credentials, b"")?;
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let auth = credentials::authenticate(&credentials, &nonce).map_err(AuthError::new);
        async move { auth }
    }))
}

impl ConnectionErrors {
    fn take(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.0.connecting.clear();
                log::info!("connected to NATS");
            }
            Event::Disconnected => {
                self.0.disconnected.notify_one();
                log::warn!("connection to NATS lost; connecting again");
            }
            Event::ServerError(error) => {
                let text = BoundedText::from(error.to_string());
                if self.0.complaint.set(&text) {
                    log::error!(why:% = text; "NATS refuses something; has the user of flux-recv the rights that docs/multicluster.md lists?");
                }
            }
            Event::ClientError(error) => {
                let text = BoundedText::from(error.to_string());
                if self.0.connecting.set(&text) {
                    log::warn!(why:% = text; "NATS cannot be connected to, trying again");
                }
            }
            other => log::debug!(event:% = other; "NATS"),
        }
    }

    /// Waits until the connection has ended.
    pub(super) async fn disconnected(&self) {
        self.0.disconnected.notified().await;
    }

    /// Returns what a server has complained about lately, if it is about this subject or a part of it.
    pub(super) fn complaint(&self, subject: &str) -> Option<BoundedText> {
        self.0.complaint.since(ERROR_AGE).filter(|text| text.contains(subject))
    }

    /// Returns why there is no connection.
    pub(super) fn connecting(&self) -> Option<BoundedText> {
        self.0.connecting.since(Duration::MAX)
    }
}

impl LastError {
    /// Remembers an error. Says whether the log should have it.
    fn set(&self, text: &BoundedText) -> bool {
        let (mut last, now) = (self.0.lock(), Instant::now());
        let logged = last.as_ref().filter(|last| last.text == *text).map(|last| last.logged);
        let is_due = logged.is_none_or(|logged| now - logged > ERROR_LOG_INTERVAL);
        let logged = logged.filter(|_| !is_due).unwrap_or(now);
        *last = Some(SeenError { text: text.clone(), seen: now, logged });
        is_due
    }

    fn clear(&self) {
        *self.0.lock() = None;
    }

    fn since(&self, age: Duration) -> Option<BoundedText> {
        let last = self.0.lock();
        last.as_ref().filter(|last| last.seen.elapsed() < age).map(|last| last.text.clone())
    }
}
