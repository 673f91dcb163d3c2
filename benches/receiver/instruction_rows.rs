//! Instructions per delivery, of this build and of an older one: a count, which no neighbour disturbs.

use std::path::{Path, PathBuf};

use super::load::{SHORT, Size, WITH_COMMITS, requests_of, run, unknown};
use super::server::{Server, measured};
use super::table::{Must, Row};

pub const REPOSITORIES: usize = 50;
const FEW: u64 = 500;
const MANY: u64 = 2500;

/// Each object is requested once and waits from then on, so that how fast the machine is does not change how
/// much there is to do.
pub const ARGUMENTS: [&str; 4] = ["--min-interval", "1h", "--drain", "0s"];

pub fn instructions() -> Vec<Row> {
    let Some(base) = std::env::var_os("FLUX_RECV_BENCH_BASE").map(PathBuf::from) else {
        println!("instructions: FLUX_RECV_BENCH_BASE names no older binary to compare with");
        return Vec::new();
    };
    let api = Server::api_double(REPOSITORIES);
    let compare = |what: &'static str, sent: Sent, status: u16| {
        let count = |program: &Path| per_delivery(program, &api, sent, status, &ARGUMENTS);
        let (ours, theirs) = (count(&measured()), count(&base));
        let figures = format!("{ours:.0} : {theirs:.0}");
        println!("{what}: {figures}");
        Row { what, figures, value: ours / theirs, must: Must::AtMost(1.05) }
    };
    vec![
        compare("instructions per push of 8 KiB : the older build", Sent::Push(WITH_COMMITS), 202),
        compare("instructions per push of 1 KiB : the older build", Sent::Push(SHORT), 202),
        compare("instructions per forged push : the older build", Sent::Forged, 401),
        compare("instructions per unknown path : the older build", Sent::Nothing, 404),
    ]
}

#[derive(Clone, Copy)]
pub enum Sent {
    Push(Size),
    Forged,
    /// To a path that nobody knows.
    Nothing,
}

pub fn per_delivery(program: &Path, api: &Server, sent: Sent, status: u16, arguments: &[&str]) -> f64 {
    let after = |deliveries: u64| {
        let server = Server::counted(program, api, arguments).when_it_knows_all_objects().when_it_listens();
        let path = server.path();
        let requests = match sent {
            Sent::Push(size) => requests_of(size, &path, REPOSITORIES, false),
            Sent::Forged => requests_of(SHORT, &path, REPOSITORIES, true),
            Sent::Nothing => unknown(),
        };
        let sent = run(&server, &requests, status, |count, _| count >= deliveries).requests;
        (server.end_and_count(), sent)
    };
    let (few, many) = (after(FEW), after(MANY));
    (many.0 - few.0) as f64 / (many.1 - few.1) as f64
}
