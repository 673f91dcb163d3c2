//! Frames of the latest entries, signed once for all subscribers.

use std::collections::VecDeque;

use actix_web::web::Bytes;

use crate::fleet::cursor::Cursor;
use crate::fleet::frame::{self, FrameType};
use crate::fleet::signature::SigningKey;
use crate::journal::event_log::LogEntry;

/// Signed frames by their sequence.
#[derive(Default)]
pub(super) struct FrameCache {
    frames: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// The last heartbeat; it is the same for all who have come as far.
    heartbeat: Option<(u64, Bytes)>,
}

/// Bytes of all frames in the cache.
const MAX_CACHED_BYTES: usize = 1 << 20;

impl FrameCache {
    pub(super) fn clear(&mut self) {
        *self = FrameCache::default();
    }

    /// Returns the frame of an entry.
    pub(super) fn event(&mut self, key: &SigningKey, epoch: u64, entry: &LogEntry) -> Bytes {
        let at = self.frames.binary_search_by_key(&entry.sequence, |(sequence, _)| *sequence);
        let at = match at {
            Ok(at) => return self.frames[at].1.clone(),
            Err(at) => at,
        };
        let cursor = Cursor { epoch, sequence: entry.sequence };
        let frame = Bytes::from(frame::write(key, FrameType::Event, cursor, &entry.content.json));
        // An older one is of a subscriber that is behind; others need it hardly ever.
        if at == self.frames.len() {
            self.bytes += frame.len();
            self.frames.push_back((entry.sequence, frame.clone()));
            while self.bytes > MAX_CACHED_BYTES {
                let Some((_, oldest)) = self.frames.pop_front() else { break };
                self.bytes -= oldest.len();
            }
        }
        frame
    }

    /// Returns the heartbeat that moves a cursor here.
    pub(super) fn heartbeat(&mut self, key: &SigningKey, cursor: Cursor) -> Bytes {
        if let Some((sequence, frame)) = &self.heartbeat
            && *sequence == cursor.sequence
        {
            return frame.clone();
        }
        let frame = Bytes::from(frame::write(key, FrameType::Heartbeat, cursor, "{}"));
        self.heartbeat = Some((cursor.sequence, frame.clone()));
        frame
    }
}
