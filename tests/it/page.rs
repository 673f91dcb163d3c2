//! The page for operators over HTTP: what it says, and what it refuses. `tests/browser` has it in a real browser.

use serde_json::json;

use super::common::leaks;
use super::running::{CONFIG, FluxRecv, OBJECTS, client, folder, hub_signature, test_key};

async fn get(url: &str) -> (u16, String) {
    let response = client().get(url).send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("a body"))
}

/// A push to a branch, signed with a key.
async fn push(running: &FluxRecv, branch: &str, key: &str) {
    let body = json!({
        "ref": format!("refs/heads/{branch}"), "after": "1111111111111111111111111111111111111111",
        "repository": {"clone_url": "https://github.com/org/app.git"},
    });
    let body = body.to_string();
    let sent = client()
        .post(format!("{}{}", running.base, running.path("github")))
        .header("X-GitHub-Event", "push")
        .header("X-GitHub-Delivery", "7e1a2c3d-0001")
        .header("X-Hub-Signature-256", hub_signature(key, body.as_bytes()))
        .body(body);
    sent.send().await.expect("an answer");
}

/// Serves the usual objects with options of the page.
fn running(options: &[&str]) -> FluxRecv {
    let folder = folder(CONFIG);
    let manifests = folder.path().join("objects");
    std::fs::create_dir(&manifests).expect("a folder");
    std::fs::write(manifests.join("objects.yaml"), OBJECTS).expect("objects");
    let manifests = manifests.display().to_string();
    FluxRecv::in_folder(folder, &[&["--manifests", &manifests], options].concat())
}

#[tokio::test]
async fn the_page_shows_deliveries_and_their_stories_without_secrets() {
    let running = running(&[]);
    let page = running.debug();
    let (status, empty) = get(&page).await;
    assert_eq!(status, 200);
    assert!(
        empty.contains("Fine: nothing needs anyone.") && empty.contains("nothing since the start"),
        "{empty}"
    );
    push(&running, "main", &test_key("github")).await;
    push(&running, "<script>alert(1)</script>", &test_key("github")).await;
    push(&running, "main", "another-key").await;
    let (_, overview) = get(&page).await;
    for part in [
        "the last delivery was refused",
        "1 accepted, 1 unmatched, 1 refused",
        "GitRepository/apps/app",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "github.key",
        "replica ",
    ] {
        assert!(overview.contains(part), "{part} in:\n{overview}");
    }
    assert!(!overview.contains("<script>alert"), "{overview}");
    assert!(overview.contains("hub.key") && !overview.contains(&test_key("hub")));

    let (_, story) = get(&format!("{page}/delivery/github-1")).await;
    for part in [
        "Verified with the key",
        "Matched <time",
        "7e1a2c3d-0001",
        "1111111111111111111111111111111111111111",
        "does not track branch &lt;script&gt;",
        "tracks something else",
        "tracks branch main",
        "Text to copy",
    ] {
        assert!(story.contains(part), "{part} in:\n{story}");
    }
    let (_, found) = get(&format!("{page}/?q=7e1a2c3d&outcome=accepted")).await;
    assert!(found.contains("/delivery/github-0") && !found.contains("/delivery/github-1\""), "{found}");
    let (_, none) = get(&format!("{page}/?q=%3Cscript%3Enothing")).await;
    assert!(none.contains("None that is remembered matches.") && !none.contains("<script>nothing"), "{none}");
    assert_eq!(get(&format!("{page}/delivery/github-99")).await.0, 404);
    for text in [&overview, &story, &found] {
        assert_eq!(leaks::find(text, running.folder.path()), None);
    }
}

#[tokio::test]
async fn other_hosts_are_refused_on_every_path_and_no_answer_can_be_framed_or_kept() {
    let running = running(&["--allow-request-again"]);
    let page = running.debug();
    let paths = [
        "/",
        "/delivery/github-0",
        "/live",
        "/live.js",
        "/style.css",
        "/config",
        "/deliveries",
        "/subscribers",
        "/explain",
        "/nothing",
    ];
    for path in paths {
        for host in ["evil.example.com", "127.0.0.1.nip.io", "localhost.evil.example.com:8082", ""] {
            let answer =
                client().get(format!("{page}{path}")).header("Host", host).send().await.expect("an answer");
            assert!(
                [421, 400].contains(&answer.status().as_u16()),
                "{path} for {host:?}: {}",
                answer.status()
            );
            assert!(!answer.text().await.expect("a body").contains("github"), "{path}");
        }
        for headers in [
            [("Origin", "http://evil.example.com"), ("Sec-Fetch-Mode", "cors")],
            [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
        ] {
            let mut request = client().get(format!("{page}{path}"));
            for (name, value) in headers {
                request = request.header(name, value);
            }
            assert_eq!(request.send().await.expect("an answer").status(), 403, "{path}");
        }
        let answer = client().get(format!("{page}{path}")).header("Host", "localhost:1").send().await;
        let headers = answer.expect("an answer").headers().clone();
        let header = |name: &str| headers[name].to_str().expect("text").to_owned();
        assert!(header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(
            (header("cache-control"), header("referrer-policy")),
            ("no-store".into(), "no-referrer".into())
        );
    }
}

#[tokio::test]
async fn requesting_again_takes_the_option_the_origin_and_the_token() {
    let without = running(&[]);
    push(&without, "main", &test_key("github")).await;
    let again = |page: &str| format!("{page}/delivery/github-0/request-again");
    let refused = client().post(again(&without.debug())).header("Origin", without.debug()).send().await;
    assert_eq!(refused.expect("an answer").status(), 403);
    assert!(!get(&format!("{}/delivery/github-0", without.debug())).await.1.contains("Request again"));

    let running = running(&["--allow-request-again"]);
    let page = running.debug();
    push(&running, "main", &test_key("github")).await;
    let (_, story) = get(&format!("{page}/delivery/github-0")).await;
    let token = story.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let form = format!("token={}", token.expect("a token"));
    let post = |origin: &str, form: &str, site: &str| {
        let request = client().post(again(&page)).header("Origin", origin).header("Sec-Fetch-Site", site);
        let request =
            request.header("Content-Type", "application/x-www-form-urlencoded").body(form.to_owned());
        async move { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(post("null", &form, "cross-site").await, 403);
    assert_eq!(post("http://evil.example.com", &form, "cross-site").await, 403);
    assert_eq!(post(&page, &form, "cross-site").await, 403);
    assert_eq!(post(&page, "token=", "same-origin").await, 403);
    assert_eq!(post(&page, "", "same-origin").await, 403);
    assert_eq!(running.logged("requested again from the page", &[]), 0);
    assert_eq!(post(&page, &form, "same-origin").await, 200, "back on the delivery");
    assert_eq!(running.logged("requested again from the page", &[]), 1);
    running.wait_for_log("reconciliation would be requested (dry run)", &[]);
}

#[tokio::test]
async fn viewers_are_told_of_changes_and_the_seventeenth_is_refused() {
    let running = running(&[]);
    let page = running.debug();
    let live = || client().get(format!("{page}/live")).send();
    let mut viewers = Vec::new();
    for _ in 0..16 {
        let answer = live().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        viewers.push(answer);
    }
    assert_eq!(live().await.expect("an answer").status(), 503);
    push(&running, "main", &test_key("github")).await;
    let first = tokio::time::timeout(std::time::Duration::from_secs(10), viewers[0].chunk()).await;
    let first = first.expect("an event in time").expect("a chunk").expect("a chunk");
    let first = String::from_utf8_lossy(&first).into_owned();
    assert!(first.starts_with("id: ") && first.contains("\nevent: change\n"), "{first:?}");
    drop(viewers);
    // A viewer that has gone makes room.
    let started = std::time::Instant::now();
    while live().await.expect("an answer").status() != 200 {
        assert!(started.elapsed() < std::time::Duration::from_secs(40), "no room");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
