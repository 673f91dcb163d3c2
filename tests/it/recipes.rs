//! The recipes for providers are followed: each entry is served, and each delivery that can be made here
//! is sent.

use flux_recv::internals::PROVIDERS;

use super::running::{FluxRecv, OBJECTS, flux_recv, project, stderr, stdout};

struct Recipe {
    source: String,
    entry: String,
    sends: Vec<String>,
}

fn recipes() -> Vec<Recipe> {
    let text = std::fs::read_to_string(project().join("docs/providers.md")).expect("the recipes");
    let of_one = |section: &str| {
        let block = |language: &str| {
            let start = section.split_once(&format!("```{language}\n")).map(|(_, rest)| rest);
            start.and_then(|rest| rest.split_once("```")).map(|(block, _)| block.to_owned())
        };
        Recipe {
            source: section.lines().next().unwrap_or_default().to_owned(),
            entry: block("yaml").expect("an entry"),
            sends: block("sh").unwrap_or_default().lines().map(str::to_owned).collect(),
        }
    };
    text.split("\n## ").skip(1).map(of_one).collect()
}

#[test]
fn every_provider_has_a_recipe_in_the_order_of_the_table() {
    let readme = std::fs::read_to_string(project().join("README.md")).expect("README");
    let rows = readme.lines().skip_while(|line| !line.starts_with("| `source`")).skip(2);
    let rows: Vec<String> = rows
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| Some(line.split('`').nth(1)?.to_owned()))
        .collect();
    let sources: Vec<String> = recipes().into_iter().map(|recipe| recipe.source).collect();
    assert_eq!(sources, rows);
    assert_eq!(sources.len(), PROVIDERS.len());
}

#[test]
fn every_recipe_works_as_it_is_written() {
    let mut config = "fluxRecvVersion: 1\nendpoints:\n".to_owned();
    for recipe in recipes() {
        assert!(recipe.entry.contains(&format!("source: {}\n", recipe.source)), "{}", recipe.entry);
        config.push_str(&recipe.entry);
    }
    let running = FluxRecv::with_objects(&config, OBJECTS);
    let mut sent = 0;
    for recipe in recipes() {
        for command in &recipe.sends {
            let words: Vec<&str> = command.split(' ').skip(1).collect();
            assert_eq!(words[0], "send", "{command}");
            let mut send = flux_recv();
            send.args(&words).args(["--to", &running.base]).current_dir(running.folder.path());
            let output = send.output().expect("flux-recv runs");
            assert!(output.status.success(), "{command}: {}{}", stdout(&output), stderr(&output));
            sent += 1;
        }
    }
    assert!(sent >= 18, "{sent}");
}
