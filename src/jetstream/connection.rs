//! The connection to NATS: connects again for as long as the process lives, to whichever server answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use parking_lot::Mutex;

use super::stream_config::StreamFault;
use crate::bounded_text::BoundedText;
use crate::fleet::options::{NatsCredentials, NatsOptions};

/// The event log cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("publish: nats: urls: {0}")]
    Url(std::io::Error),
    #[error(
        "publish: nats: credentialsPath: the file is not one of credentials, as `nsc generate creds` writes it"
    )]
    Credentials,
    #[error("publish: nats: cannot connect: {0}")]
    Connect(async_nats::ConnectError),
    #[error("publish: nats: {0}")]
    Stream(StreamFault),
}

/// What a server has last complained about: it refuses what a client may not do without an answer to it.
#[derive(Clone, Default)]
pub(super) struct LastServerError(Arc<Mutex<Option<(Instant, BoundedText)>>>);

/// A server that is gone is found out after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(2);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause between two tries to connect; each try is another server's turn.
const MAX_CONNECT_DELAY: Duration = Duration::from_secs(1);

/// How long a complaint is taken to be the reason of what fails.
const ERROR_AGE: Duration = Duration::from_secs(10);

/// Connects: in the background for as long as it takes, or once.
pub(super) async fn connect(
    options: &NatsOptions,
    errors: LastServerError,
    is_retried: bool,
) -> Result<Client, ConnectError> {
    let addresses = options.urls.iter().map(|url| url.parse()).collect::<Result<Vec<ServerAddr>, _>>();
    let addresses = addresses.map_err(ConnectError::Url)?;
    let mut connect = ConnectOptions::new()
        .name("flux-recv")
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
    connect = match &options.credentials {
        None => connect,
        Some(NatsCredentials::NKey(seed)) => connect.nkey(seed.to_string()),
        Some(NatsCredentials::File(content)) => {
            connect.credentials(content).map_err(|_| ConnectError::Credentials)?
        }
    };
    if is_retried {
        connect = connect.retry_on_initial_connect();
    }
    if let Some(ca) = &options.ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    connect.connect(addresses).await.map_err(ConnectError::Connect)
}

impl LastServerError {
    fn take(&self, event: &Event) {
        match event {
            Event::Connected => log::info!("connected to NATS"),
            Event::Disconnected => log::warn!("connection to NATS lost; connecting again"),
            Event::ServerError(error) => {
                let text = BoundedText::from(error.to_string());
                let mut last = self.0.lock();
                // One may come for every entry.
                let is_new = last
                    .as_ref()
                    .is_none_or(|(time, before)| *before != text || time.elapsed() > Duration::from_secs(60));
                if is_new {
                    log::error!(why:% = text; "NATS refuses something; has the user of flux-recv the rights that docs/multicluster.md lists?");
                }
                if is_new || last.as_ref().is_none_or(|(time, _)| time.elapsed() > ERROR_AGE) {
                    *last = Some((Instant::now(), text));
                }
            }
            other => log::debug!(event:% = other; "NATS"),
        }
    }

    /// Returns what a server has complained about lately.
    pub(super) fn recent(&self) -> Option<BoundedText> {
        let last = self.0.lock();
        last.as_ref().filter(|(time, _)| time.elapsed() < ERROR_AGE).map(|(_, text)| text.clone())
    }
}
