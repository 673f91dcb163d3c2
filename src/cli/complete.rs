//! `flux-recv __complete`: completion by the protocol of Cobra, through which `flux recv …` completes when
//! flux-recv is a plugin of Flux's command line. One candidate per line, a tab and its meaning, and a directive
//! last: 0 lets the shell complete files, 4 does not.
//! <https://github.com/spf13/cobra/blob/v1.9.1/site/content/completions/_index.md>

use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};

use super::{Cli, say};

#[derive(Debug, Args)]
pub(super) struct CompleteArgs {
    /// The words so far; the last one is being written.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

pub(super) fn run(args: &CompleteArgs) -> anyhow::Result<ExitCode> {
    let (partial, before) = match args.words.split_last() {
        Some((partial, before)) => (partial.as_str(), before),
        None => ("", &[][..]),
    };
    say(&complete(&Cli::command(), before, partial))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the candidates for a word and the directive.
fn complete(root: &Command, before: &[String], partial: &str) -> String {
    let mut command = root;
    for word in before {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let takes_value = |word: &String| {
        let name = word.strip_prefix("--")?;
        let option = command.get_arguments().find(|argument| argument.get_long() == Some(name))?;
        option.get_action().takes_values().then_some(option)
    };
    if let Some(option) = before.last().and_then(takes_value) {
        let values = option.get_possible_values();
        let names: Vec<&str> = values.iter().map(|value| value.get_name()).collect();
        return match names.is_empty() {
            true => ":0\n".to_owned(),
            false => candidates(names.into_iter().map(|name| (name.to_owned(), String::new())), partial),
        };
    }
    let about = |text: Option<&clap::builder::StyledStr>| {
        text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
    };
    if partial.starts_with('-') {
        let options = command.get_arguments().filter(|argument| !argument.is_hide_set());
        let options = options
            .filter_map(|option| Some((format!("--{}", option.get_long()?), about(option.get_help()))));
        return candidates(options, partial);
    }
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let commands = commands.map(|command| (command.get_name().to_owned(), about(command.get_about())));
    candidates(commands, partial)
}

fn candidates(all: impl Iterator<Item = (String, String)>, partial: &str) -> String {
    let mut text = String::new();
    for (name, meaning) in all.filter(|(name, _)| name.starts_with(partial)) {
        let separator = if meaning.is_empty() { "" } else { "\t" };
        text.push_str(&format!("{name}{separator}{meaning}\n"));
    }
    text + ":4\n"
}
