//! Single bodies that take a multiple of their length once they are read.

use super::attack::{CONFIG, MIB, assert_others_are_served, growth, memory};
use super::running::{FluxRecv, OBJECTS, client};

/// A list of as many of these as fit into 8 MiB.
fn list_of(item: &str) -> String {
    let items = vec![item; (8 * MIB - 4096) / (item.len() + 1)];
    format!("[{}]", items.join(","))
}

/// Sends one body to an endpoint of its own; gives the status and by how much memory has grown at most.
async fn send(source: &str, options: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, usize) {
    assert!(body.len() <= 8 * MIB, "{source}: {}", body.len());
    let config = format!("{CONFIG}- {{source: {source}, keyPath: big.key, {options}}}\n");
    let running = FluxRecv::with_objects(&config, OBJECTS);
    assert_others_are_served(&running, "none yet").await;
    let before = memory(&running);
    let mut request = client().post(format!("{}{}", running.base, running.path("big"))).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let status = request.send().await.expect("an answer").status().as_u16();
    let lines = running.log();
    let longest = lines.lines().map(str::len).max().unwrap_or_default();
    assert!(longest <= 4200, "{source}: a log line of {longest} bytes");
    assert_others_are_served(&running, source).await;
    (status, growth(&running, before))
}

/// A source, what else its endpoint says, headers and a body.
type Case<'c> = (&'c str, &'c str, &'c [(&'c str, &'c str)], String);

/// What a body of 8 MiB may add: with the process itself it stays under 64 MB.
const MAX_GROWTH: usize = 44 * MIB;

// The attacks: 153 MB for one body (EventBridge), 108 MB (CDEvents), 74 MB (distribution).
#[tokio::test]
async fn one_body_takes_no_multiple_of_its_length() {
    let json = [("Content-Type", "application/json")];
    let batch = [("Content-Type", "application/cloudevents-batch+json")];
    let push = [("X-Event-Key", "repo:push")];
    let notification = r#"{"action":"push","target":{"mediaType":"manifest","repository":"a","tag":"b"},"request":{"host":"r.io"}}"#;
    let record = r#"{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}}"#;
    let attributes: String = (0..600_000).map(|at| format!("\"{at}\":\"\",")).collect();
    let event_of_cdevents = |extra: &str| {
        let context = r#"{"version":"0.4.1","id":"a","source":"/ci","type":"dev.cdevents.change.merged.0.2.0","timestamp":"2026-01-01T00:00:00Z"}"#;
        format!(
            r#"{{"context":{context},"subject":{{"id":"7","type":"change","content":{{"repository":{{"id":"o/a","source":"https://g.io"}}}}}},"customData":{extra}}}"#
        )
    };
    let unsigned = "unsigned: true";
    let cases: Vec<Case<'_>> = vec![
        (
            "EventBridge",
            unsigned,
            &json,
            format!("{{\"source\":\"aws.ecr\",\"detail-type\":\"x\",\"x\":{}}}", list_of("0")),
        ),
        ("EventBridge", unsigned, &json, format!("{{\"Records\":{}}}", list_of(record))),
        (
            "CDEvents",
            unsigned,
            &[("ce-type", "dev.cdevents.change.merged.0.2.0")],
            event_of_cdevents(&list_of("0")),
        ),
        ("CDEvents", unsigned, &batch, list_of("{\"type\":\"a\"}")),
        ("distribution", unsigned, &json, format!("{{\"events\":{}}}", list_of(notification))),
        ("distribution", unsigned, &json, format!("{{\"events\":{}}}", list_of("{}"))),
        ("zot", "unsigned: true, registryHost: r.io", &batch, list_of("{}")),
        ("MinIO", unsigned, &json, format!("{{\"Records\":{}}}", list_of("{}"))),
        (
            "BitbucketCloud",
            unsigned,
            &push,
            format!(
                "{{\"push\":{{\"changes\":{}}},\"repository\":{{\"full_name\":\"o/a\"}}}}",
                list_of("{}")
            ),
        ),
        (
            "AzureDevOps",
            unsigned,
            &json,
            format!(
                "{{\"eventType\":\"git.push\",\"resource\":{{\"repository\":{{\"remoteUrl\":\"https://g.io/o/a\"}},\"refUpdates\":{}}}}}",
                list_of("{\"name\":\"refs/heads/a\"}")
            ),
        ),
        (
            "Quay",
            "name: big",
            &json,
            format!("{{\"docker_url\":\"q.io/o/a\",\"updated_tags\":{}}}", list_of("\"a\"")),
        ),
        ("ACR", unsigned, &json, format!("{{\"action\":\"push\",\"x\":{}}}", list_of("{\"a\":[]}"))),
        (
            "DockerHub",
            "name: big",
            &json,
            format!("{{{attributes}\"push_data\":{{}},\"repository\":{{\"repo_name\":\"o/a\"}}}}"),
        ),
    ];
    let mut failures = Vec::new();
    for (source, options, headers, body) in cases {
        let beginning: String = body.chars().take(60).collect();
        let (status, grown) = send(source, options, headers, body.into_bytes()).await;
        println!("{source}: {status}, {} MiB: {beginning}", grown / MIB);
        if grown > MAX_GROWTH || status >= 500 {
            failures.push(format!("{source}: {status}, {} MiB: {beginning}", grown / MIB));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

// The attack: each byte that is not UTF-8 became three, twice.
#[tokio::test]
async fn bytes_that_are_no_text_take_no_multiple_of_their_length() {
    let mut body = b"{\"push_data\": {}, \"repository\": {\"repo_name\": \"".to_vec();
    body.resize(8 * MIB - 3, 0xff);
    body.extend_from_slice(b"\"}}");
    let (status, grown) = send("DockerHub", "name: big", &[], body).await;
    assert!(status < 500 && grown < MAX_GROWTH, "{status}, {} MiB", grown / MIB);
}

#[tokio::test]
async fn a_delivery_of_many_events_is_matched_to_its_end() {
    let config = format!("{CONFIG}- {{source: distribution, keyPath: registry.key, unsigned: true}}\n");
    let objects = "
apiVersion: source.toolkit.fluxcd.io/v1
kind: OCIRepository
metadata: {name: last, namespace: apps}
spec: {url: 'oci://r.io/last', ref: {tag: v1}}
";
    let running = FluxRecv::with_objects(&config, objects);
    let of = |name: &str| {
        format!(
            "{{\"action\":\"push\",\"target\":{{\"mediaType\":\"manifest\",\"repository\":\"{name}\",\"tag\":\"v1\"}},\"request\":{{\"host\":\"r.io\"}}}}"
        )
    };
    let others: Vec<String> = (0..20_000).map(|at| of(&format!("a{at}"))).collect();
    let body = format!("{{\"events\":[{},{}]}}", others.join(","), of("last"));
    let url = format!("{}{}", running.base, running.path("registry"));
    let answer = client().post(url).body(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 202);
    let answer: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(answer["targets"], serde_json::json!(["OCIRepository/apps/last"]));
    let event = answer["event"].as_str().expect("a summary");
    assert!(event.ends_with(" and 19996 more"), "{event}");
}
