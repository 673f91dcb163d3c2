//! Fetching public keys, certificates and confirmations: the one thing that verifying needs from the
//! network, handed in.

use std::sync::OnceLock;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::redirect::{Action, Attempt, Policy};

use super::sns_address::of_sns;

/// Gets a document from an address that the config or a pinned pattern vouches for.
pub trait Fetch: Send + Sync {
    /// The body of a successful answer.
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>>;
}

/// Why a document cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Fetches over HTTP; whoever asks has seen to it that the address is a secure one where it has to be.
///
/// Its client is made when something is fetched for the first time: it holds all CA certificates of the
/// system, and most installations never fetch.
#[derive(Default)]
pub struct HttpFetch {
    client: OnceLock<Result<reqwest::Client, FetchError>>,
}

/// Longer than Google's key server ever takes, short enough for a sender that waits ten seconds.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Key sets have a few KiB.
const SIZE_LIMIT: usize = 1 << 20;

fn client() -> Result<reqwest::Client, FetchError> {
    reqwest::Client::builder()
        .timeout(TIME_LIMIT)
        .redirect(Policy::custom(follow))
        .user_agent(concat!("flux-recv/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|err| FetchError(format!("cannot make an HTTPS client (no CA certificates?): {err}")))
}

/// What was asked over TLS stays there, and what was asked of SNS at SNS.
fn follow(attempt: Attempt<'_>) -> Action {
    let was_secure = attempt.previous().iter().all(|url| url.scheme() == "https");
    let leaves_tls = was_secure && attempt.url().scheme() != "https";
    let was_sns = attempt.previous().first().is_some_and(|url| of_sns(url.as_str()).is_some());
    let leaves_sns = was_sns && of_sns(attempt.url().as_str()).is_none();
    match attempt.previous().len() > MOST_REDIRECTS || leaves_tls || leaves_sns {
        true => attempt.stop(),
        false => attempt.follow(),
    }
}

const MOST_REDIRECTS: usize = 3;

impl Fetch for HttpFetch {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            // What stands behind the question mark may be a secret.
            let shown = url.split('?').next().unwrap_or_default();
            let failed =
                |err: reqwest::Error| FetchError(format!("cannot fetch {shown}: {}", err.without_url()));
            let client = self.client.get_or_init(client).as_ref().map_err(FetchError::clone)?;
            let mut response =
                client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                body.extend_from_slice(&chunk);
                if body.len() > SIZE_LIMIT {
                    return Err(FetchError(format!("{shown} answers with more than {SIZE_LIMIT} bytes")));
                }
            }
            Ok(body)
        })
    }
}
