//! The part of `flux-recv check` that is about other clusters: a real connection to each publisher, and the
//! subscribers of this one.

use crate::cli::subscribers::{self, InstanceArgs};
use crate::config::Config;
use crate::fleet::options::{
    GrantedEndpoints, PublisherOptions, SubscriberAuthentication, SubscriptionOptions,
};
use crate::subscriber;

/// Describes publisher and subscriptions in lines; says whether all is well.
pub(super) async fn examine(config: &Config, instance: &InstanceArgs, is_offline: bool) -> (String, bool) {
    let (mut text, mut is_good) = (String::new(), true);
    if let Some(publish) = &config.publish {
        text.push_str(&describe_publisher(publish));
        if !is_offline {
            text.push_str(&running(instance).await);
        }
    }
    if is_offline {
        return (text, is_good);
    }
    if !config.subscribe.is_empty() {
        text.push_str("\npublishers:\n");
    }
    for subscription in &config.subscribe {
        let (line, is_connected) = try_to_connect(subscription).await;
        text.push_str(&format!("  {}: {line}\n", subscription.name));
        is_good &= is_connected;
    }
    (text, is_good)
}

fn describe_publisher(publish: &PublisherOptions) -> String {
    let mut text = "\nsubscribers:\n".to_owned();
    for subscriber in &publish.subscribers {
        let endpoints = match &subscriber.endpoints {
            GrantedEndpoints::All => "every endpoint".to_owned(),
            GrantedEndpoints::Named(names) => names.join(", "),
        };
        let authentication = match &subscriber.authentication {
            SubscriberAuthentication::Key(_) => "a key".to_owned(),
            SubscriberAuthentication::Token(token) => format!("a token of {}", token.issuer),
        };
        text.push_str(&format!("  {}: gets {endpoints}, with {authentication}\n", subscriber.name));
    }
    for key in &publish.signing_keys {
        text.push_str(&format!("public key for `publicKeys` of subscribers: {}\n", key.public_key()));
    }
    text
}

/// Who is connected to the instance that runs; that it does not run is not a mistake.
async fn running(instance: &InstanceArgs) -> String {
    let described = subscribers::page(instance).await.and_then(|page| subscribers::describe(&page));
    match described {
        Ok(lines) => format!("running instance:\n{}", indented(&lines)),
        Err(err) => format!("running instance: {err}\n"),
    }
}

fn indented(lines: &str) -> String {
    lines.lines().map(|line| format!("  {line}\n")).collect()
}

/// Connects as the subscriber does, and reads what is offered.
async fn try_to_connect(subscription: &SubscriptionOptions) -> (String, bool) {
    match subscriber::examine(subscription).await {
        Ok(hello) => {
            let endpoints: Vec<&str> = hello.endpoints.keys().map(String::as_str).collect();
            let line = format!(
                "connected as subscriber {} to flux-recv {}; offers {}",
                hello.subscriber,
                hello.flux_recv,
                endpoints.join(", ")
            );
            (line, true)
        }
        Err(why) => (format!("NOT CONNECTED: {why}"), false),
    }
}
