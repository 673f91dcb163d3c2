//! The fields of variables that an expression reads, as far as they are written out.

use std::collections::BTreeSet;

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

/// Returns the dotted paths that the expression reads, such as `req.pusher.name` and `headers.x-event`. Where
/// a name is computed, the path ends before it.
pub(super) fn read(root: &IdedExpr) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    visit(root, &mut paths);
    paths
}

fn visit(node: &IdedExpr, paths: &mut BTreeSet<String>) {
    if let Some(path) = path(node, paths) {
        paths.insert(path.text);
        return;
    }
    match &node.expr {
        Expr::Select(select) => visit(&select.operand, paths),
        Expr::List(list) => list.elements.iter().for_each(|part| visit(part, paths)),
        Expr::Map(map) => map.entries.iter().for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => {
                visit(&entry.key, paths);
                visit(&entry.value, paths);
            }
            EntryExpr::StructField(field) => visit(&field.value, paths),
        }),
        Expr::Call(call) => {
            call.target.iter().for_each(|target| visit(target, paths));
            call.args.iter().for_each(|argument| visit(argument, paths));
        }
        Expr::Comprehension(comprehension) => {
            let parts = [
                &comprehension.iter_range,
                &comprehension.accu_init,
                &comprehension.loop_cond,
                &comprehension.loop_step,
                &comprehension.result,
            ];
            parts.into_iter().for_each(|part| visit(part, paths));
        }
        Expr::Unspecified | Expr::Struct(_) | Expr::Literal(_) | Expr::Ident(_) => {}
    }
}

/// A chain of fields.
struct FieldPath {
    text: String,
    /// Whether a part of it is computed, so that nothing behind that counts.
    has_ended: bool,
}

impl FieldPath {
    fn then(mut self, field: &str) -> FieldPath {
        if !self.has_ended {
            self.text.push('.');
            self.text.push_str(field);
        }
        self
    }
}

/// The path of a chain of fields that begins with a name; none for anything else.
fn path(node: &IdedExpr, paths: &mut BTreeSet<String>) -> Option<FieldPath> {
    match &node.expr {
        Expr::Ident(name) => Some(FieldPath { text: name.clone(), has_ended: false }),
        Expr::Select(select) => Some(path(&select.operand, paths)?.then(&select.field)),
        Expr::Call(call) => {
            let (operand, key) = indexed(call)?;
            let operand = path(operand, paths)?;
            match &key.expr {
                Expr::Literal(LiteralValue::String(name)) => Some(operand.then(name.inner())),
                _ => {
                    visit(key, paths);
                    Some(FieldPath { has_ended: true, ..operand })
                }
            }
        }
        _ => None,
    }
}

/// The operand and the key of `a[b]` and of `a.?b`.
fn indexed(call: &CallExpr) -> Option<(&IdedExpr, &IdedExpr)> {
    match (call.func_name.as_str(), call.args.as_slice()) {
        ("_[_]" | "_?._" | "_[?_]", [operand, key]) => Some((operand, key)),
        _ => None,
    }
}
