//! The readable table and the JSON.

use serde_json::json;

/// What was compared, what came out, and what it has to reach.
pub struct Row {
    pub what: &'static str,
    pub figures: String,
    pub value: f64,
    pub must: Must,
}

/// A bound.
#[derive(Clone, Copy)]
pub enum Must {
    AtLeast(f64),
    AtMost(f64),
}

impl Must {
    fn holds(self, value: f64) -> bool {
        match self {
            Must::AtLeast(bound) => value >= bound,
            Must::AtMost(bound) => value <= bound,
        }
    }

    fn written(self) -> String {
        match self {
            Must::AtLeast(bound) => format!("≥ {bound}"),
            Must::AtMost(bound) => format!("≤ {bound}"),
        }
    }
}

pub fn show(rows: &[Row]) {
    println!("\n| compared | measured | result | must reach |");
    println!("| --- | --- | --- | --- |");
    for Row { what, figures, value, must } in rows {
        let mark = if must.holds(*value) { "" } else { " ✗" };
        println!("| {what} | {figures} | {value:.2}{mark} | {} |", must.written());
    }
    let list: Vec<_> = rows
        .iter()
        .map(|row| json!({"what": row.what, "figures": row.figures, "value": row.value, "must": row.must.written(), "reached": row.must.holds(row.value)}))
        .collect();
    let file = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), std::path::PathBuf::from);
    let file = file.join("bench.json");
    match std::fs::write(&file, format!("{:#}\n", json!(list))) {
        Ok(()) => println!("\n{}", file.display()),
        Err(err) => println!("\n{}: {err}", file.display()),
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
