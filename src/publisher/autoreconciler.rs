//! Clients of flux-webhook-autoreconciler, as its server serves them: a WebSocket with a frame for each image that
//! was published at ghcr.io. For clusters that have not moved to `subscribe` yet: nothing is signed, and a client
//! gets nothing of what happened while it was away.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::Bytes;
use actix_web::{Error, HttpRequest, HttpResponse, web};
use actix_ws::{Message, MessageStream, Session};
use futures::StreamExt;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, interval_at, timeout};

use super::Publisher;
use super::server::stranger;
use super::stream_end::StreamEnd;
use crate::event::Event;
use crate::fleet::options::GrantedEndpoints;
use crate::fleet::wire::Entry;
use crate::journal::event_log::LogEntry;
use crate::journal::log_follower::LogFollower;
use crate::listener::Connection;

/// Clients at a time; the secret is one for all of them, and may have leaked.
pub(super) const MAX_CLIENTS: usize = 1000;

/// The time between two pings, as the ancestor's server sends them.
const PING_INTERVAL: Duration = Duration::from_secs(9);

/// A client answers pings; one that is silent for this long is gone.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a frame of a client, which has nothing to say but pongs.
const MAX_CLIENT_FRAME_BYTES: usize = 1024;

/// The registry whose images clients are told of.
const REGISTRY: &str = "ghcr.io/";

/// What clients get.
pub(super) struct ClientGrant {
    pub(super) endpoints: GrantedEndpoints,
    /// Changes with the secret and the endpoints.
    pub(super) fingerprint: [u8; 32],
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct PublishedImage {
    oci_url: String,
    tag: String,
}

/// Answers a request to upgrade: `GET /subscribe?authSecret=SECRET`.
pub(super) async fn serve(
    request: HttpRequest,
    body: web::Payload,
    publisher: web::Data<Publisher>,
) -> Result<HttpResponse, Error> {
    let secret = secret(request.query_string());
    let Some(grant) = secret.and_then(|secret| publisher.table.read().client_grant(&secret)) else {
        return Ok(stranger(&publisher));
    };
    let Ok(place) = Arc::clone(&publisher.client_places).try_acquire_owned() else {
        log::warn!(limit = MAX_CLIENTS; "too many clients of flux-webhook-autoreconciler");
        return Ok(HttpResponse::TooManyRequests().finish());
    };
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    let still_grants = {
        let (publisher, fingerprint) = (publisher.clone(), grant.fingerprint);
        move || publisher.table.read().still_grants_clients(fingerprint)
    };
    let end = StreamEnd::new(&publisher, None, None, still_grants);
    let gone = Arc::new(Notify::new());
    let connection = request.conn_data::<Rc<Connection>>().map(Rc::clone);
    if let Some(connection) = &connection {
        connection.begin_stream();
        actix_web::rt::spawn(end.clone().close_in_time(Arc::clone(&gone), Rc::clone(connection)));
    }
    let client = Client {
        follower: LogFollower::at_head(Arc::clone(&publisher.log)),
        publisher: publisher.into_inner(),
        grant,
        session,
        connection,
        gone,
        _place: place,
    };
    actix_web::rt::spawn(client.run(end, messages.max_frame_size(MAX_CLIENT_FRAME_BYTES)));
    Ok(response)
}

/// Returns the secret of a query string; none if it is missing or repeated.
fn secret(query: &str) -> Option<String> {
    let mut secrets = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "authSecret");
    let ((_, secret), None) = (secrets.next()?, secrets.next()) else { return None };
    Some(secret.into_owned())
}

/// A client that is connected.
struct Client {
    publisher: Arc<Publisher>,
    grant: Arc<ClientGrant>,
    follower: LogFollower,
    session: Session,
    connection: Option<Rc<Connection>>,
    /// Told when the stream is gone.
    gone: Arc<Notify>,
    _place: OwnedSemaphorePermit,
}

impl Client {
    /// Serves the client until one side ends.
    async fn run(mut self, mut end: StreamEnd, mut messages: MessageStream) {
        log::info!("client of flux-webhook-autoreconciler connected");
        let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        let mut heard = Instant::now();
        loop {
            // A client that takes nothing keeps its place no longer than one that says nothing. At first, too: an entry
            // may have come since the position was taken.
            if !matches!(timeout(SILENCE_TIMEOUT, self.send_entries()).await, Ok(Ok(()))) {
                break;
            }
            tokio::select! {
                () = end.wait() => break,
                message = messages.next() => {
                    heard = Instant::now();
                    if !self.hear(message).await {
                        break;
                    }
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE_TIMEOUT || self.session.ping(b"").await.is_err() {
                        break;
                    }
                }
                has_more = self.follower.wait() => {
                    if !has_more {
                        break;
                    }
                }
            }
        }
        let _ = timeout(SILENCE_TIMEOUT, self.session.clone().close(None)).await;
    }

    /// Takes a frame of the client. Says whether it goes on.
    async fn hear(&mut self, message: Option<Result<Message, actix_http::ws::ProtocolError>>) -> bool {
        if let Some(connection) = &self.connection {
            connection.body_progressed();
        }
        match message {
            Some(Ok(Message::Ping(bytes))) => self.session.pong(&bytes).await.is_ok(),
            Some(Ok(Message::Close(_)) | Err(_)) | None => false,
            Some(Ok(_)) => true,
        }
    }

    /// Sends what the log has got.
    async fn send_entries(&mut self) -> anyhow::Result<()> {
        loop {
            let publisher = Arc::clone(&self.publisher);
            let turn = publisher.replay_turn(&self.follower).await;
            let entries = self.follower.read().await;
            drop(turn);
            let entries = entries.inspect_err(|why| {
                log::warn!(why:%; "stream of a client of flux-webhook-autoreconciler ended");
            })?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries.iter().filter(|entry| self.grant.endpoints.contain(&entry.content.endpoint))
            {
                let place = (self.follower.cursor().epoch, publisher.log.tail().breaks(), entry.sequence);
                for frame in publisher.images.of(place, entry).iter() {
                    self.session.binary(frame.clone()).await?;
                }
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.gone.notify_one();
        log::info!("client of flux-webhook-autoreconciler disconnected");
    }
}

/// The frames of the latest entries, so that each is read once for all clients.
#[derive(Default)]
pub(super) struct ImageFrames(Mutex<VecDeque<(ImagePlace, Arc<[Bytes]>)>>);

/// The place of an entry: its log, the breaks of that, and its sequence.
type ImagePlace = (u64, u64, u64);

/// Entries whose frames are held. Most have none.
const MAX_HELD_ENTRIES: usize = 256;

impl ImageFrames {
    /// Returns the frames of an entry at this place of the log.
    fn of(&self, place: ImagePlace, entry: &LogEntry) -> Arc<[Bytes]> {
        let held =
            self.0.lock().iter().rev().find(|(held, _)| *held == place).map(|(_, frames)| Arc::clone(frames));
        held.unwrap_or_else(|| {
            let images = published_images(entry).into_iter();
            // Texts only.
            let frames: Arc<[Bytes]> =
                images.map(|image| serde_json::to_vec(&image).unwrap_or_default().into()).collect();
            let mut all = self.0.lock();
            all.push_back((place, Arc::clone(&frames)));
            if all.len() > MAX_HELD_ENTRIES {
                all.pop_front();
            }
            frames
        })
    }
}

/// Returns the images at ghcr.io that an entry says were published, one for each tag, their names as the provider
/// has written them.
fn published_images(entry: &LogEntry) -> Vec<PublishedImage> {
    let content = &entry.content;
    if !content.json.contains(REGISTRY) {
        return Vec::new();
    }
    let Ok(Entry::Event(published)) = Entry::from_json(&content.json) else { return Vec::new() };
    let Event::Image(image) = published.event else { return Vec::new() };
    if image.deleted || !image.written.starts_with(REGISTRY) {
        return Vec::new();
    }
    let oci_url = format!("oci://{}", image.written);
    image.tags.into_iter().map(|tag| PublishedImage { oci_url: oci_url.clone(), tag }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::image::ImageName;
    use crate::event::{ImageEvent, Media};
    use crate::fleet::wire::PublishedEvent;
    use crate::journal::event_log::LogContent;

    fn entry(written: &str, tags: &[&str], deleted: bool) -> LogEntry {
        let image = ImageEvent {
            names: vec![ImageName::parse(written).expect("an image")],
            written: written.to_owned(),
            tags: tags.iter().map(ToString::to_string).collect(),
            digest: None,
            media: Media::Unknown,
            deleted,
        };
        let published = PublishedEvent {
            endpoint: "github".to_owned(),
            provider: "GitHub".to_owned(),
            event_type: "package".to_owned(),
            event: Event::Image(image),
            forwarded: Default::default(),
            trace: None,
        };
        let json = Entry::Event(Box::new(published)).to_json("a", jiff::Timestamp::UNIX_EPOCH);
        let content = LogContent { endpoint: "github".into(), json: json.into() };
        LogEntry { sequence: 1, time_millis: 0, content }
    }

    #[test]
    fn each_tag_is_a_frame_with_the_name_as_it_was_written() {
        let frames = published_images(&entry("ghcr.io/Acme/app", &["v1", "latest"], false));
        let frames: Vec<String> =
            frames.iter().map(|frame| serde_json::to_string(frame).expect("JSON")).collect();
        assert_eq!(
            frames,
            [
                r#"{"oci_url":"oci://ghcr.io/Acme/app","tag":"v1"}"#,
                r#"{"oci_url":"oci://ghcr.io/Acme/app","tag":"latest"}"#
            ]
        );
    }

    #[test]
    fn what_is_deleted_or_elsewhere_is_not_told() {
        let none = Vec::new();
        assert_eq!(published_images(&entry("ghcr.io/acme/app", &["v1"], true)), none);
        assert_eq!(published_images(&entry("quay.io/ghcr.io/app", &["v1"], false)), none);
        assert_eq!(published_images(&entry("ghcr.io/acme/app", &[], false)), none);
    }

    #[test]
    fn a_secret_is_given_once() {
        assert_eq!(secret("authSecret=a%2Bb+c"), Some("a+b c".to_owned()));
        for query in ["", "authSecret", "authsecret=a", "authSecret=a&authSecret=a"] {
            assert!(secret(query).is_none_or(|secret| secret.is_empty()), "{query}");
        }
    }
}
