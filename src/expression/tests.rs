use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Budget, Expression, Variable, VariableName, Variables};

const DECLARED: &[VariableName] =
    &[VariableName::Event, VariableName::Req, VariableName::Headers, VariableName::Res];

fn evaluate(text: &str, req: &Value, res: &Value) -> Result<bool, String> {
    let expression = Expression::condition(text, DECLARED).map_err(|err| err.to_string())?;
    let (req, res) = (Variable::from_json(req), Variable::from_json(res));
    let variables = Variables::default().with(VariableName::Req, &req).with(VariableName::Res, &res);
    expression.holds(&variables, &Budget::default()).map_err(|err| err.to_string())
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}

#[track_caller]
fn check(text: &str, req: Value, expect: Result<bool, &str>) {
    assert_eq!(evaluate(text, &req, &Value::Null), expect.map_err(str::to_owned), "{text}");
}

#[track_caller]
fn check_bad(text: &str, expect: &str) {
    let err = Expression::condition(text, DECLARED).expect_err("a mistake");
    assert_eq!(err.to_string(), expect, "{text}");
}

/// The expressions of Flux's documentation of Receivers and what it says about them.
/// <https://fluxcd.io/flux/components/notification/receivers/>
#[test]
fn the_expressions_of_flux_mean_what_they_mean_to_flux() {
    let by_tag_and_name = "has(res.metadata.annotations) && req.tag.split('/').last().orValue('').split(':').first().value() == res.metadata.name";
    let res = json!({"metadata": {"name": "hello-world", "annotations": {"update-image": "hello-world"}}});
    let req = json!({"tag": "us-east1-docker.pkg.dev/my-project/my-repo/hello-world:1.1.1"});
    assert_eq!(evaluate(by_tag_and_name, &req, &res), Ok(true));
    let by_annotation = "has(res.metadata.annotations) && req.tag.split('/').last().value().split(\":\").first().value() == res.metadata.annotations['update-image']";
    assert_eq!(evaluate(by_annotation, &req, &res), Ok(true));
    let other = json!({"metadata": {"name": "x", "annotations": {"update-image": "other"}}});
    assert_eq!(evaluate(by_annotation, &req, &other), Ok(false));
    let bare = json!({"metadata": {"name": "x"}});
    assert_eq!(evaluate(by_annotation, &req, &bare), Ok(false));
    let with_default = "req.tag.contains(res.metadata.?labels['app'].orValue('nothing'))";
    assert_eq!(evaluate(with_default, &req, &bare), Ok(false));
    let labelled = json!({"metadata": {"labels": {"app": "hello"}}});
    assert_eq!(evaluate(with_default, &req, &labelled), Ok(true));
}

#[test]
fn functions_of_the_libraries_are_there() {
    let req = json!({"l": ["a", "b"], "n": 5, "s": "Main/V1", "t": "2026-01-02T03:04:05Z"});
    for holds in [
        "req.l.exists(x, x == 'a') && req.l.all(x, x != 'c') && !req.l.exists_one(x, x == 'c')",
        "req.l.map(x, x + x) == ['aa', 'bb'] && req.l.filter(x, x > 'a').size() == 1",
        "sets.contains(req.l, ['a']) && sets.intersects(req.l, ['a', 'c']) && sets.equivalent(req.l, ['b', 'a', 'a'])",
        "!sets.contains(req.l, ['c']) && !sets.intersects(req.l, ['c']) && !sets.equivalent(req.l, ['a'])",
        "req.s.lowerAscii() == 'main/v1' && req.s.replace('/', '-') == 'Main-V1' && req.s.matches('^M.*V[0-9]$')",
        "req.s.split('/').join(',') == 'Main,V1' && 'a%s'.format([req.s]) == 'aMain/V1'",
        "base64.decode(base64.encode(b'x')) == b'x' && string(req.n) == '5' && type(req.n) == double",
        "timestamp(req.t).getFullYear() == 2026 && duration('1h') > duration('1m')",
        "req.?missing.hasValue() == false && req.?missing.orValue('x') == 'x' && req.l[?7].orValue('z') == 'z'",
        "optional.of(1.0).optMap(x, x + 1.0).value() == 2.0",
        "'größe'.indexOf('e') == 4 && 'abcabc'.indexOf('b', 2) == 4 && 'abc'.indexOf('') == 0 && 'abc'.indexOf('', 2) == 2",
        "'ßbcßbc'.lastIndexOf('b') == 4 && 'ßbcßbc'.lastIndexOf('ßb', 2) == 0 && 'abc'.lastIndexOf('z') == -1 && 'abc'.lastIndexOf('') == 3",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of('a')].unwrapOpt() == ['a']",
        "'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'abc'.split('') == ['a', 'b', 'c'] && 'a/b'.split(req.s.charAt(4)) == ['a', 'b']",
        "'a' in req.l && !('z' in req) && has(req.s) && !has(req.q) && req.l.first().value() == 'a'",
        "matches(req.s, 'V1') && req.n >= 5 && req.n == 5 && (req.n > 4 ? true : false)",
    ] {
        check(holds, req.clone(), Ok(true));
    }
}

/// No values in errors: they are the provider's words.
#[test]
fn errors_say_what_is_wrong_and_no_values() {
    let req = json!({"ref": "secret-value", "n": 1});
    check("req.missing == 'x'", req.clone(), Err("there is no `missing` (use `has(…)` or `.?`)"));
    check("req.ref > 1", req.clone(), Err("found no matching overload for '_>_' applied to '(string, int)'"));
    check("req.ref", req.clone(), Err("comes to a string, not to true or false"));
    check("req.n == 1.0 && [1][3] == 1", req.clone(), Err("an index is out of bounds"));
    check("req.ref == 'x' || req.missing == 1", req, Err("there is no `missing` (use `has(…)` or `.?`)"));
}

#[test]
fn mistakes_have_a_caret_under_the_place() {
    check_bad(
        "req.x == ",
        "cannot be read: mismatched input 'end' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n    | req.x == \n    |          ^",
    );
    check_bad(
        "req.x == 'ä' &&\n  reqq.y == 'a'",
        "`reqq` is not declared; known are event, req, headers, res\n    |   reqq.y == 'a'\n    |   ^",
    );
    check_bad(
        "true && len(req.x) > 1",
        "`len` is not a known function\n    | true && len(req.x) > 1\n    |         ^",
    );
    check_bad(
        "req.x.matches('a(')",
        "is not a valid regular expression: error: unclosed group\n    | req.x.matches('a(')\n    |               ^",
    );
    check_bad(
        "req.x + 'a'",
        "comes to a number or something that was added up, but a condition has to be true or false\n    | req.x + 'a'\n    |       ^",
    );
    check_bad(
        "req.commits.map(c, c.id)",
        "comes to a list, but a condition has to be true or false\n    | req.commits.map(c, c.id)\n    |             ^",
    );
    check_bad(
        "req.x == 1 ? 'yes' : false",
        "comes to a string, but a condition has to be true or false\n    | req.x == 1 ? 'yes' : false\n    |              ^",
    );
    check_bad(
        &format!("req.x ==\n{}1", "(".repeat(65)),
        &format!("is nested more than 64 deep\n    | {}1\n    | {}^", "(".repeat(65), " ".repeat(64)),
    );
    check_bad(&format!("true{}", " && true".repeat(1000)), "is longer than 4096 bytes");
    let deep = format!("req{} == 1", ".a".repeat(100));
    assert!(
        Expression::condition(&deep, DECLARED)
            .expect_err("deep")
            .to_string()
            .starts_with("is nested more than")
    );
    let loops = "req.a.all(a, req.a.all(b, req.a.all(c, req.a.all(d, true))))";
    assert!(
        Expression::condition(loops, DECLARED)
            .expect_err("loops")
            .to_string()
            .starts_with("has more than 3 loops")
    );
    assert!(Expression::condition("", DECLARED).is_err());
    assert!(Expression::condition(&"(".repeat(4000), DECLARED).is_err());
    assert!(Expression::condition(&"[".repeat(4000), DECLARED).is_err());
    for deep in ["!", "-", "a.", "a+", "a?a:", "a[0].", "[].map(x,", "a||", "a(b)."] {
        assert!(Expression::condition(&deep.repeat(4096 / deep.len()), DECLARED).is_err(), "{deep}");
        let ended = format!("{}true", deep.repeat(4090 / deep.len()));
        let _ = Expression::condition(&ended, DECLARED);
    }
}

/// What no expression may do is hold a thread or take all memory, whatever the payload.
#[test]
fn hostile_expressions_come_to_an_end() {
    let long = "x".repeat(1 << 20);
    let wide: Vec<u32> = (0..200_000).collect();
    let req = json!({"s": long, "a": "a".repeat(100_000), "l": wide, "k": (0..2000).map(|n| format!("{n}")).collect::<Vec<_>>()});
    let doubled = format!("optional.of(req.s){}.value() == ''", ".optMap(x, x + x)".repeat(24));
    let product = format!("req.a{} == ''", ".replace('a', req.a)".repeat(3));
    let patterns = "req.k.exists(x, req.k.exists(y, 'a'.matches(x + y + 'z{1,900}')))";
    let sum = format!("{} == ''", vec!["req.s"; 30].join(" + "));
    let concat = format!("({}).size() == 1", vec!["req.l"; 50].join(" + "));
    let copies = format!("[{}].size() > 0", vec!["req.s"; 500].join(", "));
    let twice = "'".to_owned() + &"a".repeat(1500) + "'";
    let pieces = format!("{twice}.replace('a', {twice}).split('').size() > 0");
    let found = format!(
        "'{0}'.replace('a', '{0}').indexOf('{1}'.replace('a', '{0}') + 'b') >= 0",
        "a".repeat(1000),
        "a".repeat(500)
    );
    let nested: Vec<Vec<Vec<u8>>> = vec![vec![vec![1; 74]; 74]; 74];
    let letters: String = (0..1_000_000_u32)
        .map(|n| if n.wrapping_mul(2_654_435_761) >> 16 & 1 == 0 { 'a' } else { 'b' })
        .collect();
    let req = with(with(req, "n", json!(nested)), "t", json!(letters));
    let readable = Variable::from_json(&req);
    let same = "[1, 2, 3, 4, 5, 6, 7, 8, 9].all(x, [1, 2, 3, 4, 5, 6, 7, 8, 9].all(y, [1, 2, 3, 4, 5, 6, 7, 8, 9].all(z, req.n == req.n)))";
    let many: String = (0..70).map(|n| format!("!'{n}'.matches('x{n}')&&")).collect();
    let makes = format!("req.l.all(x, {many}true)");
    let hostile = [
        "req.l.all(a, req.l.all(b, req.l.all(c, a + b + c >= 0.0)))",
        "req.l.exists(a, req.l.exists(b, a + b < 0.0))",
        "req.l.map(a, req.l).size() == 1",
        "req.k.all(a, req.s.contains('y' + a) == false)",
        "req.k.map(a, req.s).join('').size() == 0",
        "req.l.map(x, req.s + 'x').size() == 1",
        "'%s%s%s%s%s%s%s%s'.format([req.s, req.s, req.s, req.s, req.s, req.s, req.s, req.s]) == ''",
        "sets.contains(req.l, req.l)",
        "req.s.matches('(x+x+)+y') && req.s.matches('(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)[^x]')",
        "req.s.split('').map(x, req.s.split('')).size() == 1",
        patterns,
        &doubled,
        &product,
        &sum,
        &concat,
        &copies,
        &pieces,
        &found,
        "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20].map(x, req).size() == 1",
        "'x'.matches(req.s)",
        "req.t.matches('a[ab]{4000}[c-z]')",
        "req.t.matches('a[ab]{100}[c-z]')",
        same,
        &makes,
        "req.l.all(x, req.?s.hasValue())",
        "req.l.all(x, optional.of(req).hasValue())",
        "req.l.all(x, req.s < req.s + 'x')",
        "req.l.all(x, {req.s: 1}[req.s] == 1)",
    ];
    let hold = |text: &str| {
        let expression = Expression::condition(text, DECLARED).map_err(|err| err.to_string())?;
        let variables = Variables::default().with(VariableName::Req, &readable);
        expression.holds(&variables, &Budget::default()).map_err(|err| err.to_string())
    };
    for text in hostile {
        let started = Instant::now();
        let result = hold(text);
        let took = started.elapsed();
        // The machine may be busy, and this is not an optimized build.
        assert!(took < Duration::from_secs(5), "{took:?} for {text}: {result:?}");
    }
    for text in &hostile[..6] {
        let why = hold(text).expect_err("more than the budget");
        assert!(why.contains("of this size"), "{text}: {why}");
    }
    for text in [&doubled, &product, &sum] {
        let why = hold(text).expect_err("too long");
        assert_eq!(why, "could make texts that are too long out of a payload of this size", "{text}");
    }
}

/// A push of the largest size that GitHub lists commits for is no such payload.
#[test]
fn loops_over_a_real_push_are_within_the_budget() {
    let file = |n: usize| format!("apps/team-{n}/deployment.yaml");
    let commit = |n: usize| json!({"id": format!("{n:040}"), "message": "change ".repeat(20), "added": [file(n)], "modified": (0..20).map(file).collect::<Vec<_>>()});
    let req = json!({"ref": "refs/heads/main", "commits": (0..200).map(commit).collect::<Vec<_>>()});
    check(
        "req.commits.exists(c, (c.added + c.modified).exists(f, f.startsWith('infra/')))",
        req.clone(),
        Ok(false),
    );
    check("req.commits.exists(c, c.modified.exists(f, f.matches('^apps/team-7/')))", req, Ok(true));
}

#[test]
fn one_budget_serves_all_objects_of_a_delivery() {
    let expression = Expression::condition("req.l.exists(x, x == 'q')", DECLARED).expect("a condition");
    let req = Variable::from_json(&json!({"l": (0..1000).map(|n| n.to_string()).collect::<Vec<_>>()}));
    let variables = Variables::default().with(VariableName::Req, &req);
    let budget = Budget::default();
    let taken = (0..100_000).take_while(|_| expression.holds(&variables, &budget).is_ok()).count();
    assert!((100..5000).contains(&taken), "{taken}");
}

#[test]
fn an_expression_survives_being_written_down() {
    let expression =
        Expression::condition("req.ref == 'x' && has(res.metadata)", DECLARED).expect("a condition");
    let written = serde_json::to_string(&expression).expect("JSON");
    let read: Expression = serde_json::from_str(&written).expect("an expression");
    assert_eq!(read, expression);
    assert!(
        read.names(VariableName::Req) && read.names(VariableName::Res) && !read.names(VariableName::Event)
    );
}

proptest::proptest! {
    #[test]
    fn reading_and_evaluating_never_panics(text in "[ -~äé\\n]{0,60}", part in 0..8usize) {
        let parts = ["req.", "res.x == ", "headers['", "[1, 2].map(x, ", "has(", "!", "'", "optional.of("];
        for text in [text.clone(), format!("{}{text}", parts[part]), format!("{text}{}", parts[part])] {
            let _ = evaluate(&text, &serde_json::json!({"x": [1, "a", null]}), &serde_json::Value::Null);
        }
    }
}

#[test]
fn the_fields_that_are_read_are_named() {
    let read = |text: &str| {
        let all = &[VariableName::Event, VariableName::Req, VariableName::Headers];
        let condition = Expression::condition(text, all).expect("a condition");
        let of = |variable| condition.fields_of(variable).map(str::to_owned).collect::<Vec<_>>();
        [of(VariableName::Req), of(VariableName::Headers)].concat().join(" ")
    };
    assert_eq!(read("req.pusher.name == 'a' && event.name == 'push'"), "req.pusher.name");
    assert_eq!(read("headers['x-event'] == req.a[0].b"), "req.a headers.x-event");
    assert_eq!(read("has(req.a.b) && req['c'].d in ['x', 'y']"), "req.a.b req.c.d");
    assert_eq!(read("req.commits.exists(c, c.id == req[event.name])"), "req req.commits");
    assert_eq!(read("size(req) > 0 || req.?x.orValue('') == ''"), "req req.x");
    assert_eq!(read("event.refs.size() == 1"), "");
}
