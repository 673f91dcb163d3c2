//! Attacks that once worked. Each of them failed before its fix; `docs/threat-model.md` names what
//! bounds it. `FLUX_RECV_TEST_BINARY` runs them against another binary.

mod attack;
mod bodies;
#[allow(dead_code, reason = "each suite uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod deadlines;
mod double;
mod filters;
mod objects;
mod payloads;
mod receivers;
mod signatures;
mod texts;
mod together;

use common::running;
