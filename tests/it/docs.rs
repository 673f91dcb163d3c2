//! The documents are run: every command line that can be, in order, in a copy of the project; and every
//! table is compared with the code.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flux_recv::internals::KINDS;
use flux_recv::internals::PROVIDERS;

use super::common::copy_folder;
use super::hook::double::{Double, TOKEN};
use super::running::{CONFIG, FluxRecv, OBJECTS, flux_recv, project, stderr, stdout, test_key};

/// The documents whose commands build on one another; the recipes in `docs/providers.md` have a test of
/// their own.
const DOCUMENTS: [&str; 11] = [
    "README.md",
    "docs/configuration.md",
    "docs/filters.md",
    "docs/operations.md",
    "docs/troubleshooting.md",
    "docs/receivers.md",
    "docs/multicluster.md",
    "docs/migration.md",
    "docs/benchmarks.md",
    "docs/cli.md",
    "CONTRIBUTING.md",
];

pub fn document(name: &str) -> String {
    std::fs::read_to_string(project().join(name)).unwrap_or_else(|err| panic!("{name}: {err}"))
}

fn configuration() -> String {
    document("docs/configuration.md")
}

/// The lines of the shell blocks.
fn commands() -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_shell = false;
    for line in DOCUMENTS.map(document).join("\n").lines().map(str::trim) {
        match line {
            "```sh" => in_shell = true,
            "```" => in_shell = false,
            command if in_shell => commands.push(command.to_owned()),
            _ => {}
        }
    }
    commands
}

/// Serves until it listens.
fn check_serves(arguments: &[&str], folder: &Path) {
    let log = folder.join("log");
    let file = std::fs::File::create(&log).expect("a log");
    let arguments: Vec<&str> =
        arguments.iter().map(|part| if *part == "127.0.0.1:8080" { "127.0.0.1:0" } else { part }).collect();
    let mut child = flux_recv()
        .args(&arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(file)
        .spawn()
        .expect("flux-recv starts");
    let started = Instant::now();
    let listens = || std::fs::read_to_string(&log).unwrap_or_default().contains("listening");
    while !listens()
        && started.elapsed() < Duration::from_secs(20)
        && child.try_wait().expect("a status").is_none()
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    let listened = listens();
    let _ = child.kill();
    let _ = child.wait();
    assert!(listened, "{arguments:?}: {}", std::fs::read_to_string(&log).unwrap_or_default());
}

#[test]
fn every_command_line_that_can_be_run_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    copy_folder(&project().join("example"), &folder.join("example"));
    let _ = std::fs::remove_file(folder.join("example/config/github.key"));
    let mut run = 0;
    for line in commands() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["cargo", "run", "--", rest @ ..] => {
                let output = flux_recv().args(rest).current_dir(folder).output().expect("it runs");
                assert!(output.status.success(), "{line}: {}", stderr(&output));
            }
            ["flux-recv", "send", rest @ ..] => check_send(rest, folder),
            ["flux-recv", "hook", rest @ ..] => check_hook(rest, folder),
            ["export", variable] => assert!(variable.starts_with("GITHUB_TOKEN="), "{line}"),
            // What needs a cluster is run by the cluster suite; here the command line has to be sound.
            ["flux-recv", rest @ ..] if rest.contains(&"--listen") && !rest.contains(&"--manifests") => {
                check_serves(&[rest, &["--manifests", "example/objects"]].concat(), folder);
            }
            ["flux-recv", rest @ ..] if rest.contains(&"--listen") => check_serves(rest, folder),
            ["flux-recv", "check", rest @ ..] => {
                let offline: &[&str] = if rest.contains(&"--offline") { &[] } else { &["--offline"] };
                let output = flux_recv().arg("check").args(offline).args(rest).current_dir(folder).output();
                let output = output.expect("it runs");
                assert!(output.status.success(), "{line}: {}", stderr(&output));
            }
            // Of the instance whose port is forwarded.
            ["flux-recv", "subscribers"] => {
                let running = FluxRecv::with_objects(CONFIG, OBJECTS);
                let output = flux_recv()
                    .args(["subscribers", "--instance", &running.debug()])
                    .output()
                    .expect("it runs");
                assert!(output.status.success(), "{line}: {}", stderr(&output));
            }
            ["flux-recv", "convert", file, "--keys", keys, ">", _] => {
                let receiver = "kind: Receiver\nmetadata: {name: a, namespace: b}\nspec: {type: github, secretRef: {name: s}, resources: [{kind: Bucket, name: b}]}\n";
                std::fs::write(folder.join(file), receiver).expect("a file");
                let output = flux_recv().args(["convert", file, "--keys", keys]).current_dir(folder).output();
                let output = output.expect("it runs");
                assert!(output.status.success(), "{line}: {}", stderr(&output));
            }
            ["flux-recv", rest @ ..] => {
                if let ["keygen", key] = rest {
                    let _ = std::fs::remove_file(folder.join(key));
                }
                let output = flux_recv().args(rest).current_dir(folder).output().expect("it runs");
                assert!(output.status.success(), "{line}: {}", stderr(&output));
            }
            ["kubectl", "apply", "-k", path] => {
                assert!(project().join(path).join("kustomization.yaml").exists(), "{line}")
            }
            ["printf", "%s", _, ">", path] => {
                assert!(project().join(path).parent().is_some_and(Path::is_dir), "{line}")
            }
            ["git", "commit", ..]
            | ["kubectl", "-n", "flux-system", "create", "secret", ..]
            | ["kubectl", "-n", "flux-system", "rollout", "status", "deployment/flux-recv"]
            | ["kubectl", "get", ..]
            | ["kubectl", "-n", "flux-system", "port-forward", ..]
            | ["kubectl", "-n", "NAMESPACE", "get", ..] => {}
            ["tests/testbed/build"] => assert!(project().join(words[0]).exists()),
            // The suite that this test is part of; a container engine; a tunnel to the internet.
            ["cargo", "test"]
            | ["cargo", "test", "--test", "cluster"]
            | ["FLUX_RECV_FAULTS=long", "cargo", "test", "--test", "cluster"]
            | [
                "FLUX_RECV_PAYLOADS=payloads",
                "FLUX_RECV_SEMVER_TABLE=semver.tsv",
                "cargo",
                "test",
                "--",
                "--ignored",
            ]
            | ["cargo", "bench"]
            | ["helm", "install", ..]
            | ["docker", ..]
            | ["ngrok", "http", "8080"] => {}
            ["mkdir", "-p", corpus] => assert!(corpus.starts_with("fuzz/corpus/"), "{line}"),
            ["cargo", "fuzz", "run", "-s", "none", target, _, seeds, "--", _] => {
                let targets = std::fs::read_to_string(project().join("fuzz/Cargo.toml")).expect("a manifest");
                assert!(targets.contains(&format!("name = \"{target}\"")), "{line}");
                assert!(project().join(seeds).is_dir(), "{line}");
            }
            other => panic!("a document has a command that no test knows: {other:?}"),
        }
        run += 1;
    }
    assert!(run >= 20, "the documents lost their commands");
}

/// Manages webhooks at a double of GitHub, with the values of README where it names them.
fn check_hook(arguments: &[&str], folder: &Path) {
    let values = document("README.md");
    let values = values.split("```yaml\n").nth(1).and_then(|text| text.split("```").next()).expect("values");
    let values: Vec<&str> = values.lines().map(str::trim_end).collect();
    let values: Vec<&str> = values.iter().map(|line| line.strip_prefix("   ").unwrap_or(line)).collect();
    std::fs::write(folder.join("values.yaml"), values.join("\n")).expect("values");
    // The double knows this key.
    for key in ["github.key", "example/config/github.key"] {
        std::fs::write(folder.join(key), test_key("own")).expect("a key");
    }
    let double = Double::start("GitHub");
    let hook = |arguments: &[String]| {
        let mut command = flux_recv();
        command.arg("hook").args(arguments).current_dir(folder);
        command.env("GITHUB_TOKEN", TOKEN).env("FLUX_RECV_API", &double.url).output().expect("hook runs")
    };
    let replaced: Vec<String> =
        arguments.iter().map(|part| part.replace("YOU/REPO", "org/app").replace("YOU", "org")).collect();
    if arguments[0] != "create" {
        let mut create = replaced.clone();
        create[0] = "create".to_owned();
        create.push("--yes".to_owned());
        assert!(hook(&create).status.success());
    }
    let output = hook(&replaced);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
}

/// Sends to an instance that serves the same config.
fn check_send(arguments: &[&str], folder: &Path) {
    let served = tempfile::tempdir().expect("a folder");
    copy_folder(&folder.join("example/config"), served.path());
    let objects = folder.join("example/objects").display().to_string();
    let running = FluxRecv::in_folder(served, &["--manifests", &objects]);
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|part| if part.starts_with("https://recv.") { running.base.as_str() } else { part })
        .collect();
    let output = flux_recv().arg("send").args(&arguments).current_dir(folder).output().expect("send runs");
    assert!(
        stdout(&output).starts_with("200 ") || stdout(&output).starts_with("202 "),
        "{arguments:?}: {}{}",
        stdout(&output),
        stderr(&output)
    );
}

/// The cells of the rows of the table whose head starts with this text.
fn table(document: &str, head: &str) -> Vec<Vec<String>> {
    let rows = document
        .lines()
        .skip_while(|line| !line.starts_with(head))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        row.trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim().trim_matches('|').trim().to_owned())
            .collect()
    })
    .collect()
}

#[test]
fn the_table_of_providers_is_the_table_of_providers() {
    let written: Vec<(String, String)> = table(&document("README.md"), "| `source` |")
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone()))
        .collect();
    let expected: Vec<(String, String)> = PROVIDERS
        .iter()
        .map(|provider| (provider.name.to_owned(), provider.handled_events.to_owned()))
        .collect();
    assert_eq!(written, expected);
}

#[test]
fn the_table_of_kinds_is_the_table_of_flux() {
    let written: Vec<(String, String)> = table(&configuration(), "| kind |")
        .into_iter()
        .map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone()))
        .collect();
    let expected: Vec<(String, String)> =
        KINDS.iter().filter_map(|info| Some((info.name.to_owned(), info.reads?.to_owned()))).collect();
    assert_eq!(written, expected);
    let named: Vec<String> = table(&configuration(), "| only when named |")
        .into_iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let expected: Vec<&str> =
        KINDS.iter().filter(|info| info.reads.is_none()).map(|info| info.name).collect();
    assert_eq!(named, expected);
}

#[test]
fn the_table_of_options_is_the_command_line() {
    let help = stdout(&flux_recv().arg("--help").output().expect("help runs"));
    let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows = table(&configuration(), "| option |");
    for row in &rows {
        let [option, variable, default] = [0, 1, 2].map(|at| row[at].trim_matches('`').to_owned());
        let with_value = format!(" {option}[=");
        let about = flat.split(&format!(" {option} ")).nth(1).or_else(|| flat.split(&with_value).nth(1));
        let about = about.unwrap_or_else(|| panic!("{option} is not in --help"));
        let about = about.split(" --").next().unwrap_or_default();
        assert!(about.contains(&format!("[env: {variable}=")), "{option}: {about}");
        let is_value = row[2].starts_with('`') && !row[2].contains(',');
        assert!(
            !is_value || about.contains(&format!("[default: {default}]")),
            "{option}: {default} in {about}"
        );
    }
    let documented: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    for option in flat.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2) {
        assert!(
            documented.contains(&option)
                || option == "--help"
                || option == "--version"
                || !help.contains(&format!("{option} <")),
            "{option} is not in docs/configuration.md"
        );
    }
}

#[test]
fn the_table_of_fields_and_the_example_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = configuration();
    let example = text
        .split("```yaml\nfluxRecvVersion")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("the example");
    std::fs::write(folder.path().join("fluxrecv.yaml"), format!("fluxRecvVersion{example}"))
        .expect("a config");
    for key in ["github", "nexus", "gcr"] {
        std::fs::write(folder.path().join(format!("{key}.key")), format!("test-key-of-the-documents-{key}"))
            .expect("a key");
    }
    let config = folder.path().join("fluxrecv.yaml");
    let output =
        flux_recv().args(["check", "--no-cluster", "--config"]).arg(config).output().expect("check runs");
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let bad = folder.path().join("bad.yaml");
    std::fs::write(&bad, "zzz: 1\nendpoints:\n- {zzz: 1}\n").expect("a config");
    let output =
        flux_recv().args(["check", "--no-cluster", "--config"]).arg(bad).output().expect("check runs");
    let known: Vec<String> = stderr(&output)
        .lines()
        .filter_map(|line| line.split("known are ").nth(1).map(str::to_owned))
        .flat_map(|list| list.split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let mut documented: Vec<String> = table(&configuration(), "| field |")
        .into_iter()
        .flat_map(|row| row[0].split(", ").map(|name| name.trim_matches('`').to_owned()).collect::<Vec<_>>())
        .collect();
    let mut known = known;
    known.sort();
    documented.sort();
    assert_eq!(documented, known);
}

/// The fields of publishers and subscribers, as the config refuses others.
#[test]
fn the_tables_of_the_fleets_fields_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let known = |section: &str| {
        let config = folder.path().join("bad.yaml");
        std::fs::write(&config, format!("fluxRecvVersion: 1\nendpoints: []\n{section}")).expect("a config");
        let output =
            flux_recv().args(["check", "--no-cluster", "--config"]).arg(&config).output().expect("it runs");
        let text = stderr(&output);
        let line = text
            .lines()
            .find(|line| line.contains("zzz: is an unknown field; known are "))
            .expect("a mistake");
        let list = line.split("known are ").nth(1).expect("a list");
        let mut names: Vec<String> = list.split(", ").map(str::to_owned).collect();
        names.sort();
        names
    };
    for (head, section) in [
        ("| `publish` |", "publish: {zzz: 1}\n"),
        ("| entry of `subscribers` |", "publish: {subscribers: [{zzz: 1}]}\n"),
        ("| entry of `subscribe` |", "subscribe: [{zzz: 1}]\n"),
    ] {
        let rows = table(&document("docs/multicluster.md"), head);
        let mut documented: Vec<String> =
            rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
        documented.sort();
        assert_eq!(documented, known(section), "{head}");
    }
}

#[test]
fn the_image_runs_what_readme_says() {
    let dockerfile = std::fs::read_to_string(project().join("Dockerfile")).expect("Dockerfile");
    assert!(dockerfile.contains("EXPOSE 8080") && configuration().contains("`:8080`"));
    assert!(dockerfile.contains("USER 65532:65532"));
    let version = env!("CARGO_PKG_VERSION");
    assert!(dockerfile.contains(&format!("org.opencontainers.image.version=\"{version}\"")));
    let git = Command::new("git")
        .args(["grep", "-l", "flux-recv:0\\.", "--", "kustomization", "example", "README.md"])
        .current_dir(project())
        .output();
    for file in stdout(&git.expect("git runs")).lines() {
        let text = std::fs::read_to_string(project().join(file)).expect("a file");
        let others = text
            .split("flux-recv:")
            .skip(1)
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && !rest.starts_with(version));
        assert_eq!(others.count(), 0, "{file} names another version than {version}");
    }
}

/// Cargo refuses a manifest whose targets lack their file, and the image is built without tests.
#[test]
fn the_image_stubs_each_target_that_cargo_toml_names() {
    for (kind, folder) in [("[[test]]", "tests"), ("[[bench]]", "benches")] {
        for target in document("Cargo.toml").split(kind).skip(1) {
            let name = target.split('"').nth(1).expect("a name");
            for file in ["Dockerfile", "tests/image"] {
                let stub = format!("{folder}/{name}/main.rs");
                assert!(document(file).contains(&stub), "{file} does not write {stub}");
            }
        }
    }
}

#[test]
fn the_front_pages_are_short() {
    for name in ["README.md", "DESIGN.md"] {
        let lines = document(name).lines().count();
        assert!(lines <= 150, "{name} has {lines} lines");
    }
    for line in document("README.md").lines().filter(|line| line.starts_with('|')) {
        let cells = line.trim_matches('|').split(" | ");
        cells.for_each(|cell| assert!(cell.chars().count() <= 100, "a long cell: {cell}"));
    }
}

/// Every command in README shows what it prints.
#[test]
fn every_command_of_the_front_page_shows_its_output() {
    let text = document("README.md");
    let quiet = ["docker"];
    for block in text.split("```sh\n").skip(1) {
        let (commands, rest) = block.split_once("```").expect("an end");
        let shows = rest.trim_start().starts_with("```text");
        let mut lines = commands.lines().map(str::trim).filter(|line| !line.is_empty());
        let is_quiet = lines.all(|line| quiet.iter().any(|name| line.starts_with(name)));
        assert!(shows || is_quiet, "no output of: {commands}");
    }
}

/// Links between documents lead somewhere, to a heading as well.
#[test]
fn links_lead_somewhere() {
    let heading = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        text.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect::<String>()
    };
    let mut files = vec!["DESIGN.md".to_owned(), "SECURITY.md".to_owned(), "docs/providers.md".to_owned()];
    files.extend(DOCUMENTS.map(str::to_owned));
    files.extend(["docs/threat-model.md", "docs/decisions.md", "docs/incidents.md"].map(str::to_owned));
    let mut seen = 0;
    for file in files {
        let text = document(&file);
        let folder = project().join(&file).parent().expect("a folder").to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { project().join(&file) } else { folder.join(path) };
            assert!(target.exists(), "{file}: {link}");
            if !anchor.is_empty() {
                let page = std::fs::read_to_string(&target).expect("a page");
                let mut headings = page.lines().filter(|line| line.starts_with('#')).map(heading);
                assert!(headings.any(|heading| heading == anchor), "{file}: {link}");
            }
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn the_versions_that_are_tested_are_those_of_the_test_bed() {
    let build = std::fs::read_to_string(project().join("tests/testbed/build")).expect("the test bed");
    let minor = |head: &str| {
        let line = build.lines().find_map(|line| line.strip_prefix(head)).expect("a version");
        line.split('.').take(2).collect::<Vec<_>>().join(".")
    };
    let (kubernetes, flux) = (minor("kubernetes_version=v"), minor("flux2=github.com/fluxcd/flux2/v2@v"));
    let sentence = format!("The suites run against Kubernetes {kubernetes} and Flux {flux};");
    assert!(document("docs/operations.md").contains(&sentence), "{sentence}");
}

/// What `hook` does and what people click is one description.
#[test]
fn webhooks_at_providers_are_described_once() {
    let page = document("docs/cli.md");
    let rows = table(&page, "| `source` | API |");
    let described: Vec<[String; 3]> =
        rows.iter().map(|row| [row[0].clone(), row[2].clone(), row[3].clone()]).collect();
    let apis = PROVIDERS.iter().filter_map(|provider| Some((provider, provider.webhook_api?)));
    let expected: Vec<[String; 3]> = apis
        .map(|(provider, api)| {
            let variables: Vec<String> = api.token_variables.iter().map(|name| format!("`{name}`")).collect();
            [format!("`{}`", provider.name), variables.join(" or "), api.rights.to_owned()]
        })
        .collect();
    assert_eq!(described, expected);
    for (row, api) in rows.iter().zip(PROVIDERS.iter().filter_map(|provider| provider.webhook_api)) {
        assert!(api.service.is_none_or(|service| row[1].starts_with(service)), "{row:?}");
        assert!(api.service.is_some() || row[1] == "`--api`", "{row:?}");
    }
    let recipes = document("docs/providers.md");
    for provider in PROVIDERS {
        let recipe = recipes.split("\n## ").find(|part| part.starts_with(&format!("{}\n", provider.name)));
        let recipe = recipe.unwrap_or_else(|| panic!("no recipe for {}", provider.name));
        for choice in provider.settings.events.choices() {
            assert!(recipe.contains(&format!("*{}*", choice.label)), "{}: {}", provider.name, choice.label);
        }
    }
}

#[test]
fn every_command_is_in_the_table() {
    let help = stdout(&flux_recv().arg("--help").output().expect("it runs"));
    let commands =
        help.split("Commands:\n").nth(1).and_then(|text| text.split("\n\n").next()).expect("commands");
    let known: BTreeSet<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    let page = document("docs/cli.md");
    let rows = table(&page, "| command | what it does |");
    let named: BTreeSet<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(named, known);
}

/// What an operator may search for in the log exists.
#[test]
fn messages_and_metrics_that_documents_name_exist() {
    let mut source = String::new();
    let mut folders = vec![project().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => source.push_str(&std::fs::read_to_string(path).expect("a file")),
            }
        }
    }
    let text = ["docs/operations.md", "docs/troubleshooting.md", "docs/filters.md"].map(document).join("\n");
    for metric in text.split("`flux_recv_").skip(1) {
        let name = metric.split(['`', '{']).next().unwrap_or_default();
        let name = name.trim_end_matches("_total").trim_end_matches("_seconds");
        assert!(source.contains(&format!("\"{name}\"")), "flux_recv_{name}");
    }
    for message in [
        "reconciliation request failed, retrying",
        "kind cannot be listed",
        "kind is not served by the cluster",
        "journal cannot be written",
        "delivery refused",
    ] {
        assert!(text.contains(message) && source.contains(message), "{message}");
    }
}
