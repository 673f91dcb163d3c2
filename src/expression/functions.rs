//! The functions that are our own: the evaluator lacks them, or its own cost too much.

use std::cell::RefCell;
use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelInt, CelList, CelOptional, CelString, INT_TYPE, LIST_TYPE, STRING_TYPE,
};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError};
use regex::{Regex, RegexBuilder};

use super::budget;

/// Declares the functions that are our own.
pub(super) fn declare(env: &mut Env) {
    const NO_CLASH: &str = "nothing else declares it";
    env.add_overload("matches", "matches", vec![STRING_TYPE, STRING_TYPE], matches).expect(NO_CLASH);
    env.add_member_overload("matches", "matches_string", STRING_TYPE, vec![STRING_TYPE], matches)
        .expect(NO_CLASH);
    env.add_member_overload("first", "list_first", LIST_TYPE, vec![], first).expect(NO_CLASH);
    env.add_member_overload("last", "list_last", LIST_TYPE, vec![], last).expect(NO_CLASH);
    let sets: [(&str, cel::common::functions::Function); 3] = [
        ("sets.contains", |args| sets(&args, contains_all)),
        ("sets.equivalent", |args| {
            sets(&args, |left, right| contains_all(left, right) && contains_all(right, left))
        }),
        ("sets.intersects", |args| {
            sets(&args, |left, right| left.iter().any(|part| contains(right, &**part)))
        }),
    ];
    for (name, function) in sets {
        env.add_overload(name, name, vec![LIST_TYPE, LIST_TYPE], function).expect(NO_CLASH);
    }
    env.add_overload("optional.unwrap", "optional_unwrap", vec![LIST_TYPE], unwrap).expect(NO_CLASH);
    env.add_member_overload("unwrapOpt", "list_unwrap", LIST_TYPE, vec![], unwrap).expect(NO_CLASH);
    for (name, find) in
        [("@indexOf", index_of as cel::common::functions::Function), ("@lastIndexOf", last_index_of)]
    {
        for more in [vec![STRING_TYPE], vec![STRING_TYPE, INT_TYPE]] {
            let id = format!("{name}_{}", more.len());
            env.add_member_overload(name, &id, STRING_TYPE, more, find).expect(NO_CLASH);
        }
    }
}

/// The name of the function that stands in for one of the evaluator.
pub(super) fn own(name: &str) -> Option<&'static str> {
    match name {
        "indexOf" => Some("@indexOf"),
        "lastIndexOf" => Some("@lastIndexOf"),
        _ => None,
    }
}

/// Checks a regular expression for `matches`.
///
/// # Errors
/// When it is not one, or its automaton is too large.
pub(super) fn check_regex(pattern: &str) -> Result<(), InvalidRegex> {
    CompiledRegex::new(pattern).map(drop)
}

/// A text that is not a regular expression that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRegex {
    #[error("the regular expression is too large")]
    TooLarge,
    #[error("{0}")]
    Syntax(String),
}

/// A regular expression, and what it may cost.
struct CompiledRegex {
    regex: Regex,
    /// Steps for each byte of a text, at the worst.
    per_byte: u64,
}

/// Bounds of the size of an automaton, in bytes. In the worst case all of its states are visited at each
/// byte.
const REGEX_SIZE_STEPS_BYTES: [usize; 5] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, MAX_REGEX_BYTES];

/// Some hundred KiB hold every expression that people write, and take a millisecond to make.
const MAX_REGEX_BYTES: usize = 256 << 10;

/// Longer ones are not read, in bytes.
const MAX_PATTERN_BYTES: usize = 4096;

/// The steps that compiling a regular expression costs.
const STEPS_PER_REGEX: u64 = 20_000;

/// The number of regular expressions that are kept on a thread.
const MAX_CACHED_REGEXES: usize = 32;

impl CompiledRegex {
    fn new(pattern: &str) -> Result<CompiledRegex, InvalidRegex> {
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(InvalidRegex::TooLarge);
        }
        for size in REGEX_SIZE_STEPS_BYTES {
            match RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(MAX_REGEX_BYTES).build() {
                Ok(regex) => {
                    return Ok(CompiledRegex { regex, per_byte: (size / REGEX_SIZE_STEPS_BYTES[0]) as u64 });
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(err) => {
                    let text = err.to_string();
                    let last = text.lines().last().unwrap_or_default().trim();
                    return Err(InvalidRegex::Syntax(last.to_owned()));
                }
            }
        }
        Err(InvalidRegex::TooLarge)
    }
}

/// `text.matches(pattern)`: RE2 syntax, anywhere in the text. Patterns are made once.
fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    thread_local! {
        static REGEX_CACHE: RefCell<HashMap<String, CompiledRegex>> = RefCell::default();
    }
    let (text, pattern) = (text(&args, 0, "matches")?, text(&args, 1, "matches")?);
    let holds = REGEX_CACHE.with_borrow_mut(|kept| {
        if !kept.contains_key(pattern) {
            budget::pay(STEPS_PER_REGEX)?;
            let made =
                CompiledRegex::new(pattern).map_err(|why| ExecutionError::function_error("matches", why))?;
            if kept.len() >= MAX_CACHED_REGEXES {
                kept.clear();
            }
            kept.insert(pattern.to_owned(), made);
        }
        let Some(made) = kept.get(pattern) else { return Ok(false) };
        budget::pay((text.len() as u64).saturating_mul(made.per_byte))?;
        Ok::<bool, ExecutionError>(made.regex.is_match(text))
    });
    Ok(CowVal::owned(CelBool::from(holds?)))
}

/// The place of the first occurrence, in characters; from a place on if one is given. The evaluator's own
/// compares at every place.
fn index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (text, wanted) = (text(&args, 0, "indexOf")?, text(&args, 1, "indexOf")?);
    let start = place(&args, text, wanted, "indexOf")?.unwrap_or(0);
    Ok(in_characters(text, text[start..].find(wanted).map(|found| start + found)))
}

/// The place of the last occurrence, in characters; not behind a place if one is given.
fn last_index_of<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (text, wanted) = (text(&args, 0, "lastIndexOf")?, text(&args, 1, "lastIndexOf")?);
    let start = place(&args, text, wanted, "lastIndexOf")?;
    let searched = match start.map(|start| start + wanted.len()).filter(|end| *end < text.len()) {
        // An end within a character is before the end of no occurrence that begins up to there.
        Some(end) => &text[..(0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0)],
        None => text,
    };
    Ok(in_characters(text, searched.rfind(wanted)))
}

/// The third argument as a place in bytes. It has to be within the text, unless nothing is looked for.
fn place(
    args: &[CowVal<'_, '_>],
    text: &str,
    wanted: &str,
    function: &str,
) -> Result<Option<usize>, ExecutionError> {
    let Some(place) = args.get(2).and_then(|arg| arg.downcast_ref::<CelInt>()) else { return Ok(None) };
    let found = usize::try_from(*place.inner()).ok().map(|place| text.char_indices().nth(place));
    match found {
        Some(Some((place, _))) => Ok(Some(place)),
        Some(None) if wanted.is_empty() => Ok(Some(text.len())),
        _ => Err(ExecutionError::function_error(function, "the place is outside of the text")),
    }
}

fn in_characters<'b, 'v>(text: &str, place: Option<usize>) -> CowVal<'b, 'v> {
    let place = place.map_or(-1, |place| text[..place].chars().count() as i64);
    CowVal::owned(CelInt::from(place))
}

/// The values of those optional values that have one.
fn unwrap<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut values = Vec::new();
    for part in list(&args, 0, "unwrap")? {
        let optional = part.downcast_ref::<CelOptional<'_>>();
        let optional =
            optional.ok_or_else(|| ExecutionError::function_error("unwrap", "takes optional values"))?;
        values.extend(optional.inner().map(|value| value.clone_as_boxed()));
    }
    Ok(CowVal::owned(CelList::from(values)))
}

type Element<'v> = Box<dyn Val + 'v>;

fn first<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    optional(list(&args, 0, "first")?.first())
}

fn last<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    optional(list(&args, 0, "last")?.last())
}

fn optional<'b, 'v>(element: Option<&Element<'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let element = element.cloned();
    Ok(CowVal::owned(element.map_or_else(CelOptional::none, CelOptional::of)))
}

fn sets<'b, 'v>(
    args: &[CowVal<'b, 'v>],
    holds: fn(&[Element<'v>], &[Element<'v>]) -> bool,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (left, right) = (list(args, 0, "sets")?, list(args, 1, "sets")?);
    let steps = |of: &[Element<'v>]| {
        of.iter()
            .map(|part| budget::MeasuredSize::measure(&**part, u64::MAX).steps())
            .fold(0, u64::saturating_add)
    };
    let by = |steps: u64, others: &[Element<'v>]| steps.saturating_mul(others.len() as u64);
    budget::pay(by(steps(left), right).saturating_add(by(steps(right), left)))?;
    Ok(CowVal::owned(CelBool::from(holds(left, right))))
}

fn contains_all(left: &[Element<'_>], right: &[Element<'_>]) -> bool {
    right.iter().all(|part| contains(left, &**part))
}

fn contains(list: &[Element<'_>], wanted: &(dyn Val + '_)) -> bool {
    list.iter().any(|part| part.equals(wanted))
}

fn text<'a>(args: &'a [CowVal<'_, '_>], at: usize, function: &str) -> Result<&'a str, ExecutionError> {
    let text = args.get(at).and_then(|arg| arg.downcast_ref::<CelString<'_>>());
    text.map(CelString::inner).ok_or_else(|| ExecutionError::function_error(function, "takes texts"))
}

fn list<'a, 'v>(
    args: &'a [CowVal<'_, 'v>],
    at: usize,
    function: &str,
) -> Result<&'a [Element<'v>], ExecutionError> {
    let list = args.get(at).and_then(|arg| arg.downcast_ref::<CelList<'v>>());
    list.map(CelList::inner).ok_or_else(|| ExecutionError::function_error(function, "takes lists"))
}
