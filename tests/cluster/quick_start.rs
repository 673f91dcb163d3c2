//! README's quick start, as a newcomer runs it: from an empty folder with kubectl, helm and a token. Gitea stands
//! in for GitHub, and the suite for the kubelet.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use super::bed::Bed;
use super::common::running::flux_recv;
use super::gitea::{Gitea, USER};
use super::process::{Process, free_port, wait_for};
use super::receive::{git_repository, requested_at};

const PATIENCE: Duration = Duration::from_secs(60);

/// The quick start's blocks, each with its language.
fn blocks() -> Vec<(String, String)> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).expect("README.md");
    let (_, section) =
        readme.split_once("## From a key to the first reconciled object\n").expect("the quick start");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut parts = section.split("```");
    let mut blocks = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let (language, text) = block.split_once('\n').expect("a block");
        let lines = text.lines().map(|line| line.strip_prefix("   ").unwrap_or(line));
        blocks.push((language.to_owned(), lines.collect::<Vec<_>>().join("\n")));
    }
    blocks
}

pub fn the_quick_start_of_readme_leads_to_a_requested_object(bed: &Bed) {
    let gitea = Gitea::start(bed);
    let token = gitea.token(bed, "quick-start");
    let clone = gitea.repository_without_webhook(bed, USER, "quick-start");
    let url = format!("{}/{USER}/quick-start.git", gitea.base);
    git_repository(bed, "flux-system", "quick-start", json!({"url": url, "ref": {"branch": "main"}}));
    remove_the_manifests(bed);
    let folder = tempfile::tempdir().expect("an empty folder");
    let base = format!("http://127.0.0.1:{}", free_port());
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("chart/flux-recv").display().to_string();
    let as_here = |text: &str| {
        text.replace("source: GitHub", "source: Gitea")
            .replace("github", "gitea")
            .replace("https://recv.example.com", &base)
            .replace("YOU/REPO", &format!("{USER}/quick-start"))
            .replace("chart/flux-recv", &chart)
    };
    let binaries = bed.parts.cache.join("bin").display().to_string();
    let own = Path::new(env!("CARGO_BIN_EXE_flux-recv")).parent().expect("a folder").display().to_string();
    let run = |line: &str, folder: &Path| {
        let path = format!("{own}:{binaries}:{}", std::env::var("PATH").unwrap_or_default());
        let output = Command::new("sh")
            .args(["-c", line])
            .current_dir(folder)
            .env("PATH", path)
            .env("HOME", bed.folder.path())
            .env("KUBECONFIG", bed.path("admin.kubeconfig"))
            .env("GITEA_TOKEN", &token)
            .env("FLUX_RECV_API", &gitea.base)
            .envs(["GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"].map(|name| (name, "tester")))
            .envs(["GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"].map(|name| (name, "tester@example.com")))
            .output()
            .expect("sh runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stderr) + &text(&output.stdout)
    };
    let started = Instant::now();
    let (mut commands, mut serving, mut printed) = (0, None, String::new());
    for (language, text) in blocks() {
        match language.as_str() {
            "yaml" => std::fs::write(folder.path().join("values.yaml"), as_here(&text)).expect("values"),
            "text" => check_printed(&printed, &as_here(&text)),
            "sh" => {
                printed.clear();
                for line in text.lines() {
                    let line = as_here(line);
                    commands += 1;
                    match line.split_whitespace().next() {
                        // Nothing runs Pods here: the suite does what the Deployment says.
                        _ if line.contains("rollout status") => {
                            serving = Some(serve_as_the_deployment_does(bed, folder.path(), &base));
                            printed += "deployment \"flux-recv\" successfully rolled out\n";
                        }
                        Some("git") => printed += &run(&line, clone.folder()),
                        Some("kubectl") if line.contains("requestedAt") => {
                            wait_for("the request", PATIENCE, || {
                                let path = "/apis/source.toolkit.fluxcd.io/v1/namespaces/flux-system/gitrepositories/quick-start";
                                requested_at(&bed.get(path))
                            });
                            let rows = run(&line, folder.path());
                            let kept =
                                |row: &&str| row.starts_with("NAME") || row.starts_with("quick-start ");
                            printed += &rows.lines().filter(kept).collect::<Vec<_>>().join("\n");
                        }
                        _ => printed += &run(&line, folder.path()),
                    }
                }
            }
            other => panic!("a block of {other}"),
        }
    }
    println!(
        "{commands} commands of the quick start took {:?}, the image and its start aside",
        started.elapsed()
    );
    assert!(commands >= 6 && serving.is_some());
    drop(serving);
    run("helm uninstall flux-recv -n flux-system", folder.path());
    run("kubectl -n flux-system delete secret flux-recv-keys", folder.path());
}

/// The output in README is that of the command, but for what differs from cluster to cluster.
fn check_printed(printed: &str, expected: &str) {
    let words = |line: &str| -> Vec<String> {
        line.split_whitespace().map(without_accidents).filter(|word| !word.is_empty()).collect()
    };
    let mut lines = printed.lines().map(words);
    let expected = expected.replace("REPO ", "quick-start ");
    for line in expected.lines().filter(|line| !matches!(*line, "" | "…")).map(words) {
        assert!(lines.any(|printed| printed == line), "no {line:?} in:\n{printed}");
    }
}

/// A word without digests, numbers and times.
fn without_accidents(word: &str) -> String {
    if let Some((before, _)) = word.split_once("/hook/") {
        return format!("{before}/hook/");
    }
    match word.chars().next() {
        Some(first) if first.is_ascii_digit() => "NUMBER".to_owned(),
        // The events of Gitea, in place of GitHub's.
        _ if word.contains("push") || ["create,", "delete,", "package"].contains(&word) => String::new(),
        _ => word.to_owned(),
    }
}

/// Another scenario may have applied them under the names that the quick start takes.
fn remove_the_manifests(bed: &Bed) {
    let file = bed.path("manifests-to-remove.yaml");
    let kustomization = Path::new(env!("CARGO_MANIFEST_DIR")).join("kustomization");
    std::fs::write(&file, bed.kustomize(&kustomization)).expect("manifests");
    let text = std::fs::read_to_string(&file).expect("manifests");
    // The namespace stays.
    let documents: Vec<&str> =
        text.split("\n---\n").filter(|part| !part.contains("\nkind: Namespace")).collect();
    std::fs::write(&file, documents.join("\n---\n")).expect("manifests");
    bed.kubectl(&["delete", "--ignore-not-found", "-f", &file.display().to_string()]);
}

/// What a kubelet would do: mount the config and the keys, and start the binary as the ServiceAccount.
fn serve_as_the_deployment_does(bed: &Bed, folder: &Path, base: &str) -> Process {
    let mounted = folder.join("mounted");
    std::fs::create_dir(&mounted).expect("a folder");
    let deployment = bed.get("/apis/apps/v1/namespaces/flux-system/deployments/flux-recv");
    let pod = &deployment["spec"]["template"]["spec"];
    for secret in ["flux-recv-config", "flux-recv-keys"] {
        assert!(pod["volumes"].to_string().contains(secret), "{}", pod["volumes"]);
        let secret = bed.get(&format!("/api/v1/namespaces/flux-system/secrets/{secret}"));
        for (name, value) in secret["data"].as_object().expect("data") {
            use base64::Engine;
            let value = base64::engine::general_purpose::STANDARD.decode(value.as_str().expect("text"));
            std::fs::write(mounted.join(name), value.expect("base64")).expect("a file");
        }
    }
    let account = pod["serviceAccountName"].as_str().expect("an account");
    let kubeconfig = mounted.join("kubeconfig");
    let token = bed.token("flux-system", account);
    std::fs::write(&kubeconfig, bed.kubeconfig(&token, "flux-system")).expect("a kubeconfig");
    let log = mounted.join("log");
    let process = Process::spawn(
        flux_recv()
            .arg("--config")
            .arg(mounted.join("fluxrecv.yaml"))
            .args(["--listen", base.trim_start_matches("http://")])
            .env("KUBECONFIG", kubeconfig),
        &log,
    );
    wait_for("the start", PATIENCE, || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("inventory complete").then_some(())
    });
    process
}
