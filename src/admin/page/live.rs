//! Tells viewers that something has changed, as server-sent events.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use futures::stream;

use super::super::AdminState;
use crate::listener::Connection;

/// Viewers at a time.
const MAX_VIEWERS: usize = 16;

/// The pause between two looks; a viewer costs nothing else.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks after which a line is sent all the same, so that a viewer that has gone is noticed.
const LOOKS_BETWEEN_LINES: u32 = 15;

/// Counts the viewers.
#[derive(Clone, Default)]
pub struct Viewers(Arc<AtomicUsize>);

/// One viewer, as long as its answer is sent.
struct Viewer(Viewers);

impl Viewers {
    fn admit(&self) -> Option<Viewer> {
        let admitted = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < MAX_VIEWERS).then_some(count + 1)
        });
        admitted.ok().map(|_| Viewer(self.clone()))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(super) async fn live(request: HttpRequest, state: web::Data<AdminState>) -> HttpResponse {
    let Some(viewer) = state.viewers.admit() else {
        return HttpResponse::ServiceUnavailable()
            .body("16 viewers are enough; this page is complete without it\n");
    };
    if let Some(connection) = request.conn_data::<Rc<Connection>>() {
        connection.begin_stream();
    }
    // A browser that was away says what it has seen last; one that is new has just loaded the page.
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<u64>().ok());
    let seen = last.unwrap_or_else(|| state.service.history.changes());
    let events = stream::unfold((state, viewer, seen), |(state, viewer, seen)| async move {
        for look in 1.. {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let changes = state.service.history.changes();
            let line = match changes == seen {
                false => format!("id: {changes}\nevent: change\ndata:\n\n"),
                true if look == LOOKS_BETWEEN_LINES => format!("id: {changes}\n: still here\n\n"),
                true => continue,
            };
            return Some((Ok::<_, actix_web::Error>(web::Bytes::from(line)), (state, viewer, changes)));
        }
        None
    });
    // Nothing else is expected on a connection that was a stream.
    HttpResponse::Ok().content_type("text/event-stream").force_close().streaming(events)
}
