//! Fetching public keys, certificates and confirmations: the one thing that verifying needs from the
//! network, handed in.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt, Policy};

use super::public_address;
use super::sns_address::parse;

/// Gets a document from an address that the config or a pinned pattern allows.
pub trait Fetch: Send + Sync {
    /// The body of a successful answer.
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>>;

    /// Fetches a URL that someone else than the operator may have named.
    fn get_as<'a>(&'a self, url: &'a str, _: Trust) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        self.get(url)
    }
}

/// The author of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The operator of flux-recv: the config, an option, or a pinned pattern.
    Operator,
    /// The author of a Receiver: https, no redirects, and no address of this host or of a metadata
    /// service.
    Tenant,
}

/// A document cannot be fetched.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Fetches over HTTP; the caller has checked that the URL is https where it has to be.
///
/// Its client is made when something is fetched for the first time: it holds all CA certificates of the
/// system, and most installations never fetch.
#[derive(Default)]
pub struct HttpFetch {
    client: OnceLock<Result<reqwest::Client, FetchError>>,
    client_for_tenants: OnceLock<Result<reqwest::Client, FetchError>>,
}

/// Longer than Google's key server ever takes, short enough for a provider that waits ten seconds.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Key sets have a few KiB.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

fn client() -> Result<reqwest::Client, FetchError> {
    build(reqwest::Client::builder().redirect(Policy::custom(follow)))
}

/// A proxy would look the name up itself, and reach what its own network reaches.
fn client_for_tenants() -> Result<reqwest::Client, FetchError> {
    let builder = reqwest::Client::builder().redirect(Policy::none()).https_only(true).no_proxy();
    build(builder.dns_resolver(Arc::new(PublicNames)))
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, FetchError> {
    builder
        .timeout(FETCH_TIMEOUT)
        .user_agent(concat!("flux-recv/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|err| FetchError(format!("cannot make an HTTPS client (no CA certificates?): {err}")))
}

/// Looks names up, and knows no address that a tenant must not reach. What is connected to is what was
/// looked at: a second look-up could bring another address.
struct PublicNames;

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| public_address::is_allowed(address.ip())).collect();
            match allowed.is_empty() {
                true => Err("the name has no address that may be fetched from".into()),
                false => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether a URL names an address that a tenant must not reach; names are looked up later.
fn names_a_forbidden_address(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return true };
    match url.host() {
        Some(url::Host::Ipv4(address)) => !public_address::is_allowed(address.into()),
        Some(url::Host::Ipv6(address)) => !public_address::is_allowed(address.into()),
        Some(url::Host::Domain(_)) => false,
        None => true,
    }
}

/// Follows redirects from TLS to TLS, and those of SNS within SNS.
fn follow(attempt: Attempt<'_>) -> Action {
    let was_secure = attempt.previous().iter().all(|url| url.scheme() == "https");
    let leaves_tls = was_secure && attempt.url().scheme() != "https";
    let was_sns = attempt.previous().first().is_some_and(|url| parse(url.as_str()).is_some());
    let leaves_sns = was_sns && parse(attempt.url().as_str()).is_none();
    match attempt.previous().len() > MAX_REDIRECTS || leaves_tls || leaves_sns {
        true => attempt.stop(),
        false => attempt.follow(),
    }
}

const MAX_REDIRECTS: usize = 3;

impl Fetch for HttpFetch {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        self.get_as(url, Trust::Operator)
    }

    fn get_as<'a>(&'a self, url: &'a str, trust: Trust) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            // What stands behind the question mark may be a secret.
            let shown = url.split('?').next().unwrap_or_default();
            let client = match trust {
                Trust::Operator => self.client.get_or_init(client),
                Trust::Tenant if names_a_forbidden_address(url) => {
                    return Err(FetchError(format!("cannot fetch {shown}: the address is not allowed")));
                }
                Trust::Tenant => self.client_for_tenants.get_or_init(client_for_tenants),
            };
            let failed =
                |err: reqwest::Error| FetchError(format!("cannot fetch {shown}: {}", err.without_url()));
            let client = client.as_ref().map_err(FetchError::clone)?;
            let mut response =
                client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
            if response.status().is_redirection() {
                return Err(FetchError(format!("cannot fetch {shown}: it answers with a redirect")));
            }
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                body.extend_from_slice(&chunk);
                if body.len() > MAX_DOCUMENT_BYTES {
                    return Err(FetchError(format!(
                        "{shown} answers with more than {MAX_DOCUMENT_BYTES} bytes"
                    )));
                }
            }
            Ok(body)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tenants_reach_neither_this_host_nor_plain_http() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fetch = HttpFetch::default();
        for url in [
            "https://127.0.0.1:1/",
            "https://[::1]:1/",
            "https://localhost:1/",
            "https://169.254.169.254/latest/meta-data",
            "http://203.0.113.1/",
            "nonsense",
        ] {
            let err = fetch.get_as(url, Trust::Tenant).await.expect_err(url).to_string();
            assert!(!err.contains("refused"), "{url}: {err}");
        }
        let err = fetch.get("http://127.0.0.1:1/").await.expect_err("nobody listens").to_string();
        assert!(err.contains("cannot fetch"), "{err}");
    }
}
