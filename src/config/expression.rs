//! Conditions in a config.

use super::section::Section;
use crate::expression::{Expression, VariableName};

/// A condition over these variables.
pub(super) fn read(
    section: &mut Section<'_>,
    field: &'static str,
    declared: &'static [VariableName],
) -> Option<Expression> {
    let text = section.text(field)?;
    Expression::condition(&text, declared).map_err(|err| section.mistake(field, &err.to_string())).ok()
}
