//! The values of labels, as enums: a metric has no others.

use std::fmt::{Display, Error, Formatter, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use crate::flux::Kind;

macro_rules! label_values {
    ($(#[$docs:meta])* $name:ident { $($(#[$doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$docs])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $value,)+
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$value),+];

            /// Returns the value as metrics, logs and answers write it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$value => $text,)+
                }
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
                encoder.write_str(self.as_str())
            }
        }
    };
}

label_values! {
    /// What became of a Kubernetes Event.
    EventResultLabel {
        Success = "success",
        Forbidden = "forbidden",
        Failure = "failure",
        Dropped = "dropped",
    }
}

label_values! {
    /// The outcome of a delivery.
    OutcomeLabel {
        Accepted = "accepted",
        Queued = "queued",
        Forwarded = "forwarded",
        Pong = "pong",
        Confirmed = "confirmed",
        Handshake = "handshake",
        Ignored = "ignored",
        Unmatched = "unmatched",
        WrongMethod = "wrong_method",
        Refused = "refused",
        Unreadable = "unreadable",
        TooLarge = "too_large",
        Encoded = "encoded",
        Incomplete = "incomplete",
        TooMany = "too_many",
        Unavailable = "unavailable",
        /// Of a request to no endpoint.
        UnknownPath = "unknown_path",
    }
}

label_values! {
    /// The result of a patch.
    PatchResultLabel {
        Success = "success",
        Failure = "failure",
        Forbidden = "forbidden",
        NotFound = "not_found",
        Rejected = "rejected",
        /// The API server no longer has the object.
        Gone = "gone",
    }
}

label_values! {
    /// The result of a revision check.
    RevisionCheckLabel {
        Seen = "seen",
        MovedOn = "moved_on",
        GivenUp = "given_up",
        Dropped = "dropped",
        Superseded = "superseded",
        /// Flux was requested to reconcile once more; the check goes on.
        RequestedAgain = "asked_again",
    }
}

label_values! {
    /// Why a connection was ended or refused.
    EndedConnectionLabel {
        Late = "late",
        Displaced = "displaced",
        Refused = "refused",
        HeadTooLong = "head_too_long",
    }
}

label_values! {
    /// Whether something went well.
    ResultLabel {
        Success = "success",
        Failure = "failure",
    }
}

impl ResultLabel {
    pub(super) fn new(success: bool) -> ResultLabel {
        if success { ResultLabel::Success } else { ResultLabel::Failure }
    }
}

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), Error> {
        encoder.write_str(self.info().name)
    }
}
