//! `flux-recv urls`: what to paste where.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigArgs, say};
use crate::config::{self, Rules};
use crate::endpoint::Endpoint;
use crate::verify::auth::Auth;

#[derive(Debug, Args)]
pub(super) struct UrlsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How the receiver is reached from outside.
    #[arg(long, value_name = "URL", default_value = "https://recv.example.com", env = "FLUX_RECV_BASE")]
    base: String,
}

pub(super) fn run(args: &UrlsArgs) -> anyhow::Result<ExitCode> {
    check_base(&args.base, "--base")?;
    let config = config::load(&args.config.config, Rules::default()).config?;
    let described: Vec<String> =
        config.endpoints.iter().map(|endpoint| describe(endpoint, &args.base)).collect();
    say(&described.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// # Errors
/// When it is not a scheme and a host.
pub(super) fn check_base(base: &str, option: &str) -> anyhow::Result<()> {
    let is_base = url::Url::parse(base)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none());
    anyhow::ensure!(
        is_base,
        "{option}: `{base}` is not a scheme and a host; write it like https://recv.example.com"
    );
    Ok(())
}

fn describe(endpoint: &Endpoint, base: &str) -> String {
    let settings = &endpoint.provider.settings;
    let mut lines = vec![
        format!("{} ({})", endpoint.name, endpoint.provider.name),
        format!("  URL:          {}{}", base.trim_end_matches('/'), endpoint.path()),
        format!("  Where:        {}", settings.page),
    ];
    if let Some(content_type) = settings.content_type {
        lines.push(format!("  Content type: {content_type}"));
    }
    let credentials = &endpoint.credentials;
    match credentials.own_key().filter(|_| endpoint.is_authenticated_by_key()) {
        Some(key) => {
            let newline = if key.ends_in_newline() { ", without its line break" } else { "" };
            lines.push(format!("  Secret:       the content of {}{newline}", endpoint.key_file.display()));
            let place = credentials.header().map(Auth::describe);
            lines.push(format!("  Goes into:    {}", place.as_deref().unwrap_or(settings.secret)));
        }
        None => lines.push(format!("  Secret:       {}", settings.secret)),
    }
    if let Some(account) = credentials.google_account() {
        lines.push(format!("                account {}, audience {}", account.email, account.audience));
    }
    for issuer in credentials.issuers() {
        lines.push(format!("                issuer {}, audience {}", issuer.url, issuer.audience));
    }
    for topic in credentials.topics() {
        lines.push(format!("                topic {topic}"));
    }
    lines.push(format!("  Events:       {}", settings.events));
    lines.push(String::new());
    lines.join("\n")
}
