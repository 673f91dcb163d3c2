//! The scripts of the release, as far as they go without a registry.

use std::process::{Command, Output};

use super::common::copy_folder;
use super::running::{project, stderr, stdout};

/// A copy of what the scripts read, with a changelog that has a section for the version.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in [".ci", "chart"] {
        copy_folder(&project().join(name), &folder.path().join(name));
    }
    for name in ["Cargo.toml", "Dockerfile"] {
        std::fs::copy(project().join(name), folder.path().join(name)).expect("a copy");
    }
    let changelog = std::fs::read_to_string(project().join("CHANGELOG.md")).expect("a changelog");
    let version = env!("CARGO_PKG_VERSION");
    let changelog = changelog.replace("## Unreleased", &format!("## Unreleased\n\n## {version}"));
    std::fs::write(folder.path().join("CHANGELOG.md"), changelog).expect("a changelog");
    folder
}

fn script(folder: &tempfile::TempDir, name: &str, arguments: &[&str]) -> Output {
    Command::new(folder.path().join(".ci").join(name)).args(arguments).output().expect("the script runs")
}

#[test]
fn a_tag_has_to_be_the_version_of_everything() {
    let folder = prepared();
    let tag = format!("v{}", env!("CARGO_PKG_VERSION"));
    let good = script(&folder, "release-check", &[&tag]);
    assert!(good.status.success(), "{}", stderr(&good));
    for (tag, why) in
        [("v9.9.9", "Cargo.toml has version"), (env!("CARGO_PKG_VERSION"), "a tag begins with v")]
    {
        let bad = script(&folder, "release-check", &[tag]);
        assert!(!bad.status.success() && stderr(&bad).contains(why), "{}", stderr(&bad));
    }
    let chart = folder.path().join("chart/flux-recv/Chart.yaml");
    let text = std::fs::read_to_string(&chart).expect("a chart");
    std::fs::write(&chart, text.replace("appVersion: ", "appVersion: 9")).expect("a chart");
    let bad = script(&folder, "release-check", &[&tag]);
    assert!(stderr(&bad).contains("has appVersion 9"), "{}", stderr(&bad));
}

#[test]
fn notes_come_from_the_changelog() {
    let folder = prepared();
    let notes = script(&folder, "release-notes", &[concat!("v", env!("CARGO_PKG_VERSION"))]);
    assert!(
        stdout(&notes).contains("### Added") && !stdout(&notes).contains("## Unreleased"),
        "{}",
        stdout(&notes)
    );
    let none = script(&folder, "release-notes", &["v9.9.9"]);
    assert!(!none.status.success() && stderr(&none).contains("has no section"), "{}", stderr(&none));
}

#[test]
fn files_get_their_checksums() {
    let folder = prepared();
    let dist = folder.path().join("dist");
    std::fs::create_dir(&dist).expect("a folder");
    std::fs::write(dist.join("flux-recv-linux-amd64"), "binary").expect("a file");
    assert!(script(&folder, "release-checksums", &[&dist.display().to_string()]).status.success());
    let checked = Command::new("sha256sum").args(["--check", "SHA256SUMS"]).current_dir(&dist).output();
    assert!(checked.expect("it runs").status.success());
}

/// Each step of the workflow that is a script of ours names one that exists.
#[test]
fn the_workflow_names_scripts_that_exist() {
    let workflow =
        std::fs::read_to_string(project().join(".github/workflows/release.yml")).expect("a workflow");
    let scripts: Vec<&str> =
        workflow.split(".ci/").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
    assert!(scripts.len() >= 4, "{scripts:?}");
    for script in scripts {
        assert!(project().join(".ci").join(script).exists(), "{script}");
    }
}
