//! The values that expressions read, out of JSON.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde::Serialize;

use super::growth::ValueSize;

/// The variables that expressions may declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VariableName {
    /// What happened, in one form for all providers.
    Event,
    /// The body.
    Req,
    Headers,
    /// The object, for filters of `resources`.
    Res,
    /// The claims of the token.
    Claims,
    /// Values that a config derives from the claims.
    Vars,
}

impl VariableName {
    pub(super) const ALL: &[VariableName] = &[
        VariableName::Event,
        VariableName::Req,
        VariableName::Headers,
        VariableName::Res,
        VariableName::Claims,
        VariableName::Vars,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            VariableName::Event => "event",
            VariableName::Req => "req",
            VariableName::Headers => "headers",
            VariableName::Res => "res",
            VariableName::Claims => "claims",
            VariableName::Vars => "vars",
        }
    }
}

/// A value, made once and read by any number of expressions.
pub struct Variable {
    value: Box<dyn Val>,
    size: ValueSize,
}

/// The variables of one evaluation, by name.
#[derive(Default)]
pub struct Variables<'v> {
    list: Vec<(VariableName, &'v Variable)>,
}

impl Variable {
    /// A value of JSON. Its numbers are doubles, as in Flux's own filters.
    pub fn from_json(json: &serde_json::Value) -> Variable {
        Variable::from_result(from_json(json))
    }

    /// A map of values by name.
    pub fn from_fields(fields: &[(&str, Variable)]) -> Variable {
        let fields: HashMap<String, Value> = fields
            .iter()
            .map(|(name, field)| ((*name).to_owned(), Value::try_from(&*field.value).unwrap_or(Value::Null)))
            .collect();
        Variable::from_result(Value::from(fields))
    }

    pub(super) fn from_result(value: Value) -> Variable {
        let size = ValueSize::from_value(&value);
        let value = Box::<dyn Val>::try_from(value);
        Variable { value: value.unwrap_or_else(|_| Box::new(cel::common::types::CelNull)), size }
    }
}

impl<'v> Variables<'v> {
    pub fn with(mut self, name: VariableName, value: &'v Variable) -> Variables<'v> {
        self.list.push((name, value));
        self
    }

    /// The size of these variables together.
    pub(super) fn size(&self, named: &[VariableName]) -> ValueSize {
        let of_named = self.list.iter().filter(|(name, _)| named.contains(name));
        of_named.fold(ValueSize::default(), |size, (_, variable)| size.and(variable.size))
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let (_, variable) = self.list.iter().find(|(known, _)| known.as_str() == name)?;
        Some(CowVal::Borrowed(&*variable.value))
    }
}

fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Number(number) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(list) => Value::List(Arc::new(list.iter().map(from_json).collect())),
        serde_json::Value::Object(fields) => {
            let fields: HashMap<String, Value> =
                fields.iter().map(|(name, value)| (name.clone(), from_json(value))).collect();
            Value::from(fields)
        }
    }
}
