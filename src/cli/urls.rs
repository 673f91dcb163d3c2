//! `flux-recv urls`: what to paste where.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::ConfigArgs;
use super::output::OutputArgs;
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
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &UrlsArgs) -> anyhow::Result<ExitCode> {
    check_base(&args.base, "--base")?;
    let config = config::load(&args.config.config, Rules::default()).config?;
    let hooks: Vec<HookSettings> =
        config.endpoints.iter().map(|endpoint| HookSettings::new(endpoint, &args.base)).collect();
    args.output
        .print(&hooks, |hooks| Ok(hooks.iter().map(HookSettings::describe).collect::<Vec<_>>().join("\n")))?;
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

/// What an endpoint's provider has to be told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HookSettings {
    endpoint: String,
    provider: &'static str,
    url: String,
    /// The page of the provider on which to enter the rest.
    page: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'static str>,
    secret: SecretSetting,
    /// The identities that are accepted besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accepted: Vec<String>,
    events: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum SecretSetting {
    #[serde(rename_all = "camelCase")]
    Key { key_path: PathBuf, without_line_break: bool, goes_into: String },
    /// The provider cannot send the key: how it is known instead.
    Described(&'static str),
}

impl HookSettings {
    pub(super) fn new(endpoint: &Endpoint, base: &str) -> Self {
        let settings = &endpoint.provider.settings;
        let credentials = &endpoint.credentials;
        let secret = match credentials.own_key().filter(|_| endpoint.is_authenticated_by_key()) {
            Some(key) => SecretSetting::Key {
                key_path: endpoint.key_file.clone(),
                without_line_break: key.ends_in_newline(),
                goes_into: credentials
                    .header()
                    .map(Auth::describe)
                    .unwrap_or_else(|| settings.secret.to_owned()),
            },
            None => SecretSetting::Described(settings.secret),
        };
        let account = credentials
            .google_account()
            .map(|account| format!("account {}, audience {}", account.email, account.audience));
        let issuers = credentials
            .issuers()
            .iter()
            .map(|issuer| format!("issuer {}, audience {}", issuer.url, issuer.audience));
        let topics = credentials.topics().iter().map(|topic| format!("topic {topic}"));
        HookSettings {
            endpoint: endpoint.name.to_string(),
            provider: endpoint.provider.name,
            url: format!("{}{}", base.trim_end_matches('/'), endpoint.path()),
            page: settings.page,
            content_type: settings.content_type,
            secret,
            accepted: account.into_iter().chain(issuers).chain(topics).collect(),
            events: settings.events.describe(),
        }
    }

    pub(super) fn describe(&self) -> String {
        let mut lines = vec![
            format!("{} ({})", self.endpoint, self.provider),
            format!("  URL:          {}", self.url),
            format!("  Where:        {}", self.page),
        ];
        if let Some(content_type) = self.content_type {
            lines.push(format!("  Content type: {content_type}"));
        }
        match &self.secret {
            SecretSetting::Key { key_path, without_line_break, goes_into } => {
                let newline = if *without_line_break { ", without its line break" } else { "" };
                lines.push(format!("  Secret:       the content of {}{newline}", key_path.display()));
                lines.push(format!("  Goes into:    {goes_into}"));
            }
            SecretSetting::Described(how) => lines.push(format!("  Secret:       {how}")),
        }
        lines.extend(self.accepted.iter().map(|identity| format!("                {identity}")));
        lines.push(format!("  Events:       {}", self.events));
        lines.push(String::new());
        lines.join("\n")
    }
}
