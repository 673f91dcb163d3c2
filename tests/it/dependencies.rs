//! The crates that are linked twice are known, with the reason.

use std::collections::{BTreeMap, BTreeSet};

use super::docs::document;

/// A second version of a crate costs compile time and bytes. Each has to be named in `deny.toml`.
#[test]
fn every_duplicate_in_the_lock_file_is_known_and_has_a_reason() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in document("Cargo.lock").split("[[package]]").skip(1) {
        let (name, version) = (value(package, "name"), value(package, "version"));
        versions.entry(name).or_default().insert(version);
    }
    versions.retain(|_, versions| versions.len() > 1);

    let skipped = document("deny.toml");
    for line in skipped.lines().filter(|line| line.trim_start().starts_with("{ name")) {
        let (name, version, reason) = (value(line, "name"), value(line, "version"), value(line, "reason"));
        assert!(reason.len() > 5, "{name}: a reason");
        let all = versions.get_mut(&name).unwrap_or_else(|| panic!("{name} is no longer a duplicate"));
        assert!(all.remove(&version), "{name} {version} is no longer in Cargo.lock");
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "new duplicates, which deny.toml does not name: {versions:?}");
}

fn value(text: &str, field: &str) -> String {
    let value = text.split_once(&format!("{field} = \"")).and_then(|(_, rest)| rest.split_once('"'));
    value.unwrap_or_else(|| panic!("{field} in {text}")).0.to_owned()
}
