//! More than one publisher over one stream.

use std::time::{Duration, Instant};

use futures::StreamExt;

use super::publishing::{
    CATCH_UP_TYPE, FOLLOWS, PATIENCE, Publisher, documented_rights, messages, publisher_folder, servers, user,
};
use super::running::{FluxRecv, client, stderr, test_key};

/// A stream of a subscriber, frame by frame.
pub struct Stream {
    bytes: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<actix_web::web::Bytes>> + Send>>,
    buffer: String,
}

impl Stream {
    /// Waits until the publisher takes streams.
    pub async fn connect(publisher: &Publisher, cursor: Option<&str>) -> Stream {
        let started = Instant::now();
        loop {
            let mut request = client().get(publisher.subscribe_url()).bearer_auth(test_key("one"));
            if let Some(cursor) = cursor {
                request = request.header("Last-Event-ID", cursor);
            }
            let response = request.send().await.expect("an answer");
            if response.status() == 200 {
                return Stream { bytes: Box::pin(response.bytes_stream()), buffer: String::new() };
            }
            assert!(response.status() == 503 && started.elapsed() < PATIENCE, "{}", response.status());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns the type of the next frame, and its data; of `hello` its cursor.
    pub async fn next(&mut self) -> (String, String) {
        loop {
            if let Some((frame, rest)) = self.buffer.split_once("\n\n") {
                let field = |name: &str| {
                    let line = frame.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_else(|| panic!("no {name} in {frame}")).to_owned()
                };
                let (kind, id, data) = (field("event: "), field("id: "), field("data: "));
                self.buffer = rest.to_owned();
                return (kind.clone(), if kind == "hello" { id } else { data });
            }
            let more = tokio::time::timeout(PATIENCE, self.bytes.next()).await.expect("a frame in time");
            self.buffer
                .push_str(std::str::from_utf8(&more.expect("a stream").expect("bytes")).expect("text"));
        }
    }

    /// Waits until the publisher has ended the stream.
    pub async fn ended(&mut self) {
        let ended = async { while let Some(Ok(_)) = self.bytes.next().await {} };
        tokio::time::timeout(PATIENCE, ended).await.expect("an end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_one_replica_is_good_at_the_other() {
    let Some(servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let (one, two) = (Publisher::following(&nats), Publisher::following(&nats));
    let mut at_two = Stream::connect(&two, None).await;
    let (_, start) = at_two.next().await;
    assert_eq!(at_two.next().await.0, "reset");
    one.pushed().await;
    let (kind, first) = at_two.next().await;
    assert!(kind == "event" && first.contains("github.com/org/app"), "{kind} {first}");
    two.pushed().await;
    assert_eq!(at_two.next().await.0, "event");
    // From where the other one began: both entries, and no catch-up.
    let mut at_one = Stream::connect(&one, Some(&start)).await;
    assert_eq!(at_one.next().await.0, "hello");
    let (kind, again) = at_one.next().await;
    assert_eq!((kind.as_str(), again.split_once(' ')), ("event", first.split_once(' ')), "signed alike");
    assert_eq!(at_one.next().await.0, "event");
}

// A cursor may be ahead of the replica that it is shown to, and is not beyond the log for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_waits_for_where_a_subscriber_has_been() {
    let Some(servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let (one, two) = (Publisher::following(&nats), Publisher::following(&nats));
    let (_, start) = Stream::connect(&two, None).await.next().await;
    let (epoch, _) = start.split_once('.').expect("a cursor");
    for round in 1..=20 {
        one.pushed().await;
        let cursor = format!("{epoch}.{round}");
        let mut stream = Stream::connect(&two, Some(&cursor)).await;
        assert_eq!(stream.next().await, ("hello".to_owned(), cursor.clone()), "and no reset");
        drop(stream);
    }
    let mut beyond = Stream::connect(&two, Some(&format!("{epoch}.21"))).await;
    assert_eq!(beyond.next().await.0, "hello");
    assert_eq!(beyond.next().await.0, "reset");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_closed_while_jetstream_is_silent() {
    let Some(servers) = servers(1, "") else { return };
    let publisher = Publisher::following(&format!("urls: [{}], replicas: 1", servers.urls()));
    let mut stream = Stream::connect(&publisher, None).await;
    stream.next().await;
    servers.signal(0, "-STOP");
    let since = Instant::now();
    stream.ended().await;
    assert!((4..13).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    publisher.refuses_streams().await;
    let (status, _) = publisher.running.get_admin("/readyz").await;
    assert_eq!(status, 200, "deliveries are taken all the same");
    servers.signal(0, "-CONT");
    publisher.running.wait_for_logs(FOLLOWS, &[], 2, PATIENCE).await;
    Stream::connect(&publisher, None).await;
}

// A rolling update is no absence; an end of all of them is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_catch_up_when_no_replica_was_there_and_not_for_an_update() {
    let Some(servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let mut one = Publisher::following(&nats);
    one.pushed().await;
    let two = Publisher::following(&nats);
    assert_eq!(one.running.terminate(), Some(0), "{}", one.running.log());
    let away = "the publisher was away; every subscriber catches up";
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!((one.running.logged(away, &[]), two.running.logged(away, &[])), (0, 0));
    // Their consumers outlive them for half a minute.
    drop((one, two));
    let three = Publisher::following(&nats);
    three.running.wait_for_log(away, &[]);
}

// From the journal to JetStream and back, with an entry that no stream had taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_moves_from_one_kind_of_log_to_the_other() {
    let Some(mut servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let mut publisher = Publisher::following(&nats);
    let (_, before) = Stream::connect(&publisher, None).await.next().await;
    servers.kill(0);
    publisher.pushed().await;
    assert_eq!(publisher.running.terminate(), Some(0), "{}", publisher.running.log());
    let file = publisher.running.folder.path().join("fluxrecv.yaml");
    let config = std::fs::read_to_string(&file).expect("a config");
    std::fs::write(&file, config.replace(&format!("  nats: {{{nats}}}\n"), "")).expect("a config");
    publisher.running.start_again();
    let mut stream = Stream::connect(&publisher, Some(&before)).await;
    assert_eq!(stream.next().await.0, "hello");
    assert!(stream.next().await.1.contains("the event log is another one"));
    assert_eq!(publisher.running.metric("flux_recv_event_log_entries").await, Some(1.0), "it was taken over");
    publisher.running.terminate();
    // And back: the stream is as it was.
    servers.start_again(0);
    servers.wait_until_ready();
    std::fs::write(&file, config).expect("a config");
    publisher.running.start_again();
    publisher.running.wait_for_log(FOLLOWS, &[]);
    // Whoever follows the stream alone has not heard of the entry.
    let mut stream = Stream::connect(&publisher, Some(&before)).await;
    assert_eq!(stream.next().await.0, "hello");
    assert!(stream.next().await.1.contains(CATCH_UP_TYPE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_change_while_serving_is_said() {
    let Some(servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let publisher = Publisher::following(&nats);
    let file = publisher.running.folder.path().join("fluxrecv.yaml");
    let config = std::fs::read_to_string(&file).expect("a config");
    for (from, to, mistake) in [
        ("replicas: 1", "replicas: 3", "publish: nats: cannot change while serving; restart flux-recv"),
        (
            "  subscribers:",
            "  retention: {entries: 7}\n  subscribers:",
            "publish: retention: is that of the stream",
        ),
    ] {
        std::fs::write(&file, config.replacen(from, to, 1)).expect("a config");
        publisher.running.signal("-HUP");
        super::common::process::wait_for("the mistake", PATIENCE, || {
            let lines = publisher.running.log_lines();
            lines.iter().any(|line| line.field("mistake").contains(mistake)).then_some(())
        });
    }
    let check = |folder: &tempfile::TempDir| {
        let file = folder.path().join("fluxrecv.yaml");
        let output = super::running::flux_recv()
            .args(["check", "--kubeconfig", "/nonexistent", "--config"])
            .arg(&file)
            .output()
            .expect("it runs");
        super::running::stdout(&output)
    };
    let text = check(&publisher_folder(&nats, ""));
    assert!(text.contains("event log in NATS: stream flux-recv: 0 entries, copies: 1\n"), "{text}");
    let text = check(&publisher_folder(&format!("{nats}, stream: other"), ""));
    assert!(
        text.contains("event log in NATS: stream other is not there yet; flux-recv makes it\n"),
        "{text}"
    );
    let text = check(&publisher_folder("urls: ['nats://127.0.0.1:1']", ""));
    assert!(text.contains("event log in NATS: NOT THERE: publish: nats: cannot connect: "), "{text}");
    // A start over a stream that another config has made.
    let folder = publisher_folder(&nats, "  retention: {entries: 7, age: 1h}\n");
    let text = check(&folder);
    assert!(
        text.contains("event log in NATS: NOT THERE: publish: nats: the stream `flux-recv` is another"),
        "{text}"
    );
    let output = super::running::flux_recv()
        .args(["--no-cluster", "--config"])
        .arg(folder.path().join("fluxrecv.yaml"))
        .args([
            "--journal",
            "none",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--subscribe-listen",
            "127.0.0.1:0",
        ])
        .output()
        .expect("it runs");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in [
        "publish: nats: the stream `flux-recv` is another one than the config says",
        "max_msgs is 100000 there and 7 here (`publish.retention.entries`)",
        "max_age is 1209600s there and 3600s here (`publish.retention.age`)",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let _: &FluxRecv = &publisher.running;
}

// As after a loss of power without `sync_interval: always`, or a restored backup.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_gone_back_makes_everybody_catch_up() {
    let Some(mut servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let publisher = Publisher::following(&nats);
    let lost = "the stream has lost entries; subscribers catch up";
    let mut stream = Stream::connect(&publisher, None).await;
    let (_, start) = stream.next().await;
    let (epoch, _) = start.split_once('.').expect("a cursor");
    publisher.pushed().await;
    publisher.pushed().await;
    servers.kill(0);
    let copy = servers.copy_store(0);
    servers.start_again(0);
    servers.wait_until_ready();
    publisher.pushed().await;
    publisher.pushed().await;
    messages(&servers, 4);
    publisher.wait_for_metric("flux_recv_unpublished_entries", 0.0).await;
    // It is shorter than it was.
    servers.kill(0);
    servers.put_store(0, &copy);
    servers.start_again(0);
    publisher.running.wait_for_log(lost, &[]);
    messages(&servers, 3);
    let mut stream = Stream::connect(&publisher, Some(&format!("{epoch}.4"))).await;
    assert_eq!(stream.next().await.0, "hello");
    assert!(stream.next().await.1.contains("the cursor is beyond the event log"));
    // Who had come less far reads that there is a catch-up.
    let mut stream = Stream::connect(&publisher, Some(&format!("{epoch}.2"))).await;
    assert_eq!(stream.next().await.0, "hello");
    let (kind, entry) = stream.next().await;
    assert!(entry.contains(CATCH_UP_TYPE), "{kind} {entry}");
    // Whoever comes back when the stream has come to the same place again reads of it as well.
    for _ in 0..3 {
        publisher.pushed().await;
    }
    messages(&servers, 7);
    let mut stream = Stream::connect(&publisher, Some(&format!("{epoch}.4"))).await;
    assert_eq!(stream.next().await.0, "hello");
    let mut entries = Vec::new();
    while entries.len() < 3 {
        entries.push(stream.next().await);
    }
    assert_eq!(entries.iter().filter(|(_, entry)| entry.contains(CATCH_UP_TYPE)).count(), 1, "{entries:?}");
    // It is longer again by the time that a replica looks at it.
    publisher.pushed().await;
    publisher.running.signal("-STOP");
    servers.kill(0);
    servers.put_store(0, &copy);
    servers.start_again(0);
    servers.wait_until_ready();
    let other = Publisher::following(&nats);
    for _ in 0..5 {
        other.pushed().await;
    }
    publisher.running.signal("-CONT");
    publisher.running.wait_for_logs(lost, &[], 2, PATIENCE).await;
}

// Nobody is served from a stream that has lost entries before all are told of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_gone_back_and_takes_no_entry_serves_nobody() {
    let (key, with_rights) = user(&documented_rights());
    let without = with_rights.replace("'flux-recv.events', ", "");
    let Some(mut servers) = servers(1, &with_rights) else { return };
    let publisher = Publisher::of_user(&servers, &key);
    publisher.running.wait_for_log(FOLLOWS, &[]);
    publisher.pushed().await;
    servers.kill(0);
    let copy = servers.copy_store(0);
    servers.start_again(0);
    servers.wait_until_ready();
    publisher.pushed().await;
    publisher.wait_for_metric("flux_recv_event_log_entries", 2.0).await;
    servers.reload(0, |config| config.replace(&with_rights, &without));
    servers.kill(0);
    servers.put_store(0, &copy);
    servers.start_again(0);
    servers.wait_until_ready();
    let lost = "the stream has lost entries; subscribers catch up";
    publisher.running.wait_for_log(lost, &[]);
    let message = "event log is not there; deliveries are accepted into the journal, and subscribers wait";
    let why = "JetStream does not acknowledge the entry that makes subscribers catch up";
    publisher.running.wait_for_log(message, &[("why", why)]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    publisher.refuses_streams().await;
    let consumers = servers.monitor(0, "jsz").expect("a page")["consumers"].as_u64();
    assert!(consumers.is_some_and(|consumers| consumers <= 5), "{consumers:?}");
    assert_eq!(publisher.running.logged(lost, &[]), 1);
    let follows = publisher.running.logged(FOLLOWS, &[]);
    servers.reload(0, |config| config.replace(&without, &with_rights));
    publisher.running.wait_for_logs(FOLLOWS, &[], follows + 1, PATIENCE).await;
    Stream::connect(&publisher, None).await;
}

// As `nats stream edit` does, before or after the config is changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_changed_while_serving_stop_nothing() {
    let Some(servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let mut publisher = Publisher::following(&nats);
    let mut stream = Stream::connect(&publisher, None).await;
    assert_eq!((stream.next().await.0, stream.next().await.0), ("hello".to_owned(), "reset".to_owned()));
    let context =
        async_nats::jetstream::new(async_nats::connect(servers.urls()).await.expect("a connection"));
    let mut found = context.get_stream("flux-recv").await.expect("a stream");
    let mut config = found.info().await.expect("its config").config.clone();
    config.max_messages = 7;
    context.update_stream(config).await.expect("an update");
    let differs = "the stream has other limits than the config, which is refused at the next start";
    let difference = "max_msgs is 7 there and 100000 here (`publish.retention.entries`)";
    publisher.running.wait_for_log(differs, &[("differences", difference)]);
    publisher.pushed().await;
    assert_eq!(stream.next().await.0, "event");
    messages(&servers, 1);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(publisher.running.logged(differs, &[]), 1);
    assert_eq!(publisher.running.terminate(), Some(0), "{}", publisher.running.log());
    assert!(!publisher.running.log().contains("has not taken"), "{}", publisher.running.log());
    let changed = Publisher::start(&nats, "  retention: {entries: 7}\n", &[]);
    changed.running.wait_for_log(FOLLOWS, &[]);
}

// Whose last entry somebody has deleted, a stream has come to its end all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_were_deleted_by_hand_hold_nobody_up() {
    let Some(servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let publisher = Publisher::following(&nats);
    for _ in 0..3 {
        publisher.pushed().await;
    }
    messages(&servers, 3);
    let context =
        async_nats::jetstream::new(async_nats::connect(servers.urls()).await.expect("a connection"));
    let stream = context.get_stream("flux-recv").await.expect("a stream");
    stream.delete_message(3).await.expect("it goes");
    let other = Publisher::following(&nats);
    let (_, start) = Stream::connect(&other, None).await.next().await;
    let (epoch, sequence) = start.split_once('.').expect("a cursor");
    assert_eq!(sequence, "3");
    let mut behind = Stream::connect(&other, Some(&format!("{epoch}.2"))).await;
    assert_eq!(behind.next().await.0, "hello");
    assert!(behind.next().await.1.contains("an entry of the event log cannot be read"));
    stream.purge().await.expect("they go");
    let third = Publisher::following(&nats);
    let (_, start) = Stream::connect(&third, None).await.next().await;
    assert_eq!(start, format!("{epoch}.3"));
}

// A replica that is new waits for the stream, so that a rollout does; one that starts again does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_is_ready_once_it_has_reached_the_stream() {
    let Some(mut servers) = servers(1, "") else { return };
    let nats = format!("urls: [{}], replicas: 1", servers.urls());
    let mut old = Publisher::following(&nats);
    servers.kill(0);
    let mut new = Publisher::start(&nats, "", &[]);
    let (status, text) = new.running.get_admin("/readyz").await;
    assert_eq!(
        (status, text.as_str()),
        (503, "the event log in NATS has not been reached since the start\n")
    );
    // One that has not reached it before does not take a place by starting again.
    new.running.process.kill();
    new.running.start_again();
    assert_eq!(new.running.get_admin("/readyz").await.0, 503);
    old.pushed().await;
    old.running.process.kill();
    old.running.start_again();
    let (status, text) = old.running.get_admin("/readyz").await;
    assert!(
        status == 200 && text.contains("event log in NATS: 1 entries wait in the journal to be published"),
        "{text}"
    );
    // Its Pod would go now.
    assert_eq!(old.running.terminate(), Some(0));
    old.running.wait_for_log(
        "entries that NATS has not taken stay in the journal for the next start, and are lost if its volume goes with the Pod",
        &[("entries", "1")],
    );
    servers.start_again(0);
    new.running.wait_for_log(FOLLOWS, &[]);
    assert_eq!(new.running.get_admin("/readyz").await.0, 200);
}
