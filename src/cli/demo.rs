//! `flux-recv demo`: the whole receiver on a free port, real signed deliveries, and a table.

mod fleet;
mod story;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use self::story::{DemoStep, scenes};
use super::send::{Tampering, post};
use super::{keygen, runtime, say, serve};
use crate::config::{self, Rules};
use crate::listener;
use crate::offline::{add_manifests, known_to_be_empty};
use crate::server;
use crate::service::{Limits, Service};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Go on serving after the deliveries, to try `flux-recv send`.
    #[arg(long)]
    keep: bool,
    /// Show a publisher and three subscribers instead: one cluster is away and continues, one starts anew.
    #[arg(long, conflicts_with = "keep")]
    fleet: bool,
}

/// The Flux objects that the deliveries are about, as they lie in the folder `example`.
const DEMO_OBJECTS_YAML: &str = include_str!("../../example/objects/objects.yaml");

/// The endpoints of the demo.
const DEMO_CONFIG_YAML: &str = include_str!("demo/fluxrecv.yaml");

/// A small limit shows in the table without megabytes on the wire.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub(super) fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    if args.fleet {
        return fleet::run();
    }
    let folder = tempfile::Builder::new().prefix("flux-recv-demo-").tempdir()?;
    let config_file = write_config(folder.path())?;
    let config = config::load(&config_file, Rules::default()).config?;
    let mut inventory = known_to_be_empty();
    add_manifests(&mut inventory, DEMO_OBJECTS_YAML).context("example/objects/objects.yaml")?;

    // What would be logged stands in the table; `RUST_LOG` brings the lines back.
    if std::env::var_os("RUST_LOG").is_none() && !args.keep {
        log::set_max_level(log::LevelFilter::Off);
    }
    runtime()?.block_on(async {
        let limits = Limits { body: MAX_ANSWER_BYTES, ..Limits::default() };
        let service = serve::offline_service(config, inventory, limits, serve::verify_context()).await;
        let listener = listener::bind("127.0.0.1:0")?;
        let base = format!("http://{}", listener::local_address(&listener)?);
        let running = server::start(listener, Arc::clone(&service))?;

        say(&format!(
            "flux-recv serves on {base} with fresh keys and the objects of example/objects; nothing is patched.\n\n"
        ))?;
        let all_went_well = play(&service, &base).await?;
        if args.keep {
            say(&how_to_send(&base, &config_file))?;
            tokio::signal::ctrl_c().await?;
        }
        running.stop().await;
        Ok(if all_went_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Writes the config and a key for each of its endpoints.
fn write_config(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let file = folder.join("fluxrecv.yaml");
    std::fs::write(&file, DEMO_CONFIG_YAML)?;
    for line in DEMO_CONFIG_YAML.lines() {
        if let Some(key) = line.trim().strip_prefix("keyPath: ") {
            keygen::write_key(&folder.join(key))?;
        }
    }
    Ok(file)
}

/// Sends every delivery of the story and prints the table; says whether all went as it should.
async fn play(service: &Service, base: &str) -> anyhow::Result<bool> {
    let mut rows = Vec::new();
    let serving = service.registry.get();
    for scene in scenes() {
        let DemoStep { endpoint, what, delivery, tampering, expect } = scene;
        let endpoint =
            serving.endpoints.named(endpoint).context("the demo's config has every endpoint of its story")?;
        let url = format!("{base}{}", endpoint.path());
        let composed = delivery(endpoint.provider)?;
        let (status, body) = post(&url, endpoint, composed, tampering, false).await?;
        rows.push(table::Row::new(endpoint.provider.name, what, status, &body, expect));
    }
    let surprises = rows.iter().filter(|row| !row.as_expected).count();
    let verdict = match surprises {
        0 => format!("All {} deliveries went as they should.", rows.len()),
        some => format!("{some} of {} deliveries did NOT go as they should (marked with ✗).", rows.len()),
    };
    say(&format!("{}\n{verdict}\n", table::draw(&rows)))?;
    Ok(surprises == 0)
}

fn how_to_send(base: &str, config_file: &Path) -> String {
    let send = format!("  flux-recv send --config {} --to {base}", config_file.display());
    format!(
        "\nStill serving; Ctrl-C ends it. In another terminal:\n\n\
         {send} --endpoint github --repo https://github.com/example-org/shop --ref main\n\
         {send} --endpoint harbor --image harbor.example.com/shop/api:1.4.2\n\n"
    )
}

/// For the story: no tampering is the rule.
const UNTAMPERED: Tampering = Tampering::None;
