//! What an endpoint can be given beside its key: limits, further keys, trusted proxies.

use super::http::{padded, post, push, push_signed, push_under};
use super::running::{CONFIG, FluxRecv, OBJECTS, test_key};

// Incident 2.
#[tokio::test]
async fn an_endpoint_can_have_a_body_limit_of_its_own_and_it_is_exact() {
    let config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key, maxBody: 12MiB}\n\
                  - {source: GitHub, keyPath: small.key, maxBody: 1KiB}\n";
    let running = FluxRecv::with_objects(config, OBJECTS);
    assert_eq!(push_signed(&running, padded(12 << 20), &[]).await.status, 202);
    assert_eq!(push_signed(&running, padded((12 << 20) + 1), &[]).await.status, 413);
    for (length, status) in [(1024, 202), (1025, 413)] {
        let answer = push_under(&running, "small", &test_key("small"), padded(length), &[]).await;
        assert_eq!(answer.status, status, "{length}");
    }
}

// Incident 18.
#[tokio::test]
async fn a_limit_counts_what_is_authentic_and_only_that() {
    let config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key, maxPerMinute: 2}\n";
    let other = |name: &str| {
        OBJECTS.replace("name: app", &format!("name: {name}")).replace("org/app", &format!("org/{name}"))
    };
    let objects = [OBJECTS, &other("b"), &other("c")].join("---");
    let running = FluxRecv::with_objects(config, &objects);
    for _ in 0..20 {
        let forged = push_under(&running, "github", "another-key", push(), &[]).await;
        assert_eq!(forged.status, 401, "always checked, never throttled");
    }
    assert_eq!(running.logged("delivery refused", &[("outcome", "refused")]), 5, "{}", running.log());
    let about = |name: &str| String::from_utf8(push()).expect("text").replace("org/app", name).into_bytes();
    assert_eq!(push_signed(&running, about("org/nobodys"), &[]).await.status, 200, "concerns nothing: free");
    assert_eq!(push_signed(&running, push(), &[]).await.status, 202);
    assert_eq!(push_signed(&running, about("org/b"), &[]).await.status, 202);
    let refused = push_signed(&running, about("org/c"), &[]).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(running.metric(&too_many("github")).await, Some(1.0));
}

fn too_many(endpoint: &str) -> String {
    format!("flux_recv_deliveries_total{{endpoint=\"{endpoint}\",source=\"GitHub\",outcome=\"too_many\"}}")
}

#[tokio::test]
async fn more_keys_can_be_good_at_one_url() {
    let config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key, acceptKeyPaths: [next.key]}\n\
                  - {source: Harbor, keyPath: harbor.key, acceptKeyPaths: next.key}\n\
                  - {source: GitLab, keyPath: gitlab.key, acceptKeyPaths: next.key}\n";
    let folder = super::running::folder(config);
    std::fs::write(folder.path().join("next.key"), test_key("next")).expect("a key");
    let objects = folder.path().join("objects");
    std::fs::create_dir(&objects).expect("a folder");
    std::fs::write(objects.join("objects.yaml"), OBJECTS).expect("objects");
    let running = FluxRecv::in_folder(folder, &["--manifests", &objects.display().to_string()]);
    let url = |endpoint| format!("{}{}", running.base, running.path(endpoint));
    for (key, status) in [("github", 202), ("next", 202), ("neither", 401)] {
        let answer = push_under(&running, "github", &test_key(key), push(), &[]).await;
        assert_eq!(answer.status, status, "{key}");
        // An event of no interest is enough for the others: 401 comes before it is read.
        let status = if status == 202 { 200 } else { status };
        for (endpoint, header) in [("harbor", "Authorization"), ("gitlab", "X-Gitlab-Token")] {
            let key = if key == "github" { endpoint } else { key };
            let headers = [(header, test_key(key)), ("X-Gitlab-Event", "Issue Hook".to_owned())];
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let body = br#"{"type":"DELETE_CHART","event_data":{}}"#.to_vec();
            assert_eq!(post(&url(endpoint), &headers, body).await.status, status, "{endpoint} {key}");
        }
    }
    assert_eq!(
        running.metric("flux_recv_key_uses_total{endpoint=\"github\",key=\"next.key\"}").await,
        Some(1.0)
    );
    assert_eq!(running.logged("delivery accepted (dry run)", &[("key", "next.key")]), 1, "{}", running.log());
    let (_, config) = running.get_admin("/config").await;
    assert!(config.contains("\"acceptKeyPaths\":[\"next.key\"]"), "{config}");
}

/// The last step of changing a key: the old one makes the URL and is good for nothing else.
#[tokio::test]
async fn an_old_key_can_be_retired_and_the_url_stays() {
    let before = FluxRecv::with_objects(CONFIG, OBJECTS);
    let config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: next.key, pathKeyPath: github.key, name: github}\n";
    let folder = super::running::folder(config);
    std::fs::write(folder.path().join("github.key"), test_key("github")).expect("a key");
    let objects = before.folder.path().join("objects").display().to_string();
    let running = FluxRecv::in_folder(folder, &["--manifests", &objects]);
    assert_eq!(running.path("github"), before.path("github"));
    for (key, status) in [("next", 202), ("github", 401)] {
        let answer = push_under(&running, "github", &test_key(key), push(), &[]).await;
        assert_eq!(answer.status, status, "{key}");
    }
}

#[tokio::test]
async fn forwarded_addresses_are_used_from_trusted_proxies_only() {
    let forwarded = [("X-Forwarded-For", "203.0.113.9, 192.0.2.7")];
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    push_signed(&running, push(), &forwarded).await;
    assert_eq!(
        running.logged("delivery accepted (dry run)", &[("from", "127.0.0.1")]),
        1,
        "{}",
        running.log()
    );
    let config = format!("{CONFIG}trustedProxies: [127.0.0.0/8]\n");
    let running = FluxRecv::with_objects(&config, OBJECTS);
    push_signed(&running, push(), &forwarded).await;
    assert_eq!(
        running.logged("delivery accepted (dry run)", &[("from", "192.0.2.7")]),
        1,
        "{}",
        running.log()
    );
}

#[test]
fn limits_that_make_no_sense_are_mistakes() {
    for (field, mistake) in [
        ("maxBody: 33MiB", "maxBody: has to be between 1 byte and 32 MiB"),
        ("maxBody: 3 parsecs", "maxBody: is not a size; write it like 1048576, 512KiB or 25MiB"),
        ("maxPerMinute: 0", "maxPerMinute: is not a whole number above zero"),
        ("acceptKeyPaths: missing.key", "acceptKeyPaths: cannot read"),
    ] {
        let config =
            format!("fluxRecvVersion: 1\nendpoints:\n- {{source: GitHub, keyPath: github.key, {field}}}\n");
        let folder = super::running::folder(&config);
        let output = super::running::flux_recv()
            .args(["urls", "--config"])
            .arg(folder.path().join("fluxrecv.yaml"))
            .output();
        let text = super::running::stderr(&output.expect("urls runs"));
        assert!(text.contains(mistake), "{field}: {text}");
    }
}
