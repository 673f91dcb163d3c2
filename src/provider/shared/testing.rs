//! Helpers of the providers' tests.

use serde_json::Value;

use super::super::{CannotCompose, ParseContext, Parsed, Provider, Sample};
use crate::delivery::Delivery;
use crate::event::git_ref::GitRef;
use crate::event::image::ImageReference;
use crate::event::repository_url::RepositoryUrl;
use crate::event::{Event, GitChanges, GitEvent};
use crate::verify::testing::assume_verified;

/// Reads a verified delivery and compares what it says, in a line.
#[track_caller]
pub(in crate::provider) fn check(provider: &Provider, headers: &[(&str, &str)], body: &Value, expect: &str) {
    check_with_hosts(provider, headers, body, &[], expect);
}

#[track_caller]
pub(in crate::provider) fn check_with_hosts(
    provider: &Provider,
    headers: &[(&str, &str)],
    body: &Value,
    hosts: &[&str],
    expect: &str,
) {
    assert_eq!(parse(provider, headers, body.to_string().as_bytes(), hosts), expect, "{body}");
}

fn parse(provider: &Provider, headers: &[(&str, &str)], body: &[u8], hosts: &[&str]) -> String {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let delivery = Delivery { headers: &headers, body };
    let context = ParseContext { registry_hosts: &hosts, git_hosts: &hosts, resume_at: 0 };
    match provider.read(&assume_verified(delivery), &context) {
        Ok(Parsed::Ping) => "ping".to_owned(),
        Ok(Parsed::Confirm(_)) => "confirm".to_owned(),
        Ok(Parsed::Ignored(reason)) => format!("ignored: {reason}"),
        Ok(Parsed::Events(events) | Parsed::Part { events, .. }) => {
            let lines: Vec<String> = events.iter().map(|event| event.summary()).collect();
            lines.join("; ")
        }
        Err(err) => format!("unreadable: {err}"),
    }
}

/// The URLs of the repositories that a push is about.
pub(in crate::provider) fn repositories(
    provider: &Provider,
    headers: &[(&str, &str)],
    body: &Value,
    hosts: &[String],
) -> Vec<RepositoryUrl> {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let body = body.to_string();
    let delivery = Delivery { headers: &headers, body: body.as_bytes() };
    let context = ParseContext { git_hosts: hosts, ..ParseContext::default() };
    let Ok(Parsed::Events(events)) = provider.read(&assume_verified(delivery), &context) else {
        return Vec::new();
    };
    let urls = events.into_iter().filter_map(|event| match event {
        Event::Git(event) => Some(event.repository),
        _ => None,
    });
    urls.flatten().collect()
}

/// Whether a push brings a commit, by what it says.
pub(in crate::provider) fn brings(
    provider: &Provider,
    headers: &[(&str, &str)],
    body: &Value,
    commit: &str,
) -> bool {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let body = body.to_string();
    let verified = assume_verified(Delivery { headers: &headers, body: body.as_bytes() });
    let Ok(Parsed::Events(events)) = (provider.parse)(&verified, &ParseContext::default()) else {
        return false;
    };
    events.iter().any(|event| match event {
        Event::Git(GitEvent { changes: GitChanges::Refs(refs), .. }) => {
            refs.iter().any(|change| change.commits.contains(commit))
        }
        _ => false,
    })
}

/// Incidents 3 and 5: takes away, empties and retypes every value of the payload in turn. Whatever
/// comes out, it must come out without a panic; and text behind the JSON value is an error.
#[track_caller]
pub(in crate::provider) fn check_malformed(provider: &Provider, headers: &[(&str, &str)], body: &Value) {
    for broken in mutations(body) {
        parse(provider, headers, broken.to_string().as_bytes(), &[]);
    }
    let whole = body.to_string();
    for end in 0..whole.len() {
        if whole.is_char_boundary(end) {
            let answer = parse(provider, headers, &whole.as_bytes()[..end], &[]);
            assert!(answer.starts_with("unreadable: "), "{answer} for {}", &whole[..end]);
        }
    }
    let answer = parse(provider, headers, format!("{whole}}}").as_bytes(), &[]);
    assert!(answer.starts_with("unreadable: "), "trailing text: {answer}");
}

fn mutations(value: &Value) -> Vec<Value> {
    let mut all = vec![
        Value::Null,
        Value::Bool(true),
        7.into(),
        "".into(),
        "x".into(),
        Value::Array(vec![]),
        serde_json::json!({}),
    ];
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let mut without = fields.clone();
                without.remove(name);
                all.push(Value::Object(without));
                for broken in mutations(field) {
                    let mut with = fields.clone();
                    with.insert(name.clone(), broken);
                    all.push(Value::Object(with));
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                for broken in mutations(item) {
                    let mut with = items.clone();
                    with[at] = broken;
                    all.push(Value::Array(with));
                }
            }
        }
        _ => {}
    }
    all
}

/// Checks that `parse` reads what `compose` writes as the same change.
#[track_caller]
pub(in crate::provider) fn check_composed_delivery_comes_back(provider: &Provider) {
    let repository = RepositoryUrl::parse("https://bitbucket.org/org/app").expect("a URL");
    let commit = "2".repeat(40);
    let push = Sample::Push { repository, name: GitRef::branch("main"), commit };
    let image = Sample::Image {
        reference: ImageReference::parse("registry.example.com/org/app:1.2.3").expect("an image"),
    };
    let mut composed = 0;
    for (change, expect) in [
        (push, "push to bitbucket.org/org/app main"),
        (image, "push of registry.example.com/org/app:1.2.3"),
        (Sample::Ping, "ping"),
    ] {
        let delivery = match (provider.compose)(&change) {
            Ok(delivery) => delivery,
            Err(CannotCompose(_)) => continue,
        };
        composed += 1;
        let headers: Vec<(&str, &str)> =
            delivery.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = parse(provider, &headers, delivery.body.as_bytes(), &["registry.example.com"]);
        let expect = match provider.name {
            "DockerHub" if expect.starts_with("push of") => "push of docker.io/org/app:1.2.3",
            _ => expect,
        };
        assert_eq!(answer, expect, "{}", delivery.body);
    }
    assert!(composed > 0, "{} composes nothing", provider.name);
}
