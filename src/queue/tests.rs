use std::collections::HashMap;

use parking_lot::Mutex;

use super::*;
use crate::flux::Kind;
use crate::journal::contents::Contents;

/// Answers as told, object by object; then takes everything.
#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<String, Vec<WriteError>>>,
    requests: Mutex<Vec<(String, Instant)>>,
    gone: Mutex<Vec<String>>,
    takes: Duration,
}

impl Writer for Script {
    fn request_reconcile<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move {
            self.requests.lock().push((target.name.clone(), Instant::now()));
            tokio::time::sleep(self.takes).await;
            let nth = self.requests_of(&target.name).len();
            assert!(target.name != "panics" || nth > 1, "a bug in the writer");
            match self.answers.lock().get_mut(&target.name).and_then(Vec::pop) {
                Some(err) => Err(err),
                None => Ok(()),
            }
        })
    }

    fn is_gone(&self, target: &Target) -> bool {
        self.gone.lock().contains(&target.name)
    }
}

impl Script {
    fn requests_of(&self, name: &str) -> Vec<Instant> {
        self.requests.lock().iter().filter(|(of, _)| of == name).map(|(_, at)| *at).collect()
    }
}

fn target(name: &str) -> Target {
    Target { kind: Kind::GitRepository, namespace: "flux-system".to_owned(), name: name.to_owned() }
}

fn temporary() -> WriteError {
    WriteError::Transient { why: "down".to_owned(), retry_after: None }
}

fn start(pace: Pace, script: Script) -> (Queue, Arc<Script>) {
    let (queue, script) = (queue(pace, Journal::none()), Arc::new(script));
    tokio::spawn(queue.clone().run(Arc::clone(&script) as Arc<dyn Writer>));
    (queue, script)
}

fn queue(pace: Pace, journal: Journal) -> Queue {
    Queue::new(pace, journal, &Contents::default(), Metrics::new())
}

async fn wait_until_idle(queue: &Queue) {
    tokio::time::timeout(Duration::from_secs(30), queue.wait_until_idle()).await.expect("the queue rests");
}

fn fast() -> Pace {
    Pace { min_interval: Duration::from_millis(50), ..Pace::default() }
}

// Incident 19: a delivery that comes twice is as good as one.
#[tokio::test]
async fn many_deliveries_cost_a_handful_of_patches() {
    let (queue, script) = start(fast(), Script { takes: Duration::from_millis(5), ..Script::default() });
    for _ in 0..1000 {
        let _ = queue.request(&[target("app")]);
    }
    tokio::task::yield_now().await;
    let _ = queue.request(&[target("app")]);
    let last = Instant::now();
    wait_until_idle(&queue).await;
    let requests = script.requests_of("app");
    assert!(requests.len() <= 3, "{}", requests.len());
    assert!(requests.last().is_some_and(|at| *at >= last) || requests.len() == 1);
    assert_eq!(queue.pending(), 0);
}

// Incidents 30 and 32.
#[tokio::test]
async fn a_failing_object_does_not_stop_the_others_and_is_tried_again() {
    let answers = HashMap::from([("bad".to_owned(), vec![temporary(), temporary(), WriteError::NotFound])]);
    let (queue, script) = start(fast(), Script { answers: Mutex::new(answers), ..Script::default() });
    let _ = queue.request(&[target("bad"), target("good")]);
    wait_until_idle(&queue).await;
    assert_eq!(script.requests_of("bad").len(), 4);
    assert_eq!(script.requests_of("good").len(), 1);
}

#[tokio::test]
async fn an_object_that_is_gone_is_dropped_and_one_that_is_not_found_is_not() {
    let answers = HashMap::from([
        ("gone".to_owned(), vec![WriteError::NotFound]),
        ("there".to_owned(), vec![WriteError::NotFound]),
    ]);
    let gone = Mutex::new(vec!["gone".to_owned()]);
    let (queue, script) = start(fast(), Script { answers: Mutex::new(answers), gone, ..Script::default() });
    let _ = queue.request(&[target("gone"), target("there")]);
    wait_until_idle(&queue).await;
    assert_eq!(script.requests_of("gone").len(), 1);
    assert_eq!(script.requests_of("there").len(), 2);
}

#[tokio::test]
async fn a_rejected_request_stays_wanted() {
    let answers = HashMap::from([("app".to_owned(), vec![WriteError::Rejected("422".to_owned())])]);
    let (queue, script) = start(fast(), Script { answers: Mutex::new(answers), ..Script::default() });
    let _ = queue.request(&[target("app")]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(queue.pending(), 1);
    wait_until_idle(&queue).await;
    assert_eq!(script.requests_of("app").len(), 2, "a fixed object needs no second push");
}

#[tokio::test]
async fn the_api_server_decides_the_least_pause() {
    let retry_after = Some(Duration::from_millis(1500));
    let answers = HashMap::from([(
        "app".to_owned(),
        vec![WriteError::Transient { why: "429".to_owned(), retry_after }],
    )]);
    let (queue, script) = start(fast(), Script { answers: Mutex::new(answers), ..Script::default() });
    let _ = queue.request(&[target("app")]);
    wait_until_idle(&queue).await;
    let requests = script.requests_of("app");
    assert!(requests[1] - requests[0] >= Duration::from_millis(1500));
}

// Incident 36.
#[tokio::test]
async fn a_delivery_for_many_objects_is_spread_out_and_a_few_are_not() {
    let pace = Pace { spread: Duration::from_millis(800), ..fast() };
    let (queue, script) = start(pace, Script::default());
    let targets = |count: usize| (0..count).map(|at| target(&format!("object-{at}"))).collect::<Vec<_>>();
    let began = Instant::now();
    let _ = queue.request(&targets(200));
    assert!(began.elapsed() < Duration::from_millis(200), "the answer does not wait");
    wait_until_idle(&queue).await;
    let took: Vec<Duration> = script.requests.lock().iter().map(|(_, at)| at.duration_since(began)).collect();
    assert_eq!(took.len(), 200);
    let in_first_half = took.iter().filter(|after| after.as_millis() < 400).count();
    assert!((50..150).contains(&in_first_half), "{in_first_half} of 200 in the first half");

    let (queue, script) = start(pace, Script::default());
    let began = Instant::now();
    let _ = queue.request(&targets(MAX_UNSPREAD_TARGETS));
    wait_until_idle(&queue).await;
    let last = script.requests.lock().iter().map(|(_, at)| *at).max().expect("requests");
    assert!(last.duration_since(began) < Duration::from_millis(400));
}

// Incident 36.
#[tokio::test]
async fn patches_in_flight_are_bounded_and_limited_in_time() {
    let pace = Pace {
        // Half of them for a kind.
        max_in_flight: 4,
        time_limit: Duration::from_millis(50),
        min_interval: Duration::ZERO,
        ..fast()
    };
    let (queue, script) = start(pace, Script { takes: Duration::from_secs(3600), ..Script::default() });
    let _ = queue.request(&[target("a"), target("b"), target("c")]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(script.requests.lock().len(), 2);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!script.requests_of("c").is_empty(), "the third waits for a place, not for an answer");
    assert_eq!(queue.pending_targets().len(), 3);
}

/// An admission webhook that hangs is one for a kind.
#[tokio::test]
async fn a_kind_that_hangs_leaves_half_of_the_patches_to_the_others() {
    let pace = Pace { max_in_flight: 4, time_limit: Duration::from_secs(60), ..fast() };
    let script = Script { takes: Duration::from_secs(3600), ..Script::default() };
    let (queue, script) = start(pace, script);
    let _ = queue.request(&[target("a"), target("b"), target("c"), target("d")]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(script.requests.lock().len(), 2);
    let other = Target { kind: Kind::Bucket, ..target("other") };
    let _ = queue.request(&[other]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(script.requests_of("other").len(), 1);
}

#[tokio::test]
async fn slots_that_have_rested_are_forgotten() {
    let (queue, _) = start(fast(), Script::default());
    let _ = queue.request(&[target("app")]);
    wait_until_idle(&queue).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(queue.slots().entries.is_empty());
}

// Incident 9.
#[tokio::test]
async fn a_panic_loses_nothing() {
    let (queue, script) = start(fast(), Script::default());
    let _ = queue.request(&[target("panics"), target("good")]);
    wait_until_idle(&queue).await;
    assert_eq!(script.requests_of("panics").len(), 2);
}

/// A process that is about to end may still take a request.
#[tokio::test]
async fn what_is_wanted_after_the_last_settling_is_written_down_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || {
        let medium = Box::new(crate::journal::store::JournalFolder::new(folder.path()));
        Journal::open(medium, Metrics::new()).expect("a journal")
    };
    let (journal, left) = open();
    let queue = Queue::new(fast(), journal.clone(), &left, Metrics::new());
    tokio::spawn(queue.clone().run(Arc::new(Script::default()) as Arc<dyn Writer>));
    assert_eq!(queue.request(&[target("app")]).wait_until_durable().await, Ok(()));
    wait_until_idle(&queue).await;
    queue.remove_rested_records();
    assert_eq!(queue.request(&[target("app")]).wait_until_durable().await, Ok(()));
    journal.close().await;
    let (_, left) = open();
    assert!(left.pending.contains_key(&target("app")));
}

#[tokio::test]
async fn what_is_due_sooner_wakes_the_queue() {
    let pace = Pace { min_interval: Duration::from_secs(60), ..Pace::default() };
    let (queue, script) = start(pace, Script::default());
    let (first, second) = (target("first"), target("second"));
    drop(queue.request(std::slice::from_ref(&first)));
    wait_until_idle(&queue).await;
    // Due in a minute, which the queue is sleeping for now.
    drop(queue.request(std::slice::from_ref(&first)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(queue.request(std::slice::from_ref(&second)));
    for _ in 0..400 {
        if !script.requests_of("second").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the queue sleeps on");
}
