//! The first frame of a stream, and the frame that tells a subscriber to catch up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a publisher offers a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The nonce of the request.
    pub nonce: String,
    /// The version of the publisher, for people.
    pub flux_recv: String,
    /// The oldest version of the wire form that a subscriber has to know.
    pub wire_version: u32,
    /// The name of the subscriber in the config of the publisher.
    pub subscriber: String,
    /// The endpoints that it gets, by name.
    pub endpoints: BTreeMap<String, OfferedEndpoint>,
    /// Over how long the fleet spreads its requests, in milliseconds.
    #[serde(default)]
    pub stagger_millis: u64,
}

/// An endpoint of a publisher.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedEndpoint {
    /// The provider, as `source` names it.
    pub source: String,
    /// The further fields that it forwards, such as `req.pusher.name`.
    #[serde(default)]
    pub forward: Vec<String>,
}

/// Why the log cannot be continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The nonce of the request.
    pub nonce: String,
    /// For people.
    pub reason: String,
}

/// The answer to someone who is known and may not subscribe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscribeRefusal {
    /// For people; says what differs, and holds nothing that was not in the token.
    pub reason: String,
}
