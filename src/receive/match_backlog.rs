//! Matches queued deliveries once their kinds are known and their filters have CPU time.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify as Signal;

use super::evaluation::{Evaluation, FilterTask, InventoryMatch};
use super::filter_thread::NotEvaluated;
use super::{DeliveryHandler, Sink, has_filters};
use crate::matching::{self, SelectionOf};
use crate::outcome::Outcome;

/// The time between two looks at the queued deliveries without a signal.
const BACKLOG_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Deliveries matched per batch.
const MAX_MATCHED_AT_ONCE: usize = 64;

impl DeliveryHandler {
    /// Waits until no delivery waits to be matched.
    pub async fn wait_until_matched(&self) {
        if let Sink::Flux(objects) = &self.sink {
            objects.backlog.wait_until_empty().await;
        }
    }

    /// Returns the deliveries that wait to be matched, in a line each.
    pub fn waiting_deliveries(&self) -> Vec<String> {
        match &self.sink {
            Sink::Flux(objects) => objects.backlog.summaries(),
            Sink::FluxV1(_) => Vec::new(),
        }
    }

    /// Matches deliveries as their kinds become known; never ends.
    pub async fn match_waiting(&self, became_known: &Signal) {
        loop {
            self.match_ready().await;
            // A delivery may come to wait just as its kinds become known, so there is a tick as well.
            let _ = tokio::time::timeout(BACKLOG_CHECK_INTERVAL, became_known.notified()).await;
        }
    }

    /// Matches the deliveries whose kinds are known by now. Ends when they need not be remembered.
    pub async fn match_ready(&self) {
        while !self.match_some().await {}
    }

    /// Matches some of them; says whether there are no more.
    async fn match_some(&self) -> bool {
        let Sink::Flux(objects) = &self.sink else { return true };
        if objects.backlog.is_empty() {
            return true;
        }
        let ready = {
            let inventory = objects.inventory.read();
            objects.backlog.take(MAX_MATCHED_AT_ONCE, |waiting| {
                let has_filters = has_filters(waiting.condition.as_ref(), &waiting.selection);
                matching::can_tell(&inventory, &waiting.events, &waiting.selection)
                    && (!has_filters || self.filters.has_budget(&Arc::from(waiting.endpoint.as_str())))
            })
        };
        let handed_out = ready.len();
        let (mut matched, mut back) = (Vec::new(), Vec::new());
        // Together, so that deliveries without filters wait for no thread, and endpoints for no other.
        let evaluations = ready.into_iter().map(|(number, waiting)| async move {
            let endpoint = Arc::from(waiting.endpoint.as_str());
            let evaluation = self.evaluate(&endpoint, waiting.task(&objects.inventory)).await;
            // The queue and the watches have a turn in between.
            tokio::task::yield_now().await;
            (number, waiting, endpoint, evaluation)
        });
        let mut evaluations: FuturesUnordered<_> = evaluations.collect();
        while let Some((number, waiting, endpoint, evaluation)) = evaluations.next().await {
            let evaluation = match evaluation {
                Ok(evaluation) => evaluation,
                Err(NotEvaluated::NoCapacity(_) | NotEvaluated::NoThread) => {
                    back.push((number, waiting));
                    continue;
                }
                Err(NotEvaluated::Panicked) => {
                    log::error!(endpoint:% = endpoint; "filter panicked, delivery dropped; please report this");
                    self.metrics.filter_failed(&endpoint);
                    matched.push((number, waiting, None));
                    continue;
                }
            };
            if let Some(why) = &evaluation.failure {
                self.filter_failed(&endpoint, why);
            }
            let (outcome, commits) = match evaluation.result {
                Ok(InventoryMatch { mut matched, .. }) => {
                    objects.remember_digests(&evaluation.events, &matched);
                    objects.expect_revisions(&waiting.id(), &mut matched);
                    let published = objects.publish(waiting.publish.as_ref(), &evaluation.events);
                    let commits = objects.queue.request(&matched.targets).and(published);
                    let is_published = waiting.publish.is_some();
                    let of = SelectionOf { endpoint: &waiting.endpoint, selection: &waiting.selection };
                    (objects.outcome(&evaluation.events, matched, of, is_published), Some(commits))
                }
                Err(none_left) => (Outcome::ignored(none_left.to_string()), None),
            };
            log::info!(
                endpoint:% = waiting.endpoint, source:% = waiting.source, outcome = outcome.label().as_str(),
                detail:% = outcome.detail();
                "waiting delivery matched"
            );
            objects.history.matched(&waiting.id(), outcome);
            matched.push((number, waiting, commits));
        }
        let mut settled = Vec::new();
        for (number, waiting, commits) in matched {
            let is_durable = match commits {
                Some(commits) => commits.wait_until_durable().await.is_ok(),
                None => true,
            };
            match is_durable {
                true => settled.push(number),
                // The journal does not hold its objects, so it goes on standing for them.
                false => back.push((number, waiting)),
            }
        }
        let is_all = handed_out < MAX_MATCHED_AT_ONCE || settled.is_empty();
        objects.backlog.hand_back(handed_out, settled.into_iter(), back);
        is_all
    }

    /// Evaluates at once where there are no filters, else on their thread.
    async fn evaluate(
        &self,
        endpoint: &Arc<str>,
        task: FilterTask,
    ) -> Result<Evaluation, NotEvaluated<FilterTask>> {
        match has_filters(task.condition.as_ref(), &task.selection) {
            true => self.filters.run(endpoint, task, FilterTask::evaluate).await,
            false => Ok(task.evaluate()),
        }
    }
}
