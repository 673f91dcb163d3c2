//! What a connection is doing, and until when: pure but for waking its task.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// A head, from its first byte.
    pub head: Duration,
    /// A body, from the end of its head.
    pub body: Duration,
    /// Reading an answer, from the first byte that is written.
    pub answer: Duration,
    /// Limit between two requests of a connection.
    pub idle: Duration,
}

impl Deadlines {
    /// The deadlines of all listeners.
    pub const DEFAULT: Deadlines = Deadlines {
        head: Duration::from_secs(10),
        body: Duration::from_secs(30),
        answer: Duration::from_secs(15),
        // nginx keeps connections to upstreams for 60 s: a proxy should be the one that closes, or its
        // next request meets a closed connection.
        idle: Duration::from_secs(75),
    };
}

/// Bytes of a head. GitHub's largest has 1 KiB; an identity token in it adds 4.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Bytes of a body that may wait between the socket and its reader.
const MAX_UNREAD_BODY_BYTES: usize = 16 * 1024;

/// An answered request whose body goes on is not worth a full deadline.
const UNWANTED_BODY_DEADLINE: Duration = Duration::from_secs(2);

/// The handler answers a late body itself; the connection is closed only where it did not.
const HANDLER_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionPhase {
    /// No byte of the next request has arrived.
    Idle,
    Head,
    /// A head is complete, its body is not.
    Body,
    /// A request was answered before its body was complete.
    UnwantedBody,
    /// A complete request is being handled.
    Handling,
    /// Its answer is being written.
    Answering,
    /// Its answer is a stream that goes on until one side ends it.
    Streaming,
}

/// How much may be read from a socket now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadAllowance {
    /// This number of bytes may be read.
    Bytes(usize),
    /// Nothing until what was read has been used; the task is woken then.
    Wait,
    /// Nothing before the parser has seen what it has; the task has to be polled once more.
    ParseFirst,
    /// The head is too long.
    HeadTooLong,
}

/// The state of one connection. Its stream, its requests and the pool share it on one thread.
#[derive(Debug)]
pub struct Connection {
    phase: Cell<ConnectionPhase>,
    /// When the phase began.
    since: Cell<Instant>,
    /// When the answer that is being written was begun.
    writing_since: Cell<Option<Instant>>,
    /// When a request was last completely received; before the first, when the connection was accepted.
    last_request: Cell<Instant>,
    /// Bytes that were read and not used yet, as far as that can be told.
    unused_bytes: Cell<usize>,
    /// Whether reading has stopped because of `unused_bytes`.
    is_starved: Cell<bool>,
    is_closed: Cell<bool>,
    task: RefCell<Option<Waker>>,
}

impl Connection {
    pub(super) fn new(now: Instant) -> Connection {
        Connection {
            phase: Cell::new(ConnectionPhase::Idle),
            since: Cell::new(now),
            writing_since: Cell::new(None),
            last_request: Cell::new(now),
            unused_bytes: Cell::new(0),
            is_starved: Cell::new(false),
            is_closed: Cell::new(false),
            task: RefCell::new(None),
        }
    }

    /// A head is complete.
    pub(super) fn request_began(&self, has_body: bool) {
        self.unused_bytes.set(0);
        self.is_starved.set(false);
        self.enter(ConnectionPhase::Body);
        if !has_body {
            self.body_ended();
        }
    }

    /// The handler has taken a piece of the body, so the next one may be read.
    pub fn body_progressed(&self) {
        self.unused_bytes.set(0);
        self.continue_reading();
    }

    /// The whole body was received.
    pub fn body_ended(&self) {
        let now = Instant::now();
        self.last_request.set(now);
        self.phase.set(ConnectionPhase::Handling);
        self.since.set(now);
        self.body_progressed();
    }

    /// Whether no byte of the request is missing.
    pub fn has_whole_request(&self) -> bool {
        self.phase.get() == ConnectionPhase::Handling
    }

    /// The answer is a stream: only a client that reads nothing of it is late.
    pub fn begin_stream(&self) {
        self.enter(ConnectionPhase::Streaming);
    }

    /// The stream has ended, and with it the answer.
    pub fn end_stream(&self) {
        if self.is_streaming() {
            self.phase.set(ConnectionPhase::Answering);
        }
    }

    /// A part of a stream was taken by the operating system: a slow reader is not one that reads nothing.
    pub(super) fn stream_progressed(&self) {
        if self.is_streaming() {
            self.writing_since.set(Some(Instant::now()));
        }
    }

    /// Whether the answer is a stream.
    pub(super) fn is_streaming(&self) -> bool {
        self.phase.get() == ConnectionPhase::Streaming
    }

    /// The handler has answered.
    pub(super) fn request_ended(&self) {
        match self.phase.get() {
            ConnectionPhase::Streaming => {}
            ConnectionPhase::Handling => self.phase.set(ConnectionPhase::Answering),
            _ => self.enter(ConnectionPhase::UnwantedBody),
        }
        self.continue_reading();
    }

    pub(super) fn read_allowance(&self) -> ReadAllowance {
        let limit = match self.phase.get() {
            ConnectionPhase::Body | ConnectionPhase::UnwantedBody => MAX_UNREAD_BODY_BYTES,
            _ => MAX_HEAD_BYTES,
        };
        match limit.saturating_sub(self.unused_bytes.get()) {
            0 if !matches!(self.phase.get(), ConnectionPhase::Idle | ConnectionPhase::Head) => {
                self.is_starved.set(true);
                ReadAllowance::Wait
            }
            // The parser reads all that there is before it parses.
            0 if !self.is_starved.replace(true) => ReadAllowance::ParseFirst,
            0 => ReadAllowance::HeadTooLong,
            bytes => ReadAllowance::Bytes(bytes),
        }
    }

    pub(super) fn read(&self, bytes: usize) {
        self.unused_bytes.set(self.unused_bytes.get().saturating_add(bytes));
        if self.phase.get() == ConnectionPhase::Idle {
            self.enter(ConnectionPhase::Head);
        }
    }

    pub(super) fn writes(&self) {
        if self.writing_since.get().is_none() {
            self.writing_since.set(Some(Instant::now()));
        }
    }

    /// All that was written has been taken by the operating system.
    pub(super) fn flushed(&self) {
        self.writing_since.set(None);
        if self.phase.get() == ConnectionPhase::Answering {
            // A request that came close behind the last one has begun already.
            self.enter(if self.unused_bytes.get() > 0 {
                ConnectionPhase::Head
            } else {
                ConnectionPhase::Idle
            });
        }
    }

    /// Whether the client has been too slow.
    pub(super) fn is_late(&self, deadlines: &Deadlines, now: Instant) -> bool {
        let in_phase = match self.phase.get() {
            ConnectionPhase::Idle => deadlines.idle,
            ConnectionPhase::Head => deadlines.head,
            ConnectionPhase::Body => deadlines.body + HANDLER_GRACE,
            ConnectionPhase::UnwantedBody => UNWANTED_BODY_DEADLINE,
            // How long handling takes is up to us.
            ConnectionPhase::Handling | ConnectionPhase::Answering | ConnectionPhase::Streaming => {
                Duration::MAX
            }
        };
        let is_past = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        is_past(self.since.get(), in_phase)
            || self.writing_since.get().is_some_and(|since| is_past(since, deadlines.answer))
    }

    /// Since when no complete request has arrived; none while one is being handled.
    pub(super) fn without_request_since(&self) -> Option<Instant> {
        let is_busy = matches!(self.phase.get(), ConnectionPhase::Handling | ConnectionPhase::Streaming)
            || self.is_closed.get();
        (!is_busy).then(|| self.last_request.get())
    }

    /// Ends the connection: its next read or write fails.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Remembers the task that reads and writes.
    pub(super) fn registers(&self, context: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            *task = Some(context.waker().clone());
        }
    }

    fn enter(&self, phase: ConnectionPhase) {
        self.phase.set(phase);
        self.since.set(Instant::now());
    }

    fn continue_reading(&self) {
        if self.is_starved.replace(false) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many seconds the connection is late, if nothing more happens.
    fn seconds_left(connection: &Connection) -> Option<u64> {
        let now = Instant::now();
        (0..200).find(|seconds| connection.is_late(&Deadlines::DEFAULT, now + Duration::from_secs(*seconds)))
    }

    #[test]
    fn every_phase_has_its_deadline() {
        let connection = Connection::new(Instant::now());
        assert_eq!(seconds_left(&connection), Some(75), "silent");
        connection.read(1);
        assert_eq!(seconds_left(&connection), Some(10), "half a head");
        connection.request_began(true);
        assert_eq!(seconds_left(&connection), Some(35), "half a body");
        connection.body_ended();
        assert_eq!(seconds_left(&connection), None, "up to us");
        connection.writes();
        assert_eq!(seconds_left(&connection), Some(15), "an unread answer");
        connection.request_ended();
        connection.flushed();
        assert_eq!(seconds_left(&connection), Some(75), "idle again");
    }

    // The attack: the deadline of a head held for the first request of a connection only.
    #[test]
    fn the_second_head_has_the_deadline_of_the_first() {
        let connection = Connection::new(Instant::now());
        connection.read(40);
        connection.request_began(false);
        connection.request_ended();
        connection.flushed();
        connection.read(1);
        assert_eq!(seconds_left(&connection), Some(10));
    }

    // A stream that is idle between heartbeats was closed as a connection between two requests is.
    #[test]
    fn a_stream_is_late_only_when_it_is_not_read() {
        let connection = Connection::new(Instant::now());
        connection.request_began(false);
        connection.begin_stream();
        connection.request_ended();
        connection.writes();
        assert_eq!(seconds_left(&connection), Some(15), "an unread frame");
        connection.flushed();
        assert_eq!(seconds_left(&connection), None, "however long it lasts");
        assert_eq!(connection.without_request_since(), None, "nobody displaces it");
        connection.writes();
        connection.end_stream();
        connection.flushed();
        assert_eq!(seconds_left(&connection), Some(75), "a stream that has ended leaves an idle connection");
        assert!(connection.without_request_since().is_some());
    }

    #[test]
    fn a_byte_now_and_then_moves_no_deadline() {
        let connection = Connection::new(Instant::now());
        connection.read(1);
        let since = connection.since.get();
        connection.read(1);
        assert_eq!(connection.since.get(), since);
        connection.writes();
        let since = connection.writing_since.get();
        connection.writes();
        assert_eq!(connection.writing_since.get(), since);
    }

    #[test]
    fn a_body_that_nobody_wants_has_two_seconds() {
        let connection = Connection::new(Instant::now());
        connection.read(40);
        connection.request_began(true);
        connection.request_ended();
        connection.flushed();
        assert_eq!(seconds_left(&connection), Some(2));
    }

    #[test]
    fn a_head_is_limited_and_a_body_waits_for_its_reader() {
        let connection = Connection::new(Instant::now());
        assert_eq!(connection.read_allowance(), ReadAllowance::Bytes(MAX_HEAD_BYTES));
        connection.read(MAX_HEAD_BYTES);
        assert_eq!(connection.read_allowance(), ReadAllowance::ParseFirst);
        assert_eq!(connection.read_allowance(), ReadAllowance::HeadTooLong);
        connection.request_began(true);
        connection.read(MAX_UNREAD_BODY_BYTES);
        assert_eq!(connection.read_allowance(), ReadAllowance::Wait);
        connection.body_progressed();
        assert_eq!(connection.read_allowance(), ReadAllowance::Bytes(MAX_UNREAD_BODY_BYTES));
    }

    #[test]
    fn only_a_complete_request_makes_a_connection_young() {
        let accepted = Instant::now();
        let connection = Connection::new(accepted);
        connection.read(40);
        connection.request_began(true);
        assert_eq!(connection.without_request_since(), Some(accepted));
        connection.body_ended();
        assert_eq!(connection.without_request_since(), None, "is being handled");
        connection.request_ended();
        assert!(connection.without_request_since() > Some(accepted));
    }
}
