//! What ends a stream, whether its socket takes anything or not.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

use super::Publisher;
use crate::journal::log_tail::Availability;
use crate::listener::Connection;

/// What ends a stream; clones of it end together.
#[derive(Clone)]
pub(super) struct StreamEnd {
    /// Whether the config still grants what the stream has begun with. Looks at more than can be looked at for
    /// each event.
    is_granted: Arc<dyn Fn() -> bool + Send + Sync>,
    table_changes: watch::Receiver<u64>,
    closing: watch::Receiver<Option<Instant>>,
    /// Whether the log can be followed; else another replica may be able to.
    availability: watch::Receiver<Availability>,
    /// The breaks of the log when the stream began.
    breaks: u64,
    /// Set when whoever has the stream has too many.
    displaced: Option<watch::Receiver<bool>>,
    /// When the token expires, or the process wants the stream to end.
    ends: Option<Instant>,
    /// The part of the time until the process ends that the stream takes.
    part_of_drain: f64,
}

/// How long a stream that has to end is given to end by itself: one whose socket takes nothing does not.
const CLOSE_DELAY: Duration = Duration::from_millis(500);

impl StreamEnd {
    /// The end of a stream that begins now. `until` is the end of its token.
    pub(super) fn new(
        publisher: &Publisher,
        until: Option<Instant>,
        displaced: Option<watch::Receiver<bool>>,
        is_granted: impl Fn() -> bool + Send + Sync + 'static,
    ) -> StreamEnd {
        StreamEnd {
            is_granted: Arc::new(is_granted),
            table_changes: publisher.table_changes.subscribe(),
            closing: publisher.closing.subscribe(),
            availability: publisher.log.tail().watch_availability(),
            breaks: publisher.log.tail().breaks(),
            displaced,
            ends: until,
            part_of_drain: fastrand::f64(),
        }
    }

    /// Whether the stream has to end now.
    pub(super) fn is_over(&self) -> bool {
        self.ends.is_some_and(|ends| ends <= Instant::now())
            || self.is_broken(*self.availability.borrow())
            || self.displaced.as_ref().is_some_and(|displaced| *displaced.borrow())
            || (self.table_changes.has_changed().unwrap_or(true) && !(self.is_granted)())
    }

    /// Whether the log could not be followed since the stream began, if only for a moment.
    fn is_broken(&self, now: Availability) -> bool {
        !now.is_available || now.breaks != self.breaks
    }

    /// Waits until the stream has to end.
    pub(super) async fn wait(&mut self) {
        loop {
            let ends = self.ends;
            let over = async {
                match ends {
                    Some(ends) => sleep_until(ends.into()).await,
                    None => std::future::pending().await,
                }
            };
            let displaced = async {
                match &mut self.displaced {
                    // Also when the subscriber is not in the config any more.
                    Some(displaced) => drop(displaced.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                () = displaced => return,
                changed = self.availability.changed() => {
                    let now = *self.availability.borrow_and_update();
                    if changed.is_err() || self.is_broken(now) {
                        return;
                    }
                }
                changed = self.table_changes.changed() => {
                    if changed.is_err() || !(self.is_granted)() {
                        return;
                    }
                }
                changed = self.closing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Some(last) = *self.closing.borrow_and_update() {
                        // Spread, so that the next publisher does not get all subscribers at once.
                        let window = last.saturating_duration_since(Instant::now());
                        let closes = Instant::now() + window.mul_f64(self.part_of_drain);
                        self.ends = Some(self.ends.map_or(closes, |before| before.min(closes)));
                    }
                }
            }
        }
    }

    /// Closes the connection of a stream that has to end, also if it is stuck. `gone` tells that it has ended.
    pub(super) async fn close_in_time(mut self, gone: Arc<Notify>, connection: Rc<Connection>) {
        let over = async {
            self.wait().await;
            tokio::time::sleep(CLOSE_DELAY).await;
        };
        tokio::select! {
            () = over => connection.close(),
            () = gone.notified() => connection.end_stream(),
        }
    }
}
