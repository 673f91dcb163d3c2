//! The wire form of events: what each release has written is read by this one, and this one writes what its
//! release is known for. `FLUX_RECV_BLESS=1` writes the files of this version.

use flux_recv::internals::fleet::{Entry, ForwardedFields, PublishedEvent};
use flux_recv::internals::{Event, GitChanges, GitEvent, GitRef, RefChange, RepositoryUrl};
use serde_json::{Value, json};

use super::running::project;

/// The entries of this version's fixtures, by the name of their file.
fn entries() -> Vec<(&'static str, Entry)> {
    let repository = ["https://github.com/example-org/shop", "git@github.com:example-org/shop.git"];
    let change = RefChange {
        commits: ["1".repeat(40).as_str(), "2".repeat(40).as_str()].into_iter().collect(),
        head: Some("2".repeat(40)),
        ..RefChange::new(GitRef::branch("main"))
    };
    let deleted = RefChange { deleted: true, ..RefChange::new(GitRef::tag("v1.0.0")) };
    let git = |changes| {
        let repository = repository.iter().map(|url| RepositoryUrl::parse(url).expect("a URL")).collect();
        Event::Git(GitEvent { repository, ssh_url: None, changes })
    };
    let mut forwarded = ForwardedFields::default();
    forwarded.values.insert("req.pusher.name".to_owned(), json!("ann"));
    let entry = |event, forwarded| {
        let (endpoint, provider, event_type) = ("github".to_owned(), "GitHub".to_owned(), "push".to_owned());
        Entry::Event(Box::new(PublishedEvent {
            endpoint,
            provider,
            event_type,
            event,
            forwarded,
            trace: None,
        }))
    };
    vec![
        ("git", entry(git(GitChanges::Refs(vec![change, deleted])), forwarded)),
        ("git-any-ref", entry(git(GitChanges::Unknown), ForwardedFields::default())),
        ("anything", entry(Event::Anything { what: "a delivery".to_owned() }, ForwardedFields::default())),
        ("catch-up", Entry::CatchUp),
    ]
}

fn describe(entry: &Entry) -> String {
    match entry {
        Entry::CatchUp => "catch up".to_owned(),
        Entry::Event(published) => {
            let PublishedEvent { endpoint, provider, event_type, event, forwarded, .. } = &**published;
            let forwarded: Vec<&str> = forwarded.values.keys().map(String::as_str).collect();
            format!(
                "{endpoint} ({provider}), {event_type}: {}; forwarded: {}",
                event.summary(),
                forwarded.join(" ")
            )
        }
    }
}

#[test]
fn what_each_release_has_written_is_read() {
    let mut read = 0;
    for release in std::fs::read_dir(project().join("tests/fixtures/wire")).expect("a folder").flatten() {
        for file in std::fs::read_dir(release.path()).expect("a folder").flatten() {
            let file = file.path();
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("a fixture");
            let entry = Entry::from_json(&text).unwrap_or_else(|err| panic!("{}: {err}", file.display()));
            let expect = std::fs::read_to_string(file.with_extension("answer")).expect("an answer");
            assert_eq!(describe(&entry).trim(), expect.trim(), "{}", file.display());
            read += 1;
        }
    }
    assert!(read >= 7, "the fixtures were lost: {read}");
}

#[test]
fn this_version_writes_what_its_release_is_known_for() {
    let folder = project().join("tests/fixtures/wire").join(env!("CARGO_PKG_VERSION"));
    for (name, entry) in entries() {
        let written: Value = serde_json::from_str(
            &entry.to_json("00000000000000000000000000000001", jiff::Timestamp::UNIX_EPOCH),
        )
        .expect("JSON");
        let file = folder.join(format!("{name}.json"));
        if std::env::var_os("FLUX_RECV_BLESS").is_some() {
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::write(&file, format!("{written:#}\n")).expect("a fixture");
            std::fs::write(file.with_extension("answer"), describe(&entry).trim().to_owned() + "\n")
                .expect("an answer");
        }
        let known: Value =
            serde_json::from_str(&std::fs::read_to_string(&file).expect("a fixture")).expect("JSON");
        assert_eq!(written, known, "{name}");
    }
}
