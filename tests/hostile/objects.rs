//! Objects that tenants write.

use std::time::{Duration, Instant};

use super::attack::{CONFIG, MIB, deliver, growth, memory};
use super::double::{Double, ListedKind};

/// A kind that the double lists, and a flux-recv that watches it.
fn start(kind: ListedKind) -> super::running::FluxRecv {
    Double::new(kind).start(CONFIG, &["--min-interval", "0"])
}

pub fn metadata(at: usize) -> String {
    format!("\"metadata\":{{\"name\":\"o{at}\",\"namespace\":\"tenant\",\"resourceVersion\":\"7\"}}")
}

/// 25 patterns of which each compiles to megabytes.
pub fn with_patterns(at: usize) -> String {
    let patterns: Vec<String> =
        (0..25).map(|number| format!("\"(?:\\\\pL{{1,{}}}){{1,9}}x\"", 80 + number)).collect();
    format!(
        "{{\"apiVersion\":\"image.toolkit.fluxcd.io/v1\",\"kind\":\"ImageRepository\",{},\"spec\":{{\"image\":\"r.io/app\",\"exclusionList\":[{}]}}}}",
        metadata(at),
        patterns.join(",")
    )
}

// The attack: 600 bytes of YAML took 244 MB and 7 s of the thread that drives the queue, again at each
// change, and crash-looped the default install.
#[actix_web::test]
async fn patterns_of_objects_take_neither_memory_nor_time() {
    let kind = ListedKind {
        group: "image.toolkit.fluxcd.io",
        plural: "imagerepositories",
        objects: 100,
        object: with_patterns,
        changes: 50,
    };
    let running = start(kind);
    let began = Instant::now();
    running.wait_for_logs(INVENTORY_COMPLETE, &[], 1, Duration::from_secs(60)).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let peak = memory(&running).peak;
    assert!(peak < 100 * MIB, "{} MiB", peak / MIB);
    let (status, page) = running.get_admin("/metrics").await;
    assert_eq!(status, 200);
    assert!(page.contains("flux_recv_inventory_objects{kind=\"ImageRepository\"} 100"), "{page}");
}

/// 1 MB, most of it in a field that matching does not read.
pub fn large(at: usize) -> String {
    let folders = vec!["\"/a\""; 200_000].join(",");
    format!(
        "{{\"apiVersion\":\"source.toolkit.fluxcd.io/v1\",\"kind\":\"GitRepository\",{},\"spec\":{{\"url\":\"https://github.com/org/r{at}\",\"sparseCheckout\":[{folders}]}}}}",
        metadata(at)
    )
}

const INVENTORY_COMPLETE: &str = "inventory complete; matching deliveries as they arrive";
const TOO_LONG: &str = "field is too long; the object is matched without it";

// The attack: lists came in pages of 50, each held as bytes and as a tree of values.
#[actix_web::test]
async fn a_thousand_objects_of_a_megabyte_are_listed_one_by_one() {
    let kind = ListedKind {
        group: "source.toolkit.fluxcd.io",
        plural: "gitrepositories",
        objects: 1000,
        object: large,
        changes: 3,
    };
    for lists_in_pages in [false, true] {
        let double = Double { lists_in_pages, ..Double::new(kind) };
        let running = double.start(CONFIG, &["--min-interval", "0"]);
        let before = memory(&running);
        running.wait_for_logs(INVENTORY_COMPLETE, &[], 1, Duration::from_secs(120)).await;
        let grown = growth(&running, before);
        assert!(grown < 32 * MIB, "{} MiB, in pages: {lists_in_pages}", grown / MIB);
        let (_, page) = running.get_admin("/metrics").await;
        assert!(page.contains("flux_recv_inventory_objects{kind=\"GitRepository\"} 1000"), "{page}");
    }
}

/// A range of 900 KB.
fn with_range(at: usize) -> String {
    let range = ">=1.0.0 ".repeat(110_000);
    format!(
        "{{\"apiVersion\":\"source.toolkit.fluxcd.io/v1\",\"kind\":\"GitRepository\",{},\"spec\":{{\"url\":\"https://github.com/org/app\",\"ref\":{{\"semver\":\"{range}\"}}}}}}",
        metadata(at)
    )
}

// The attack: one range of 900 KB held 27 MB.
#[actix_web::test]
async fn long_ranges_are_not_kept_and_match_whatever_comes() {
    let kind = ListedKind {
        group: "source.toolkit.fluxcd.io",
        plural: "gitrepositories",
        objects: 20,
        object: with_range,
        changes: 0,
    };
    let running = start(kind);
    running.wait_for_logs(INVENTORY_COMPLETE, &[], 1, Duration::from_secs(60)).await;
    let before = memory(&running);
    let (status, _) = deliver(&running, "other", Duration::from_secs(5)).await.expect("an answer");
    assert_eq!(status, 200, "a push of a branch");
    assert!(before.peak < 100 * MIB, "{} MiB", before.peak / MIB);
    running.wait_for_logs(TOO_LONG, &[], 1, Duration::from_secs(10)).await;
    let said = running.logged(TOO_LONG, &[("object", "GitRepository/tenant/o1")]);
    assert_eq!(said, 1, "{}", running.log());
}
