//! The part of `flux-recv check` that is about other clusters: a real connection to each publisher, and the
//! subscribers of this one.

use serde::Serialize;
use serde_json::Value;

use crate::cli::subscribers::{self, InstanceArgs};
use crate::config::Config;
use crate::fleet::options::{
    GrantedEndpoints, NatsOptions, PublisherOptions, Retention, SubscriberAuthentication, SubscriptionOptions,
};
use crate::subscriber;

/// What concerns other clusters.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FleetReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    publisher: Option<PublisherReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    publishers: Vec<PublisherConnection>,
}

/// Who may subscribe here, and who is connected.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublisherReport {
    subscribers: Vec<GrantRow>,
    public_keys: Vec<String>,
    /// What clients of flux-webhook-autoreconciler get.
    #[serde(skip_serializing_if = "Option::is_none")]
    autoreconciler: Option<String>,
    /// The stream of the event log, looked at as at a start.
    #[serde(skip_serializing_if = "Option::is_none")]
    nats: Option<Result<String, String>>,
    /// The page of the instance that runs; that it does not run is not a mistake.
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<Result<Value, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantRow {
    name: String,
    endpoints: String,
    authentication: String,
}

/// A publisher that this instance follows, connected to as the subscriber does.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublisherConnection {
    name: String,
    connected: bool,
    description: String,
}

/// Describes publisher and subscriptions.
pub(super) async fn examine(config: &Config, instance: &InstanceArgs, is_offline: bool) -> FleetReport {
    let mut report = FleetReport { publisher: config.publish.as_ref().map(publisher), ..Default::default() };
    if is_offline {
        return report;
    }
    if let Some(publisher) = &mut report.publisher {
        let page = subscribers::page(instance).await;
        publisher.running = Some(page.map_err(|err| err.to_string()));
        publisher.nats =
            match config.publish.as_ref().and_then(|publish| Some((publish, publish.nats.as_ref()?))) {
                Some((publish, nats)) => Some(look_at_stream(nats, &publish.retention).await),
                None => None,
            };
    }
    for subscription in &config.subscribe {
        report.publishers.push(try_to_connect(subscription).await);
    }
    report
}

fn publisher(publish: &PublisherOptions) -> PublisherReport {
    let rows = publish.subscribers.iter().map(|subscriber| GrantRow {
        name: subscriber.name.to_string(),
        endpoints: described(&subscriber.endpoints),
        authentication: match &subscriber.authentication {
            SubscriberAuthentication::Key(_) => "a key".to_owned(),
            SubscriberAuthentication::Token(token) => format!("a token of {}", token.issuer),
        },
    });
    let keys = publish.signing_keys.iter().map(|key| key.public_key().to_string());
    PublisherReport {
        subscribers: rows.collect(),
        public_keys: keys.collect(),
        autoreconciler: publish.autoreconciler.as_ref().map(|clients| described(&clients.endpoints)),
        nats: None,
        running: None,
    }
}

fn described(endpoints: &GrantedEndpoints) -> String {
    match endpoints {
        GrantedEndpoints::All => "every endpoint".to_owned(),
        GrantedEndpoints::Named(names) => names.join(", "),
    }
}

#[cfg(feature = "nats")]
async fn look_at_stream(nats: &NatsOptions, retention: &Retention) -> Result<String, String> {
    use crate::jetstream::JetStreamLog;
    JetStreamLog::examine(nats, crate::publisher::limits(retention)).await.map_err(|err| err.to_string())
}

#[cfg(not(feature = "nats"))]
async fn look_at_stream(_: &NatsOptions, _: &Retention) -> Result<String, String> {
    Err("publish: nats: this flux-recv was built without the feature `nats`".to_owned())
}

/// Connects as the subscriber does, and reads what is offered.
async fn try_to_connect(subscription: &SubscriptionOptions) -> PublisherConnection {
    let examined = subscriber::examine(subscription).await;
    let connected = examined.is_ok();
    let description = match examined {
        Ok(hello) => {
            let endpoints: Vec<&str> = hello.endpoints.keys().map(String::as_str).collect();
            format!(
                "connected as subscriber {} to flux-recv {}; offers {}",
                hello.subscriber,
                hello.flux_recv,
                endpoints.join(", ")
            )
        }
        Err(why) => format!("NOT CONNECTED: {why}"),
    };
    PublisherConnection { name: subscription.name.to_string(), connected, description }
}

impl FleetReport {
    pub(super) fn is_good(&self) -> bool {
        let stream = self.publisher.as_ref().and_then(|publisher| publisher.nats.as_ref());
        stream.is_none_or(Result::is_ok) && self.publishers.iter().all(|publisher| publisher.connected)
    }

    /// Describes it in lines.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        if let Some(publisher) = &self.publisher {
            text.push_str("\nsubscribers:\n");
            for GrantRow { name, endpoints, authentication } in &publisher.subscribers {
                text.push_str(&format!("  {name}: gets {endpoints}, with {authentication}\n"));
            }
            if let Some(endpoints) = &publisher.autoreconciler {
                text.push_str(&format!(
                    "  clients of flux-webhook-autoreconciler: get {endpoints}, with one secret\n"
                ));
            }
            match &publisher.nats {
                Some(Ok(stream)) => text.push_str(&format!("event log in NATS: {stream}\n")),
                Some(Err(why)) => text.push_str(&format!("event log in NATS: NOT THERE: {why}\n")),
                None => {}
            }
            for key in &publisher.public_keys {
                text.push_str(&format!("public key for `publicKeys` of subscribers: {key}\n"));
            }
            let described = publisher.running.as_ref().map(|page| match page {
                Ok(page) => subscribers::describe(page).map_err(|err| err.to_string()),
                Err(why) => Err(why.clone()),
            });
            match described {
                None => {}
                Some(Ok(lines)) => text.push_str(&format!("running instance:\n{}", indented(&lines))),
                Some(Err(why)) => text.push_str(&format!("running instance: {why}\n")),
            }
        }
        if !self.publishers.is_empty() {
            text.push_str("\npublishers:\n");
        }
        for PublisherConnection { name, description, .. } in &self.publishers {
            text.push_str(&format!("  {name}: {description}\n"));
        }
        text
    }
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}
