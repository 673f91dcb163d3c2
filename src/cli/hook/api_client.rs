//! Requests to a provider's API, with their limits; each failure is one line that says what to do.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use reqwest::header::{HeaderMap, HeaderValue, LINK, RETRY_AFTER, USER_AGENT};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use crate::bounded_text::BoundedText;
use crate::cli::send::is_loopback;
use crate::webhook_api::{DeliveryApi, DeliveryPaging, WebhookApi, WebhookScope};

/// Sends requests with the token, to one host and no other.
pub(super) struct ApiClient {
    http: Client,
    provider: &'static str,
    api: &'static WebhookApi,
    service: Url,
    token: Zeroizing<String>,
    /// What must not be repeated, should the API quote it.
    secrets: Vec<Zeroizing<String>>,
}

/// A request that did not succeed, in a line that says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("{0}")]
    Refused(String),
    /// It does not exist, or the token may not see it.
    #[error("{0}")]
    NotFound(String),
    /// The token may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// The provider has no webhooks of that kind.
    #[error("{0}")]
    NoSuchScope(String),
    /// The API understands the request and does not do it (400, 422).
    #[error("{0}")]
    Invalid(String),
    #[error("{line}")]
    TooManyRequests { line: String, wait: Option<Duration> },
}

/// An answer of the API.
struct Answer {
    json: Value,
    link: Option<String>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of one answer; a page of past deliveries repeats their payloads.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Shorter parts of a token are words such as `Bearer`.
const MIN_SECRET_BYTES: usize = 8;

/// Pages of one list.
const MAX_PAGES: usize = 200;

impl ApiClient {
    pub(super) fn new(
        provider: &'static str,
        api: &'static WebhookApi,
        service: Url,
        token: Zeroizing<String>,
        mut secrets: Vec<Zeroizing<String>>,
    ) -> anyhow::Result<ApiClient> {
        // A redirect could take the token elsewhere.
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(Policy::none());
        if is_loopback(service.as_str()) {
            builder = builder.no_proxy();
        }
        let http = builder.build().context("cannot make an HTTPS client")?;
        let (_, header) = (api.authorization)(&token);
        let parts = token.split(':').chain(header.split_whitespace()).map(str::to_owned);
        secrets.extend(parts.filter(|part| part.len() >= MIN_SECRET_BYTES).map(Zeroizing::new));
        Ok(ApiClient { http, provider, api, service, token, secrets })
    }

    /// The host of the API.
    pub(super) fn host(&self) -> &str {
        self.service.host_str().unwrap_or_default()
    }

    /// Sends a request about a scope's webhooks.
    pub(super) async fn send(
        &self,
        scope: &WebhookScope,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        Ok(self.answer(scope, method, path, body).await?.json)
    }

    /// Reads all pages of a list.
    pub(super) async fn list(&self, scope: &WebhookScope, path: &str) -> Result<Vec<Value>, ApiError> {
        let mut all = Vec::new();
        let mut identifiers = BTreeSet::new();
        for page in 1..=MAX_PAGES {
            let path = format!("{path}?{}&page={page}", self.api.page_size);
            let Answer { json, link } = self.answer(scope, Method::GET, &path, None).await?;
            let has_next_field = json["next"].is_string();
            let items = self.items(json)?;
            let was_empty = items.is_empty();
            let mut has_new = false;
            for item in items {
                let identifier = [&item["id"], &item["uuid"]].map(Value::to_string);
                if identifiers.insert(identifier) {
                    has_new = true;
                    all.push(item);
                }
            }
            // A server that does not know `page` would answer the same for ever.
            let is_last = was_empty
                || !has_new
                || (self.api.items.is_some() && !has_next_field)
                || link.is_some_and(|link| !link.contains("rel=\"next\""));
            if is_last {
                return Ok(all);
            }
        }
        Err(ApiError::Refused(format!(
            "{} lists more than {MAX_PAGES} pages of webhooks for {scope}; nothing was changed",
            self.provider
        )))
    }

    /// Reads the page of past deliveries that `page` names; gives the items and the name of the next page.
    pub(super) async fn deliveries(
        &self,
        scope: &WebhookScope,
        path: &str,
        api: &DeliveryApi,
        page: Option<&str>,
    ) -> Result<(Vec<Value>, Option<String>), ApiError> {
        let DeliveryApi { paging, page_size, .. } = api;
        let parameter = match paging {
            DeliveryPaging::Number => "page",
            DeliveryPaging::Cursor => "cursor",
        };
        let page_query = page.map(|page| format!("&{parameter}={page}")).unwrap_or_default();
        let path = format!("{path}?{page_size}{page_query}");
        let Answer { json, link } = self.answer(scope, Method::GET, &path, None).await?;
        let items = self.items(json)?;
        let next = match paging {
            DeliveryPaging::Number if items.is_empty() => None,
            DeliveryPaging::Number => {
                let number = page.and_then(|page| page.parse::<u32>().ok()).unwrap_or(1);
                Some((number + 1).to_string())
            }
            DeliveryPaging::Cursor => link.and_then(|link| next_cursor(&link)),
        };
        Ok((items, next))
    }

    fn items(&self, mut json: Value) -> Result<Vec<Value>, ApiError> {
        let list = match self.api.items {
            Some(field) => json[field].take(),
            None => json,
        };
        match list {
            Value::Array(items) => Ok(items),
            _ => Err(self.not_the_api()),
        }
    }

    async fn answer(
        &self,
        scope: &WebhookScope,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, ApiError> {
        let url = format!("{}{path}", self.service.as_str().trim_end_matches('/'));
        let (name, value) = (self.api.authorization)(&self.token);
        let mut token = HeaderValue::from_str(&value)
            .map_err(|_| ApiError::Refused("the token cannot be sent in a header".to_owned()))?;
        token.set_sensitive(true);
        let mut request = self.http.request(method, url).header(name, token);
        request = request.header(USER_AGENT, concat!("flux-recv/", env!("CARGO_PKG_VERSION")));
        for (name, value) in self.api.headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|err| {
            let why = super::super::with_causes(&anyhow::Error::from(err.without_url()));
            ApiError::Refused(format!("cannot reach {}: {why}; check --api and the network", self.host()))
        })?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = self.body(response).await?;
        if !status.is_success() {
            return Err(self.error(scope, status, &headers, &bytes));
        }
        let link = headers.get(LINK).and_then(|link| link.to_str().ok()).map(str::to_owned);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Answer { json: Value::Null, link });
        }
        let json = serde_json::from_slice(&bytes).map_err(|_| self.not_the_api())?;
        Ok(Answer { json, link })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ApiError> {
        let mut bytes = Vec::new();
        let cannot_read = |err: reqwest::Error| {
            ApiError::Refused(format!("the answer of {} broke off: {}", self.host(), err.without_url()))
        };
        while let Some(chunk) = response.chunk().await.map_err(cannot_read)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err(ApiError::Refused(format!(
                    "{} answers with more than {} MiB",
                    self.host(),
                    MAX_ANSWER_BYTES >> 20
                )));
            }
        }
        Ok(bytes)
    }

    fn error(&self, scope: &WebhookScope, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ApiError {
        let (provider, rights, host) = (self.provider, self.api.rights, self.host());
        let why = self.message(body);
        let code = status.as_u16();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // GitHub answers 403 as well where a token has used up its requests.
        let is_exhausted = code == 403
            && (header("x-ratelimit-remaining") == Some("0") || headers.contains_key(RETRY_AFTER));
        let line = match code {
            300..400 => {
                format!(
                    "{host} answers with a redirect ({code}), which is not followed; use the present name of {scope}, or the right host in --api"
                )
            }
            401 => format!(
                "{provider} does not accept the token (401); make a new one with {rights}, and put it into {} or --token-file",
                self.api.token_variables.join(" or ")
            ),
            429 | 403 if code == 429 || is_exhausted => {
                let wait =
                    header("retry-after").and_then(|after| after.parse().ok()).map(Duration::from_secs);
                let when = wait.map_or_else(|| "later".to_owned(), |wait| format!("in {} s", wait.as_secs()));
                return ApiError::TooManyRequests {
                    line: format!("{provider} limits requests ({code}); run the command again {when}"),
                    wait,
                };
            }
            403 => {
                return ApiError::Forbidden(format!(
                    "the token may not manage the webhooks of {scope} (403{why}); it needs {rights}"
                ));
            }
            404 => {
                return ApiError::NotFound(format!(
                    "{provider} at {host} does not show that of {scope} (404); check the name, and whether the token has {rights}"
                ));
            }
            422 | 400 if is_limit(body) => {
                return ApiError::Invalid(format!(
                    "{provider} allows no further webhook for {scope} (422{why}); delete one that is no longer needed, or use \
                 one for the organization with --org"
                ));
            }
            422 | 400 => {
                return ApiError::Invalid(format!(
                    "{provider} does not accept that ({code}{why}); check --base and what it says"
                ));
            }
            500.. => format!("{host} cannot answer now ({code}); try again later"),
            _ => format!("{host} answers {code}{why}; is it the API of {provider}? check --api"),
        };
        ApiError::Refused(line)
    }

    /// What the API says, after a colon, without secrets and without control characters.
    fn message(&self, body: &[u8]) -> String {
        let mut json: Value = serde_json::from_slice(body).unwrap_or_default();
        self.redact(&mut json);
        let texts = [&json["message"], &json["error"], &json["error"]["message"], &json["errors"]];
        let mut text = String::new();
        for part in texts {
            let part = match part {
                Value::Null => continue,
                Value::String(part) => part.clone(),
                Value::Object(_) if json["error"]["message"].is_string() => continue,
                part => part.to_string(),
            };
            text = if text.is_empty() { part } else { format!("{text}, {part}") };
        }
        text.retain(|c| !c.is_control());
        if text.is_empty() { text } else { format!(": {}", &*BoundedText::from(text)) }
    }

    /// Takes secrets out of all texts, before anything is escaped.
    fn redact(&self, json: &mut Value) {
        match json {
            Value::String(text) => {
                for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
                    *text = text.replace(secret.as_str(), "…");
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.redact(field)),
            _ => {}
        }
    }

    fn not_the_api(&self) -> ApiError {
        ApiError::Refused(format!(
            "{} does not answer like the API of {}; check --api",
            self.service.host_str().unwrap_or_default(),
            self.provider
        ))
    }
}

/// Whether the API says that there are as many webhooks as there may be.
fn is_limit(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    ["more than 20 hooks", "maximum number of", "webhook limit", "hook limit", "too many webhooks"]
        .iter()
        .any(|hint| text.contains(hint))
}

/// The cursor in a `Link` header (RFC 8288). Its URL is not followed: it could lead elsewhere.
fn next_cursor(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let url = Url::parse(next.split_once('<')?.1.split_once('>')?.0).ok()?;
    let (_, cursor) = url.query_pairs().find(|(name, _)| name == "cursor")?;
    Some(super::session::encoded(&cursor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_cursor_is_read_from_the_link_header() {
        let link = "<https://api.github.com/x?per_page=100&cursor=v1_2%2B3>; rel=\"next\", <https://a.b/>; rel=\"first\"";
        assert_eq!(next_cursor(link).as_deref(), Some("v1_2%2B3"));
        assert_eq!(next_cursor("<https://api.github.com/x?cursor=a>; rel=\"first\""), None);
        assert_eq!(next_cursor("nonsense; rel=\"next\""), None);
    }
}
