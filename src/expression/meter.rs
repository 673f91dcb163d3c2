//! What evaluating may cost. Every loop is paid for when it begins, by the number of its rounds; the
//! rest of an expression is done once.

use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelInt, CelList, CelMap};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError};

use super::{LENT, functions};

/// How much evaluating is left to a delivery, in steps of some fifty nanoseconds.
pub struct Budget {
    left: AtomicU64,
}

/// A tenth of a second or two: much more than any reasonable filter takes for one delivery, whatever
/// the number of objects it looks at.
const OF_A_DELIVERY: u64 = 2_000_000;

/// The part of a budget that the running evaluation charges.
pub(super) struct Lent {
    left: u64,
    longest: u64,
}

/// What one run of an expression costs without its loops.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weight {
    /// Steps.
    steps: u64,
    /// Calls that read a text to its end.
    scans: u64,
}

/// Bytes of a text that are read in a step.
const BYTES_PER_STEP: u64 = 64;

/// What a regular expression that is made while evaluating may cost.
const MADE_REGEX: u64 = 20_000;

/// The function that stands around what a loop runs over; no source can call it.
pub(super) const EACH: &str = "@each";

impl Default for Budget {
    fn default() -> Budget {
        Budget { left: AtomicU64::new(OF_A_DELIVERY) }
    }
}

impl Budget {
    pub(super) fn charge(&self, steps: u64) -> Result<(), ()> {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(steps), Ordering::Relaxed);
        if steps > left { Err(()) } else { Ok(()) }
    }

    /// Lets loops that begin within `run` charge this budget; no text is longer than `longest` bytes.
    pub(super) fn lend<T>(&self, longest: u64, run: impl FnOnce() -> T) -> T {
        LENT.set(Some(Lent { left: self.left.load(Ordering::Relaxed), longest }));
        let result = run();
        if let Some(lent) = LENT.take() {
            self.left.store(lent.left, Ordering::Relaxed);
        }
        result
    }
}

impl Weight {
    pub(super) fn of_one_run(self, longest: u64) -> u64 {
        self.steps.saturating_add(self.scans.saturating_mul(1 + longest / BYTES_PER_STEP))
    }

    fn and(self, other: Weight) -> Weight {
        Weight {
            steps: self.steps.saturating_add(other.steps),
            scans: self.scans.saturating_add(other.scans),
        }
    }
}

/// Puts [`EACH`] around what each loop runs over; says what a run costs without the loops.
pub(super) fn install(node: &mut IdedExpr) -> Weight {
    let own = Weight { steps: 1, scans: 0 };
    match &mut node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => own,
        Expr::Select(select) => own.and(install(&mut select.operand)),
        Expr::List(list) => list.elements.iter_mut().map(install).fold(own, Weight::and),
        Expr::Map(map) => map.entries.iter_mut().fold(own, |weight, entry| match &mut entry.expr {
            cel::common::ast::EntryExpr::MapEntry(entry) => {
                weight.and(install(&mut entry.key)).and(install(&mut entry.value))
            }
            cel::common::ast::EntryExpr::StructField(field) => weight.and(install(&mut field.value)),
        }),
        Expr::Call(call) => {
            let of_call = own.and(weight_of_call(call));
            let parts = call.target.as_deref_mut().into_iter().chain(call.args.iter_mut());
            parts.map(install).fold(of_call, Weight::and)
        }
        Expr::Comprehension(comprehension) => {
            let once = [&mut comprehension.accu_init, &mut comprehension.result]
                .into_iter()
                .map(install)
                .fold(own, Weight::and);
            let a_round = install(&mut comprehension.loop_cond).and(install(&mut comprehension.loop_step));
            let range = install(&mut comprehension.iter_range);
            let of_loop = std::mem::take(&mut comprehension.iter_range);
            comprehension.iter_range = metered(of_loop, a_round);
            once.and(range)
        }
    }
}

fn weight_of_call(call: &CallExpr) -> Weight {
    let scans = u64::from(functions::reads_texts_whole(&call.func_name));
    let makes_a_regex = call.func_name == "matches"
        && !call.args.last().is_some_and(|pattern| matches!(pattern.expr, Expr::Literal(_)));
    Weight { steps: if makes_a_regex { MADE_REGEX } else { 0 }, scans }
}

fn metered(range: IdedExpr, a_round: Weight) -> IdedExpr {
    let id = range.id;
    let number = |number: u64| IdedExpr {
        id,
        expr: Expr::Literal(LiteralValue::Int(i64::try_from(number).unwrap_or(i64::MAX).into())),
    };
    let args = vec![number(a_round.steps), number(a_round.scans)];
    let call = CallExpr {
        func_name: EACH.to_owned(),
        target: None,
        args: std::iter::once(range).chain(args).collect(),
    };
    IdedExpr { id, expr: Expr::Call(call) }
}

/// Makes [`EACH`] known.
pub(super) fn declare(env: &mut Env) {
    use cel::common::types::{INT_TYPE, LIST_TYPE, MAP_TYPE};
    for (id, range) in [("each_list", LIST_TYPE), ("each_map", MAP_TYPE)] {
        env.add_overload(EACH, id, vec![range, INT_TYPE, INT_TYPE], each)
            .expect("nothing else has this name");
    }
}

/// Pays for a loop over the first argument, which it gives back: each round copies an element and
/// does the steps and scans that the other arguments name.
fn each<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let number = |at: usize| {
        let number = args.get(at).and_then(|arg| arg.downcast_ref::<CelInt>()).map(|number| *number.inner());
        u64::try_from(number.unwrap_or(i64::MAX)).unwrap_or(u64::MAX)
    };
    let a_round = Weight { steps: number(1), scans: number(2) };
    let (left, longest) =
        LENT.with_borrow(|lent| lent.as_ref().map_or((0, 0), |lent| (lent.left, lent.longest)));
    let rounds = args.first().map_or(0, |range| rounds(&**range));
    let copying = args.first().map_or(0, |range| nodes(&**range, left));
    pay(rounds.saturating_mul(a_round.of_one_run(longest)).saturating_add(copying))?;
    Ok(args.swap_remove(0))
}

/// Pays for work that a function is about to do.
pub(super) fn pay(steps: u64) -> Result<(), ExecutionError> {
    let paid = LENT.with_borrow_mut(|lent| {
        let Some(lent) = lent else { return false };
        let left = lent.left;
        lent.left = left.saturating_sub(steps);
        steps <= left
    });
    if paid { Ok(()) } else { Err(ExecutionError::function_error(EACH, "the budget is used up")) }
}

fn rounds(range: &dyn Val) -> u64 {
    let list = range.downcast_ref::<CelList<'_>>().map(|list| list.inner().len());
    let map = || range.downcast_ref::<CelMap<'_>>().map(|map| map.inner().len());
    list.or_else(map).unwrap_or_default() as u64
}

/// How many values there are in a value, counted up to `most`.
fn nodes(value: &dyn Val, most: u64) -> u64 {
    let mut count = 1;
    let mut add = |part: &dyn Val| {
        if count < most {
            count += nodes(part, most - count);
        }
    };
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        list.inner().iter().for_each(|part| add(&**part));
    } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        map.inner().values().for_each(|part| add(&**part));
    }
    count
}
