//! Flux's Receivers turned into a config, which then is served at the same URLs.

use serde_json::json;
use sha2::{Digest, Sha256};

use super::http::post;
use super::running::{FluxRecv, OBJECTS, flux_recv, hub_signature, stderr, stdout};

const TOKEN: &str = "test-token-of-a-receiver";

const RECEIVERS: &str = "
apiVersion: v1
kind: List
items:
- apiVersion: notification.toolkit.fluxcd.io/v1
  kind: Receiver
  metadata: {name: hook, namespace: apps}
  spec:
    type: github
    events: [ping, push]
    secretRef: {name: token}
    resourceFilter: req.repository.name == res.metadata.name
    resources: [{kind: GitRepository, name: app}]
- apiVersion: notification.toolkit.fluxcd.io/v1
  kind: Receiver
  metadata: {name: images, namespace: apps}
  spec:
    type: gcr
    secretRef: {name: token}
    resources: [{kind: ImageRepository, name: '*', matchLabels: {a: b}}]
- apiVersion: notification.toolkit.fluxcd.io/v1
  kind: Receiver
  metadata: {name: strange, namespace: apps}
  spec: {type: unheard-of, secretRef: {name: token}, resources: [{kind: Bucket, name: b}]}
- apiVersion: v1
  kind: Secret
  metadata: {name: token, namespace: apps}
  data: {token: dGVzdC10b2tlbi1vZi1hLXJlY2VpdmVy, email: cHVzaEBleGFtcGxlLmNvbQ==, audience: aHR0cHM6Ly9yZWN2LmV4YW1wbGUuY29t}
";

fn convert(folder: &std::path::Path, with_keys: bool) -> std::process::Output {
    std::fs::write(folder.join("receivers.yaml"), RECEIVERS).expect("a file");
    let mut command = flux_recv();
    command.arg("convert").arg(folder.join("receivers.yaml"));
    if with_keys {
        command.arg("--keys").arg(folder);
    }
    command.output().expect("convert runs")
}

#[tokio::test]
async fn a_converted_receiver_is_served_at_its_old_url() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = convert(folder.path(), true);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "one is left out: {}", stderr(&output));
    assert!(text.contains("# left out: Receiver/apps/strange: spec.type: `unheard-of` is unknown"), "{text}");
    let said = stderr(&output);
    assert!(said.starts_with("error: 1 of ") && said.contains("`# left out`"), "{said}");
    assert!(!text.contains(TOKEN));
    std::fs::write(folder.path().join("fluxrecv.yaml"), &text).expect("a config");
    let objects = folder.path().join("objects");
    std::fs::create_dir(&objects).expect("a folder");
    std::fs::write(objects.join("objects.yaml"), OBJECTS).expect("objects");
    let running = FluxRecv::in_folder(folder, &["--manifests", &objects.display().to_string()]);
    let path = format!("/hook/{}", hex::encode(Sha256::digest(format!("{TOKEN}hookapps"))));
    let send = async |event: &str, repository: &str, key: &str| {
        let body = json!({"zen": "x", "repository": {"name": repository}}).to_string().into_bytes();
        let signature = hub_signature(key, &body);
        let headers = [
            ("X-GitHub-Event", event),
            ("Content-Type", "application/json"),
            ("X-Hub-Signature-256", &signature),
        ];
        post(&format!("{}{path}", running.base), &headers, body).await
    };
    let answer = send("push", "app", TOKEN).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert!(answer.body.contains("GitRepository/apps/app"), "{}", answer.body);
    assert_eq!(send("ping", "app", TOKEN).await.status, 202, "a Receiver fires on pings that it lists");
    assert_eq!(send("push", "other", TOKEN).await.status, 200, "the filter does not hold");
    assert_eq!(send("issues", "app", TOKEN).await.status, 200, "none of its events");
    assert_eq!(send("push", "app", "another-key").await.status, 401);
}

#[test]
fn without_the_secrets_it_says_how_to_get_the_keys() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = stdout(&convert(folder.path(), false));
    let line = "kubectl -n apps get secret token -o jsonpath='{.data.token}' | base64 -d > apps.hook.key";
    assert!(text.contains(line), "{text}");
    assert!(!folder.path().join("apps.hook.key").exists());
}

#[test]
fn what_holds_no_receiver_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.yaml");
    for text in ["", "a: [", "kind: Receiver\nmetadata: {name: x}\nspec: {type: 7}\n"] {
        std::fs::write(&file, text).expect("a file");
        let output = flux_recv().arg("convert").arg(&file).output().expect("convert runs");
        assert_eq!(output.status.code(), Some(1), "{text:?}");
        assert!(stderr(&output).contains("x.yaml"), "{}", stderr(&output));
    }
}
