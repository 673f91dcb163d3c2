//! What publishers and subscribers agree on: the wire form of events, its frames and signatures, and the
//! options of both sides. Knows neither HTTP nor files.

pub mod cursor;
pub mod forward;
pub mod frame;
pub mod hello;
pub mod options;
pub mod signature;
pub mod wire;

/// The path at which a publisher streams its event log, below its URL.
pub const SUBSCRIBE_PATH: &str = "/subscribe";

/// The request header with a random text of the subscriber, which `hello` and `reset` repeat: neither can be
/// replayed.
pub const NONCE_HEADER: &str = "flux-recv-nonce";

/// The time between two heartbeats of a stream without events.
pub const HEARTBEAT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(15);
