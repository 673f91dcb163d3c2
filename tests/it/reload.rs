//! Changes of the config and its keys while serving.

use std::path::Path;
use std::time::Duration;

use super::http::{push, push_signed, push_under};
use super::running::{CONFIG, FluxRecv, OBJECTS, test_key};

const PATIENCE: Duration = Duration::from_secs(20);

fn config_of(running: &FluxRecv) -> std::path::PathBuf {
    running.folder.path().join("fluxrecv.yaml")
}

#[tokio::test]
async fn a_changed_config_is_taken_and_a_broken_one_is_not() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    std::fs::write(running.folder.path().join("new.key"), test_key("new")).expect("a key");
    std::fs::write(config_of(&running), format!("{CONFIG}- {{source: GitHub, keyPath: new.key}}\n"))
        .expect("a config");
    running.wait_for_logs("config reloaded", &[("endpoints", "3")], 1, PATIENCE).await;
    let status_of_new = async || push_under(&running, "new", &test_key("new"), push(), &[]).await.status;
    assert_eq!(status_of_new().await, 202);

    // Incident 37: all or nothing, loudly.
    std::fs::write(
        config_of(&running),
        format!("{CONFIG}- {{source: GitHub, keyPath: missing.key}}\n- {{sourc: x}}\n"),
    )
    .expect("a config");
    running.wait_for_logs("config reload failed; keeping the previous config", &[], 1, PATIENCE).await;
    for mistake in ["*missing.key*", "*sourc: is an unknown field*"] {
        assert!(
            running.logged("config mistake", &[("mistake", mistake)]) > 0,
            "{mistake}: {}",
            running.log()
        );
    }
    assert_eq!(running.metric("flux_recv_config_last_reload_successful").await, Some(0.0));
    assert_eq!(status_of_new().await, 202);

    // The key that was missing comes, and the unknown field goes.
    std::fs::write(config_of(&running), format!("{CONFIG}- {{source: GitHub, keyPath: missing.key}}\n"))
        .expect("a config");
    running.wait_for_logs("config reload failed; keeping the previous config", &[], 2, PATIENCE).await;
    std::fs::write(running.folder.path().join("missing.key"), test_key("missing")).expect("a key");
    running.wait_for_logs("config reloaded", &[], 2, PATIENCE).await;
    assert_eq!(running.metric("flux_recv_config_last_reload_successful").await, Some(1.0));
    assert_eq!(status_of_new().await, 404);
    assert_eq!(running.metric("flux_recv_last_delivery_timestamp_seconds{endpoint=\"new\"}").await, None);
}

/// Writes a folder as Kubernetes mounts a Secret: files are links through `..data`.
fn mount(folder: &Path, version: &str, files: &[(&str, &str)]) {
    let data = folder.join(format!("..{version}"));
    std::fs::create_dir(&data).expect("a folder");
    for (name, content) in files {
        std::fs::write(data.join(name), content).expect("a file");
        let link = folder.join(name);
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(format!("..data/{name}"), link).expect("a link");
        }
    }
    std::os::unix::fs::symlink(format!("..{version}"), folder.join("..data_tmp")).expect("a link");
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("a swap");
}

// Incident 37.
#[tokio::test]
async fn the_swap_of_a_mounted_secret_is_noticed_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let objects = tempfile::tempdir().expect("a folder");
    std::fs::write(objects.path().join("objects.yaml"), OBJECTS).expect("objects");
    let config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key}\n";
    mount(folder.path(), "one", &[("fluxrecv.yaml", config), ("github.key", "test-key-version-one-0123")]);
    let running = FluxRecv::in_folder(folder, &["--manifests", &objects.path().display().to_string()]);
    for (times, version, key) in
        [(1, "two", "test-key-version-two-0123"), (2, "three", "test-key-version-three-01")]
    {
        mount(running.folder.path(), version, &[("fluxrecv.yaml", config), ("github.key", key)]);
        running.wait_for_logs("config reloaded", &[("endpoints", "1")], times, PATIENCE).await;
        assert_eq!(push_under(&running, "github", key, push(), &[]).await.status, 202);
    }
}

#[tokio::test]
async fn sighup_reloads_without_a_change_and_no_delivery_is_dropped() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    for times in 1..=5 {
        running.signal("-HUP");
        for _ in 0..20 {
            assert_eq!(push_signed(&running, push(), &[]).await.status, 202);
        }
        running.wait_for_logs("config reloaded", &[("endpoints", "2")], times, PATIENCE).await;
    }
}

#[tokio::test]
async fn where_events_go_cannot_change_while_serving() {
    let running = FluxRecv::with_objects(CONFIG, OBJECTS);
    std::fs::write(config_of(&running), format!("{CONFIG}api: http://localhost:3030/api/flux\n"))
        .expect("a config");
    running
        .wait_for_logs(
            "config mistake",
            &[("mistake", "*api: cannot change while serving; restart flux-recv*")],
            1,
            PATIENCE,
        )
        .await;
    assert_eq!(push_signed(&running, push(), &[]).await.status, 202);
}
