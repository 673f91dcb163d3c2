//! A config file: it is taken, or every mistake is said.
#![no_main]

use std::sync::LazyLock;

use flux_recv::internals::config;
use libfuzzer_sys::fuzz_target;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["github.key", "b.key", "c"] {
        std::fs::write(folder.path().join(name), format!("fuzz-key-for-{name}-0123456789")).expect("a key");
    }
    folder
});

/// A line names the file, or quotes an expression below one that does.
fn is_of_a_mistake(line: &str) -> bool {
    line.contains("fluxrecv.yaml") || line.starts_with("    | ")
}

fuzz_target!(|text: &str| {
    // A key path may name any file of the machine; devices never end.
    if text.contains("dev") || text.contains("proc") || text.contains("sys") {
        return;
    }
    let file = FOLDER.path().join("fluxrecv.yaml");
    std::fs::write(&file, text).expect("a file");

    let loaded = config::load(&file, config::Rules::default());
    assert!(!loaded.files.is_empty());
    match loaded.config {
        Ok(config) => assert!(config.endpoints.iter().count() > 0),
        Err(mistakes) => assert!(mistakes.to_string().lines().all(is_of_a_mistake)),
    }
});
