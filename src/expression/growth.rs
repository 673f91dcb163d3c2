//! The maximum length of the texts that an expression makes. Loops make lists and flags only, so this
//! follows from the expression and the size of what it reads.

use std::collections::HashMap;

use cel::Value;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

use super::table::{self, Growth};

/// The size of a value.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ValueSize {
    /// The elements of its longest list or map.
    elements: u64,
    /// All texts in it together, in bytes.
    bytes: u64,
    /// Its longest text, in bytes.
    longest: u64,
}

/// The maximum length of a text that an expression makes, in bytes.
const MAX_TEXT_BYTES: u64 = 8 << 20;

impl ValueSize {
    pub(super) fn from_value(value: &Value) -> ValueSize {
        let from_text_bytes =
            |bytes: usize| ValueSize { elements: 0, bytes: bytes as u64, longest: bytes as u64 };
        match value {
            Value::String(text) => from_text_bytes(text.len()),
            Value::Bytes(bytes) => from_text_bytes(bytes.len()),
            Value::List(list) => {
                let parts = list.iter().map(ValueSize::from_value).fold(ValueSize::default(), ValueSize::and);
                ValueSize { elements: parts.elements.max(list.len() as u64), ..parts }
            }
            Value::Map(map) => {
                let parts = map.map.iter().fold(ValueSize::default(), |size, (key, value)| {
                    size.and(from_text_bytes(key.to_string().len())).and(ValueSize::from_value(value))
                });
                ValueSize { elements: parts.elements.max(map.map.len() as u64), ..parts }
            }
            _ => from_text_bytes(8),
        }
    }

    /// The size of both together.
    pub(super) fn and(self, other: ValueSize) -> ValueSize {
        ValueSize {
            elements: self.elements.max(other.elements),
            bytes: self.bytes.saturating_add(other.bytes),
            longest: self.longest.max(other.longest),
        }
    }
}

/// Whether no text can get longer than is allowed.
pub(super) fn is_bounded(root: &IdedExpr, variables: ValueSize) -> bool {
    let mut analysis = Analysis { variables, bound: HashMap::new(), longest: variables.longest };
    analysis.size(root);
    analysis.longest <= MAX_TEXT_BYTES
}

struct Analysis<'e> {
    variables: ValueSize,
    /// What the variables of the loops around can be.
    bound: HashMap<&'e str, ValueSize>,
    longest: u64,
}

impl<'e> Analysis<'e> {
    fn size(&mut self, node: &'e IdedExpr) -> ValueSize {
        let size = match &node.expr {
            Expr::Unspecified | Expr::Struct(_) => ValueSize::default(),
            Expr::Literal(LiteralValue::String(text)) => from_text_bytes(text.inner().len() as u64),
            Expr::Literal(LiteralValue::Bytes(bytes)) => from_text_bytes(bytes.inner().len() as u64),
            Expr::Literal(_) => from_text_bytes(8),
            Expr::Ident(name) => self.bound.get(name.as_str()).copied().unwrap_or(self.variables),
            Expr::Select(select) => self.size(&select.operand),
            Expr::List(list) => {
                let parts = self.all(&list.elements);
                ValueSize { elements: parts.elements.max(list.elements.len() as u64), ..parts }
            }
            Expr::Map(map) => {
                map.entries.iter().fold(ValueSize::default(), |size, entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => {
                        size.and(self.size(&entry.key)).and(self.size(&entry.value))
                    }
                    EntryExpr::StructField(field) => size.and(self.size(&field.value)),
                })
            }
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => {
                let range = self.size(&comprehension.iter_range);
                let start = self.size(&comprehension.accu_init);
                let before = [
                    (comprehension.iter_var.as_str(), self.bound.insert(&comprehension.iter_var, range)),
                    (comprehension.accu_var.as_str(), self.bound.insert(&comprehension.accu_var, start)),
                ];
                let (_, round) = (self.size(&comprehension.loop_cond), self.size(&comprehension.loop_step));
                let rounds = range.elements;
                let made = ValueSize {
                    elements: rounds.max(round.elements),
                    bytes: round.bytes.saturating_mul(rounds.max(1)),
                    longest: round.longest,
                };
                self.bound.insert(&comprehension.accu_var, made);
                let result = self.size(&comprehension.result);
                for (name, size) in before {
                    match size {
                        Some(size) => self.bound.insert(name, size),
                        None => self.bound.remove(name),
                    };
                }
                result
            }
        };
        self.longest = self.longest.max(size.longest);
        size
    }

    fn all(&mut self, parts: impl IntoIterator<Item = &'e IdedExpr>) -> ValueSize {
        parts.into_iter().fold(ValueSize::default(), |size, part| size.and(self.size(part)))
    }

    fn call(&mut self, call: &'e CallExpr) -> ValueSize {
        let target = call.target.as_deref().map(|target| self.size(target));
        let args: Vec<ValueSize> = call.args.iter().map(|arg| self.size(arg)).collect();
        let all = args.iter().copied().chain(target).fold(ValueSize::default(), ValueSize::and);
        let this = target.or(args.first().copied()).unwrap_or_default();
        let growth = table::function(&call.func_name).map_or(Growth::Keep, |function| function.growth);
        match growth {
            Growth::Concatenate => ValueSize {
                elements: args.iter().fold(0, |sum, arg| sum.saturating_add(arg.elements)),
                longest: args.iter().fold(0, |sum, arg| sum.saturating_add(arg.longest)),
                ..all
            },
            Growth::Replace => {
                let new = args.get(1).map_or(0, |new| new.longest);
                from_text_bytes(this.longest.saturating_add(1).saturating_mul(new.saturating_add(1)))
            }
            Growth::Join => {
                let separators = args.first().map_or(0, |separator| separator.longest);
                from_text_bytes(this.bytes.saturating_add(this.elements.saturating_mul(separators)))
            }
            // Each place in the format can write out all of the arguments, quoted.
            Growth::Format => from_text_bytes(
                this.longest.saturating_add(all.bytes.saturating_mul(4)).saturating_mul(this.longest / 2 + 1),
            ),
            Growth::Quote => from_text_bytes(all.longest.saturating_mul(8)),
            Growth::Split => ValueSize { elements: this.longest.saturating_add(1), ..this },
            Growth::Recode => from_text_bytes(all.longest.saturating_mul(2).saturating_add(64)),
            Growth::Keep => all,
        }
    }
}

fn from_text_bytes(bytes: u64) -> ValueSize {
    ValueSize { elements: 0, bytes, longest: bytes }
}
