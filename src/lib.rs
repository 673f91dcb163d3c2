//! Webhook receiver for Flux.
//!
//! The product is the binary. The library exists so that tests, benches and fuzz targets reach the
//! parts that they measure; it promises nothing to other crates.

pub(crate) mod admin;
pub(crate) mod backoff;
pub(crate) mod bounded_text;
pub mod cli;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod delivery;
pub(crate) mod endpoint;
pub(crate) mod event;
pub(crate) mod expression;
pub(crate) mod field_error;
pub(crate) mod filter;
pub(crate) mod filter_input;
pub(crate) mod fleet;
pub(crate) mod flux;
pub(crate) mod flux_events;
pub(crate) mod flux_receiver;
pub(crate) mod flux_v1;
pub(crate) mod follow_through;
pub(crate) mod history;
#[cfg(feature = "nats")]
pub(crate) mod jetstream;
pub(crate) mod journal;
pub(crate) mod json_items;
pub(crate) mod listener;
pub(crate) mod matching;
pub(crate) mod metrics;
pub(crate) mod object_event;
pub(crate) mod offline;
pub(crate) mod outcome;
pub(crate) mod provider;
pub(crate) mod publisher;
pub(crate) mod queue;
pub(crate) mod receive;
pub(crate) mod reload;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod subscriber;
pub(crate) mod telemetry;
pub(crate) mod trace_parent;
pub(crate) mod verify;
pub(crate) mod webhook_api;

/// Parts that tests, benches and fuzz targets use without the binary around them. Everything else
/// is private, so that the compiler reports what nobody uses.
#[doc(hidden)]
pub mod internals {
    pub use crate::cli::serve::offline_service;
    pub use crate::cluster::list_scanner::ListScanner;
    pub use crate::delivery::Delivery;
    pub use crate::endpoint::Endpoint;
    pub use crate::endpoint::registry::{EndpointRegistry, Serving};
    pub use crate::event::git_ref::GitRef;
    pub use crate::event::image::{ImageName, ImageReference};
    pub use crate::event::repository_url::RepositoryUrl;
    pub use crate::event::semver::{Constraint, version_of_tag};
    pub use crate::event::{Event, GitChanges, GitEvent, RefChange, Subject};
    pub use crate::expression::{Budget, Expression, Variable, VariableName, Variables};
    pub use crate::filter_input::{FilterInput, RESOURCE_VARIABLES};
    pub use crate::flux::selection::Selection;
    pub use crate::flux::{KINDS, Kind, REQUESTED_AT, Spec, Target, revision_hash};
    pub use crate::journal::Journal;
    pub use crate::journal::contents::Contents;
    pub use crate::json_items::JsonItems;
    pub use crate::matching::{Inventory, KindCoverage, Object};
    pub use crate::metrics::Metrics;
    pub use crate::offline::{DryRun, add_manifests};
    pub use crate::provider::{EventHeader, PROVIDERS, ParseContext, Parsed, Provider};
    pub use crate::queue::{Pace, Queue};
    pub use crate::receive::{DeliveryHandler, FluxObjects, Sink};
    pub use crate::service::{Limits, Service};
    pub use crate::verify::auth::Auth;
    pub use crate::verify::fetch::{Fetch, FetchError};
    pub use crate::verify::key::Key;
    pub use crate::verify::sign::sign;
    pub use crate::verify::{Authentication, Credentials, GoogleAccount, Requirement, VerifyContext, verify};

    pub mod config {
        pub use crate::config::{Rules, load};
    }
    pub mod event_log {
        pub use crate::fleet::options::{NatsCredentials, NatsOptions};
        #[cfg(feature = "nats")]
        pub use crate::jetstream::JetStreamLog;
        pub use crate::journal::event_log::{
            EventLog, LogContent, LogEntry, LogLimits, MissedEvents, NewEntry,
        };
        pub use crate::journal::journal_log::{JournalLog, LogFile};
        pub use crate::journal::log_follower::LogFollower;
        pub use crate::journal::store::JournalFolder;
    }
    pub mod fleet {
        pub use crate::fleet::cursor::Cursor;
        pub use crate::fleet::forward::ForwardedFields;
        pub use crate::fleet::frame::{Frame, FrameReader, FrameType, write};
        pub use crate::fleet::hello::{Hello, OfferedEndpoint, Reset};
        pub use crate::fleet::signature::SigningKey;
        pub use crate::fleet::wire::{Entry, PublishedEvent, WIRE_VERSION};
        pub use crate::trace_parent::TraceParent;
    }
    pub mod listener {
        pub use crate::listener::{
            ConnectionCounters, Deadlines, ListenerOptions, RunningServer, bind, local_address, serve,
        };
    }
    pub mod matching {
        pub use crate::matching::find;
    }
    pub mod server {
        pub use crate::server::start;
    }
}
