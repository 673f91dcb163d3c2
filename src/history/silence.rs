//! Endpoints that have been silent for much longer than usual.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{DeliveryRecord, History};
use crate::flux::Target;

/// An endpoint that is silent.
#[derive(Debug, PartialEq, Eq)]
pub struct Silence {
    pub endpoint: Arc<str>,
    /// When its last delivery came.
    pub last: Timestamp,
    since: Duration,
    usual: Duration,
    /// The objects that it has reached last.
    pub targets: Vec<Target>,
}

/// Deliveries that it takes to know what is usual.
const MIN_DELIVERIES: usize = 5;

/// What is shorter is no silence.
const MIN_SILENCE: Duration = Duration::from_secs(60 * 60);

/// How many usual pauses make a silence.
const SILENT_PAUSES: u32 = 10;

/// `nothing for 26 h, usually every 40 min`.
impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing for {}, usually every {}", length(self.since), length(self.usual))
    }
}

impl History {
    /// The endpoints that are silent now.
    pub fn silent_endpoints(&self, now: Timestamp) -> Vec<Silence> {
        let store = self.store.lock();
        let silences = store.by_endpoint.values().filter_map(|endpoint| {
            let records: Vec<&DeliveryRecord> = endpoint.records.iter().rev().collect();
            let (latest, usual) = (records.first()?, usual_pause(&records)?);
            let since = now.duration_since(latest.received).unsigned_abs();
            if since <= MIN_SILENCE.max(usual.saturating_mul(SILENT_PAUSES)) {
                return None;
            }
            let mut targets: Vec<Target> = Vec::new();
            for target in records.iter().flat_map(|record| &record.targets) {
                if !targets.contains(&target.target) {
                    targets.push(target.target.clone());
                }
            }
            Some(Silence {
                endpoint: Arc::clone(&latest.id.endpoint),
                last: latest.received,
                since,
                usual,
                targets,
            })
        });
        silences.collect()
    }
}

/// The median pause between two deliveries of an endpoint, the latest first; none if there are too few to tell.
pub fn usual_pause(records: &[&DeliveryRecord]) -> Option<Duration> {
    if records.len() < MIN_DELIVERIES {
        return None;
    }
    let pause = |pair: &[&DeliveryRecord]| pair[0].received.duration_since(pair[1].received).unsigned_abs();
    let mut pauses: Vec<Duration> = records.windows(2).map(pause).collect();
    pauses.sort_unstable();
    pauses.get(pauses.len() / 2).copied()
}

/// A length of time in its largest unit: `26 h`.
pub fn length(length: Duration) -> String {
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
    use jiff::SignedDuration;

    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn lengths_are_in_their_largest_unit() {
        for (seconds, text) in
            [(0, "0 ms"), (59, "59 s"), (120, "2 min"), (7200, "2 h"), (93_600, "26 h"), (259_200, "3 d")]
        {
            assert_eq!(length(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn an_endpoint_is_silent_after_ten_usual_pauses_and_an_hour() {
        let history = History::default();
        let now = Timestamp::now();
        let minutes_ago = |minutes: i64| now - SignedDuration::from_mins(minutes);
        for at in [400, 360, 320, 280, 240] {
            let id = history.new_delivery(&Arc::from("github"));
            let mut record = DeliveryRecord::from_publisher(id, Vec::new(), None, Outcome::Pong);
            record.received = minutes_ago(at);
            history.remember(record);
        }
        assert_eq!(history.silent_endpoints(minutes_ago(-100)), Vec::new());
        let silent = history.silent_endpoints(minutes_ago(-1320));
        assert_eq!(silent.len(), 1);
        assert_eq!(silent[0].to_string(), "nothing for 26 h, usually every 40 min");
    }
}
