//! A small web that stands in for what flux-recv fetches: documents by their addresses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use flux_recv::internals::{Fetch, FetchError};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::google::key_set;

/// Documents by their URLs, and the URLs that were fetched.
#[derive(Default)]
pub struct Web {
    documents: BTreeMap<String, Vec<u8>>,
    pub fetched: Mutex<Vec<String>>,
}

pub const CERTIFICATE: &str = include_str!("../fixtures/certificate-for-tests-only.pem");

impl Web {
    pub fn with(mut self, url: &str, document: impl Into<Vec<u8>>) -> Web {
        self.documents.insert(url.to_owned(), document.into());
        self
    }

    /// An issuer that signs with the labelled key.
    pub fn with_issuer(self, issuer: &str) -> Web {
        let keys = format!("{issuer}/keys");
        self.with(
            &format!("{issuer}/.well-known/openid-configuration"),
            json!({"issuer": issuer, "jwks_uri": keys}).to_string(),
        )
        .with(&keys, key_set().to_string())
    }

    pub fn put_up(self) -> Arc<Web> {
        Arc::new(self)
    }
}

impl Fetch for Web {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Vec<u8>, FetchError>> {
        self.fetched.lock().expect("a list").push(url.to_owned());
        let document =
            self.documents.get(url).cloned().ok_or_else(|| FetchError(format!("nothing at {url}")));
        Box::pin(std::future::ready(document))
    }
}

/// Changes one field of a JSON mapping.
pub fn with(mut value: Value, field: &str, to: Value) -> Value {
    value[field] = to;
    value
}
