//! A network that is not there.

use flux_recv::internals::{Fetch, FetchError};
use futures::future::BoxFuture;

pub struct NoFetch;

impl Fetch for NoFetch {
    fn get<'a>(&'a self, _url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        Box::pin(async { Err(FetchError("no network".to_owned())) })
    }
}
