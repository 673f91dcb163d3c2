//! One endpoint and one provider's API: finds the endpoint's webhooks and makes their form.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use url::Url;
use zeroize::Zeroizing;

use super::SessionArgs;
use super::api_client::{ApiClient, ApiError};
use super::hook_urls::HookUrls;
use crate::cli::endpoint_named;
use crate::cli::send::is_loopback;
use crate::cli::urls::check_base;
use crate::config::{self, Config, Rules};
use crate::endpoint::Endpoint;
use crate::flux::Kind;
use crate::flux::selection::Selection;
use crate::webhook_api::{EventPurpose, Webhook, WebhookApi, WebhookForm, WebhookScope};

/// An endpoint, and the API at which its webhooks are.
pub(super) struct Session {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) api: &'static WebhookApi,
    pub(super) client: ApiClient,
    pub(super) urls: HookUrls,
    key: Option<Zeroizing<String>>,
}

/// The config, and the endpoint of the command line.
pub(super) fn endpoint(args: &SessionArgs) -> anyhow::Result<(Config, Arc<Endpoint>)> {
    check_secure_url(&args.base, "--base")?;
    let config = config::load(&args.config.config, Rules::default()).config?;
    let endpoint = Arc::clone(endpoint_named(&config, &args.endpoint)?);
    Ok((config, endpoint))
}

impl Session {
    pub(super) fn open(
        args: &SessionArgs,
        config: &Config,
        endpoint: Arc<Endpoint>,
        api: &'static WebhookApi,
    ) -> anyhow::Result<Session> {
        let provider = endpoint.provider.name;
        let key = key(&endpoint)?;
        let Some(service) = args.api.as_deref().or(api.service) else {
            bail!(
                "everyone runs their own {provider}; name the host of yours, as in --api https://git.example.com"
            );
        };
        let service = api_url(service, api)?;
        let token = token(args.token_file.as_deref(), provider, api)?;
        let urls = HookUrls::new(Url::parse(&args.base)?, Arc::clone(&endpoint), config);
        let digests = urls.digests().into_iter().map(Zeroizing::new);
        let secrets = key.iter().cloned().chain(digests).collect();
        let client = ApiClient::new(provider, api, service, token, secrets)?;
        Ok(Session { endpoint, api, client, urls, key })
    }

    /// The events that the endpoint's webhook needs, by their names in the API.
    pub(super) fn needed_events(&self, for_pull_requests: bool) -> Vec<String> {
        let choices = self.endpoint.provider.settings.events.choices().iter();
        let needed = choices.filter(|choice| match choice.purpose {
            EventPurpose::Always => true,
            EventPurpose::Images => may_concern_images(&self.endpoint.selection),
            EventPurpose::PullRequests => for_pull_requests,
        });
        needed.map(|choice| choice.name.to_owned()).collect()
    }

    /// All webhooks of a scope.
    pub(super) async fn webhooks(&self, scope: &WebhookScope) -> Result<Vec<Webhook>, ApiError> {
        let items = self.client.list(scope, &self.path(scope)?).await?;
        Ok(items.iter().filter_map(self.api.read).collect())
    }

    /// The webhooks of a scope that post to the endpoint, those with the present URL first.
    pub(super) async fn own_webhooks(&self, scope: &WebhookScope) -> Result<Vec<Webhook>, ApiError> {
        let mut webhooks = self.webhooks(scope).await?;
        webhooks.retain(|webhook| self.urls.is_ours(&webhook.url));
        let present = self.urls.present();
        webhooks.sort_by_key(|webhook| webhook.url != present);
        Ok(webhooks)
    }

    /// The path of the list of webhooks.
    pub(super) fn path(&self, scope: &WebhookScope) -> Result<String, ApiError> {
        (self.api.webhooks)(scope).map_err(|why| ApiError::NoSuchScope(why.to_owned()))
    }

    /// The path of a webhook.
    pub(super) fn path_of(&self, scope: &WebhookScope, webhook: &Webhook) -> Result<String, ApiError> {
        Ok(format!("{}/{}", self.path(scope)?, encoded(&webhook.id)))
    }

    pub(super) fn form<'a>(
        &'a self,
        scope: &'a WebhookScope,
        url: &'a str,
        events: &'a [String],
    ) -> WebhookForm<'a> {
        WebhookForm { scope, url, key: self.key.as_ref().map(|key| key.as_str()), events }
    }
}

/// Whether the objects that an endpoint may request can reference images.
fn may_concern_images(selection: &Selection) -> bool {
    let mut kinds = selection.kinds().peekable();
    kinds.peek().is_none() || kinds.any(|kind| !matches!(kind, Kind::GitRepository | Kind::Bucket))
}

/// An identifier as a segment of a path: Bitbucket's have braces.
pub(super) fn encoded(identifier: &str) -> String {
    url::form_urlencoded::byte_serialize(identifier.as_bytes()).collect()
}

/// # Errors
/// When a key or a token would travel in the clear.
fn check_secure_url(url: &str, option: &str) -> anyhow::Result<()> {
    check_base(url, option)?;
    anyhow::ensure!(
        url.starts_with("https://") || is_loopback(url),
        "{option}: `{url}` is not https; keys and tokens go through it, so that only this machine may do without"
    );
    Ok(())
}

/// The API at a host, or the URL as it is where it has a path already.
fn api_url(text: &str, api: &WebhookApi) -> anyhow::Result<Url> {
    check_secure_url(text, "--api")?;
    let mut url = Url::parse(text)?;
    anyhow::ensure!(
        url.username().is_empty() && url.password().is_none(),
        "--api: the URL holds credentials; use a token"
    );
    if url.path() == "/" {
        let path = (api.path_at)(url.host_str().unwrap_or_default());
        url.set_path(path);
    }
    Ok(url)
}

/// Bytes of a token file; tokens have some hundred.
const MAX_TOKEN_BYTES: u64 = 8 << 10;

fn token(file: Option<&Path>, provider: &str, api: &WebhookApi) -> anyhow::Result<Zeroizing<String>> {
    let text = match file {
        Some(file) => {
            let cannot_read = || format!("--token-file: cannot read {}", file.display());
            let mut text = Zeroizing::new(String::new());
            File::open(file)
                .and_then(|opened| opened.take(MAX_TOKEN_BYTES).read_to_string(&mut text))
                .with_context(cannot_read)?;
            text
        }
        None => {
            let set = api.token_variables.iter().filter_map(|name| std::env::var(name).ok());
            let set = set.into_iter().find(|value| !value.trim().is_empty());
            Zeroizing::new(set.unwrap_or_default())
        }
    };
    let token = Zeroizing::new(text.trim().to_owned());
    let source = match file {
        Some(file) => file.display().to_string(),
        None => api.token_variables.join(" or "),
    };
    anyhow::ensure!(
        !token.is_empty(),
        "no token for {provider}: put one into {source}{}; it needs {}",
        if file.is_none() { ", or into a file for --token-file" } else { "" },
        api.rights
    );
    let is_header = token.chars().all(|c| c.is_ascii_graphic());
    anyhow::ensure!(is_header, "the token in {source} holds characters that a token cannot have");
    Ok(token)
}

/// The key as the provider is to have it; none where deliveries come without a signature.
fn key(endpoint: &Endpoint) -> anyhow::Result<Option<Zeroizing<String>>> {
    let key = endpoint.credentials.own_key().filter(|_| endpoint.is_authenticated_by_key());
    let Some(key) = key else { return Ok(None) };
    let text = std::str::from_utf8(key.without_newline()).ok();
    let text = text.with_context(|| {
        format!(
            "the key in {} is not text, and {} takes no other; make one with `flux-recv keygen`",
            endpoint.key_file.display(),
            endpoint.provider.name
        )
    })?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}
