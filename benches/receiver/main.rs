//! What flux-recv costs, side by side with the least that could do the job, in one run:
//!
//! ```text
//! cargo bench
//! ```
//!
//! Servers are pinned to one core, load and doubles to another, and what is compared runs in turns, so
//! that the ratios hold on a noisy machine. The table goes to stdout, the figures as JSON to
//! `target/bench.json`. The rows with a real kube-apiserver need what `tests/testbed/build` builds, those
//! that count instructions need valgrind and, in `FLUX_RECV_BENCH_BASE`, an older binary to compare with.

mod api_double;
mod baseline;
#[path = "../../tests/cluster/bed.rs"]
#[allow(dead_code)]
mod bed;
mod cluster_rows;
mod fleet_rows;
mod instruction_rows;
mod large_rows;
mod load;
#[path = "../../tests/common/log.rs"]
mod log;
mod memory_rows;
#[cfg(feature = "nats")]
#[path = "../../tests/common/nats.rs"]
#[allow(dead_code)]
mod nats;
#[cfg(feature = "nats")]
mod nats_rows;
mod page_rows;
#[path = "../../tests/common/process.rs"]
#[allow(dead_code)]
mod process;
mod rate_rows;
mod server;
mod table;

use table::Row;

/// As in the binary, so that both sides of a comparison have one allocator.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The bench starts itself again for the processes that it compares with.
    match words.as_slice() {
        ["serve-baseline", port] => return baseline::serve(port),
        ["serve-api", port, objects] => return api_double::serve(port, objects),
        ["list-once", server] => return memory_rows::list_once(server),
        #[cfg(feature = "nats")]
        ["publish-bare", url] => return nats_rows::publish_bare(url),
        _ => {}
    }
    if words.contains(&"--test") {
        // `cargo test --benches` only checks that it runs.
        return;
    }
    let wanted = |group: &str| {
        let filters: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
        filters.is_empty() || filters.iter().any(|filter| group.contains(**filter))
    };
    let mut rows: Vec<Row> = Vec::new();
    for (group, measure) in [
        ("matching", rate_rows::matching as fn() -> Vec<Row>),
        ("rate", rate_rows::rates),
        ("filter", rate_rows::filtered),
        ("filter-ping", rate_rows::ping_beside_filters),
        ("instructions", instruction_rows::instructions),
        ("memory", memory_rows::memory),
        ("page", page_rows::page),
        ("start", memory_rows::start),
        ("cluster", cluster_rows::cluster),
        ("large", large_rows::large),
        ("fleet", fleet_rows::fleet),
        #[cfg(feature = "nats")]
        ("nats", nats_rows::nats),
    ] {
        if wanted(group) {
            rows.extend(measure());
        }
    }
    table::show(&rows);
}
