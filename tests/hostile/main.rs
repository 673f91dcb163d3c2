//! Attacks that once worked. Each of them failed before its fix; `docs/threat-model.md` names what
//! bounds it. `FLUX_RECV_TEST_BINARY` runs them against another binary.

mod attack;
mod bodies;
mod connections;
mod deadlines;
mod double;
mod filters;
#[path = "../common/leaks.rs"]
mod leaks;
#[path = "../common/log.rs"]
mod log;
mod objects;
mod payloads;
mod receivers;
#[path = "../common/running.rs"]
#[expect(dead_code, reason = "the other suites use more of it")]
mod running;
mod signatures;
mod texts;
mod together;
