//! One stream, from its `hello` to its end.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::connection::{Connected, FrameStream, READ_TIMEOUT, SubscribeError, connect};
use super::{Subscription, offer};
use crate::fleet::frame::{Frame, FrameError, FrameType};
use crate::fleet::hello::{Hello, Reset};
use crate::fleet::wire::{Entry, PublishedEvent};
use crate::receive::SubscribedEvent;

/// Frames that are taken together: their cursor is one commit.
const MAX_BATCH_FRAMES: usize = 256;

impl Subscription {
    /// Follows the publisher until the stream ends; says why it did.
    pub(super) async fn session(&self) -> SubscribeError {
        let resumes_at = self.record.lock().cursor;
        match connect(&self.options, resumes_at).await {
            Ok(connected) => self.follow_stream(connected).await,
            Err(failure) => failure,
        }
    }

    async fn follow_stream(&self, connected: Connected) -> SubscribeError {
        let Connected { hello, cursor, mut frames } = connected;
        if let Err(failure) = offer::check(&self.options, &hello) {
            return failure;
        }
        let sources = hello.endpoints.iter().map(|(name, offered)| (name.clone(), offered.source.clone()));
        *self.sources.lock() = sources.collect();
        *self.stagger.lock() = stagger(&hello);
        let name = &self.options.name;
        {
            let mut status = self.status.lock();
            status.connected = Some(Timestamp::now());
            status.failure = None;
        }
        self.service.metrics.subscription_connected(name, true);
        log::info!(publisher:% = name, version = &*hello.flux_recv, cursor:%; "connected to the publisher");
        let mut stream = EventStream { subscription: self, hello, epoch: cursor.epoch, has_begun: false };
        loop {
            let batch = match next_batch(&mut frames).await {
                Ok(batch) => batch,
                Err(failure) => return failure,
            };
            if let Err(failure) = stream.take(batch).await {
                return failure;
            }
        }
    }
}

/// Waits for a frame; returns it with those that have arrived behind it.
async fn next_batch(frames: &mut FrameStream) -> Result<Vec<Frame>, SubscribeError> {
    let first =
        tokio::time::timeout(READ_TIMEOUT, frames.next()).await.map_err(|_| SubscribeError::Silent)??;
    let mut batch = vec![first];
    while batch.len() < MAX_BATCH_FRAMES
        && let Some(frame) = frames.arrived()?
    {
        batch.push(frame);
    }
    Ok(batch)
}

struct EventStream<'s> {
    subscription: &'s Subscription,
    hello: Hello,
    /// The epoch of the log; an entry of another one is a replay.
    epoch: u64,
    /// Whether a frame has followed the `hello`.
    has_begun: bool,
}

impl EventStream<'_> {
    /// Takes frames in their order. The cursor moves once what they cause is durable.
    async fn take(&mut self, batch: Vec<Frame>) -> Result<(), SubscribeError> {
        let subscription = self.subscription;
        let mut at = subscription.record.lock().cursor.filter(|cursor| cursor.epoch == self.epoch);
        let (mut events, mut must_catch_up) = (Vec::new(), false);
        for frame in batch {
            let json = frame.verified(&subscription.options.public_keys)?;
            let is_next =
                at.is_some_and(|at| frame.cursor.epoch == self.epoch && frame.cursor.sequence > at.sequence);
            let is_first = !std::mem::replace(&mut self.has_begun, true);
            match frame.frame_type {
                FrameType::Reset if !is_first => return Err(SubscribeError::Replayed),
                FrameType::Hello => return Err(FrameError::Format.into()),
                FrameType::Reset => {
                    let reset: Reset = serde_json::from_str(json).map_err(|_| FrameError::Format)?;
                    if reset.nonce != self.hello.nonce {
                        return Err(SubscribeError::Replayed);
                    }
                    log::warn!(publisher:% = subscription.options.name, reason:% = reset.reason; "the event log cannot be continued; catching up");
                    subscription.service.metrics.subscription_reset(&subscription.options.name);
                    at = Some(frame.cursor);
                    must_catch_up = true;
                }
                FrameType::Heartbeat if is_next => at = Some(frame.cursor),
                FrameType::Event if is_next => {
                    at = Some(frame.cursor);
                    match Entry::from_json(json) {
                        Ok(Entry::CatchUp) => {
                            log::warn!(publisher:% = subscription.options.name; "the publisher was away; catching up");
                            must_catch_up = true;
                        }
                        Ok(Entry::Event(published)) => events.extend(self.taken(*published)),
                        Err(why) => {
                            log::warn!(publisher:% = subscription.options.name, why:%; "an entry cannot be read; catching up");
                            must_catch_up = true;
                        }
                    }
                }
                // An older entry or heartbeat: somebody sends it again.
                FrameType::Heartbeat | FrameType::Event => {}
            }
        }
        must_catch_up |= self.take_events(events).await?;
        let commit = subscription.advance(at, must_catch_up);
        match commit.filter(|_| must_catch_up) {
            Some(commit) => commit.wait_until_durable().await.map_err(|_| SubscribeError::NotDurable),
            None => Ok(()),
        }
    }

    /// Returns the event for each entry of the config that takes it.
    fn taken(&self, published: PublishedEvent) -> Option<SubscribedEvent> {
        let endpoints = &self.subscription.options.endpoints;
        let endpoint = endpoints.iter().find(|endpoint| *endpoint.endpoint == *published.endpoint)?;
        Some(SubscribedEvent { endpoint: Arc::clone(endpoint), published })
    }

    /// Returns whether an event could not be decided on.
    async fn take_events(&self, events: Vec<SubscribedEvent>) -> Result<bool, SubscribeError> {
        let subscription = self.subscription;
        if events.is_empty() {
            return Ok(false);
        }
        subscription.service.metrics.subscription_events(&subscription.options.name, events.len() as u64);
        subscription.status.lock().last_event = Some(Timestamp::now());
        let not_before = *subscription.stagger.lock();
        let taken = subscription.service.handler.take_events(events, not_before).await;
        taken.map_err(|_| SubscribeError::NotDurable)
    }
}

/// The part of the fleet's stagger that this subscriber waits: another one for each, and always the same.
fn stagger(hello: &Hello) -> Duration {
    let digest: [u8; 32] = Sha256::digest(&hello.subscriber).into();
    let part = f64::from(u16::from_le_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
    Duration::from_millis(hello.stagger_millis).min(MAX_STAGGER).mul_f64(part)
}

/// What a publisher may require, at most.
const MAX_STAGGER: Duration = Duration::from_secs(60 * 60);
