//! Evaluates filters on a thread of its own, so that none of them can hold up an HTTP worker, and
//! bounds the CPU time that the filters of one endpoint may take.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

/// CPU time that the filters of an endpoint may take in a second. Four endpoints that use all of it
/// keep the thread busy and no HTTP worker.
const CPU_PER_SECOND: f64 = 0.25;

/// The maximum number of tasks of one endpoint that wait for the thread, and the maximum time. Each holds a
/// connection.
const MAX_QUEUED_TASKS: usize = 64;
const MAX_QUEUED_TIME: Duration = Duration::from_secs(2);

/// Budgets that are remembered before those that are full again are forgotten.
const MAX_IDLE_BUDGETS: usize = 1024;

/// The thread that evaluates filters; started when the first one is evaluated.
#[derive(Default)]
pub(super) struct FilterThread {
    jobs: OnceLock<Option<Arc<JobQueue>>>,
    budgets: Arc<Mutex<HashMap<Arc<str>, CpuBudget>>>,
}

type FilterJob = Box<dyn FnOnce() + Send>;

/// Jobs by endpoint, of which each has its turn: one with many jobs delays the others by one.
#[derive(Default)]
struct JobQueue {
    turns: Mutex<Turns>,
    added: Condvar,
}

#[derive(Default)]
struct Turns {
    jobs: HashMap<Arc<str>, VecDeque<FilterJob>>,
    order: VecDeque<Arc<str>>,
    is_closed: bool,
}

/// The reason why filters were not evaluated.
pub(super) enum NotEvaluated<I> {
    /// The endpoint has used up its CPU time of this second, or the thread is busy with others for too long;
    /// this is what was to be evaluated.
    NoCapacity(I),
    /// The evaluation panicked. Another try would panic again.
    Panicked,
    /// There is no thread to do it.
    NoThread,
}

impl FilterThread {
    /// Whether the filters of the endpoint have CPU time left.
    pub(super) fn has_budget(&self, endpoint: &Arc<str>) -> bool {
        has_budget(&self.budgets, endpoint, Instant::now())
    }

    /// Does the work for the endpoint on the thread, in the order of the calls for it.
    ///
    /// # Errors
    /// See [`NotEvaluated`]; the budget is looked at when the work would begin.
    pub(super) async fn run<I, T>(
        &self,
        endpoint: &Arc<str>,
        input: I,
        work: fn(I) -> T,
    ) -> Result<T, NotEvaluated<I>>
    where
        I: Send + 'static,
        T: Send + 'static,
    {
        if !self.has_budget(endpoint) {
            return Err(NotEvaluated::NoCapacity(input));
        }
        let (answer, answered) = oneshot::channel();
        let (budgets, of_endpoint) = (Arc::clone(&self.budgets), Arc::clone(endpoint));
        let jobs = self.jobs.get_or_init(start).as_ref().ok_or(NotEvaluated::NoThread)?;
        if jobs.queued(endpoint) >= MAX_QUEUED_TASKS {
            return Err(NotEvaluated::NoCapacity(input));
        }
        let queued = Instant::now();
        let job = move || {
            // Many may have been let in before the first of them was charged.
            if queued.elapsed() >= MAX_QUEUED_TIME || !has_budget(&budgets, &of_endpoint, Instant::now()) {
                drop(answer.send(Err(NotEvaluated::NoCapacity(input))));
                return;
            }
            let before = thread_cpu_time();
            let done = catch_unwind(AssertUnwindSafe(|| work(input)));
            let took = thread_cpu_time().saturating_sub(before);
            charge(&budgets, &of_endpoint, took, Instant::now());
            drop(answer.send(done.map_err(|_| NotEvaluated::Panicked)));
        };
        jobs.push(endpoint, Box::new(job));
        answered.await.unwrap_or(Err(NotEvaluated::NoThread))
    }
}

impl Drop for FilterThread {
    fn drop(&mut self) {
        if let Some(Some(jobs)) = self.jobs.get() {
            jobs.lock().is_closed = true;
            jobs.added.notify_one();
        }
    }
}

/// Starts the thread; it ends when the queue is closed.
fn start() -> Option<Arc<JobQueue>> {
    let jobs = Arc::new(JobQueue::default());
    let of_thread = Arc::clone(&jobs);
    let thread = std::thread::Builder::new().name("filters".to_owned());
    let spawned = thread.spawn(move || {
        while let Some(job) = of_thread.next() {
            job()
        }
    });
    spawned.map_err(|err| log::error!(why:% = err; "cannot start the filter thread")).ok().map(|_| jobs)
}

impl JobQueue {
    fn queued(&self, endpoint: &Arc<str>) -> usize {
        self.lock().jobs.get(endpoint).map_or(0, VecDeque::len)
    }

    fn push(&self, endpoint: &Arc<str>, job: FilterJob) {
        let mut turns = self.lock();
        let Turns { jobs, order, .. } = &mut *turns;
        let of_endpoint = jobs.entry(Arc::clone(endpoint)).or_default();
        if of_endpoint.is_empty() {
            order.push_back(Arc::clone(endpoint));
        }
        of_endpoint.push_back(job);
        drop(turns);
        self.added.notify_one();
    }

    /// Waits for a job; none when the queue is closed.
    fn next(&self) -> Option<FilterJob> {
        let mut turns = self.lock();
        loop {
            if turns.is_closed {
                return None;
            }
            if let Some(job) = turns.next() {
                return Some(job);
            }
            self.added.wait(&mut turns);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock()
    }
}

impl Turns {
    fn next(&mut self) -> Option<FilterJob> {
        let endpoint = self.order.pop_front()?;
        let of_endpoint = self.jobs.get_mut(&endpoint)?;
        let job = of_endpoint.pop_front();
        if of_endpoint.is_empty() {
            self.jobs.remove(&endpoint);
        } else {
            self.order.push_back(endpoint);
        }
        job
    }
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// CPU time, as a bucket that fills evenly. It may be overdrawn by the one delivery that empties it.
struct CpuBudget {
    seconds: f64,
    filled: Instant,
}

impl CpuBudget {
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.seconds = (self.seconds + elapsed * CPU_PER_SECOND).min(CPU_PER_SECOND);
        self.filled = now;
    }
}

type Budgets = Mutex<HashMap<Arc<str>, CpuBudget>>;

fn lock(budgets: &Budgets) -> MutexGuard<'_, HashMap<Arc<str>, CpuBudget>> {
    budgets.lock()
}

fn has_budget(budgets: &Budgets, endpoint: &Arc<str>, now: Instant) -> bool {
    lock(budgets).get_mut(endpoint).is_none_or(|budget| {
        budget.fill(now);
        budget.seconds > 0.0
    })
}

fn charge(budgets: &Budgets, endpoint: &Arc<str>, took: Duration, now: Instant) {
    let mut budgets = lock(budgets);
    if budgets.len() >= MAX_IDLE_BUDGETS && !budgets.contains_key(endpoint) {
        budgets.retain(|_, budget| {
            budget.fill(now);
            budget.seconds < CPU_PER_SECOND
        });
    }
    let full = || CpuBudget { seconds: CPU_PER_SECOND, filled: now };
    let budget = budgets.entry(Arc::clone(endpoint)).or_insert_with(full);
    budget.fill(now);
    budget.seconds -= took.as_secs_f64();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_fills_again_and_each_endpoint_has_its_own() {
        let (budgets, now) = (Budgets::default(), Instant::now());
        let (greedy, other) = (Arc::from("greedy"), Arc::from("other"));
        charge(&budgets, &greedy, Duration::from_millis(500), now);
        assert!(!has_budget(&budgets, &greedy, now));
        assert!(has_budget(&budgets, &other, now));
        assert!(!has_budget(&budgets, &greedy, now + Duration::from_millis(900)));
        assert!(has_budget(&budgets, &greedy, now + Duration::from_millis(1100)));
    }

    #[tokio::test]
    async fn what_was_let_in_too_early_comes_back() {
        let (thread, endpoint) = (FilterThread::default(), Arc::from("greedy"));
        let burn = |milliseconds: u64| {
            let end = thread_cpu_time() + Duration::from_millis(milliseconds);
            while thread_cpu_time() < end {}
            milliseconds
        };
        let runs = (0..4).map(|_| thread.run(&endpoint, 300, burn));
        let results = futures::future::join_all(runs).await;
        assert!(matches!(results[0], Ok(300)));
        assert!(results[1..].iter().all(|result| matches!(result, Err(NotEvaluated::NoCapacity(300)))));
        let other: Result<u64, _> = thread.run(&Arc::from("other"), 1, burn).await;
        assert!(matches!(other, Ok(1)));
    }

    // The attack: five endpoints, each within its own budget, kept the deliveries of a sixth in the queue.
    #[test]
    fn endpoints_take_turns() {
        let (queue, done) = (JobQueue::default(), Arc::new(Mutex::new(Vec::new())));
        for (endpoint, jobs) in [("greedy", 3), ("other", 1), ("third", 2)] {
            for _ in 0..jobs {
                let done = Arc::clone(&done);
                queue.push(&Arc::from(endpoint), Box::new(move || done.lock().push(endpoint)));
            }
        }
        while let Some(job) = queue.lock().next() {
            job();
        }
        assert_eq!(*done.lock(), ["greedy", "other", "third", "greedy", "third", "greedy"]);
        assert!(queue.lock().jobs.is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_one_evaluation() {
        let thread = FilterThread::default();
        let panics: fn(()) = |()| panic!("a test");
        let endpoint = Arc::from("a");
        assert!(matches!(thread.run(&endpoint, (), panics).await, Err(NotEvaluated::Panicked)));
        assert!(matches!(thread.run(&endpoint, 1, |one: i32| one + 1).await, Ok(2)));
    }
}
