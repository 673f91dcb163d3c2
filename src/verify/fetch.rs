//! Fetching public keys: the one thing that verifying needs from the network, handed in.

use std::time::Duration;

use futures::future::BoxFuture;

/// Gets a document from a fixed, known address.
pub trait Fetch: Send + Sync {
    /// The body of a successful answer.
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>>;
}

/// Why a document cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Fetches over HTTPS.
pub struct HttpsFetch {
    client: reqwest::Client,
}

/// Longer than Google's key server ever takes, short enough for a sender that waits ten seconds.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Key sets have a few KiB.
const SIZE_LIMIT: usize = 1 << 20;

impl HttpsFetch {
    /// # Errors
    /// When the system has no CA certificates.
    pub fn new() -> Result<HttpsFetch, FetchError> {
        let client = reqwest::Client::builder()
            .timeout(TIME_LIMIT)
            .https_only(true)
            .user_agent(concat!("flux-recv/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|err| FetchError(format!("cannot make an HTTPS client (no CA certificates?): {err}")))?;
        Ok(HttpsFetch { client })
    }
}

impl Fetch for HttpsFetch {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async move {
            let failed = |err: reqwest::Error| FetchError(format!("cannot fetch {url}: {err}"));
            let mut response = self
                .client
                .get(url)
                .send()
                .await
                .and_then(reqwest::Response::error_for_status)
                .map_err(failed)?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                body.extend_from_slice(&chunk);
                if body.len() > SIZE_LIMIT {
                    return Err(FetchError(format!("{url} answers with more than {SIZE_LIMIT} bytes")));
                }
            }
            Ok(body)
        })
    }
}

/// Fails always, for the same reason: stands in where an HTTPS client cannot be made.
pub struct NoFetch(pub FetchError);

impl Fetch for NoFetch {
    fn get<'a>(&'a self, _url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Err(FetchError(self.0.0.clone())) })
    }
}
