//! What evaluating may cost. Calls and operators pay for what they read, copy and make by its size
//! when they get it, and a loop for all its rounds when it begins.

use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelBytes, CelInt, CelList, CelMap, CelOptional, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError};

use super::functions::FunctionCost;
use super::{ACTIVE_BUDGET, functions};

/// How much evaluating is left to a filter for all events and objects of a delivery, in steps of some
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
const BYTES_PER_STEP: u64 = 64;

/// What the running evaluation may still take.
pub(super) struct ActiveBudget {
    steps: u64,
    memory: u64,
}

// The functions that are put around parts of an expression; no source can call them.

/// Around what a loop runs over, with what a round costs.
pub(super) const EACH: &str = "@each";
/// Around what is read to its end.
const READ: &str = "@read";
/// Around what is copied or was made.
const KEEP: &str = "@keep";
/// The variable of a loop that gathers.
const GATHERED: &str = "@result";
/// Around a text that is split, with the separator.
const PIECES: &str = "@pieces";

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
    pub(super) fn lend<T>(&self, run: impl FnOnce() -> T) -> T {
        let left = self.left.load(Ordering::Relaxed);
        let lent = left.min(STEPS_PER_EVALUATION);
        ACTIVE_BUDGET.set(Some(ActiveBudget { steps: lent, memory: BYTES_PER_EVALUATION }));
        let result = run();
        let rest = ACTIVE_BUDGET.take().map_or(0, |lent| lent.steps);
        self.left.store(left - lent + rest.min(lent), Ordering::Relaxed);
        result
    }
}

/// How large a value is.
#[derive(Default)]
pub(super) struct MeasuredSize {
    values: u64,
    bytes: u64,
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

    fn memory(&self) -> u64 {
        self.values.saturating_mul(BYTES_PER_VALUE).saturating_add(self.bytes)
    }
}

/// Meters an expression; says what a run costs without its loops and the values in it.
pub(super) fn install(node: &mut IdedExpr) -> u64 {
    match &mut node.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) => 1,
        Expr::Select(select) => 1 + install(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().fold(1, |steps, part| steps + kept(part)),
        Expr::Map(map) => map.entries.iter_mut().fold(1, |steps, entry| match &mut entry.expr {
            EntryExpr::MapEntry(entry) => steps + kept(&mut entry.key) + kept(&mut entry.value),
            EntryExpr::StructField(field) => steps + kept(&mut field.value),
        }),
        Expr::Call(call) => {
            let makes = functions::makes_something(&call.func_name);
            let steps = 1 + install_in_call(call);
            if makes {
                put_around(node, KEEP, Vec::new());
            }
            steps
        }
        Expr::Comprehension(comprehension) => install_in_loop(comprehension),
    }
}

fn kept(node: &mut IdedExpr) -> u64 {
    let steps = install(node);
    if !matches!(node.expr, Expr::Literal(_)) {
        put_around(node, KEEP, Vec::new());
    }
    steps
}

fn install_in_call(call: &mut CallExpr) -> u64 {
    let around = functions::needs(&call.func_name);
    if let Some(own) = functions::own(&call.func_name) {
        own.clone_into(&mut call.func_name);
    }
    // The name of a library is no value.
    let is_of_a_library =
        |target: &IdedExpr| matches!(&target.expr, Expr::Ident(name) if functions::is_library(name));
    let separator = call.args.first().map(|separator| separator.expr.clone());
    let target = call.target.as_deref_mut().filter(|target| !is_of_a_library(target));
    let mut steps = 0;
    for (at, part) in target.into_iter().chain(call.args.iter_mut()).enumerate() {
        // What a loop gathers is not copied when something is added to it.
        let is_gathered = matches!(&part.expr, Expr::Ident(name) if name == GATHERED);
        steps += install(part);
        if is_gathered || matches!(part.expr, Expr::Literal(_)) {
            continue;
        }
        match around {
            FunctionCost::Nothing => {}
            FunctionCost::ToRead => put_around(part, READ, Vec::new()),
            FunctionCost::ToCopy => put_around(part, KEEP, Vec::new()),
            FunctionCost::ToSplit if at == 0 => {
                // A separator that is not known yet may be empty, which makes the most pieces.
                let separator = match &separator {
                    Some(Expr::Literal(LiteralValue::String(text))) => text.clone(),
                    _ => String::new().into(),
                };
                put_around(part, PIECES, vec![Expr::Literal(LiteralValue::String(separator))]);
            }
            FunctionCost::ToLookUp if at == 0 => {}
            FunctionCost::ToSplit | FunctionCost::ToLookUp => put_around(part, READ, Vec::new()),
        }
    }
    steps
}

fn install_in_loop(comprehension: &mut ComprehensionExpr) -> u64 {
    let once = 1 + kept_unless_empty(&mut comprehension.accu_init) + install(&mut comprehension.result);
    let a_round = 1 + install(&mut comprehension.loop_cond) + install(&mut comprehension.loop_step);
    let range = install(&mut comprehension.iter_range);
    let a_round = i64::try_from(a_round).unwrap_or(i64::MAX);
    put_around(&mut comprehension.iter_range, EACH, vec![Expr::Literal(LiteralValue::Int(a_round.into()))]);
    once + range
}

/// Loops that gather into an empty list are known to the evaluator by it.
fn kept_unless_empty(node: &mut IdedExpr) -> u64 {
    match &node.expr {
        Expr::List(list) if list.elements.is_empty() => 1,
        _ => kept(node),
    }
}

fn put_around(node: &mut IdedExpr, function: &str, args: Vec<Expr>) {
    let id = node.id;
    let args = args.into_iter().map(|expr| IdedExpr { id, expr });
    let args = std::iter::once(std::mem::take(node)).chain(args).collect();
    *node =
        IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) };
}

/// Makes the functions known.
pub(super) fn declare(env: &mut Env) {
    use cel::common::types::{DYN_TYPE, INT_TYPE, STRING_TYPE};
    const ALONE: &str = "nothing else has this name";
    env.add_overload(EACH, "each", vec![DYN_TYPE, INT_TYPE], each).expect(ALONE);
    env.add_overload(READ, "read", vec![DYN_TYPE], read).expect(ALONE);
    env.add_overload(KEEP, "keep", vec![DYN_TYPE], keep).expect(ALONE);
    env.add_overload(PIECES, "pieces", vec![DYN_TYPE, STRING_TYPE], pieces).expect(ALONE);
}

/// Pays for a loop over the first argument: each round copies an element and does as many steps as the
/// second one says.
fn each<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let a_round = args.get(1).and_then(|arg| arg.downcast_ref::<CelInt>()).map(|number| *number.inner());
    let a_round = u64::try_from(a_round.unwrap_or(i64::MAX)).unwrap_or(u64::MAX);
    let range = args.swap_remove(0);
    pay(rounds(&*range)
        .saturating_mul(a_round)
        .saturating_add(MeasuredSize::measure(&*range, left()).steps()))?;
    Ok(range)
}

fn read<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.swap_remove(0);
    pay(MeasuredSize::measure(&*value, left()).steps())?;
    Ok(value)
}

fn keep<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.swap_remove(0);
    let extent = MeasuredSize::measure(&*value, left());
    pay(extent.steps())?;
    take(extent.memory())?;
    Ok(value)
}

fn pieces<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.swap_remove(0);
    let separator = args.first().and_then(|arg| arg.downcast_ref::<CelString<'_>>());
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        let length = text.inner().len() as u64;
        pay(length / BYTES_PER_STEP)?;
        let values = match separator.map(CelString::inner).filter(|separator| !separator.is_empty()) {
            Some(separator) => 1 + text.inner().matches(separator).count() as u64,
            None => length,
        };
        let made = MeasuredSize { values, bytes: length };
        pay(made.steps())?;
        take(made.memory())?;
    }
    Ok(value)
}

fn left() -> u64 {
    ACTIVE_BUDGET.with_borrow(|lent| lent.as_ref().map_or(0, |lent| lent.steps))
}

/// Pays for work that is about to be done.
pub(super) fn pay(steps: u64) -> Result<(), ExecutionError> {
    charge(|lent| &mut lent.steps, steps)
}

/// Takes memory for what is about to be copied, or was made just now.
fn take(bytes: u64) -> Result<(), ExecutionError> {
    charge(|lent| &mut lent.memory, bytes)
}

fn charge(of: fn(&mut ActiveBudget) -> &mut u64, amount: u64) -> Result<(), ExecutionError> {
    let is_left = ACTIVE_BUDGET.with_borrow_mut(|lent| {
        let Some(lent) = lent else { return false };
        let left = of(lent);
        let is_left = amount <= *left;
        *left = left.saturating_sub(amount);
        is_left
    });
    if is_left { Ok(()) } else { Err(ExecutionError::function_error(EACH, "the budget is used up")) }
}

fn rounds(range: &dyn Val) -> u64 {
    let list = range.downcast_ref::<CelList<'_>>().map(|list| list.inner().len());
    let map = || range.downcast_ref::<CelMap<'_>>().map(|map| map.inner().len());
    list.or_else(map).unwrap_or_default() as u64
}
