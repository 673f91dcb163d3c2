//! A field of an object that cannot be used.

/// A field that cannot be used, and what to do about it. Reads `spec.url: no host in ...`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    field: String,
    problem: String,
}

impl FieldError {
    /// Names the field by its path in the object.
    pub fn new(field: impl Into<String>, problem: impl ToString) -> FieldError {
        FieldError { field: field.into(), problem: problem.to_string() }
    }

    /// Names the field that cannot be deserialized, within `parent`.
    pub fn from_serde(parent: &str, err: serde_path_to_error::Error<serde_json::Error>) -> FieldError {
        let field = match err.path().iter().len() {
            0 => parent.to_owned(),
            _ => format!("{parent}.{}", err.path()),
        };
        FieldError::new(field, err.into_inner())
    }

    /// Puts the path of the parent before the field.
    pub fn within(self, parent: &str) -> FieldError {
        FieldError { field: format!("{parent}.{}", self.field), ..self }
    }
}
