//! The stream as it has to be.

use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, ErrorCode};

use crate::bounded_text::BoundedText;
use crate::fleet::options::NatsOptions;
use crate::fleet::wire::MAX_ENTRY_BYTES;
use crate::journal::event_log::LogLimits;

/// What the stream of an event log has to be like.
pub(super) struct StreamConfig {
    pub(super) name: String,
    /// The one subject of its entries.
    pub(super) subject: String,
    limits: LogLimits,
    replicas: usize,
}

/// How a stream differs from the one that the config says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Differences {
    /// Limits that can be changed while replicas run: nothing is lost by publishing to the stream.
    pub(super) limits: Vec<String>,
    /// The others: the stream might not keep what it acknowledges.
    pub(super) others: Vec<String>,
}

/// The stream cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// Somebody else has made it, or the config has changed.
    #[error(
        "the stream `{stream}` is another one than the config says: {}; change one of them, the stream with `nats stream edit {stream}`",
        .differences.join("; ")
    )]
    Differs { stream: String, differences: Vec<String> },
    /// It is not there.
    #[error("the stream `{0}` is not there")]
    Missing(String),
    /// JetStream has refused a request.
    #[error("JetStream answers: {0}")]
    Refused(BoundedText),
    /// It takes requests and no entry.
    #[error("JetStream does not acknowledge the entry that makes subscribers catch up")]
    NotAcknowledged,
    /// Nobody answers, perhaps for this reason.
    #[error("JetStream does not answer{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Silent(Option<BoundedText>),
}

/// Asks what a stream is like and holds.
///
/// # Errors
/// When it is not there, or nobody says.
pub(super) async fn info(context: &Context, name: &str) -> Result<Info, StreamFault> {
    let stream = context.get_stream(name).await.map_err(|err| match err.kind() {
        GetStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            StreamFault::Missing(name.to_owned())
        }
        GetStreamErrorKind::JetStream(answer) => StreamFault::Refused(answer.to_string().into()),
        _ => StreamFault::Silent(None),
    })?;
    let info = stream.cached_info();
    // Without a leader any server answers, also one that is cut off from the others or behind them.
    let is_led = info.cluster.as_ref().is_none_or(|cluster| cluster.leader.is_some());
    if is_led { Ok(info.clone()) } else { Err(StreamFault::Silent(Some("the stream has no leader".into()))) }
}

/// Bytes that the longest entry has, with its headers.
const MIN_MESSAGE_SIZE: usize = 2 * MAX_ENTRY_BYTES;

/// How long JetStream knows the ID of an entry, so that publishing it again changes nothing.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

impl StreamConfig {
    pub(super) fn new(options: &NatsOptions, limits: LogLimits) -> StreamConfig {
        let (name, replicas) = (options.stream.clone(), options.replicas);
        StreamConfig { subject: format!("{name}.events"), name, limits, replicas }
    }

    /// Returns the config with which the stream is made.
    pub(super) fn to_create(&self) -> Config {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Config {
            name: self.name.clone(),
            description: Some("the event log of flux-recv".to_owned()),
            subjects: vec![self.subject.clone()],
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            max_messages: whole(self.limits.max_entries),
            max_messages_per_subject: -1,
            max_bytes: whole(self.limits.max_bytes),
            max_age: self.limits.max_age,
            num_replicas: self.replicas,
            duplicate_window: DUPLICATE_WINDOW.min(self.limits.max_age),
            allow_direct: true,
            ..Config::default()
        }
    }

    /// Says whether a stream is as it has to be.
    ///
    /// # Errors
    /// Each field that is not.
    pub(super) fn check(&self, stream: &Config) -> Result<(), StreamFault> {
        let Differences { limits, mut others } = self.differences(stream);
        others.extend(limits);
        match others.is_empty() {
            true => Ok(()),
            false => Err(StreamFault::Differs { stream: self.name.clone(), differences: others }),
        }
    }

    /// Compares a stream with the one of the config.
    pub(super) fn differences(&self, stream: &Config) -> Differences {
        let wanted = self.to_create();
        let mut limits = Vec::new();
        let mut compare = |field: &str, from: &str, there: String, here: String| {
            if there != here {
                limits.push(difference(field, from, &there, &here));
            }
        };
        compare(
            "replicas",
            "`publish.nats.replicas`",
            stream.num_replicas.to_string(),
            wanted.num_replicas.to_string(),
        );
        compare(
            "max_msgs",
            "`publish.retention.entries`",
            limit(stream.max_messages),
            limit(wanted.max_messages),
        );
        compare("max_bytes", "`publish.retention.bytes`", limit(stream.max_bytes), limit(wanted.max_bytes));
        compare(
            "max_age",
            "`publish.retention.age`",
            format!("{:?}", stream.max_age),
            format!("{:?}", wanted.max_age),
        );
        compare(
            "duplicate_window",
            "always",
            format!("{:?}", stream.duplicate_window),
            format!("{:?}", wanted.duplicate_window),
        );
        Differences { limits, others: other_differences(stream, &wanted) }
    }
}

fn difference(field: &str, from: &str, there: &str, here: &str) -> String {
    format!("{field} is {there} there and {here} here ({from})")
}

fn other_differences(stream: &Config, wanted: &Config) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |field: &str, there: String, here: String| {
        if there != here {
            differences.push(difference(field, "always", &there, &here));
        }
    };
    compare("subjects", stream.subjects.join(" "), wanted.subjects.join(" "));
    compare("retention", format!("{:?}", stream.retention), format!("{:?}", wanted.retention));
    compare("discard", format!("{:?}", stream.discard), format!("{:?}", wanted.discard));
    compare("allow_direct", stream.allow_direct.to_string(), wanted.allow_direct.to_string());
    compare("storage", format!("{:?}", stream.storage), format!("{:?}", wanted.storage));
    compare(
        "max_msgs_per_subject",
        limit(stream.max_messages_per_subject),
        limit(wanted.max_messages_per_subject),
    );
    let is_plain = stream.mirror.is_none() && stream.sources.as_ref().is_none_or(Vec::is_empty);
    let message_size = usize::try_from(stream.max_message_size).unwrap_or(0);
    for (field, is_good) in [
        ("no_ack", !stream.no_ack),
        ("sealed", !stream.sealed),
        ("max_consumers", stream.max_consumers <= 0),
        ("max_msg_size", message_size == 0 || message_size >= MIN_MESSAGE_SIZE),
        ("a mirror or a list of sources", is_plain),
    ] {
        if !is_good {
            differences.push(format!("{field} is set there and has to be left out"));
        }
    }
    differences
}

/// Servers write no limit as -1 or 0.
fn limit(number: i64) -> String {
    if number <= 0 { "unlimited".to_owned() } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> StreamConfig {
        let options = NatsOptions {
            urls: vec!["nats://127.0.0.1".to_owned()],
            stream: "log".to_owned(),
            credentials: None,
            ca: None,
            replicas: 3,
        };
        let limits = LogLimits { max_entries: 10, max_bytes: 100, max_age: Duration::from_secs(3600) };
        StreamConfig::new(&options, limits)
    }

    #[test]
    fn a_stream_that_was_made_is_as_it_has_to_be() {
        assert_eq!(config().check(&config().to_create()), Ok(()));
    }

    #[test]
    fn each_difference_is_named_with_its_field() {
        let mut stream = config().to_create();
        stream.max_bytes = -1;
        stream.num_replicas = 1;
        stream.discard = DiscardPolicy::New;
        let why = config().check(&stream).expect_err("another stream").to_string();
        for part in [
            "`log`",
            "discard is New there and Old here",
            "replicas is 1 there and 3 here (`publish.nats.replicas`)",
            "max_bytes is unlimited there and 100 here (`publish.retention.bytes`)",
            "nats stream edit log",
        ] {
            assert!(why.contains(part), "{part}: {why}");
        }
        assert!(!why.contains("max_age"), "{why}");
        let mut stream = config().to_create();
        (stream.no_ack, stream.max_message_size, stream.max_consumers) = (true, 1000, 1);
        let why = config().check(&stream).expect_err("another stream").to_string();
        for field in ["no_ack", "max_msg_size", "max_consumers"] {
            assert!(why.contains(&format!("{field} is set there")), "{field}: {why}");
        }
    }
}
