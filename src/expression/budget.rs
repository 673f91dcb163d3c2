//! The budget of an evaluation: steps and memory, paid for before they are used.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::ExecutionError;
use cel::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString};
use cel::common::value::Val;

/// The steps that are left to a filter for all events and objects of a delivery, of some
/// fifty nanoseconds.
pub struct Budget {
    left: AtomicU64,
}

/// A quarter of a second or two.
const STEPS_PER_DELIVERY: u64 = 5_000_000;

/// Of that, what one evaluation may take: much more than any reasonable filter does.
const STEPS_PER_EVALUATION: u64 = 1_000_000;

/// What the validations of one token may take, some milliseconds.
const STEPS_PER_TOKEN: u64 = 50_000;

/// What one evaluation may copy and make, in bytes.
const BYTES_PER_EVALUATION: u64 = 16 << 20;

/// What a value takes beside its text, in bytes.
const BYTES_PER_VALUE: u64 = 64;

/// Bytes of a text that are read in a step.
pub(super) const BYTES_PER_STEP: u64 = 64;

/// The steps or the memory of an evaluation are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BudgetExhausted;

/// What is left to the evaluation that runs on this thread.
#[derive(Default)]
struct ActiveBudget {
    steps: u64,
    memory: u64,
    is_exhausted: bool,
}

thread_local! {
    static ACTIVE: RefCell<Option<ActiveBudget>> = const { RefCell::new(None) };
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: AtomicU64::new(STEPS_PER_DELIVERY) }
    }
}

impl Budget {
    /// The budget of one filter of so many.
    pub fn shared_by(filters: usize) -> Budget {
        Budget { left: AtomicU64::new(STEPS_PER_DELIVERY / filters.max(1) as u64) }
    }

    /// The budget of all validations of a token: they compare a few claims, on an HTTP worker.
    pub fn for_token() -> Budget {
        Budget { left: AtomicU64::new(STEPS_PER_TOKEN) }
    }

    /// Lets what is evaluated within `run` charge this budget.
    ///
    /// # Errors
    /// When the budget was used up on the way, whatever the result is.
    pub(super) fn lend<T>(&self, run: impl FnOnce() -> T) -> Result<T, BudgetExhausted> {
        let left = self.left.load(Ordering::Relaxed);
        let lent = left.min(STEPS_PER_EVALUATION);
        ACTIVE.set(Some(ActiveBudget { steps: lent, memory: BYTES_PER_EVALUATION, is_exhausted: false }));
        let result = run();
        let rest = ACTIVE.take().unwrap_or_default();
        self.left.store(left - lent + rest.steps.min(lent), Ordering::Relaxed);
        if rest.is_exhausted { Err(BudgetExhausted) } else { Ok(result) }
    }
}

pub(super) fn left() -> u64 {
    ACTIVE.with_borrow(|lent| lent.as_ref().map_or(0, |lent| lent.steps))
}

/// Pays for work that is about to be done.
pub(super) fn pay(steps: u64) -> Result<(), ExecutionError> {
    charge(|lent| &mut lent.steps, steps)
}

/// Takes memory for what is about to be copied, or was made just now.
pub(super) fn take(bytes: u64) -> Result<(), ExecutionError> {
    charge(|lent| &mut lent.memory, bytes)
}

fn charge(of: fn(&mut ActiveBudget) -> &mut u64, amount: u64) -> Result<(), ExecutionError> {
    let is_left = ACTIVE.with_borrow_mut(|active| {
        let Some(active) = active else { return false };
        let left = of(active);
        let is_left = amount <= *left;
        *left = left.saturating_sub(amount);
        active.is_exhausted |= !is_left;
        is_left
    });
    // The evaluator takes no error of our own; `lend` tells it apart.
    if is_left { Ok(()) } else { Err(ExecutionError::function_error("", "the budget is used up")) }
}

/// The size of a value.
#[derive(Default)]
pub(super) struct MeasuredSize {
    pub(super) values: u64,
    pub(super) bytes: u64,
}

impl MeasuredSize {
    /// Of a value and all in it, counted up to `most` values.
    pub(super) fn measure(value: &dyn Val, most: u64) -> MeasuredSize {
        let mut extent = MeasuredSize::default();
        extent.add(value, most);
        extent
    }

    fn add(&mut self, value: &dyn Val, most: u64) {
        self.values += 1;
        if self.values > most {
            return;
        }
        if let Some(text) = value.downcast_ref::<CelString<'_>>() {
            self.bytes += text.inner().len() as u64;
        } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
            self.bytes += bytes.inner().len() as u64;
        } else if let Some(list) = value.downcast_ref::<CelList<'_>>() {
            for part in list.inner() {
                self.add(&**part, most);
            }
        } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
            for part in map.inner().values() {
                // With its key.
                self.bytes += BYTES_PER_VALUE;
                self.add(&**part, most);
            }
        } else if let Some(inner) = value.downcast_ref::<CelOptional<'_>>().and_then(|some| some.inner()) {
            self.add(inner, most);
        }
    }

    pub(super) fn steps(&self) -> u64 {
        self.values.saturating_add(self.bytes / BYTES_PER_STEP)
    }

    pub(super) fn memory(&self) -> u64 {
        self.values.saturating_mul(BYTES_PER_VALUE).saturating_add(self.bytes)
    }
}
