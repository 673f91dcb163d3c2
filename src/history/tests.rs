use serde_json::json;

use super::*;
use crate::event::normal_form::NormalEvent;
use crate::flux::Kind;

fn target(name: &str) -> Target {
    Target { kind: Kind::GitRepository, namespace: "apps".to_owned(), name: name.to_owned() }
}

fn accepted(names: &[&str]) -> Outcome {
    Outcome::Accepted {
        event: "a push".into(),
        targets: names.iter().map(|name| target(name)).collect(),
        skipped: Vec::new(),
        dry_run: false,
        is_published: false,
    }
}

fn record(history: &History, endpoint: &str, outcome: Outcome) -> DeliveryRecord {
    DeliveryRecord::from_publisher(history.new_delivery(&Arc::from(endpoint)), Vec::new(), None, outcome)
}

#[test]
fn a_busy_endpoint_displaces_no_other() {
    let history = History::default();
    for _ in 0..5 {
        history.remember(record(&history, "quiet", accepted(&["a"])));
    }
    for at in 0..5000 {
        let mut entry = record(&history, "busy", accepted(&[&format!("object-{at}")]));
        entry.events = vec![NormalEvent::Bucket { name: "b".repeat(100) }];
        history.remember(entry);
    }
    let list = history.to_json();
    assert_eq!(list["quiet"].as_array().map(Vec::len), Some(5));
    let busy = list["busy"].as_array().map_or(0, Vec::len);
    assert!((100..=MAX_DELIVERIES).contains(&busy), "{busy}");
    let store = history.store.lock();
    assert!(store.bytes <= MAX_BYTES, "{}", store.bytes);
    let open: usize = store.open.values().map(Vec::len).sum();
    assert_eq!(open, busy + 5, "what is forgotten is not waited for");
}

#[test]
fn a_queued_delivery_shows_what_it_came_to_whichever_comes_first() {
    let history = History::default();
    let queued = || Outcome::Queued { event: "a push".into() };
    let (first, second) = (record(&history, "github", queued()), record(&history, "github", queued()));
    let (first_id, second_id) = (first.id.clone(), second.id.clone());
    history.remember(first);
    history.matched(&first_id, accepted(&["a"]));
    history.matched(&second_id, accepted(&["b"]));
    history.remember(second);
    for name in ["a", "b"] {
        history.requested(&target(name), Duration::ZERO);
    }
    let list = history.to_json();
    for at in [0, 1] {
        assert_eq!(list["github"][at]["outcome"], "queued");
        assert_eq!(list["github"][at]["matched"]["outcome"], "accepted");
        assert_eq!(list["github"][at]["objects"][0]["state"], "requested");
    }
}

#[test]
fn an_object_goes_from_pending_to_handled() {
    let history = History::default();
    history.remember(record(&history, "github", accepted(&["a", "b"])));
    let states = || {
        let list = history.to_json();
        ["/github/0/objects/0", "/github/0/objects/1"].map(|at| list.pointer(at).cloned().unwrap_or_default())
    };
    assert_eq!(states().map(|object| object["state"].clone()), [json!("pending"), json!("pending")]);
    history.request_failed(&target("a"), "may not patch");
    history.requested(&target("b"), Duration::ZERO);
    // An older request of the object was handled, not this one.
    history.handled(&target("a"), 1);
    let [a, b] = states();
    assert_eq!((&a["state"], &a["failure"]), (&json!("failing"), &json!("may not patch")));
    assert_eq!(b["state"], "requested");
    history.requested(&target("a"), Duration::ZERO);
    history.handled(&target("a"), 2);
    history.handled(&target("b"), 3);
    assert_eq!(states().map(|object| object["state"].clone()), [json!("handled"), json!("handled")]);
    assert!(history.store.lock().open.is_empty());
    // A later request is a later delivery's.
    let before = states();
    history.requested(&target("a"), Duration::ZERO);
    assert_eq!(states(), before);
}

#[test]
fn a_request_that_is_faster_than_the_answer_counts() {
    let history = History::default();
    let mut entry = record(&history, "github", accepted(&["a", "b"]));
    entry.took = Duration::from_secs(1);
    history.requested(&target("a"), Duration::ZERO);
    history.remember(entry);
    let list = history.to_json();
    assert_eq!(list["github"][0]["objects"][0]["state"], "requested");
    assert_eq!(list["github"][0]["objects"][1]["state"], "pending");
}

#[test]
fn a_push_that_came_after_the_patch_had_begun_waits_for_the_next_one() {
    let history = History::default();
    history.remember(record(&history, "github", accepted(&["a"])));
    let state = || history.to_json()["github"][0]["objects"][0]["state"].clone();
    let round = history.requested(&target("a"), Duration::from_secs(5));
    assert_eq!((round.deliveries, state()), (0, json!("pending")));
    let round = history.requested(&target("a"), Duration::ZERO);
    assert_eq!((round.deliveries, state()), (1, json!("requested")));
    history.handled(&target("a"), 7);
    assert_eq!(state(), "handled");
    // The watch tells of the same request once more, when the next one is on its way.
    history.remember(record(&history, "github", accepted(&["a"])));
    history.requested(&target("a"), Duration::ZERO);
    history.handled(&target("a"), 7);
    assert_eq!(state(), "requested");
}

#[test]
fn a_record_is_found_by_its_identifier() {
    let history = History::default();
    let entry = record(&history, "git-hub", accepted(&["a"]));
    let id = entry.id.to_string();
    history.remember(entry);
    assert_eq!(history.find(&id, |entry| entry.id.to_string()), Some(id));
    for other in ["git-hub-7", "nobody-0", "git", "", "-"] {
        assert_eq!(history.find(other, |_| ()), None, "{other}");
    }
    history.forget("git-hub");
    let store = history.store.lock();
    assert_eq!((store.bytes, store.open.len()), (0, 0));
}
