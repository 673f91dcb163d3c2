//! What every event log has to do, wherever it is kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flux_recv::internals::event_log::{EventLog, LogContent, LogEntry, LogFollower, LogLimits, NewEntry};
use flux_recv::internals::fleet::Cursor;

/// The limits of a log that goes through the suite.
pub const LIMITS: LogLimits =
    LogLimits { max_entries: 1500, max_bytes: 64 << 20, max_age: Duration::from_secs(3600) };

const PATIENCE: Duration = Duration::from_secs(10);

/// Takes a log that is new through all of it.
pub async fn run(log: Arc<dyn EventLog>) {
    assert_eq!(log.tail().range().head(), 0, "a new log");
    entries_are_read_alike_from_memory_and_storage(&log).await;
    names_and_lengths_of_every_kind_survive(&log).await;
    a_follower_gets_what_comes(&log).await;
    what_is_appended_at_one_time_is_there_once(&log).await;
    a_cursor_that_cannot_be_continued_is_told_why(&log).await;
}

fn entry(number: usize, endpoint: &str, filler: usize) -> NewEntry {
    let json = format!("{{\"number\":{number},\"filler\":\"{}\"}}", "x".repeat(filler));
    let content = LogContent { endpoint: endpoint.into(), json: json.into() };
    NewEntry { id: format!("{:032x}", fastrand::u128(..)), time_millis: 1, content }
}

async fn append(log: &Arc<dyn EventLog>, entries: Vec<NewEntry>) {
    log.append(entries).wait_until_durable().await.expect("durable");
}

async fn follow(log: &Arc<dyn EventLog>, after: u64) -> LogFollower {
    let mut follower = LogFollower::at_head(Arc::clone(log));
    let cursor = Cursor { epoch: log.tail().range().epoch, sequence: after };
    assert_eq!(follower.resume(Some(cursor)).await, None);
    follower
}

/// Reads so many entries.
async fn read(follower: &mut LogFollower, count: usize) -> Vec<Arc<LogEntry>> {
    let (mut all, started) = (Vec::new(), Instant::now());
    while all.len() < count {
        assert!(started.elapsed() < PATIENCE, "{} of {count} entries", all.len());
        let entries = follower.read().await.expect("entries");
        if entries.is_empty() {
            let _ = tokio::time::timeout(PATIENCE, follower.wait()).await;
        }
        all.extend(entries);
    }
    all
}

async fn entries_are_read_alike_from_memory_and_storage(log: &Arc<dyn EventLog>) {
    let mut appended = Vec::new();
    for batch in 0..10 {
        let entries: Vec<NewEntry> =
            (0..100).map(|number| entry(batch * 100 + number, "github", 2000)).collect();
        append(log, entries.clone()).await;
        appended.extend(entries.into_iter().map(|entry| entry.content));
    }
    // Two MB, of which the last quarter is in memory.
    let found = read(&mut follow(log, 0).await, 1000).await;
    assert_eq!(
        found.iter().map(|entry| entry.sequence).collect::<Vec<u64>>(),
        (1..=1000).collect::<Vec<u64>>()
    );
    assert!(found.iter().map(|entry| &entry.content).eq(&appended), "in their order");
    assert!(!log.tail().is_recent(1) && log.tail().is_recent(1000) && log.tail().is_recent(1001));
}

async fn names_and_lengths_of_every_kind_survive(log: &Arc<dyn EventLog>) {
    let after = log.tail().range().head();
    let names = ["a b", "ü/%2F&=+", "line\nbreak: x", ""];
    let mut entries: Vec<NewEntry> = names.iter().map(|name| entry(0, name, 1)).collect();
    // More than one read takes, and the longest that flux-recv writes.
    entries.extend((0..200).map(|number| entry(number, "github", 9000)));
    entries.push(entry(0, "github", 255 << 10));
    entries.push(entry(0, "github", 255 << 10));
    append(log, entries.clone()).await;
    let found = read(&mut follow(log, after).await, entries.len()).await;
    let contents: Vec<&LogContent> = entries.iter().map(|entry| &entry.content).collect();
    assert!(found.iter().map(|entry| &entry.content).eq(contents));
}

async fn a_follower_gets_what_comes(log: &Arc<dyn EventLog>) {
    let mut follower = LogFollower::at_head(Arc::clone(log));
    follower.resume(None).await;
    let before = follower.cursor();
    assert_eq!(follower.read().await.map(|entries| entries.len()), Ok(0));
    append(log, vec![entry(7, "github", 1)]).await;
    let found = read(&mut follower, 1).await;
    assert_eq!(found[0].sequence, before.sequence + 1);
    assert_eq!(follower.cursor(), Cursor { epoch: before.epoch, sequence: before.sequence + 1 });
}

async fn what_is_appended_at_one_time_is_there_once(log: &Arc<dyn EventLog>) {
    let after = log.tail().range().head();
    let appends = (0..50).map(|number| {
        let log = Arc::clone(log);
        tokio::spawn(async move { append(&log, vec![entry(number, "github", 10)]).await })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.expect("no panic");
    }
    let found = read(&mut follow(log, after).await, 50).await;
    let different: BTreeSet<&str> = found.iter().map(|entry| &*entry.content.json).collect();
    assert_eq!((found.len(), different.len()), (50, 50));
}

async fn a_cursor_that_cannot_be_continued_is_told_why(log: &Arc<dyn EventLog>) {
    for batch in 0..6 {
        append(log, (0..100).map(|number| entry(batch * 100 + number, "github", 10)).collect()).await;
    }
    // Where the log is kept elsewhere it is looked at once a second.
    let started = Instant::now();
    while log.tail().range().first == 1 || log.tail().range().entries() > LIMITS.max_entries {
        assert!(started.elapsed() < PATIENCE, "{:?}", log.tail().range());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let range = log.tail().range();
    let at = |epoch: u64, sequence: u64| Some(Cursor { epoch, sequence });
    for (cursor, why) in [
        (None, Some("first connection")),
        (at(range.epoch ^ 1, 5), Some("the event log is another one")),
        (at(range.epoch, range.head() + 1), Some("the cursor is beyond the event log")),
        (at(range.epoch, 1), Some("the event log does not go back that far")),
        (at(range.epoch, range.first - 1), None),
        (at(range.epoch, range.head()), None),
    ] {
        let mut follower = LogFollower::at_head(Arc::clone(log));
        assert_eq!(follower.resume(cursor).await, why, "{cursor:?} in {range:?}");
    }
}
