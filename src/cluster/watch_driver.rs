//! Follows one watch through failures.
//!
//! The one place that decides how long to wait, what to read again, and when a failure is more than a
//! transient refusal: for kinds, Receivers and Secrets alike.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;
use kube::core::ApiResource;
use tokio::task::AbortHandle;

use super::connection::ApiConnection;
use super::resources::Resources;
use super::watch::{Scope, Watch, WatchEvent, WatchFailure, Watchable};
use crate::backoff::growing_pause;
use crate::flux::Kind;

/// A list may be silent for so long, and so may an answer about what is served.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Pauses after failures; varied so that replicas spread.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// "Forbidden" and "no such kind" may be transient answers of an API server that has just started and knows no roles
/// yet, so often; the pauses after them double.
const MAX_TRANSIENT_REFUSALS: u32 = 3;
const FIRST_REFUSAL_DELAY: Duration = Duration::from_secs(2);

/// The pause after a refusal that was confirmed.
pub(super) const REFUSED_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// After so many failures of an API server that does answer, others do not wait any longer.
const MAX_ANSWERED_FAILURES: u32 = 5;

/// After so many requests without an answer, the address and CA of the API server are read again.
const UNANSWERED_BEFORE_RELOAD: u32 = 3;

/// A watch that is opened again after whatever ends it.
pub(super) struct WatchDriver<T> {
    connection: ApiConnection,
    source: WatchSource,
    watch: Option<Watch<T>>,
    retry: RetryState,
    pause: Duration,
    was_listed: bool,
}

/// The resource of a watch, and its scope.
#[derive(Clone)]
pub(super) struct WatchSource {
    /// The name of it in the log.
    pub(super) kind: String,
    pub(super) resource: WatchedResource,
    pub(super) scope: Scope,
    /// Only the object of this name.
    pub(super) name: Option<String>,
}

/// The way to find the version of the resource.
#[derive(Clone)]
pub(super) enum WatchedResource {
    Fixed(ApiResource),
    /// By discovery, before each watch.
    Discovered(Kind, Arc<Resources>),
}

/// A failure, and what it means.
pub(super) struct Interruption {
    pub(super) verdict: WatchVerdict,
    pub(super) failure: WatchFailure,
}

/// The meaning of a failure for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchVerdict {
    /// It is tried again soon.
    Transient,
    /// It has failed for so long that others should not wait.
    Broken,
    /// The right is missing.
    Forbidden,
    /// The API server does not serve the kind; `is_confirmed` when a later request said the same.
    Absent { is_confirmed: bool },
}

impl<T: Watchable> WatchDriver<T> {
    pub(super) fn new(connection: &ApiConnection, source: WatchSource) -> WatchDriver<T> {
        WatchDriver {
            connection: connection.clone(),
            source,
            watch: None,
            retry: RetryState::default(),
            pause: Duration::ZERO,
            was_listed: false,
        }
    }

    /// Takes the first "forbidden" as final: another watch has confirmed it.
    pub(super) fn with_final_refusals(mut self) -> WatchDriver<T> {
        self.retry.forbidden = MAX_TRANSIENT_REFUSALS;
        self
    }

    /// Waits for the next event. After a failure the next call waits out the pause and tries again.
    pub(super) async fn next(&mut self) -> Result<WatchEvent<T>, Interruption> {
        // A sleep takes a millisecond, however short: a list would wait for one at each object.
        if !self.pause.is_zero() {
            tokio::time::sleep(std::mem::take(&mut self.pause)).await;
        }
        match self.try_next().await {
            Ok(event) => {
                // A list that can be read says nothing about the watch behind it.
                if !matches!(event, WatchEvent::Listing | WatchEvent::Listed(_) | WatchEvent::Complete) {
                    self.retry = RetryState::default();
                }
                self.was_listed |= matches!(event, WatchEvent::Complete);
                Ok(event)
            }
            Err(failure) => Err(self.failed(failure).await),
        }
    }

    async fn try_next(&mut self) -> Result<WatchEvent<T>, WatchFailure> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            None => {
                let client = self.connection.client();
                let resource = self.source.resource.find(&client).await?;
                let watch = Watch::new(client, &resource, &self.source.scope);
                self.watch.insert(match &self.source.name {
                    Some(name) => watch.with_name(name),
                    None => watch.with_streaming_list(&self.connection),
                })
            }
        };
        let next = if watch.is_listing() {
            tokio::time::timeout(ANSWER_TIMEOUT, watch.next()).await.unwrap_or_else(|_| {
                self.connection.list_in_pages();
                Err(WatchFailure::silent(ANSWER_TIMEOUT))
            })
        } else {
            // Once it stands it may be silent; the client has a limit of its own for that.
            watch.next().await
        };
        let is_discovered = matches!(self.source.resource, WatchedResource::Discovered(..));
        next.map_err(|failure| WatchFailure { is_discovered, ..failure })
    }

    async fn failed(&mut self, failure: WatchFailure) -> Interruption {
        let next = self.retry.after(&failure, self.was_listed);
        if self.retry.total() == 1 && failure.is_unexpected() {
            let WatchSource { kind, scope, .. } = &self.source;
            log::warn!(
                kind:%, scope:%, server:% = self.connection.server(), why:% = failure.why;
                "watch interrupted, retrying"
            );
        }
        if next.reloads_credentials {
            self.connection.reload_credentials().await;
        }
        if next.opens_anew {
            self.watch = None;
        }
        self.pause = next.pause;
        Interruption { verdict: next.verdict, failure }
    }
}

impl WatchedResource {
    async fn find(&self, client: &Client) -> Result<ApiResource, WatchFailure> {
        match self {
            WatchedResource::Fixed(resource) => Ok(resource.clone()),
            WatchedResource::Discovered(kind, resources) => {
                match tokio::time::timeout(ANSWER_TIMEOUT, resources.discover(client, *kind)).await {
                    Ok(found) => found?.ok_or_else(WatchFailure::not_served),
                    Err(_) => Err(WatchFailure::silent(ANSWER_TIMEOUT)),
                }
            }
        }
    }
}

/// The failures since a watch last stood.
#[derive(Debug, Default)]
struct RetryState {
    answered: u32,
    unanswered: u32,
    forbidden: u32,
    absent: u32,
}

/// The next step after a failure.
#[derive(Debug, PartialEq, Eq)]
struct RetryStep {
    verdict: WatchVerdict,
    pause: Duration,
    reloads_credentials: bool,
    opens_anew: bool,
}

impl RetryState {
    fn total(&self) -> u32 {
        self.answered + self.unanswered + self.forbidden + self.absent
    }

    fn after(&mut self, failure: &WatchFailure, was_listed: bool) -> RetryStep {
        let refused =
            |verdict, pause| RetryStep { verdict, pause, reloads_credentials: false, opens_anew: true };
        match failure.code {
            Some(403) => {
                self.forbidden = self.forbidden.saturating_add(1);
                // What was listed before mostly comes back.
                let max_slips = MAX_TRANSIENT_REFUSALS + u32::from(was_listed);
                match self.forbidden {
                    times if times > max_slips => refused(WatchVerdict::Forbidden, REFUSED_RETRY_INTERVAL),
                    times if times == max_slips => refused(WatchVerdict::Broken, refusal_pause(times)),
                    times => refused(WatchVerdict::Transient, refusal_pause(times)),
                }
            }
            Some(404) if !failure.is_discovered => {
                self.absent = self.absent.saturating_add(1);
                match self.absent {
                    1 => refused(WatchVerdict::Transient, refusal_pause(1)),
                    2..=MAX_TRANSIENT_REFUSALS => refused(WatchVerdict::Broken, refusal_pause(self.absent)),
                    times => {
                        let is_confirmed = times > MAX_TRANSIENT_REFUSALS + 1;
                        refused(WatchVerdict::Absent { is_confirmed }, REFUSED_RETRY_INTERVAL)
                    }
                }
            }
            Some(code) => {
                self.answered = self.answered.saturating_add(1);
                // A request that is malformed stays so.
                let is_broken = self.answered >= MAX_ANSWERED_FAILURES || code == 400;
                RetryStep {
                    verdict: if is_broken { WatchVerdict::Broken } else { WatchVerdict::Transient },
                    pause: self.growing_pause(),
                    reloads_credentials: code == 401,
                    opens_anew: matches!(code, 401 | 404),
                }
            }
            None => {
                self.unanswered = self.unanswered.saturating_add(1);
                // A server that is silent in the middle of a list is there.
                self.answered = self.answered.saturating_add(u32::from(failure.is_silence));
                let is_lost = self.unanswered.is_multiple_of(UNANSWERED_BEFORE_RELOAD);
                let is_broken = self.answered >= MAX_ANSWERED_FAILURES;
                RetryStep {
                    verdict: if is_broken { WatchVerdict::Broken } else { WatchVerdict::Transient },
                    pause: self.growing_pause(),
                    reloads_credentials: is_lost,
                    opens_anew: is_lost || failure.is_silence,
                }
            }
        }
    }

    fn growing_pause(&self) -> Duration {
        let failures = self.answered.max(self.unanswered);
        growing_pause(FIRST_RETRY_DELAY, MAX_RETRY_DELAY, failures.saturating_sub(1))
    }
}

fn refusal_pause(times: u32) -> Duration {
    FIRST_REFUSAL_DELAY * 2_u32.saturating_pow(times - 1)
}

/// Runs a watch on a task of its own and starts it again after a panic, which `on_panic` tells to those
/// who wait for it.
pub(super) fn spawn_watch<W: Future<Output = ()> + Send + 'static>(
    kind: String,
    scope: Scope,
    on_panic: impl Fn() + Send + 'static,
    watch: impl Fn() -> W + Send + 'static,
) -> AbortHandle {
    let running = tokio::spawn(async move {
        while AssertUnwindSafe(watch()).catch_unwind().await.is_err() {
            log::error!(kind:%, scope:%; "watch panicked, restarting; please report this");
            on_panic();
            tokio::time::sleep(MAX_RETRY_DELAY).await;
        }
    });
    running.abort_handle()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: u16) -> WatchFailure {
        match code {
            0 => WatchFailure::because("no answer"),
            1 => WatchFailure::silent(ANSWER_TIMEOUT),
            code => WatchFailure {
                code: Some(code),
                why: code.to_string(),
                is_silence: false,
                is_discovered: false,
            },
        }
    }

    fn verdicts(codes: &[u16], was_listed: bool) -> Vec<WatchVerdict> {
        let mut retry = RetryState::default();
        codes.iter().map(|code| retry.after(&failure(*code), was_listed).verdict).collect()
    }

    #[test]
    fn refusals_and_errors_are_slips_at_first() {
        use WatchVerdict::{Absent, Broken, Forbidden, Transient};
        let (maybe, gone) = (Absent { is_confirmed: false }, Absent { is_confirmed: true });
        assert_eq!(verdicts(&[403; 5], false), [Transient, Transient, Broken, Forbidden, Forbidden]);
        assert_eq!(verdicts(&[403; 5], true), [Transient, Transient, Transient, Broken, Forbidden]);
        assert_eq!(verdicts(&[404; 5], false), [Transient, Broken, Broken, maybe, gone]);
        assert_eq!(verdicts(&[500; 5], false), [Transient, Transient, Transient, Transient, Broken]);
        assert_eq!(verdicts(&[400], false), [Broken]);
        let discovered = WatchFailure { is_discovered: true, ..failure(404) };
        let mut retry = RetryState::default();
        let steps = [(); 6].map(|()| retry.after(&discovered, true));
        assert_eq!(steps.map(|step| (step.verdict, step.opens_anew))[4..], [(Broken, true), (Broken, true)]);
        assert_eq!(verdicts(&[1; 5], false)[4], Broken);
        assert_eq!(verdicts(&[0; 40], false)[39], Transient, "nobody knows anything about the kind");
    }

    #[test]
    fn pauses_grow_and_credentials_are_read_again() {
        let mut retry = RetryState::default();
        let mut pauses = |code: u16| retry.after(&failure(code), false);
        assert_eq!([403, 403, 403, 403].map(|code| pauses(code).pause.as_secs()), [2, 4, 8, 60]);
        let unauthorized = pauses(401);
        assert!(unauthorized.reloads_credentials && unauthorized.opens_anew);
        let unanswered = [0, 0, 0].map(&mut pauses);
        assert_eq!(unanswered.map(|step| step.reloads_credentials), [false, false, true]);
        let late = (0..40).map(|_| pauses(500)).last().expect("a step");
        assert!(late.pause >= MAX_RETRY_DELAY.mul_f64(0.75) && !late.opens_anew);
    }
}
