//! What the listeners share: the endpoints, the handler of their deliveries, and what is remembered and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::endpoint::registry::EndpointRegistry;
use crate::history::History;
use crate::listener::Deadlines;
use crate::metrics::Metrics;
use crate::receive::DeliveryHandler;

/// The endpoints and the handler of their deliveries.
pub struct Service {
    /// The endpoints, which a reload replaces.
    pub registry: EndpointRegistry,
    pub handler: DeliveryHandler,
    /// Remembers the last deliveries.
    pub history: Arc<History>,
    pub metrics: Arc<Metrics>,
    /// Bounds of what is taken.
    pub limits: Limits,
    /// What is to be said of the config in force.
    pub config_state: ConfigState,
    shutting_down: AtomicBool,
}

impl Service {
    pub fn new(
        registry: EndpointRegistry,
        handler: DeliveryHandler,
        history: Arc<History>,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Service {
        let shutting_down = AtomicBool::new(false);
        let config_state = ConfigState::default();
        Service { registry, handler, history, metrics, limits, config_state, shutting_down }
    }

    /// From now on probes say that the process is not ready, and each answer ends its connection, so that
    /// the next delivery goes to another instance.
    pub fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Whether [`Service::shut_down`] was called.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }
}

/// The warnings of the config in force, and the last reload if it failed.
#[derive(Default)]
pub struct ConfigState {
    warnings: Mutex<Vec<String>>,
    failed_reload: Mutex<Option<(Timestamp, String)>>,
}

impl ConfigState {
    /// A config is in force, with these warnings.
    pub fn in_force(&self, warnings: Vec<String>) {
        *self.warnings.lock() = warnings;
        *self.failed_reload.lock() = None;
    }

    /// A changed config is not, because of this mistake.
    pub fn reload_failed(&self, mistake: &str) {
        *self.failed_reload.lock() = Some((Timestamp::now(), mistake.to_owned()));
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }

    /// When the last reload failed, and why; none if the config in force is the present one.
    pub fn failed_reload(&self) -> Option<(Timestamp, String)> {
        self.failed_reload.lock().clone()
    }
}

/// Bounds of what the listener takes from strangers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest body, in bytes.
    pub body: usize,
    /// All bodies of up to 64 KiB that are being read or handled, in bytes.
    pub small_bodies: usize,
    /// The same for longer ones.
    pub large_bodies: usize,
    /// How long a body of up to 64 KiB may take to arrive.
    pub small_body_time: Duration,
    /// How long a longer one may take.
    pub body_time: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// How long a client may take otherwise.
    pub deadlines: Deadlines,
}

impl Default for Limits {
    fn default() -> Limits {
        let deadlines = Deadlines::DEFAULT;
        Limits {
            // GitHub sends up to 25 MB, but a push of a hundred commits has some 100 KiB.
            body: 8 * 1024 * 1024,
            small_bodies: 4 * 1024 * 1024,
            large_bodies: 32 * 1024 * 1024,
            small_body_time: Duration::from_secs(10),
            body_time: deadlines.body,
            max_connections: 1024,
            deadlines,
        }
    }
}
