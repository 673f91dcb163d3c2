//! What became of a delivery.
//!
//! Answer, status, log line and (later) metrics are all made from this one value.

use std::time::Duration;

use serde_json::{Value, json};

use crate::flux::Target;

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// These objects will be asked to reconcile.
    Accepted {
        /// What happened, in a line.
        event: String,
        /// The objects.
        targets: Vec<Target>,
        /// Objects that would have matched but are left alone.
        skipped: Vec<Skipped>,
        /// Whether there is no cluster behind this: nothing is written anywhere.
        dry_run: bool,
    },
    /// Kept until the objects of the cluster are known.
    Queued {
        /// What happened, in a line.
        event: String,
    },
    /// Handed to Flux v1.
    Forwarded {
        /// What happened, in a line.
        event: String,
    },
    /// The sender only wanted to know whether someone is here.
    Pong,
    /// Authentic, and nothing to do.
    Ignored {
        /// Why.
        reason: String,
    },
    /// Authentic and interesting, but no object follows it.
    Unmatched {
        /// What happened, in a line.
        event: String,
        /// What was looked at.
        reason: String,
        /// Objects that would have matched but are left alone.
        skipped: Vec<Skipped>,
    },
    /// No such path.
    UnknownPath,
    /// Not a POST.
    WrongMethod,
    /// The delivery did not prove itself.
    Refused {
        /// For the log only: the sender is told nothing.
        why: String,
    },
    /// Authentic, but its payload cannot be read.
    Unreadable {
        /// What could not be read.
        why: String,
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
    /// Not now; nothing was kept.
    Unavailable {
        /// Why; a sender that has not proved itself is not told.
        why: String,
        /// When it makes sense to send again.
        retry_after: Duration,
        /// Whether the delivery had proved itself.
        proved: bool,
    },
}

/// An object that matched and was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The object.
    pub target: Target,
    /// Why it was left alone.
    pub reason: &'static str,
}

/// The names of all outcomes of a delivery to an endpoint.
pub const LABELS: [&str; 14] = [
    "accepted",
    "queued",
    "forwarded",
    "pong",
    "ignored",
    "unmatched",
    "wrong_method",
    "refused",
    "unreadable",
    "too_large",
    "encoded",
    "incomplete",
    "too_many",
    "unavailable",
];

impl Outcome {
    /// The outcome's name, one of a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Accepted { .. } => "accepted",
            Outcome::Queued { .. } => "queued",
            Outcome::Forwarded { .. } => "forwarded",
            Outcome::Pong => "pong",
            Outcome::Ignored { .. } => "ignored",
            Outcome::Unmatched { .. } => "unmatched",
            Outcome::UnknownPath => "unknown_path",
            Outcome::WrongMethod => "wrong_method",
            Outcome::Refused { .. } => "refused",
            Outcome::Unreadable { .. } => "unreadable",
            Outcome::TooLarge { .. } => "too_large",
            Outcome::Encoded => "encoded",
            Outcome::Incomplete => "incomplete",
            Outcome::TooMany { .. } => "too_many",
            Outcome::Unavailable { .. } => "unavailable",
        }
    }

    /// The objects that are asked.
    pub fn targets(&self) -> &[Target] {
        match self {
            Outcome::Accepted { targets, .. } => targets,
            _ => &[],
        }
    }

    /// Keeps no more objects than these.
    pub fn shorten(&mut self, most: usize) {
        match self {
            Outcome::Accepted { targets, skipped, .. } => {
                targets.truncate(most);
                skipped.truncate(most);
            }
            Outcome::Unmatched { skipped, .. } => skipped.truncate(most),
            _ => {}
        }
    }

    /// What the sender is told; nothing where it has not proved itself.
    pub fn answer(&self) -> Option<Value> {
        let label = self.label();
        Some(match self {
            Outcome::Accepted { event, targets, skipped, dry_run } => {
                let mut answer = json!({
                    "outcome": label,
                    "event": event,
                    "targets": names(targets),
                    "skipped": skipped_answer(skipped),
                });
                if *dry_run {
                    answer["dryRun"] = Value::Bool(true);
                }
                answer
            }
            Outcome::Queued { event } | Outcome::Forwarded { event } => {
                json!({"outcome": label, "event": event})
            }
            Outcome::Ignored { reason } => json!({"outcome": label, "reason": reason}),
            Outcome::Unmatched { event, reason, skipped } => json!({
                "outcome": label,
                "event": event,
                "reason": reason,
                "skipped": skipped_answer(skipped),
            }),
            Outcome::Unreadable { why } => json!({"outcome": label, "reason": why}),
            Outcome::TooLarge { limit } => json!({"outcome": label, "limit": limit}),
            Outcome::Unavailable { why, proved, .. } => {
                let reason = if *proved { why } else { "cannot be checked now" };
                json!({"outcome": label, "reason": reason})
            }
            Outcome::Pong | Outcome::Encoded | Outcome::TooMany { .. } => json!({"outcome": label}),
            Outcome::UnknownPath | Outcome::WrongMethod | Outcome::Refused { .. } | Outcome::Incomplete => {
                return None;
            }
        })
    }

    /// What the operator is told beside the label, for the log.
    pub fn detail(&self) -> String {
        match self {
            Outcome::Accepted { event, targets, skipped, dry_run } => {
                let verb = if *dry_run { "would ask" } else { "asking" };
                format!("{event}: {verb} {}{}", names(targets).join(", "), skipped_detail(skipped))
            }
            Outcome::Queued { event } => format!("{event}: waits until the objects of the cluster are known"),
            Outcome::Forwarded { event } => format!("{event}: handed to Flux v1"),
            Outcome::Ignored { reason } => reason.clone(),
            Outcome::Unmatched { event, reason, skipped } => {
                format!("{event}: {reason}{}", skipped_detail(skipped))
            }
            Outcome::Refused { why } | Outcome::Unreadable { why } | Outcome::Unavailable { why, .. } => {
                why.clone()
            }
            Outcome::TooLarge { limit } => format!("the body is longer than {limit} bytes"),
            Outcome::TooMany { .. } => "more deliveries than the endpoint's limit".to_owned(),
            Outcome::Encoded => "the body is encoded; turn compression off at the sender".to_owned(),
            Outcome::Incomplete => "the body did not arrive whole in time".to_owned(),
            Outcome::Pong => "the sender tests the connection".to_owned(),
            Outcome::UnknownPath | Outcome::WrongMethod => String::new(),
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
            | Outcome::WrongMethod
            | Outcome::TooLarge { .. }
            | Outcome::Encoded
            | Outcome::Incomplete => true,
            Outcome::Unavailable { proved, .. } => !proved,
            _ => false,
        }
    }
}

fn names(targets: &[Target]) -> Vec<String> {
    targets.iter().map(ToString::to_string).collect()
}

fn skipped_answer(skipped: &[Skipped]) -> Vec<Value> {
    skipped
        .iter()
        .map(|skipped| json!({"target": skipped.target.to_string(), "reason": skipped.reason}))
        .collect()
}

fn skipped_detail(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        return String::new();
    }
    let list: Vec<String> =
        skipped.iter().map(|skipped| format!("{} ({})", skipped.target, skipped.reason)).collect();
    format!("; left alone: {}", list.join(", "))
}
