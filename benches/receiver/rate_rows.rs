//! Deliveries per second, each compared with the least that could be done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_recv::internals::FilterInput;
use flux_recv::internals::GitRef;
use flux_recv::internals::RepositoryUrl;
use flux_recv::internals::Selection;
use flux_recv::internals::{Event, GitChanges, GitEvent, RefChange};
use flux_recv::internals::{Inventory, Object, matching};
use flux_recv::internals::{Kind, Spec, Target};
use serde_json::json;

use super::load::{Round, ping, ping_times, push_with_a_list, requests, run, unknown, unknown_with_body};
use super::server::{Server, url};
use super::table::{Must, Row, median};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(3);
const REPOSITORIES: usize = 1000;

/// The same provider twice, the second time with a filter that reads the whole body.
const WITH_FILTER: &str = "
fluxRecvVersion: 1
endpoints:
- source: GitHub
  keyPath: github.key
- source: GitHub
  keyPath: github.key
  pathSalt: filtered
  name: filtered
  filter: |
    req.repository.full_name.startsWith('example-org/') &&
      req.commits.exists(commit, commit.modified.exists(file, file.endsWith('values.yaml')))
";

/// A filter as expensive as one can be, beside an endpoint without one.
const WITH_EXPENSIVE_FILTER: &str = "
fluxRecvVersion: 1
endpoints:
- source: GitHub
  keyPath: github.key
- source: GitHub
  keyPath: github.key
  pathSalt: filtered
  name: filtered
  filter: req.list.exists(a, req.list.exists(b, req.list.exists(c, a + b + c == 'nothing of the kind')))
";

/// How long a ping waits while others use an expensive filter.
pub fn ping_beside_filters() -> Vec<Row> {
    let api = Server::api_double(REPOSITORIES);
    let receiver = Server::flux_recv_with_config(&api, WITH_EXPENSIVE_FILTER)
        .when_it_knows_all_objects()
        .when_it_listens();
    let (plain, filtered) = (receiver.path_of(0), receiver.path_of(1));
    let (ping, other) = (ping(&plain), push_with_a_list(&filtered));
    let p99 = |others: usize| {
        let mut times = ping_times(receiver.port, &ping, others, &other, ROUND * 2);
        times.sort();
        times[times.len() * 99 / 100].as_secs_f64() * 1e3
    };
    let (alone, beside) = (p99(0), p99(20));
    let figures = format!("{beside:.1} ms : {alone:.1} ms");
    println!("p99 of a ping beside twenty clients of an expensive filter : alone: {figures}");
    vec![Row {
        what: "99th percentile of a ping in ms, beside twenty clients of an expensive filter : alone",
        figures,
        value: beside,
        must: Must::AtMost(20.0),
    }]
}

pub fn filtered() -> Vec<Row> {
    let api = Server::api_double(REPOSITORIES);
    let receiver =
        Server::flux_recv_with_config(&api, WITH_FILTER).when_it_knows_all_objects().when_it_listens();
    let (plain, filtered) = (receiver.path_of(0), receiver.path_of(1));
    let requests = |path: &str| requests(path, REPOSITORIES, false);
    run(&receiver, &requests(&plain), 202, |_, elapsed| elapsed > ROUND);
    vec![compare(
        "with a CEL filter over `req` : without",
        0.1,
        (&receiver, requests(&filtered), 202),
        (&receiver, requests(&plain), 202),
    )]
}

pub fn rates() -> Vec<Row> {
    let api = Server::api_double(REPOSITORIES);
    let receiver = Server::flux_recv(&api).when_it_knows_all_objects().when_it_listens();
    let baseline = Server::baseline();
    let path = receiver.path();
    let verified = |path: &str| requests(path, REPOSITORIES, false);
    let forged = |path: &str| requests(path, REPOSITORIES, true);
    // Warm up: journal, connections and caches are what they are in a process that has been running.
    let warm = verified(&path);
    run(&receiver, &warm, 202, |_, elapsed| elapsed > ROUND);
    vec![
        compare(
            "verified, matched, journalled : reads the body, checks the HMAC",
            0.5,
            (&receiver, verified(&path), 202),
            (&baseline, verified("/hook"), 202),
        ),
        compare(
            "forged : the same handler",
            0.9,
            (&receiver, forged(&path), 401),
            (&baseline, forged("/hook"), 401),
        ),
        compare(
            "unknown path : a handler that returns 404",
            0.9,
            (&receiver, unknown(), 404),
            (&baseline, unknown(), 404),
        ),
        compare(
            "unknown path with a body of 8 KiB : a handler that reads it and returns 404",
            0.8,
            (&receiver, unknown_with_body("/hook/nobody"), 404),
            (&baseline, unknown_with_body("/nothing"), 404),
        ),
    ]
}

type Side<'a> = (&'a Server, Vec<Vec<u8>>, u16);

fn compare(what: &'static str, must: f64, ours: Side<'_>, least: Side<'_>) -> Row {
    let round =
        |(server, requests, expect): &Side<'_>| run(server, requests, *expect, |_, elapsed| elapsed > ROUND);
    let rounds: Vec<(Round, Round)> = (0..ROUNDS).map(|_| (round(&ours), round(&least))).collect();
    let rate = |side: fn(&(Round, Round)) -> &Round, of: fn(&Round) -> f64| {
        median(rounds.iter().map(|pair| of(side(pair))).collect())
    };
    let by_clock = rate(|pair| &pair.0, Round::per_second) / rate(|pair| &pair.1, Round::per_second);
    let by_cpu =
        median(rounds.iter().map(|(ours, least)| ours.per_cpu_second() / least.per_cpu_second()).collect());
    let figures = format!(
        "{:.0}/s : {:.0}/s ({by_clock:.2}); per second of CPU {:.0} : {:.0}",
        rate(|pair| &pair.0, Round::per_second),
        rate(|pair| &pair.1, Round::per_second),
        rate(|pair| &pair.0, Round::per_cpu_second),
        rate(|pair| &pair.1, Round::per_cpu_second),
    );
    println!("{what}: {figures}");
    Row { what, figures, value: by_cpu, must: Must::AtLeast(must) }
}

fn inventory(objects: usize) -> Inventory {
    let mut inventory = Inventory::default();
    for at in 0..objects {
        let target = Target {
            kind: Kind::GitRepository,
            namespace: "team".to_owned(),
            name: format!("repository-{at}"),
        };
        let spec = json!({"url": url(at), "ref": {"branch": "main"}});
        let spec = serde_json::value::to_raw_value(&spec).expect("JSON");
        let spec = Spec::read(Kind::GitRepository, Some(&spec)).expect("a spec");
        inventory.put(Object::new(target, &spec).expect("an object"));
    }
    inventory
}

fn event(repository: usize) -> Event {
    let name = GitRef::branch("main");
    let change = RefChange::new(name);
    let repository = vec![RepositoryUrl::parse(&url(repository)).expect("a URL")];
    Event::Git(GitEvent { repository, ssh_url: None, changes: GitChanges::Refs(vec![change]) })
}

pub fn matching() -> Vec<Row> {
    let (few, many) = (inventory(1000), inventory(100_000));
    let events: Arc<Vec<Event>> = Arc::new((0..1000).map(event).collect());
    let input = FilterInput::default();
    let time = |inventory: &Inventory| {
        let started = Instant::now();
        for event in events.iter().cycle().take(100_000) {
            let found = matching::find(inventory, std::slice::from_ref(event), &Selection::default(), &input);
            assert_eq!(found.targets.len(), 1);
        }
        started.elapsed().as_secs_f64() / 100_000.0
    };
    let rounds: Vec<(f64, f64)> = (0..ROUNDS).map(|_| (time(&many), time(&few))).collect();
    let (many, few) = (
        median(rounds.iter().map(|round| round.0).collect()),
        median(rounds.iter().map(|round| round.1).collect()),
    );
    let figures = format!("{:.0} ns : {:.0} ns", many * 1e9, few * 1e9);
    println!("matching against 100,000 : 1,000 objects: {figures}");
    vec![Row {
        what: "matching one push against 100,000 objects : against 1,000",
        figures,
        value: many / few,
        must: Must::AtMost(1.5),
    }]
}
