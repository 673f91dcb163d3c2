//! The `api:` mode: forwards events to fluxd, the daemon of Flux v1.

use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use url::Url;

use crate::event::{Event, GitChanges, GitEvent};
use crate::receive::Notify;

/// A client of the API of fluxd.
pub struct FluxV1Client {
    client: reqwest::Client,
    notify: Url,
}

/// How long fluxd may take, as before.
const FLUX_V1_TIMEOUT: Duration = Duration::from_secs(10);

impl FluxV1Client {
    /// The API at this address, such as `http://localhost:3030/api/flux`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(api: &Url) -> anyhow::Result<FluxV1Client> {
        let mut notify = api.clone();
        notify.set_path(&format!("{}/v11/notify", api.path().trim_end_matches('/')));
        let client = reqwest::Client::builder().timeout(FLUX_V1_TIMEOUT).no_proxy().build()?;
        Ok(FluxV1Client { client, notify })
    }

    async fn post(&self, change: &Value) -> anyhow::Result<()> {
        let request = self
            .client
            .post(self.notify.clone())
            .header("Accept", "application/json")
            .body(change.to_string());
        let response = request.send().await.map_err(reqwest::Error::without_url)?;
        match response.status().as_u16() {
            200 | 201 | 202 | 204 => Ok(()),
            status => anyhow::bail!("fluxd answers with status {status}"),
        }
    }
}

impl Notify for FluxV1Client {
    fn notify<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, anyhow::Result<bool>> {
        Box::pin(async move {
            let changes = changes(event);
            for change in &changes {
                self.post(change).await?;
            }
            Ok(!changes.is_empty())
        })
    }
}

/// The changes to tell fluxd, in the words of its API (version 9 of `Change`).
fn changes(event: &Event) -> Vec<Value> {
    match event {
        Event::Git(event) => git_changes(event),
        Event::Image(event) if event.deleted => Vec::new(),
        Event::Image(event) => vec![image_change(&event.written)],
        // Flux v1 knew neither.
        Event::Chart(_) | Event::Bucket(_) | Event::Anything { .. } => Vec::new(),
    }
}

/// Branches go by their short name, tags by their full one; a URL is the one for SSH, which fluxd
/// compares with its own.
fn git_changes(event: &GitEvent) -> Vec<Value> {
    let url = match (&event.ssh_url, event.repository.first()) {
        (Some(ssh), _) => ssh.clone(),
        (None, Some(url)) => url.to_string(),
        (None, None) => return Vec::new(),
    };
    let GitChanges::Refs(refs) = &event.changes else { return Vec::new() };
    let moved = refs.iter().filter(|change| !change.deleted && !change.name.is_of_pull_request());
    moved
        .map(|change| json!({"Kind": "git", "Source": {"URL": url, "Branch": change.name.short()}}))
        .collect()
}

/// The first of two segments is a host if it has a dot or is `localhost`; the first of more is one
/// in any case.
fn image_change(written: &str) -> Value {
    let (domain, image) = match written.split_once('/') {
        Some((first, rest)) if rest.contains('/') || first.contains('.') || first.contains("localhost") => {
            (first, rest)
        }
        _ => ("", written),
    };
    json!({"Kind": "image", "Source": {"Name": {"Domain": domain, "Image": image}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_split_as_flux_v1_did() {
        let split = |written: &str| {
            let name = image_change(written)["Source"]["Name"].clone();
            format!("{}|{}", name["Domain"].as_str().unwrap_or("?"), name["Image"].as_str().unwrap_or("?"))
        };
        assert_eq!(split("alpine"), "|alpine");
        assert_eq!(split("svendowideit/testhook"), "|svendowideit/testhook");
        assert_eq!(split("quay.io/hiddeco/foo"), "quay.io|hiddeco/foo");
        assert_eq!(split("localhost/foo"), "localhost|foo");
        assert_eq!(split("us.gcr.io/am/am.kebab.api"), "us.gcr.io|am/am.kebab.api");
        assert_eq!(split("a/b/c"), "a|b/c");
    }
}
