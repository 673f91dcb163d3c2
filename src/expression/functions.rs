//! The functions that expressions may call: those of Flux's filters (`OptionalTypes`, `ext.Strings`,
//! `ext.Sets`, `ext.Encoders` of cel-go).
//! <https://github.com/google/cel-go/blob/master/ext/README.md>

use std::cell::RefCell;
use std::collections::HashMap;

use cel::common::types::{CelBool, CelList, CelOptional, CelString, LIST_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError, extensions};
use regex::{Regex, RegexBuilder};

use super::meter;

/// Operators, which no source writes by these names.
const OPERATORS: [&str; 21] = [
    "_?_:_",
    "_&&_",
    "_||_",
    "!_",
    "_-_",
    "_+_",
    "_*_",
    "_/_",
    "_%_",
    "_==_",
    "_!=_",
    "_>=_",
    "_<=_",
    "_>_",
    "_<_",
    "-_",
    "_[_]",
    "_[?_]",
    "_?._",
    "@not_strictly_false",
    "@in",
];

/// Functions that read a text, or compare a list, to its end.
const READING: [&str; 29] = [
    "_==_",
    "_!=_",
    "_+_",
    "@in",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "size",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "trim",
    "replace",
    "split",
    "substring",
    "format",
    "strings.quote",
    "reverse",
    "base64.encode",
    "base64.decode",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "string",
    "bytes",
];

/// The other functions.
const OTHERS: [&str; 31] = [
    "int",
    "uint",
    "double",
    "bool",
    "dyn",
    "type",
    "duration",
    "timestamp",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "optional.of",
    "optional.ofNonZeroValue",
    "optional.none",
    "value",
    "hasValue",
    "or",
    "orValue",
    "first",
    "last",
    "optMap",
    "optFlatMap",
    "has",
    "all",
];

/// Whether there is such a function or operator; functions of a library have its name before a dot.
pub(super) fn is_known(name: &str) -> bool {
    OPERATORS.contains(&name) || READING.contains(&name) || OTHERS.contains(&name)
}

/// Whether the function, as a call names it (without its library), reads a text to its end.
pub(super) fn reads_texts_whole(name: &str) -> bool {
    READING.iter().any(|known| known.rsplit('.').next() == Some(name))
}

/// What expressions are compiled for and run in.
pub(super) fn environment() -> Env {
    const NO_CLASH: &str = "nothing else declares it";
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings).expect(NO_CLASH);
    env.add_extension(extensions::encoders).expect(NO_CLASH);
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
    meter::declare(&mut env);
    env
}

/// A regular expression for `matches`.
///
/// # Errors
/// Why it is none, in a line.
pub(super) fn regex(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(LARGEST_REGEX).dfa_size_limit(LARGEST_REGEX).build();
    built.map_err(|err| match err {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
        err => err.to_string().lines().last().unwrap_or_default().trim().to_owned(),
    })
}

/// Some hundred KiB hold every expression that people write, and take a millisecond to make.
const LARGEST_REGEX: usize = 256 << 10;

/// How many are kept on a thread: those of the filters in force.
const KEPT: usize = 64;

/// `text.matches(pattern)`: RE2 syntax, anywhere in the text. Patterns are made once.
fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    thread_local! {
        static MADE: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    let (text, pattern) = (text(&args, 0, "matches")?, text(&args, 1, "matches")?);
    let holds = MADE.with_borrow_mut(|made| {
        if let Some(regex) = made.get(pattern) {
            return Ok(regex.is_match(text));
        }
        let regex = regex(pattern)?;
        let holds = regex.is_match(text);
        if made.len() >= KEPT {
            made.clear();
        }
        made.insert(pattern.to_owned(), regex);
        Ok(holds)
    });
    let holds: bool = holds.map_err(|why: String| ExecutionError::function_error("matches", why))?;
    Ok(CowVal::owned(CelBool::from(holds)))
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
    let comparisons = (left.len() as u64).saturating_mul(right.len() as u64);
    meter::pay(comparisons)?;
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
