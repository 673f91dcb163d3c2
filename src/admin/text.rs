//! Times and lengths of time as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// How long ago it was: `3 min ago`.
pub(super) fn ago(at: Timestamp) -> String {
    match Timestamp::now().duration_since(at).as_secs() {
        ..1 => "just now".to_owned(),
        seconds => format!("{} ago", length(Duration::from_secs(seconds.unsigned_abs()))),
    }
}

/// A length of time in its largest unit: `26 h`.
pub(super) fn length(length: Duration) -> String {
    match length.as_secs() {
        0 => format!("{} ms", length.as_millis()),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_their_largest_unit() {
        for (seconds, text) in
            [(0, "0 ms"), (59, "59 s"), (120, "2 min"), (7200, "2 h"), (93_600, "26 h"), (259_200, "3 d")]
        {
            assert_eq!(length(Duration::from_secs(seconds)), text);
        }
    }
}
