//! The table of the demo.

use serde_json::Value;

use super::story::ExpectedOutcome;

/// A delivery and what became of it.
pub(super) struct Row {
    who: &'static str,
    what: &'static str,
    answer: String,
    objects: String,
    pub(super) as_expected: bool,
}

impl Row {
    pub(super) fn new(
        who: &'static str,
        what: &'static str,
        status: u16,
        body: &str,
        expect: ExpectedOutcome,
    ) -> Row {
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let outcome = answer["outcome"].as_str().unwrap_or_default();
        let targets: Vec<&str> =
            answer["targets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let as_expected =
            status == expect.status && outcome == expect.outcome && targets.len() == expect.targets;
        let objects = match (targets.is_empty(), answer["reason"].as_str()) {
            (false, _) => targets.join(", "),
            (true, Some(reason)) => format!("none: {reason}"),
            (true, None) if status == 401 => "none, and the answer says nothing".to_owned(),
            (true, None) => "none".to_owned(),
        };
        Row { who, what, answer: format!("{status} {outcome}").trim_end().to_owned(), objects, as_expected }
    }
}

/// Draws the rows under a heading, in columns.
pub(super) fn draw(rows: &[Row]) -> String {
    let width = |column: fn(&Row) -> &str, heading: &str| {
        rows.iter().map(|row| column(row).chars().count()).chain([heading.len()]).max().unwrap_or_default()
    };
    let (who, what, answer) =
        (width(|row| row.who, "FROM"), width(|row| row.what, "WHAT"), width(|row| &row.answer, "ANSWER"));
    let mut table = format!("  {:who$}  {:what$}  {:answer$}  REQUESTED\n", "FROM", "WHAT", "ANSWER");
    for row in rows {
        let mark = if row.as_expected { '✓' } else { '✗' };
        let line =
            format!("{mark} {:who$}  {:what$}  {:answer$}  {}\n", row.who, row.what, row.answer, row.objects);
        table.push_str(&line);
    }
    table
}
