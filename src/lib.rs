//! Webhook receiver for Flux.
pub mod event;
