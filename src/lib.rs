//! Webhook receiver for Flux.
pub mod cli;
pub mod cluster;
pub mod config;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod flux;
pub mod fluxd;
pub mod matching;
pub mod offline;
pub mod outcome;
pub mod provider;
pub mod queue;
pub mod receive;
pub mod server;
pub mod telemetry;
pub mod verify;
