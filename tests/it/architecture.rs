//! Rules of the architecture that the compiler cannot hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flux_recv::internals::PROVIDERS;

use super::running::project;

/// The layers as DESIGN.md lists them, each with its modules: a module may import those of lower layers,
/// and no others.
fn layers() -> Vec<Vec<String>> {
    let design = std::fs::read_to_string(project().join("DESIGN.md")).expect("DESIGN.md");
    let (_, section) = design.split_once("## Layers\n").expect("the layers");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let first_cell = |row: &str| row.split('|').nth(1).unwrap_or_default().to_owned();
    let named = |cell: String| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows.map(first_cell).map(named).collect()
}

fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(project().join("src")).expect("a source file");
    let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules that a text names as `crate::module`, also within `crate::{…}`.
fn imported_modules(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let text = code.join("\n");
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    text.split("crate::").skip(1).map(word).filter(|module| !module.is_empty()).collect()
}

#[test]
fn imports_point_to_lower_layers() {
    let layers = layers();
    let layer = |module: &str| layers.iter().position(|row| row.iter().any(|named| named == module));
    for file in sources(&project().join("src")) {
        let module = module_of(&file);
        if matches!(module.as_str(), "main" | "lib") {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{module} is not in a layer of DESIGN.md"));
        let text = std::fs::read_to_string(&file).expect("a file");
        assert!(
            !text.contains("crate::{"),
            "{}: one import per module, so that this test can read it",
            file.display()
        );
        for other in imported_modules(&text).into_iter().filter(|other| *other != module) {
            let below =
                layer(&other).unwrap_or_else(|| panic!("{}: crate::{other} is not a module", file.display()));
            assert!(
                below > own,
                "{}: {module} imports {other}, which is not in a lower layer",
                file.display()
            );
        }
    }
}

#[test]
fn only_the_right_modules_know_the_outside() {
    for (name, modules) in [
        ("actix_web", vec!["server", "publisher", "admin", "listener"]),
        ("async_nats", vec!["jetstream"]),
        ("kube::", vec!["cluster"]),
        ("k8s_openapi", vec!["cluster"]),
        ("cel::", vec!["expression"]),
        ("reqwest", vec!["verify", "flux_v1", "flux_events", "subscriber", "cli"]),
        ("clap", vec!["cli", "telemetry"]),
        ("maud", vec!["admin"]),
    ] {
        for file in sources(&project().join("src")) {
            let text = std::fs::read_to_string(&file).expect("a file");
            let module = module_of(&file);
            assert!(
                modules.contains(&module.as_str()) || !text.contains(name),
                "{}: names {name}",
                file.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_owns() {
    for file in sources(&project().join("src")) {
        let text = std::fs::read_to_string(&file).expect("a file");
        let is_test = file.file_name().is_some_and(|name| name == "tests.rs");
        assert!(is_test || text.starts_with("//! "), "{} has no module paragraph", file.display());
    }
}

#[test]
fn the_table_of_providers_is_the_folder() {
    let folder = project().join("src/provider");
    let files: BTreeSet<String> = sources(&folder)
        .iter()
        .filter(|file| !file.starts_with(folder.join("shared")) && !file.ends_with("shared.rs"))
        .filter_map(|file| Some(file.file_stem()?.to_string_lossy().replace('_', "")))
        .collect();
    let table: BTreeSet<String> =
        PROVIDERS.iter().map(|provider| provider.name.to_lowercase().replace('-', "")).collect();
    assert_eq!(files, table);
    let seeds = std::fs::read_dir(project().join("fuzz/seeds/providers")).expect("a folder");
    let seeds: BTreeSet<String> =
        seeds.map(|seed| seed.expect("a seed").file_name().to_string_lossy().into_owned()).collect();
    let names: BTreeSet<String> = PROVIDERS.iter().map(|provider| provider.name.to_owned()).collect();
    assert_eq!(seeds, names);
}

#[test]
fn nothing_unfinished_is_left() {
    for file in sources(&project().join("src")) {
        let text = std::fs::read_to_string(&file).expect("a file");
        for mark in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
            assert!(!text.contains(mark), "{}: {mark}", file.display());
        }
    }
}

/// Receivers of this kind have had 43 kinds of incidents; each has a test here that names it, or a
/// line in DESIGN.md that says why it cannot occur.
#[test]
fn every_kind_of_incident_is_guarded_against() {
    let mut files = sources(&project().join("src"));
    files.extend(sources(&project().join("tests")));
    let mut named = BTreeSet::new();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("a file"));
    let design = std::fs::read_to_string(project().join("DESIGN.md")).expect("DESIGN.md");
    for text in texts.chain([design]) {
        for rest in text.split("Incident").skip(1) {
            let list =
                rest.trim_start_matches(['s', ' ']).split([':', '.', '\n', ';']).next().unwrap_or_default();
            named.extend(
                list.split([',', ' ']).filter_map(|word| word.trim_end_matches('b').parse::<u32>().ok()),
            );
        }
    }
    let missing: Vec<u32> = (1..=43).filter(|number| !named.contains(number)).collect();
    assert_eq!(missing, Vec::<u32>::new());
}

/// Every bound of the threat model is held by a test that exists.
#[test]
fn the_threat_model_names_tests_that_are_there() {
    let page = std::fs::read_to_string(project().join("docs/threat-model.md")).expect("docs/threat-model.md");
    let texts = |folder: &str| -> String {
        let files = sources(&project().join(folder));
        files.iter().map(|file| std::fs::read_to_string(file).expect("a file")).collect()
    };
    let mut named = 0;
    for name in page.split('`').skip(1).step_by(2) {
        if name.ends_with('…') {
            continue;
        }
        let mut segments = name.split("::");
        let (Some(suite @ ("hostile" | "cluster" | "it")), Some(last)) = (segments.next(), segments.last())
        else {
            continue;
        };
        let is_file = project().join(format!("tests/{suite}/{last}.rs")).is_file()
            || project().join(format!("src/{suite}/{last}.rs")).is_file();
        let is_test = texts(&format!("tests/{suite}")).contains(&format!("fn {last}("));
        assert!(is_file || is_test, "{name} is no test");
        named += 1;
    }
    assert!(named > 20, "{named}");
}
