//! Publisher and subscriptions of a process.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;

use super::application::bind;
use crate::cluster::watches::Watches;
use crate::config::Config;
use crate::fleet::options::{NatsOptions, PublisherOptions, Retention, SubscriptionOptions};
use crate::journal::Journal;
use crate::journal::contents::SubscriptionRecord;
use crate::journal::event_log::EventLog;
use crate::publisher::Publisher;
use crate::receive::EventPublisher;
use crate::service::Service;
use crate::subscriber::Subscriptions;

/// What a process publishes and follows.
pub(super) struct Fleet {
    pub(super) publisher: Option<RunningPublisher>,
    pub(super) subscriptions: Arc<Subscriptions>,
}

/// A publisher, and the part of it that appends.
pub(super) struct RunningPublisher {
    pub(super) publisher: Arc<Publisher>,
    pub(super) events: Arc<EventPublisher>,
    nats: Option<NatsOptions>,
    retention: Retention,
}

/// The part of a config that is about other clusters.
#[derive(Default)]
pub(super) struct FleetOptions {
    pub(super) publish: Option<PublisherOptions>,
    pub(super) subscribe: Vec<SubscriptionOptions>,
}

impl Fleet {
    /// Starts what the config lists, over the event log and what appends to it.
    pub(super) fn start(
        options: FleetOptions,
        service: &Arc<Service>,
        journal: &Journal,
        log: Option<(Arc<dyn EventLog>, Arc<EventPublisher>)>,
        left: BTreeMap<String, SubscriptionRecord>,
        watches: Option<Arc<Watches>>,
    ) -> Fleet {
        let publisher = match (options.publish, log) {
            (Some(publish), Some((log, events))) => {
                let (nats, retention) = (publish.nats.clone(), publish.retention);
                let publisher = Publisher::new(Arc::clone(service), log, publish);
                for key in publisher.public_keys() {
                    log::info!(public_key:% = key; "publishing events; subscribers pin this public key");
                }
                Some(RunningPublisher { publisher, events, nats, retention })
            }
            _ => None,
        };
        let subscriptions = Subscriptions::new(Arc::clone(service), journal.clone(), left, watches);
        subscriptions.replace(options.subscribe);
        Fleet { publisher, subscriptions: Arc::new(subscriptions) }
    }

    /// Binds the listener for subscribers, if this is a publisher.
    pub(super) fn bind(is_publisher: bool, address: &str) -> anyhow::Result<Option<TcpListener>> {
        is_publisher.then(|| bind(address, "--subscribe-listen")).transpose()
    }

    /// Whether a changed config can be taken in force.
    ///
    /// # Errors
    /// What cannot change while serving.
    pub(super) fn check(&self, config: &Config) -> Result<(), &'static str> {
        match (&self.publisher, &config.publish) {
            (None, None) => Ok(()),
            (Some(running), Some(publish)) if running.nats != publish.nats => {
                Err("publish: nats: cannot change while serving; restart flux-recv")
            }
            (Some(running), Some(publish))
                if publish.nats.is_some() && running.retention != publish.retention =>
            {
                Err(
                    "publish: retention: is that of the stream and cannot change while serving; change the stream, and restart flux-recv",
                )
            }
            (Some(_), Some(_)) => Ok(()),
            _ => Err("publish: cannot come or go while serving; restart flux-recv"),
        }
    }

    /// Takes a changed config in force.
    pub(super) fn replace(&self, options: FleetOptions) {
        if let (Some(running), Some(publish)) = (&self.publisher, options.publish) {
            running.events.replace(&publish);
            running.publisher.replace(publish);
        }
        self.subscriptions.replace(options.subscribe);
    }
}
