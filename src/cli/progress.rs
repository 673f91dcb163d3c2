//! What a command does meanwhile, on stderr: with the symbols of Flux's command line on a terminal, as plain
//! lines elsewhere.

use std::io::{BufRead, IsTerminal, Write};

/// A step that begins.
pub(super) fn action(text: &str) {
    line('►', text);
}

/// A step that has succeeded.
pub(super) fn success(text: &str) {
    line('✔', text);
}

/// Something that needs someone.
pub(super) fn failure(text: &str) {
    line('✗', text);
}

fn line(symbol: char, text: &str) {
    match std::io::stderr().is_terminal() {
        true => eprintln!("{symbol} {text}"),
        false => eprintln!("{text}"),
    }
}

/// Asks whether to go on; anything but yes is no.
///
/// # Errors
/// When nobody can answer.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    let stdin = std::io::stdin();
    anyhow::ensure!(stdin.is_terminal(), "stdin is not a terminal, so nobody can confirm; pass --yes");
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
