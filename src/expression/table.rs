//! The functions and operators that expressions may use: one table, which the checker, the meter and the
//! analysis of growth read.
//!
//! They are those of Flux's filters (`OptionalTypes`, `ext.Strings`, `ext.Sets`, `ext.Encoders` of cel-go).
//! <https://github.com/google/cel-go/blob/master/ext/README.md>

use self::ArgumentCost::{Duplicate, LookUp, Nothing, Read, Split};
use self::Growth::{Concatenate, Format, Join, Keep, Quote, Recode, Replace};
use self::ResultSize::{Flat, Kept};

/// A function or operator.
pub(super) struct Function {
    /// The name before its dot; empty for those that have none.
    pub(super) library: &'static str,
    /// Its name in a call. No source writes operators by their names.
    pub(super) name: &'static str,
    pub(super) cost: ArgumentCost,
    pub(super) result: ResultSize,
    pub(super) growth: Growth,
}

/// What a call does with its arguments, which has to be paid for before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgumentCost {
    /// Nothing that depends on their size.
    Nothing,
    /// It reads them to their end.
    Read,
    /// It copies them.
    Duplicate,
    /// It looks up the second in the first.
    LookUp,
    /// It makes pieces of the first.
    Split,
}

/// The memory that the result takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResultSize {
    /// A fixed amount, or what was charged with the arguments.
    Flat,
    /// That of a new value, or of a copy.
    Kept,
}

/// How long the texts of the result can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// No longer than those of the arguments.
    Keep,
    Concatenate,
    Replace,
    Join,
    Format,
    Quote,
    Split,
    /// Into another encoding.
    Recode,
}

/// Returns the function of this name, as a call has it, without its library.
pub(super) fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// Returns the function of this library and name.
pub(super) fn library_function(library: &str, name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.library == library && function.name == name)
}

/// Whether functions stand behind this name and a dot.
pub(super) fn is_library(name: &str) -> bool {
    !name.is_empty() && FUNCTIONS.iter().any(|function| function.library == name)
}

#[rustfmt::skip]
const FUNCTIONS: &[Function] = &[
    Function { library: "", name: "_?_:_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "_&&_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "_||_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "!_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "_-_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "_*_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "_/_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "_%_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "-_", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "@not_strictly_false", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "type", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getDate", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getDayOfMonth", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getDayOfWeek", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getDayOfYear", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getFullYear", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getHours", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getMilliseconds", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getMinutes", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getMonth", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "getSeconds", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "optional", name: "none", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "hasValue", cost: Nothing, result: Flat, growth: Keep },
    Function { library: "", name: "_==_", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "_!=_", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "_>=_", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "_<=_", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "_>_", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "_<_", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "@in", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "contains", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "startsWith", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "endsWith", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "matches", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "size", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "indexOf", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "lastIndexOf", cost: Read, result: Flat, growth: Keep },
    Function { library: "sets", name: "contains", cost: Read, result: Flat, growth: Keep },
    Function { library: "sets", name: "equivalent", cost: Read, result: Flat, growth: Keep },
    Function { library: "sets", name: "intersects", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "int", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "uint", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "double", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "bool", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "duration", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "timestamp", cost: Read, result: Flat, growth: Keep },
    Function { library: "", name: "charAt", cost: Read, result: Kept, growth: Keep },
    Function { library: "", name: "join", cost: Read, result: Kept, growth: Join },
    Function { library: "", name: "lowerAscii", cost: Read, result: Kept, growth: Keep },
    Function { library: "", name: "upperAscii", cost: Read, result: Kept, growth: Keep },
    Function { library: "", name: "trim", cost: Read, result: Kept, growth: Keep },
    Function { library: "", name: "replace", cost: Read, result: Kept, growth: Replace },
    Function { library: "", name: "substring", cost: Read, result: Kept, growth: Keep },
    Function { library: "", name: "format", cost: Read, result: Kept, growth: Format },
    Function { library: "strings", name: "quote", cost: Read, result: Kept, growth: Quote },
    Function { library: "", name: "reverse", cost: Read, result: Kept, growth: Keep },
    Function { library: "base64", name: "encode", cost: Read, result: Kept, growth: Recode },
    Function { library: "base64", name: "decode", cost: Read, result: Kept, growth: Recode },
    Function { library: "", name: "string", cost: Read, result: Kept, growth: Recode },
    Function { library: "", name: "bytes", cost: Read, result: Kept, growth: Recode },
    Function { library: "", name: "_?._", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "_[?_]", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "optional", name: "of", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "optional", name: "ofNonZeroValue", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "optional", name: "unwrap", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "unwrapOpt", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "value", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "or", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "orValue", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "first", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "last", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "dyn", cost: Nothing, result: Kept, growth: Keep },
    Function { library: "", name: "_+_", cost: Duplicate, result: Flat, growth: Concatenate },
    Function { library: "", name: "_[_]", cost: LookUp, result: Flat, growth: Keep },
    Function { library: "", name: "split", cost: Split, result: Flat, growth: Growth::Split },
];
