//! The connections of one worker: how many there are, and which of them have to end.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ConnectionCounters;
use super::connection::{Connection, Deadlines};

/// How often deadlines are looked at; the shortest is 2 s.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The connections of one worker. Lives on the worker's thread.
pub(super) struct ConnectionPool {
    max_connections: usize,
    /// Those whose answer is not a stream.
    max_without_stream: usize,
    deadlines: Deadlines,
    counters: ConnectionCounters,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next_id: Cell<u64>,
    checks: Cell<bool>,
}

/// A connection's place in its pool; given back when dropped.
pub(super) struct Membership {
    pub(super) pool: Rc<ConnectionPool>,
    id: u64,
    pub(super) connection: Rc<Connection>,
}

impl ConnectionPool {
    pub(super) fn new(
        max_connections: usize,
        max_without_stream: usize,
        deadlines: Deadlines,
        counters: ConnectionCounters,
    ) -> Rc<ConnectionPool> {
        Rc::new(ConnectionPool {
            max_connections,
            max_without_stream,
            deadlines,
            counters,
            connections: RefCell::default(),
            next_id: Cell::new(0),
            checks: Cell::new(false),
        })
    }

    /// Takes a connection in. Beyond nine tenths of the limit, the one that has been without a
    /// complete request for longest ends for it: an attacker's connections are always older than the
    /// one that a delivery has just opened. None if all are being handled.
    pub(super) fn admit(self: &Rc<ConnectionPool>, now: Instant) -> Option<Membership> {
        // Those that were closed are gone as soon as their tasks have run.
        let is_full = self.open() >= self.max_connections;
        if is_full || self.connections.borrow().len() >= 2 * self.max_connections {
            self.counters.refused.inc();
            return None;
        }
        let is_crowded = self.open() >= (self.max_connections * 9 / 10).max(1);
        if is_crowded || self.without_stream() >= self.max_without_stream {
            self.close_oldest();
        }
        let id = self.next_id.replace(self.next_id.get().wrapping_add(1));
        let connection = Rc::new(Connection::new(now));
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        Some(Membership { pool: Rc::clone(self), id, connection })
    }

    /// Closes what is late, now and then, for as long as the worker lives; more calls do nothing.
    pub(super) fn check_deadlines(self: &Rc<ConnectionPool>) {
        if self.checks.replace(true) {
            return;
        }
        let pool = Rc::clone(self);
        actix_web::rt::spawn(async move {
            loop {
                tokio::time::sleep(CHECK_INTERVAL).await;
                pool.close_late(Instant::now());
            }
        });
    }

    fn close_late(&self, now: Instant) {
        let connections = self.connections.borrow();
        let open = connections.values().filter(|connection| !connection.is_closed());
        for connection in open.filter(|connection| connection.is_late(&self.deadlines, now)) {
            self.counters.late.inc();
            connection.close();
        }
    }

    fn close_oldest(&self) {
        let connections = self.connections.borrow();
        let closable = connections.values().filter_map(|it| Some((it.without_request_since()?, it)));
        if let Some((_, oldest)) = closable.min_by_key(|(since, _)| *since) {
            self.counters.displaced.inc();
            oldest.close();
        }
    }

    /// The head of a connection is too long.
    pub(super) fn ends_over_its_head(&self) {
        self.counters.head_too_long.inc();
    }

    fn without_stream(&self) -> usize {
        let connections = self.connections.borrow();
        connections
            .values()
            .filter(|connection| !connection.is_closed() && !connection.is_streaming())
            .count()
    }

    fn open(&self) -> usize {
        self.connections.borrow().values().filter(|connection| !connection.is_closed()).count()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.pool.connections.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(max_connections: usize) -> Rc<ConnectionPool> {
        ConnectionPool::new(
            max_connections,
            max_connections,
            Deadlines::DEFAULT,
            ConnectionCounters::default(),
        )
    }

    // The attack: 1,024 sockets that send nothing kept everyone else out.
    #[test]
    fn silent_connections_give_way_to_new_ones() {
        let (pool, start) = (pool(10), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let silent: Vec<_> = (0..9).map(|at_millis| pool.admit(at(at_millis)).expect("room")).collect();
        assert!(silent.iter().all(|member| !member.connection.is_closed()));
        let new = pool.admit(at(20)).expect("room");
        let closed = silent.iter().map(|member| member.connection.is_closed());
        assert!(closed.eq([true].into_iter().chain([false; 8])), "the oldest gives way");
        assert!(!new.connection.is_closed());
        let burst: Vec<_> = (30..39).filter_map(|at_millis| pool.admit(at(at_millis))).collect();
        assert_eq!(burst.len(), 9, "also before the closed ones are gone");
        assert!(pool.admit(at(40)).is_some() && pool.counters.refused.get() == 0);
        drop(silent);
        assert_eq!(pool.connections.borrow().len(), 10);
    }

    // The attack: idle sockets displaced the streams of subscribers, whose requests are older.
    #[test]
    fn strangers_displace_one_another_and_no_stream() {
        let pool = ConnectionPool::new(20, 4, Deadlines::DEFAULT, ConnectionCounters::default());
        let begin_stream = |_| {
            let stream = pool.admit(Instant::now()).expect("room");
            stream.connection.request_began(false);
            stream.connection.begin_stream();
            stream
        };
        let streams: Vec<_> = (0..12).map(begin_stream).collect();
        let strangers: Vec<_> = (0..8).filter_map(|_| pool.admit(Instant::now())).collect();
        assert!(streams.iter().all(|stream| !stream.connection.is_closed()));
        assert_eq!(strangers.iter().filter(|stranger| !stranger.connection.is_closed()).count(), 4);
    }

    #[test]
    fn a_request_that_is_being_handled_is_left_alone() {
        let pool = pool(10);
        let busy: Vec<_> = (0..10).map(|_| pool.admit(Instant::now()).expect("room")).collect();
        busy.iter().for_each(|member| member.connection.request_began(false));
        // The tenth had displaced the first, before its request began.
        let last = pool.admit(Instant::now()).expect("room");
        last.connection.request_began(false);
        assert!(pool.admit(Instant::now()).is_none());
        assert!(busy.iter().skip(1).all(|member| !member.connection.is_closed()));
    }

    #[test]
    fn what_is_late_is_closed() {
        let pool = pool(10);
        let (silent, busy) =
            (pool.admit(Instant::now()).expect("room"), pool.admit(Instant::now()).expect("room"));
        busy.connection.request_began(false);
        pool.close_late(Instant::now() + Duration::from_secs(74));
        assert!(!silent.connection.is_closed());
        pool.close_late(Instant::now() + Duration::from_secs(76));
        assert!(silent.connection.is_closed() && !busy.connection.is_closed());
        pool.close_late(Instant::now() + Duration::from_secs(77));
        assert_eq!(pool.counters.late.get(), 1, "each is counted once");
    }
}
