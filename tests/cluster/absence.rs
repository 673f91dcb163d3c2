//! Times in which nobody accepted deliveries or watched: what may have been missed is requested once.

use std::time::Duration;

use serde_json::{Value, json};

use super::bed::Bed;
use super::process::wait_for;
use super::receive::{FluxRecv, git_repository, own_token, requested_at};

const PATIENCE: Duration = Duration::from_secs(60);

fn object(bed: &Bed, name: &str) -> Value {
    bed.get(&format!("/apis/source.toolkit.fluxcd.io/v1/namespaces/apps/gitrepositories/{name}"))
}

/// Stopped for longer than `--catch-up-after`: a push is refused meanwhile, and its object requested after
/// the start.
pub fn an_absence_is_caught_up_with(bed: &Bed) {
    git_repository(bed, "apps", "missed", json!({"url": "https://git.example.com/missed"}));
    let mut running =
        FluxRecv::start(bed, &own_token(bed), &["--catch-up-after", "4s", "--min-interval", "0"]);
    // The first sign of life goes to disk.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(requested_at(&object(bed, "missed")).is_none());
    running.process.kill();
    let refused = reqwest::Client::new().post(format!("{}/health", running.base)).send();
    assert!(bed.block_on(refused).is_err(), "nobody is there");
    std::thread::sleep(Duration::from_secs(7));
    running.start_again();
    wait_for("the missed object", PATIENCE, || requested_at(&object(bed, "missed")).map(drop));
    let first = requested_at(&object(bed, "missed"));
    // The record of the request goes after 2 s, with the next commit.
    std::thread::sleep(Duration::from_millis(4500));
    running.process.kill();
    // A short one is none.
    running.start_again();
    running.wait_until_synced();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(requested_at(&object(bed, "missed")), first, "caught up with once");
}

/// An object that is made while the watches are interrupted: no delivery can match it then.
pub fn what_a_watch_missed_is_requested(bed: &Bed) {
    let mut running =
        FluxRecv::start(bed, &own_token(bed), &["--min-interval", "0", "--catch-up-after", "never"]);
    running.wait_until_synced();
    // A watch begins with what has changed while its list was read.
    std::thread::sleep(Duration::from_secs(6));
    git_repository(bed, "apps", "watched", json!({"url": "https://git.example.com/watched"}));
    std::thread::sleep(Duration::from_secs(3));
    assert!(requested_at(&object(bed, "watched")).is_none(), "a watch that stands misses nothing");
    bed.stop_api_server();
    wait_for("the interruption", PATIENCE, || {
        running.process.has_logged("watch interrupted, retrying", &[]).then_some(())
    });
    bed.start_api_server();
    git_repository(bed, "apps", "made-meanwhile", json!({"url": "https://git.example.com/meanwhile"}));
    wait_for("the object that was made meanwhile", PATIENCE, || {
        requested_at(&object(bed, "made-meanwhile")).map(drop)
    });
    assert!(requested_at(&object(bed, "watched")).is_none(), "nothing has changed in it");
}
