//! The outcome of a delivery.
//!
//! Answer, status, log line and metrics are all made from this one value.

use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::bounded_text::BoundedText;
use crate::flux::Target;
use crate::metrics::OutcomeLabel;

/// The outcome of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// These objects will be reconciliation requested.
    Accepted {
        /// What happened, in a line.
        event: BoundedText,
        targets: Vec<Target>,
        /// Objects that would have matched but are left alone.
        skipped: Vec<SkippedTarget>,
        /// Whether there is no cluster behind this: nothing is written anywhere.
        dry_run: bool,
        /// Whether subscribers get it as well.
        is_published: bool,
    },
    /// Queued until the objects of the cluster are listed.
    Queued {
        /// What happened, in a line.
        event: BoundedText,
    },
    /// Handed to Flux v1.
    Forwarded {
        /// What happened, in a line.
        event: BoundedText,
    },
    /// The provider only wanted to know whether someone is here.
    Pong,
    /// The provider's subscription was confirmed.
    Confirmed,
    /// The provider asked whether it may send CloudEvents.
    Handshake {
        /// The `WebHook-Request-Origin` that it names.
        origin: BoundedText,
    },
    /// Verified, and nothing to do.
    Ignored {
        reason: BoundedText,
    },
    /// Verified and handled, but no object references it.
    Unmatched {
        /// What happened, in a line.
        event: BoundedText,
        /// What was looked at.
        reason: BoundedText,
        /// Objects that would have matched but are left alone.
        skipped: Vec<SkippedTarget>,
    },
    UnknownPath,
    WrongMethod,
    /// The delivery is not verified.
    Refused {
        /// For the log only: the answer does not say.
        why: BoundedText,
    },
    /// Verified, but its payload cannot be read.
    Unreadable {
        /// What could not be read.
        why: BoundedText,
    },
    /// The body is longer than allowed.
    TooLarge {
        /// How long it may be, in bytes.
        limit: usize,
    },
    /// The body is compressed or otherwise encoded.
    Encoded,
    /// The body did not arrive in time or was cut off.
    Incomplete,
    /// More deliveries than the endpoint is to take.
    TooMany {
        /// When there is room again.
        retry_after: Duration,
    },
    /// Not now; nothing is durable.
    Unavailable {
        /// Why; the answer says so to verified deliveries only.
        why: BoundedText,
        /// When it makes sense to send again.
        retry_after: Duration,
        /// Whether the delivery is verified.
        is_verified: bool,
    },
}

/// An object that matched and was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedTarget {
    pub target: Target,
    /// Why it was left alone.
    pub reason: &'static str,
}

impl Outcome {
    pub fn ignored(reason: impl Into<BoundedText>) -> Outcome {
        Outcome::Ignored { reason: reason.into() }
    }

    /// The outcome's name, one of a closed set.
    pub fn label(&self) -> OutcomeLabel {
        match self {
            Outcome::Accepted { .. } => OutcomeLabel::Accepted,
            Outcome::Queued { .. } => OutcomeLabel::Queued,
            Outcome::Forwarded { .. } => OutcomeLabel::Forwarded,
            Outcome::Pong => OutcomeLabel::Pong,
            Outcome::Confirmed => OutcomeLabel::Confirmed,
            Outcome::Handshake { .. } => OutcomeLabel::Handshake,
            Outcome::Ignored { .. } => OutcomeLabel::Ignored,
            Outcome::Unmatched { .. } => OutcomeLabel::Unmatched,
            Outcome::UnknownPath => OutcomeLabel::UnknownPath,
            Outcome::WrongMethod => OutcomeLabel::WrongMethod,
            Outcome::Refused { .. } => OutcomeLabel::Refused,
            Outcome::Unreadable { .. } => OutcomeLabel::Unreadable,
            Outcome::TooLarge { .. } => OutcomeLabel::TooLarge,
            Outcome::Encoded => OutcomeLabel::Encoded,
            Outcome::Incomplete => OutcomeLabel::Incomplete,
            Outcome::TooMany { .. } => OutcomeLabel::TooMany,
            Outcome::Unavailable { .. } => OutcomeLabel::Unavailable,
        }
    }

    /// The objects that are requested.
    pub fn targets(&self) -> &[Target] {
        match self {
            Outcome::Accepted { targets, .. } => targets,
            _ => &[],
        }
    }

    /// The outcome of a delivery whose first part ended like this and whose next part like `later`: what
    /// has to be sent again wins, then what is requested.
    pub fn with(self, later: Outcome) -> Outcome {
        match (self, later) {
            (_, later @ (Outcome::Unavailable { .. } | Outcome::TooMany { .. })) => later,
            (
                Outcome::Accepted { event, mut targets, mut skipped, dry_run, is_published },
                Outcome::Accepted { targets: more, skipped: more_skipped, is_published: later_is, .. },
            ) => {
                targets.extend(more);
                targets.sort_unstable();
                targets.dedup();
                skipped.extend(more_skipped);
                skipped.dedup();
                let is_published = is_published || later_is;
                Outcome::Accepted { event, targets, skipped, dry_run, is_published }
            }
            (first @ Outcome::Queued { .. }, _) | (_, first @ Outcome::Queued { .. }) => first,
            (first @ Outcome::Accepted { .. }, _) | (_, first @ Outcome::Accepted { .. }) => first,
            (first @ Outcome::Unmatched { .. }, _) | (_, first @ Outcome::Unmatched { .. }) => first,
            (first, _) => first,
        }
    }

    /// Replaces the events that the outcome names.
    pub fn about(mut self, events: String) -> Outcome {
        match &mut self {
            Outcome::Accepted { event, .. }
            | Outcome::Queued { event }
            | Outcome::Forwarded { event }
            | Outcome::Unmatched { event, .. } => *event = events.into(),
            _ => {}
        }
        self
    }

    /// The objects that matched and were left alone.
    pub fn skipped(&self) -> &[SkippedTarget] {
        match self {
            Outcome::Accepted { skipped, .. } | Outcome::Unmatched { skipped, .. } => skipped,
            _ => &[],
        }
    }

    /// Bytes of the texts in it.
    pub fn text_bytes(&self) -> usize {
        match self {
            Outcome::Accepted { event, .. } | Outcome::Queued { event } | Outcome::Forwarded { event } => {
                event.len()
            }
            Outcome::Unmatched { event, reason, .. } => event.len() + reason.len(),
            Outcome::Ignored { reason } => reason.len(),
            Outcome::Refused { why } | Outcome::Unreadable { why } | Outcome::Unavailable { why, .. } => {
                why.len()
            }
            Outcome::Handshake { origin } => origin.len(),
            _ => 0,
        }
    }

    /// Keeps no more objects than these.
    pub fn shorten(&mut self, most: usize) {
        match self {
            Outcome::Accepted { targets, skipped, .. } => {
                targets.truncate(most);
                targets.shrink_to_fit();
                skipped.truncate(most);
                skipped.shrink_to_fit();
            }
            Outcome::Unmatched { skipped, .. } => {
                skipped.truncate(most);
                skipped.shrink_to_fit();
            }
            _ => {}
        }
    }

    /// Returns the answer as JSON; none where the delivery is not verified.
    pub fn answer(&self) -> Option<String> {
        let bare = Answer { outcome: self.label().as_str(), ..Answer::default() };
        let answer = match self {
            Outcome::Accepted { event, targets, skipped, dry_run, is_published } => Answer {
                dry_run: *dry_run,
                published: *is_published,
                event: Some(event),
                skipped: Some(named(skipped)),
                more_skipped: left_out(skipped),
                targets: Some(targets),
                ..bare
            },
            Outcome::Queued { event } | Outcome::Forwarded { event } => Answer { event: Some(event), ..bare },
            Outcome::Ignored { reason } => Answer { reason: Some(reason), ..bare },
            Outcome::Unmatched { event, reason, skipped } => Answer {
                event: Some(event),
                reason: Some(reason),
                skipped: Some(named(skipped)),
                more_skipped: left_out(skipped),
                ..bare
            },
            Outcome::Unreadable { why } => Answer { reason: Some(why), ..bare },
            Outcome::TooLarge { limit } => Answer { limit: Some(*limit), ..bare },
            Outcome::Unavailable { why, is_verified, .. } => {
                Answer { reason: Some(if *is_verified { why } else { "cannot be checked now" }), ..bare }
            }
            Outcome::Pong | Outcome::Confirmed | Outcome::Encoded | Outcome::TooMany { .. } => bare,
            Outcome::UnknownPath
            | Outcome::Handshake { .. }
            | Outcome::WrongMethod
            | Outcome::Refused { .. }
            | Outcome::Incomplete => {
                return None;
            }
        };
        serde_json::to_string(&answer).ok()
    }

    /// Returns the message of the log line, one of a closed set.
    pub fn message(&self) -> &'static str {
        match self {
            Outcome::Accepted { dry_run: false, .. } => "delivery accepted",
            Outcome::Accepted { dry_run: true, .. } => "delivery accepted (dry run)",
            Outcome::Queued { .. } => "delivery queued",
            Outcome::Forwarded { .. } => "delivery forwarded to Flux v1",
            Outcome::Pong => "connection test answered",
            Outcome::Confirmed => "subscription confirmed",
            Outcome::Handshake { .. } => "CloudEvents validation request answered",
            Outcome::Ignored { .. } => "delivery ignored",
            Outcome::Unmatched { .. } => "delivery matches no object",
            Outcome::UnknownPath => "unknown path",
            Outcome::WrongMethod => "method is not allowed",
            Outcome::Refused { .. } => "delivery refused",
            Outcome::Unreadable { .. } => "payload cannot be read",
            Outcome::TooLarge { .. } => "body is too large",
            Outcome::Encoded => "body is encoded",
            Outcome::Incomplete => "body did not arrive in time",
            Outcome::TooMany { .. } => "rate limit of the endpoint exceeded",
            Outcome::Unavailable { .. } => "delivery cannot be taken now",
        }
    }

    /// Returns what the log line adds to its message.
    pub fn detail(&self) -> String {
        match self {
            Outcome::Accepted { event, targets, skipped, is_published, .. } => {
                let published = match (is_published, targets.is_empty()) {
                    (false, _) => "",
                    (true, true) => "published",
                    (true, false) => "; published",
                };
                let targets = shortened(targets, Target::to_string);
                format!("{event}: {targets}{published}{}", skipped_detail(skipped))
            }
            Outcome::Queued { event } | Outcome::Forwarded { event } => event.to_string(),
            Outcome::Ignored { reason } => reason.to_string(),
            Outcome::Unmatched { event, reason, skipped } => {
                format!("{event}: {reason}{}", skipped_detail(skipped))
            }
            Outcome::Refused { why } | Outcome::Unreadable { why } | Outcome::Unavailable { why, .. } => {
                why.to_string()
            }
            Outcome::TooLarge { limit } => format!("the limit is {limit} bytes"),
            Outcome::TooMany { retry_after } => format!("retry after {} s", retry_after.as_secs()),
            Outcome::Handshake { origin } => origin.to_string(),
            Outcome::Encoded => "turn compression off at the provider".to_owned(),
            Outcome::Incomplete
            | Outcome::Pong
            | Outcome::Confirmed
            | Outcome::UnknownPath
            | Outcome::WrongMethod => String::new(),
        }
    }

    /// Whether someone should look at this delivery.
    pub fn wants_attention(&self) -> bool {
        match self {
            Outcome::Refused { .. }
            | Outcome::Unreadable { .. }
            | Outcome::TooLarge { .. }
            | Outcome::Encoded
            | Outcome::Incomplete
            | Outcome::TooMany { .. }
            | Outcome::Unavailable { .. }
            | Outcome::Unmatched { .. } => true,
            Outcome::Accepted { .. }
            | Outcome::Queued { .. }
            | Outcome::Forwarded { .. }
            | Outcome::Pong
            | Outcome::Confirmed
            | Outcome::Handshake { .. }
            | Outcome::Ignored { .. }
            | Outcome::UnknownPath
            | Outcome::WrongMethod => false,
        }
    }
}

impl Outcome {
    /// Whether a stranger can cause this one: what strangers cause is logged now and then.
    pub fn strangers_cause_it(&self) -> bool {
        match self {
            Outcome::Refused { .. }
            | Outcome::Handshake { .. }
            | Outcome::WrongMethod
            | Outcome::TooLarge { .. }
            | Outcome::Encoded
            | Outcome::Incomplete => true,
            Outcome::Unavailable { is_verified, .. } => !is_verified,
            _ => false,
        }
    }
}

/// Objects that an answer or a log line names; names of objects have up to 316 characters.
const MAX_NAMED_OBJECTS: usize = 10;

fn named<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(MAX_NAMED_OBJECTS)]
}

fn left_out<T>(all: &[T]) -> usize {
    all.len() - named(all).len()
}

/// The first few in a line, and how many more there are.
fn shortened<T>(all: &[T], name: impl Fn(&T) -> String) -> String {
    let list = named(all).iter().map(name).collect::<Vec<_>>().join(", ");
    match left_out(all) {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}

/// The fields of an answer.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'o> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'o str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
    #[serde(skip_serializing_if = "is_zero")]
    more_skipped: usize,
    outcome: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    published: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'o str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<&'o [SkippedTarget]>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_names")]
    targets: Option<&'o [Target]>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

fn as_names<S: Serializer>(targets: &Option<&[Target]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(targets.iter().copied().flatten().map(ToString::to_string))
}

impl Serialize for SkippedTarget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut skipped = serializer.serialize_struct("Skipped", 2)?;
        skipped.serialize_field("reason", self.reason)?;
        skipped.serialize_field("target", &self.target.to_string())?;
        skipped.end()
    }
}

fn skipped_detail(skipped: &[SkippedTarget]) -> String {
    if skipped.is_empty() {
        return String::new();
    }
    let list = shortened(skipped, |skipped| format!("{} ({})", skipped.target, skipped.reason));
    format!("; left alone: {list}")
}
