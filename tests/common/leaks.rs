//! Looks through everything that a process has written for what it must keep to itself.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

/// Signatures that tests have sent, in hex.
static SENT: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Remembers a signature in hex that goes to a process.
pub fn remember(signature: &str) {
    SENT.lock().expect("a lock").insert(signature.to_owned());
}

/// The first secret in this output, with its line: a key of the folder, a signature or token that
/// was sent, or a hook path outside the lines of startup and reload.
pub fn find(output: &str, folder: &Path) -> Option<String> {
    let signatures = SENT.lock().expect("a lock");
    let mut secrets: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "key") {
            let key = std::fs::read_to_string(entry.path()).unwrap_or_default();
            secrets.extend(key.lines().map(str::trim).filter(|line| line.len() >= 8).map(str::to_owned));
        }
    }
    for line in output.lines() {
        if let Some(secret) = secrets.iter().find(|secret| line.contains(secret.as_str())) {
            return Some(format!("{secret} in: {line}"));
        }
        let words = line.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() >= 40);
        if let Some(signature) = words.into_iter().find(|word| signatures.contains(*word)) {
            return Some(format!("{signature} in: {line}"));
        }
        if !line.contains("\"message\":\"serving endpoint\"") && holds_a_hook_path(line) {
            return Some(format!("a hook path in: {line}"));
        }
    }
    None
}

/// The digest of a path in hex, wherever it stands.
fn holds_a_hook_path(line: &str) -> bool {
    line.split("/hook/")
        .skip(1)
        .any(|rest| rest.len() >= 64 && rest.bytes().take(64).all(|byte| byte.is_ascii_hexdigit()))
}
