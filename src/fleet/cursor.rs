//! How far a subscriber has come in the event log of its publisher.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in an event log, written `EPOCH.SEQUENCE`: the `id` of a frame and of `Last-Event-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Tells the log from the one that was there before a volume was lost.
    pub epoch: u64,
    /// The sequence of the last entry that was taken. The first entry of a log has 1.
    pub sequence: u64,
}

/// A text is not a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor")]
pub struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.epoch, self.sequence)
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Cursor, NotACursor> {
        let (epoch, sequence) = text.split_once('.').ok_or(NotACursor)?;
        let is_canonical = epoch.len() == 16 && sequence.bytes().all(|byte| byte.is_ascii_digit());
        let cursor = is_canonical.then(|| Cursor {
            epoch: u64::from_str_radix(epoch, 16).unwrap_or_default(),
            sequence: sequence.parse().unwrap_or(u64::MAX),
        });
        cursor.filter(|cursor| cursor.to_string() == text).ok_or(NotACursor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(epoch: u64, sequence: u64) {
            let cursor = Cursor { epoch, sequence };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn nothing_else_is_read(text in "\\PC*") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
