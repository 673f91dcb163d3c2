//! Webhook receiver for Flux.
pub mod config;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod flux;
pub mod matching;
pub mod outcome;
pub mod provider;
pub mod verify;
