//! Checks an expression before it is evaluated: the names that it uses, how deep it
//! is, and whether it can be true or false.

use cel::Program;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

use super::functions;
use super::table;
use super::variables::VariableName;

/// A mistake, and the node that it is about.
pub(super) struct Mistake {
    pub(super) node: u64,
    pub(super) why: String,
}

/// Evaluating goes as deep as the expression, on the stack of a worker.
const MAX_NESTING: usize = 64;

/// Loops in loops in loops are never a filter.
const MAX_NESTED_LOOPS: usize = 3;

/// Brackets within brackets, before anything is parsed; those in texts count as well, but texts hold
/// few that stay open.
///
/// # Errors
/// When there are too many: why, and the byte with which there are.
pub(super) fn brackets(text: &str) -> Result<(), (String, usize)> {
    let mut open = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_NESTING {
            return Err((format!("is nested more than {MAX_NESTING} deep"), at));
        }
    }
    Ok(())
}

/// The declared variables that the expression names.
pub(super) fn names(program: &Program, declared: &[VariableName]) -> Result<Vec<VariableName>, Mistake> {
    let mut walk = ExpressionCheck { declared, named: Vec::new(), bound: Vec::new(), loops: 0 };
    walk.visit(program.expression(), 0)?;
    Ok(walk.named)
}

struct ExpressionCheck<'e> {
    declared: &'e [VariableName],
    named: Vec<VariableName>,
    /// The variables of the loops around.
    bound: Vec<&'e str>,
    loops: usize,
}

fn mistake<T>(node: &IdedExpr, why: String) -> Result<T, Mistake> {
    Err(Mistake { node: node.id, why })
}

impl<'e> ExpressionCheck<'e> {
    fn visit(&mut self, node: &'e IdedExpr, depth: usize) -> Result<(), Mistake> {
        if depth > MAX_NESTING {
            return mistake(node, format!("is nested more than {MAX_NESTING} deep"));
        }
        let below = depth + 1;
        match &node.expr {
            Expr::Unspecified => mistake(node, "cannot be read".to_owned()),
            Expr::Struct(_) => {
                mistake(node, "makes a message, and there are no message types here".to_owned())
            }
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(node, name),
            Expr::Select(select) => self.visit(&select.operand, below),
            Expr::List(list) => list.elements.iter().try_for_each(|part| self.visit(part, below)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, below)?;
                    self.visit(&entry.value, below)
                }
                EntryExpr::StructField(field) => self.visit(&field.value, below),
            }),
            Expr::Call(call) => self.call(node, call, below),
            Expr::Comprehension(comprehension) => {
                self.visit(&comprehension.iter_range, below)?;
                self.visit(&comprehension.accu_init, below)?;
                // A binding (`optMap`) is written as a loop over nothing.
                let is_loop =
                    !matches!(&comprehension.iter_range.expr, Expr::List(list) if list.elements.is_empty());
                self.loops += usize::from(is_loop);
                if self.loops > MAX_NESTED_LOOPS {
                    return mistake(node, format!("has more than {MAX_NESTED_LOOPS} loops in one another"));
                }
                if table::is_library(&comprehension.iter_var) {
                    let why = format!("`{}` is the name of a library", comprehension.iter_var);
                    return mistake(node, why);
                }
                let outside = self.bound.len();
                self.bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
                self.bound.extend(comprehension.iter_var2.as_deref());
                for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                    self.visit(part, below)?;
                }
                self.bound.truncate(outside);
                self.loops -= usize::from(is_loop);
                Ok(())
            }
        }
    }

    fn name(&mut self, node: &IdedExpr, name: &str) -> Result<(), Mistake> {
        if self.bound.contains(&name) {
            return Ok(());
        }
        match self.declared.iter().find(|declared| declared.as_str() == name) {
            Some(declared) => {
                if !self.named.contains(declared) {
                    self.named.push(*declared);
                }
                Ok(())
            }
            // The types are values as well, for `type(x) == int`.
            None if CEL_TYPE_NAMES.contains(&name) => Ok(()),
            None => {
                let known: Vec<&str> = self.declared.iter().map(|declared| declared.as_str()).collect();
                mistake(node, format!("`{name}` is not declared; known are {}", known.join(", ")))
            }
        }
    }

    fn call(&mut self, node: &'e IdedExpr, call: &'e CallExpr, below: usize) -> Result<(), Mistake> {
        let is_of_a_library = call.target.as_deref().is_some_and(|target| match &target.expr {
            Expr::Ident(name) => table::library_function(name, &call.func_name).is_some(),
            _ => false,
        });
        if !is_of_a_library && table::library_function("", &call.func_name).is_none() {
            let why = format!("`{}` is not a known function", call.func_name);
            return mistake(node, why);
        }
        if call.func_name == "matches"
            && let Some(pattern) = call.args.last()
            && let Expr::Literal(LiteralValue::String(text)) = &pattern.expr
            && let Err(why) = functions::check_regex(text.inner())
        {
            return mistake(pattern, format!("is not a valid regular expression: {why}"));
        }
        if let Some(target) = call.target.as_deref().filter(|_| !is_of_a_library) {
            self.visit(target, below)?;
        }
        call.args.iter().try_for_each(|arg| self.visit(arg, below))
    }
}

const CEL_TYPE_NAMES: [&str; 14] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "optional_type",
    "duration",
    "timestamp",
    "google",
];

/// Whether the expression can come to true or false, as far as it shows.
///
/// # Errors
/// What it comes to instead.
pub(super) fn is_condition(root: &IdedExpr) -> Result<(), Mistake> {
    let other =
        |what: &str| mistake(root, format!("comes to {what}, but a condition has to be true or false"));
    match &root.expr {
        Expr::Literal(LiteralValue::Boolean(_)) => Ok(()),
        Expr::Literal(LiteralValue::String(_)) => other("a string"),
        Expr::Literal(_) => other("a number, bytes or null"),
        Expr::List(_) => other("a list"),
        Expr::Map(_) => other("a map"),
        Expr::Call(call) => match call.func_name.as_str() {
            "_?_:_" => call.args.iter().skip(1).try_for_each(is_condition),
            "_+_" | "_-_" | "_*_" | "_/_" | "_%_" | "-_" | "size" | "int" | "uint" | "double" | "indexOf"
            | "lastIndexOf" => other("a number or something that was added up"),
            "string" | "lowerAscii" | "upperAscii" | "trim" | "replace" | "substring" | "join" | "format"
            | "charAt" | "reverse" => other("a string"),
            "split" => other("a list"),
            _ => Ok(()),
        },
        // `map` and `filter` make lists, `all` and `exists` flags.
        Expr::Comprehension(comprehension) => match &comprehension.accu_init.expr {
            Expr::List(_) if matches!(&comprehension.result.expr, Expr::Ident(_)) => other("a list"),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
