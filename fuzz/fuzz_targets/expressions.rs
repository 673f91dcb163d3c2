//! No text of a filter and no payload makes reading or evaluating panic, or take long.

#![no_main]

use std::time::{Duration, Instant};

use flux_recv::internals::{Budget, Expression, Variable, VariableName, Variables};
use flux_recv::internals::RESOURCE_VARIABLES;
use libfuzzer_sys::fuzz_target;

// An expression up to the first zero byte, behind it the JSON of `req`.
fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (expression, request) = text.split_once('\0').unwrap_or((&text, r#"{"a":["b",1,{"c":null}]}"#));
    let Ok(expression) = Expression::condition(expression, RESOURCE_VARIABLES) else { return };
    let request = Variable::from_json(&serde_json::from_str(request).unwrap_or_default());
    let variables = Variables::default().with(VariableName::Req, &request).with(VariableName::Res, &request).with(VariableName::Event, &request);
    let started = Instant::now();
    let _ = expression.holds(&variables, &Budget::default());
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());
});
