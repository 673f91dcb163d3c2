//! A publisher's event log in NATS JetStream, against real nats-servers. Skipped where
//! `tests/testbed/build` has not built one, but for CI.

#![cfg(feature = "nats")]

#[allow(dead_code, reason = "each suite uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod publishing;
mod replicas;
mod stream;
mod suite;

use common::running;
