//! Expressions of the Common Expression Language (CEL): conditions that operators write into a
//! config or a Receiver.
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md>
//!
//! The evaluator cannot be interrupted, so nothing is evaluated that could hold a thread or take much
//! memory: length and nesting are bounded when an expression is read, no text can grow beyond a limit
//! (`growth`), and while it is evaluated every loop, and everything that reads, copies or makes a
//! value, pays for it before (`meter`). Functions and types are those of Flux's own filters.

mod budget;
mod check;
mod fields;
mod functions;
mod growth;
mod meter;
mod table;
mod variables;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Weak};

use cel::common::ast::IdedExpr;
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, Program, extensions};
use parking_lot::Mutex;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::budget::Budget;
use self::budget::BudgetExhausted;
pub use self::variables::{Variable, VariableName, Variables};

/// A condition or a value, ready to be evaluated. Written and compared as its text.
#[derive(Clone)]
pub struct Expression {
    compiled: Arc<Compiled>,
}

struct Compiled {
    text: String,
    /// With its loops metered.
    root: IdedExpr,
    /// Steps of a run without its loops and values.
    steps: u64,
    /// The variables that it names.
    named: Vec<VariableName>,
    /// The fields that it reads, by their dotted paths.
    fields: BTreeSet<String>,
}

/// An expression that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadExpression {
    why: String,
    /// The line of the expression and the column in it, both counted from zero.
    place: Option<(usize, usize)>,
    text: String,
}

/// An expression came to no result. Holds no values, only names and types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    #[error("would take too long for a payload of this size")]
    BudgetExhausted,
    #[error("{0}")]
    Failed(String),
}

impl EvaluationError {
    /// Something that the expression reads is not there.
    pub fn because(why: &str) -> EvaluationError {
        EvaluationError::Failed(why.to_owned())
    }
}

impl From<BudgetExhausted> for EvaluationError {
    fn from(_: BudgetExhausted) -> EvaluationError {
        EvaluationError::BudgetExhausted
    }
}

/// The maximum length of an expression, in bytes.
const MAX_EXPRESSION_BYTES: usize = 4096;

/// Room for the parser on the longest expression, whatever it repeats; only what is used is taken.
const PARSER_STACK_BYTES: usize = 64 << 20;

/// The environment of expressions: the functions of Flux's own.
static CEL_ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    const NO_CLASH: &str = "nothing else declares it";
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings).expect(NO_CLASH);
    env.add_extension(extensions::encoders).expect(NO_CLASH);
    functions::declare(&mut env);
    meter::declare(&mut env);
    Arc::new(env)
});

impl Expression {
    /// Reads a condition over these variables.
    ///
    /// # Errors
    /// When it cannot be read, names something that is not declared, is none that can be true or
    /// false, or is larger than what may be evaluated.
    pub fn condition(text: &str, declared: &'static [VariableName]) -> Result<Expression, BadExpression> {
        read_apart(text, declared, true)
    }

    /// Reads an expression of any type over these variables.
    ///
    /// # Errors
    /// As for [`Expression::condition`].
    pub fn value(text: &str, declared: &'static [VariableName]) -> Result<Expression, BadExpression> {
        read_apart(text, declared, false)
    }

    /// Bytes that a text of this length may take once it is compiled, at most about.
    pub fn compiled_bytes(text_bytes: usize) -> usize {
        text_bytes * 50
    }

    /// Whether it names this variable.
    pub fn names(&self, variable: VariableName) -> bool {
        self.compiled.named.contains(&variable)
    }

    /// Returns the fields that it reads of a variable, each by its dotted path with the variable; the
    /// variable alone where it reads all of it, or computes a name.
    pub fn fields_of(&self, variable: VariableName) -> impl Iterator<Item = &str> {
        let is_of = move |path: &&String| path.split('.').next() == Some(variable.as_str());
        self.compiled.fields.iter().filter(is_of).map(String::as_str)
    }

    /// The expression as it is written.
    pub fn text(&self) -> &str {
        &self.compiled.text
    }

    /// Whether the condition holds. Charges the budget.
    ///
    /// # Errors
    /// When it fails, when the result is not a boolean, or when the budget is exhausted.
    pub fn holds(&self, variables: &Variables<'_>, budget: &Budget) -> Result<bool, EvaluationError> {
        match self.evaluate(variables, budget)? {
            cel::Value::Bool(holds) => Ok(holds),
            other => {
                let why = format!("comes to a {}, not to true or false", other.type_of());
                Err(EvaluationError::Failed(why))
            }
        }
    }

    /// Evaluates the expression. Charges the budget.
    ///
    /// # Errors
    /// As for [`Expression::holds`].
    pub fn result(&self, variables: &Variables<'_>, budget: &Budget) -> Result<Variable, EvaluationError> {
        Ok(Variable::from_result(self.evaluate(variables, budget)?))
    }

    fn evaluate(&self, variables: &Variables<'_>, budget: &Budget) -> Result<cel::Value, EvaluationError> {
        let Compiled { root, steps, named, text, .. } = &*self.compiled;
        if !growth::is_bounded(root, variables.size(named)) {
            let why = "could make texts that are too long out of a payload of this size";
            return Err(EvaluationError::because(why));
        }
        let evaluated = budget.lend(|| {
            catch_unwind(AssertUnwindSafe(|| {
                budget::pay(*steps)?;
                let mut context = Context::with_env(Arc::clone(&CEL_ENVIRONMENT));
                context.set_variable_resolver(variables as &dyn VariableResolver);
                cel::Value::resolve(root, &context)
            }))
        });
        match evaluated? {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(err)) => Err(EvaluationError::Failed(describe(&err, text))),
            Err(_) => Err(EvaluationError::because("ended in a panic; please report this")),
        }
    }
}

/// Compiled expressions by what they were read from, so that the many copies that deliveries and Receivers
/// have of one text share one tree, which takes some fifty times as much.
type Interned = HashMap<(bool, &'static [VariableName], Box<str>), Weak<Compiled>>;

static INTERNED_EXPRESSIONS: LazyLock<Mutex<Interned>> = LazyLock::new(Mutex::default);

/// Entries after which those that nobody uses any more are dropped.
const INTERNED_EXPRESSIONS_SLACK: usize = 64;

fn read_apart(
    text: &str,
    declared: &'static [VariableName],
    is_condition: bool,
) -> Result<Expression, BadExpression> {
    if text.len() > MAX_EXPRESSION_BYTES {
        let why = format!("is longer than {MAX_EXPRESSION_BYTES} bytes");
        return Err(BadExpression { why, place: None, text: String::new() });
    }
    let interned = || INTERNED_EXPRESSIONS.lock();
    let name = (is_condition, declared, Box::from(text));
    if let Some(compiled) = interned().get(&name).and_then(Weak::upgrade) {
        return Ok(Expression { compiled });
    }
    let read = read_on_a_thread(text, declared, is_condition)?;
    let mut all = interned();
    if all.len() >= INTERNED_EXPRESSIONS_SLACK && all.len() == all.capacity() {
        all.retain(|_, compiled| compiled.strong_count() > 0);
    }
    all.insert(name, Arc::downgrade(&read.compiled));
    Ok(read)
}

/// The parser goes as deep as the text nests, and no stack of a worker is made for that.
fn read_on_a_thread(
    text: &str,
    declared: &[VariableName],
    is_condition: bool,
) -> Result<Expression, BadExpression> {
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new().stack_size(PARSER_STACK_BYTES);
        let read = reading.spawn_scoped(scope, || read(text, declared, is_condition)).map(|read| read.join());
        // Older versions of the parser panicked on some input.
        let Ok(Ok(read)) = read else {
            return Err(BadExpression::without_place(text, "cannot be read".to_owned()));
        };
        read
    })
}

fn read(text: &str, declared: &[VariableName], is_condition: bool) -> Result<Expression, BadExpression> {
    check::brackets(text).map_err(|(why, at)| {
        let place = text.get(..at).map(place_behind);
        BadExpression { why, place, text: text.to_owned() }
    })?;
    let program =
        CEL_ENVIRONMENT.compile(text).map_err(|errors| BadExpression::from_parse_errors(text, &errors))?;
    let placed = |mistake: check::Mistake| {
        let place = place_of(text, &program, mistake.node);
        BadExpression { why: mistake.why, place, text: text.to_owned() }
    };
    let named = check::names(&program, declared).map_err(placed)?;
    let mut root = program.expression().clone();
    if is_condition {
        check::is_condition(&root).map_err(placed)?;
    }
    let fields = fields::read(&root);
    let steps = meter::install(&mut root);
    Ok(Expression { compiled: Arc::new(Compiled { text: text.to_owned(), root, steps, named, fields }) })
}

/// An error without the values that it was about: they are a stranger's words.
fn describe(err: &ExecutionError, text: &str) -> String {
    match err {
        // A key may be computed.
        ExecutionError::NoSuchKey(key) if text.contains(key.as_str()) => {
            format!("there is no `{key}` (use `has(…)` or `.?`)")
        }
        ExecutionError::NoSuchKey(_) => "there is no such field (use `has(…)` or `.?`)".to_owned(),
        ExecutionError::NoSuchOverload(_) | ExecutionError::UndeclaredReference(_) => err.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("a {got} where a {want} is expected"),
        ExecutionError::FunctionError { function, .. } => {
            format!("`{function}` cannot take what it was given")
        }
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "a division by zero".to_owned()
        }
        _ => "the types do not fit each other".to_owned(),
    }
}

/// Returns the line and column of a node; of a call those of its name, which stands before its place.
fn place_of(text: &str, program: &Program, node: u64) -> Option<(usize, usize)> {
    let (offset, _) = program.source_info().offset_for(node)?;
    let (before, behind) = text.split_at_checked(usize::try_from(offset).ok()?)?;
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    Some(place_behind(match behind.starts_with('(') {
        true => before.trim_end_matches(is_of_a_name),
        false => before,
    }))
}

/// The line and the column of what comes next.
fn place_behind(before: &str) -> (usize, usize) {
    (before.matches('\n').count(), before.rsplit('\n').next().unwrap_or_default().chars().count())
}

impl BadExpression {
    fn without_place(text: &str, why: String) -> BadExpression {
        BadExpression { why, place: None, text: text.to_owned() }
    }

    /// The first error that has a place of its own: those behind it mostly follow from it.
    fn from_parse_errors(text: &str, errors: &cel::ParseErrors) -> BadExpression {
        let syntax = errors.errors.iter().find(|err| err.msg.starts_with("Syntax error"));
        let Some(err) = syntax.or(errors.errors.first()) else {
            return BadExpression::without_place(text, "cannot be read".to_owned());
        };
        let why = err.msg.trim_start_matches("Syntax error: ").replace("<EOF>", "end");
        let number = |number: isize| usize::try_from(number).ok()?.checked_sub(1);
        let place = number(err.pos.0).zip(number(err.pos.1));
        BadExpression { why: format!("cannot be read: {why}"), place, text: text.to_owned() }
    }
}

impl std::error::Error for BadExpression {}

/// The mistake, and below it the line with a caret under the place.
impl fmt::Display for BadExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        let Some((line, column)) = self.place else { return Ok(()) };
        let Some(written) = self.text.lines().nth(line) else { return Ok(()) };
        // Of a long line, what stands around the place.
        let start = if written.chars().count() > MAX_SHOWN_CHARS {
            column.saturating_sub(MAX_SHOWN_CHARS / 2)
        } else {
            0
        };
        let shown: String = written.chars().skip(start).take(MAX_SHOWN_CHARS).collect();
        write!(f, "{LINE_PREFIX}{shown}{LINE_PREFIX}{:>width$}", "^", width = column - start + 1)
    }
}

/// The characters of a line that a message quotes.
const MAX_SHOWN_CHARS: usize = 100;

/// The beginning of a line of a message that quotes what the operator has written.
pub const LINE_PREFIX: &str = "\n    | ";

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Expression {}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.text(), &self.compiled.named).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expression, D::Error> {
        let (text, _): (String, Vec<String>) = Deserialize::deserialize(deserializer)?;
        // It was checked when it was written down.
        Expression::value(&text, VariableName::ALL).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
