//! Everything that needs no cluster, through what users use: the binary and its HTTP
//! port.

mod api_server;
mod architecture;
mod autoreconciler;
mod commands;
#[allow(dead_code, reason = "each suite uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod convert;
mod dependencies;
mod docs;
mod event_log;
mod explain;
mod filters;
mod fixtures;
mod fleet;
mod flux_v1;
mod google;
mod hook;
mod http;
mod limits;
mod monitoring;
mod night;
mod oidc;
mod operators;
mod page;
mod payloads;
mod providers;
mod recipes;
mod release;
mod reload;
mod schema;
mod shutdown;
mod sns;
mod web;
mod wire;

use common::running;
