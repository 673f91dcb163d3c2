//! Frames of the latest entries, signed once for all subscribers.

use std::collections::VecDeque;

use actix_web::web::Bytes;

/// Signed frames by their sequence.
#[derive(Default)]
pub(super) struct FrameCache {
    scope: FrameScope,
    frames: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// The last heartbeat; it is the same for all who have come as far.
    heartbeat: Option<(u64, Bytes)>,
}

/// What frames depend on beside their sequence: another log has other entries, another table another key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FrameScope {
    pub(super) epoch: u64,
    /// The breaks of the log: behind each there may be other entries.
    pub(super) breaks: u64,
    /// The generation of the table whose key signs.
    pub(super) generation: u64,
}

/// Bytes of all frames in the cache.
const MAX_CACHED_BYTES: usize = 1 << 20;

impl FrameCache {
    /// Returns the frame of an entry, if it was signed before.
    pub(super) fn event(&mut self, scope: FrameScope, sequence: u64) -> Option<Bytes> {
        self.enter(scope).then_some(())?;
        let at = self.frames.binary_search_by_key(&sequence, |(sequence, _)| *sequence).ok()?;
        Some(self.frames[at].1.clone())
    }

    /// Remembers a frame for other subscribers. One that is older than the last is of a subscriber that is
    /// behind; others need it hardly ever.
    pub(super) fn remember(&mut self, scope: FrameScope, sequence: u64, frame: &Bytes) {
        let is_last = self.frames.back().is_none_or(|(last, _)| *last < sequence);
        if !self.enter(scope) || !is_last {
            return;
        }
        self.bytes += frame.len();
        self.frames.push_back((sequence, frame.clone()));
        while self.bytes > MAX_CACHED_BYTES {
            let Some((_, oldest)) = self.frames.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }

    /// Returns the heartbeat that moves a cursor here, which `sign` makes where it is another one.
    pub(super) fn heartbeat(
        &mut self,
        scope: FrameScope,
        sequence: u64,
        sign: impl FnOnce() -> Bytes,
    ) -> Bytes {
        if !self.enter(scope) {
            return sign();
        }
        if let Some((_, frame)) = self.heartbeat.as_ref().filter(|(at, _)| *at == sequence) {
            return frame.clone();
        }
        let frame = sign();
        self.heartbeat = Some((sequence, frame.clone()));
        frame
    }

    /// Goes over to a scope. A stream that still has an older table has nothing to do with the cache.
    fn enter(&mut self, scope: FrameScope) -> bool {
        if scope.generation < self.scope.generation {
            return false;
        }
        if scope != self.scope {
            *self = FrameCache { scope, ..FrameCache::default() };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_another_log_or_key_are_not_sent() {
        let mut cache = FrameCache::default();
        let scope = |epoch, generation| FrameScope { epoch, breaks: 0, generation };
        let frame = Bytes::from_static(b"frame");
        cache.remember(scope(1, 0), 7, &frame);
        assert_eq!(cache.event(scope(1, 0), 7), Some(frame.clone()));
        assert_eq!(cache.event(scope(2, 0), 7), None, "the log is another one");
        cache.remember(scope(2, 0), 7, &frame);
        assert_eq!(cache.event(scope(2, 1), 7), None, "the key is another one");
        cache.remember(scope(2, 0), 8, &frame);
        assert_eq!(cache.event(scope(2, 1), 8), None, "signed by the key before");
        assert_eq!(cache.heartbeat(scope(2, 1), 8, || frame.clone()), frame);
        assert_eq!(cache.heartbeat(scope(2, 1), 8, Bytes::new), frame);
        assert_eq!(cache.heartbeat(scope(3, 1), 8, Bytes::new), Bytes::new());
    }
}
