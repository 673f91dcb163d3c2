//! Meters an expression. Calls and operators pay for what they read, copy and make by its size when they
//! get it, and a loop for all its rounds when it begins.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::{CelInt, CelList, CelMap, CelString};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError};

use super::budget::{BYTES_PER_STEP, MeasuredSize, left, pay, take};
use super::functions;
use super::table::{self, ArgumentCost, ResultSize};

// The functions that are put around parts of an expression; no source can call them.

/// Around what a loop runs over, with what a round costs.
const EACH: &str = "@each";
/// Around what is read to its end.
const READ: &str = "@read";
/// Around what is copied or was made.
const KEEP: &str = "@keep";
/// The variable of a loop that gathers.
const GATHERED: &str = "@result";
/// Around a text that is split, with the separator.
const PIECES: &str = "@pieces";

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
            let function = table::function(&call.func_name);
            let steps = 1 + install_in_call(call);
            if function.is_some_and(|function| function.result == ResultSize::Kept) {
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
    let around = table::function(&call.func_name).map_or(ArgumentCost::Nothing, |function| function.cost);
    if let Some(own) = functions::own(&call.func_name) {
        own.clone_into(&mut call.func_name);
    }
    // The name of a library is not a value.
    let is_of_a_library =
        |target: &IdedExpr| matches!(&target.expr, Expr::Ident(name) if table::is_library(name));
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
            ArgumentCost::Nothing => {}
            ArgumentCost::Read => put_around(part, READ, Vec::new()),
            ArgumentCost::Duplicate => put_around(part, KEEP, Vec::new()),
            ArgumentCost::Split if at == 0 => {
                // A separator that is not known yet may be empty, which makes the most pieces.
                let separator = match &separator {
                    Some(Expr::Literal(LiteralValue::String(text))) => text.clone(),
                    _ => String::new().into(),
                };
                put_around(part, PIECES, vec![Expr::Literal(LiteralValue::String(separator))]);
            }
            ArgumentCost::LookUp if at == 0 => {}
            ArgumentCost::Split | ArgumentCost::LookUp => put_around(part, READ, Vec::new()),
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

fn rounds(range: &dyn Val) -> u64 {
    let list = range.downcast_ref::<CelList<'_>>().map(|list| list.inner().len());
    let map = || range.downcast_ref::<CelMap<'_>>().map(|map| map.inner().len());
    list.or_else(map).unwrap_or_default() as u64
}
