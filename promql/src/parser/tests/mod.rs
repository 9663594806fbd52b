//! Accepted and refused queries, printing, and properties over random trees and random text.

mod roundtrip;

use promontory_tsdb::histogram::CounterResetHint;
use promontory_tsdb::sample::is_stale;

use super::literal::parse_number;
use super::pretty::Pretty;
use super::series::{SequenceValue, parse_metric, parse_series_description};
use super::*;

fn parse_all(input: &str) -> Result<Expr, ParseError> {
    parse(input, &ParserOptions::all())
}

#[track_caller]
fn ok(input: &str) -> Expr {
    parse_all(input).unwrap_or_else(|e| panic!("{input}: {e}"))
}

/// `input` is printed as `printed`, and that prints as itself.
#[track_caller]
fn prints(input: &str, printed: &str) {
    assert_eq!(ok(input).to_string(), printed, "from {input}");
    assert_eq!(ok(printed).to_string(), printed, "printed text");
}

/// `input` is refused with `message` about the bytes `what`.
#[track_caller]
fn refused(input: &str, what: &str, message: &str) {
    refused_with(input, what, message, &ParserOptions::all());
}

#[track_caller]
fn refused_with(input: &str, what: &str, message: &str, options: &ParserOptions) {
    let e = parse(input, options).expect_err(input);
    assert_eq!(e.message, message, "{input}");
    assert_eq!(input.get(e.span.start..e.span.end), Some(what), "place in {input}");
}

#[test]
fn operators_bind_as_documented() {
    for (input, grouped) in [
        ("a + b * c", "a + (b * c)"),
        ("a * b + c", "(a * b) + c"),
        ("a - b - c", "(a - b) - c"),
        ("a ^ b ^ c", "a ^ (b ^ c)"),
        ("a or b and c", "a or (b and c)"),
        ("a and b unless c", "(a and b) unless c"),
        ("a > b + c", "a > (b + c)"),
        ("a == b or c", "(a == b) or c"),
        ("a atan2 b + c", "(a atan2 b) + c"),
        ("a </ 5 + b", "a </ (5 + b)"),
        ("-a ^ b", "-(a ^ b)"),
        ("-a * b", "(-a) * b"),
        ("a ^ -b * c", "(a ^ (-b)) * c"),
    ] {
        assert_eq!(shape(&ok(input)), shape(&ok(grouped)), "{input}");
    }
}

/// The tree in prefix form, without parentheses.
fn shape(e: &Expr) -> String {
    match &e.kind {
        ExprKind::Paren(e) => shape(e),
        ExprKind::Unary(op, e) => format!("({op} {})", shape(e)),
        ExprKind::Binary(b) => format!("({} {} {})", b.op, shape(&b.lhs), shape(&b.rhs)),
        _ => e.to_string(),
    }
}

#[test]
fn numbers_have_many_forms() {
    for (text, value) in [
        ("1", 1.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("1E-2", 0.01),
        ("0x1F", 31.0),
        ("0X_1f", 31.0),
        ("017", 15.0),
        ("08", 8.0),
        ("1_000_000", 1e6),
        ("1_0.5", 10.5),
        ("+Inf", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1m30ms", 60.03),
        ("9223372036854775807", 9_223_372_036_854_775_807.0),
        ("18446744073709551616", 18_446_744_073_709_551_616.0),
    ] {
        let ExprKind::Number(n) = ok(text).kind else { panic!("{text} is no number") };
        assert_eq!(n.value, value, "{text}");
    }
    assert!(matches!(ok("NaN").kind, ExprKind::Number(n) if n.value.is_nan()));
}

#[test]
fn keywords_are_metric_names_where_they_can_be() {
    for name in [
        "sum",
        "by",
        "without",
        "offset",
        "and",
        "or",
        "unless",
        "start",
        "end",
        "step",
        "range",
        "min_of",
        "fill",
        "fill_left",
        "anchored",
        "smoothed",
        "limitk",
        "count_values",
    ] {
        let ExprKind::VectorSelector(s) = ok(name).kind else { panic!("{name}") };
        assert_eq!(s.name.as_deref(), Some(name));
        ok(&format!("{name}{{a=\"b\"}}"));
        ok(&format!("x + {name}"));
    }
    refused("bool", "bool", "unexpected <bool>");
    refused("on + 1", "on", "unexpected <on>");
    ok("sum by (sum, on, Bool, start) (x)");
    refused("sum by (without) (x)", "without", "unexpected <without> in grouping opts, expected label");
}

#[test]
fn quoted_names_stand_in_braces_and_groupings() {
    prints(r#"{"a.b", c!="d"}"#, r#"{__name__="a.b",c!="d"}"#);
    prints(r#"{"x y"=~"z"}"#, r#"{"x y"=~"z"}"#);
    prints(r#"sum by ("a.b", c) (x)"#, r#"sum by ("a.b", c) (x)"#);
    prints(r"{'a'='b',}", r#"{a="b"}"#);
    refused(r#"sum by ("") (x)"#, r#""""#, r#"invalid label name for grouping: """#);
}

#[test]
fn modifiers_come_in_either_order_and_once() {
    prints("a offset 5m @ 100", "a @ 100.000 offset 5m");
    prints("a @ 100 offset 5m", "a @ 100.000 offset 5m");
    prints("a[5m] @ start() offset -1h", "a[5m] @ start() offset -1h");
    prints("a[5m:] @ end()", "a[5m:] @ end()");
    prints("a[300] offset 60", "a[5m] offset 1m");
    prints("rate(a[5m] anchored offset 1m)", "rate(a[5m] anchored offset 1m)");
    prints("a smoothed", "a smoothed");
    prints("a offset 5m + b", "a offset 5m + b");
    prints("a offset 0s offset 5m", "a offset 5m");
    refused("a offset 1m offset 2m", "a offset 1m", "offset may not be set multiple times");
    refused("a @ 1 @ 2", "a @ 1", "@ <timestamp> may not be set multiple times");
    refused("a offset 1m [5m]", "[5m]", "no offset modifiers allowed before range");
    refused("a anchored smoothed", "a", "anchored and smoothed modifiers cannot be used together");
    refused(
        "1 offset 1m",
        "1",
        "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
    );
    refused("a @ +Inf", "a", "timestamp out of bounds for @ modifier: +Inf");
}

#[test]
fn durations_are_computed() {
    for text in [
        "a[5m + 1m]",
        "a[step()]",
        "a[5m:step() * 2]",
        "a[min_of(5m, range() / 10)]",
        "a[(5m)]",
        "a offset (5m - step())",
        "a offset -(5m + 1m)",
        "a offset step()",
        "a offset -max_of(5m, step())",
        "a[-(-5m)]",
        "a[2 ^ 3]",
    ] {
        prints(text, text);
    }
    prints("a[((5m))]", "a[(5m)]");
    prints("a[+step()]", "a[step()]");
    refused("a[5m/0]", "/", "division by zero");
    refused("a[5m%0s]", "%", "modulo by zero");
    refused("a[0]", "0", "duration must be greater than 0");
    refused("a[-5m]", "-5m", "duration must be greater than 0");
    refused("a[5m:0]", "0", "duration must be greater than 0");
    refused("a[1e10]", "1e10", "duration out of range");
    refused("a[5m5m]", "5m5m", r#"not a valid duration string: "5m5m""#);
}

#[test]
fn syntax_errors_name_the_construct() {
    for (input, what, message) in [
        ("", "", "no expression found in input"),
        ("1 +", "", "unexpected end of input"),
        ("sum(a b)", "b", r#"unexpected identifier "b" in aggregation"#),
        ("sum by a", "a", r#"unexpected identifier "a" in grouping opts, expected "(""#),
        ("sum by (a b) (c)", "b", r#"unexpected identifier "b" in grouping opts, expected "," or ")""#),
        ("a{b}", "}", r#"unexpected "}" in label matching, expected label matching operator"#),
        ("a{b=c}", "c", r#"unexpected identifier "c" in label matching, expected string"#),
        (r#"a{b="c" d}"#, "d", r#"unexpected identifier "d" in label matching, expected "," or "}""#),
        ("a{,}", ",", r#"unexpected "," in label matching, expected identifier or "}""#),
        (
            "a[]",
            "]",
            r#"unexpected "]" in subquery or range selector, expected number, duration, step(), or range()"#,
        ),
        ("a[5m 6m]", "6m", r#"unexpected duration "6m" in subquery or range, expected ":" or "]""#),
        (
            "a offset b",
            "b",
            r#"unexpected identifier "b" in offset, expected number, duration, step(), or range()"#,
        ),
        ("a @ b", "b", r#"unexpected identifier "b" in @, expected timestamp"#),
        ("abs(a,)", ",", "trailing commas not allowed in function call args"),
        ("foo(a)", "foo", r#"unknown function with name "foo""#),
        ("a on (b) c", "on", "unexpected <on>"),
        ("a + on (b) group_left (c) * d", "*", "unexpected <op:*>"),
        ("a + on (b) group_left * d", "*", "unexpected <op:*> in grouping opts, expected \"(\""),
        ("\"0123456789abc\" b", "b", r#"unexpected identifier "b""#),
    ] {
        refused(input, what, message);
    }
    let e = parse_all("a +\n  b c").expect_err("two names");
    assert_eq!(e.to_string(), r#"2:5: parse error: unexpected identifier "c""#);
    assert_eq!(
        parse_all("").expect_err("empty").to_string(),
        "unknown position: parse error: no expression found in input"
    );
}

/// What 3.14 says, with its place.
#[test]
fn a_colon_or_an_end_where_a_duration_is_wanted_is_told_as_upstream_does() {
    let range = "in subquery or range selector, expected number, duration, step(), or range()";
    let colon = "unexpected colon before duration in duration expression";
    for (input, place, message) in [
        ("rate(x[range() + :1m])", 19, colon.to_owned()),
        ("rate(x[step()+:1m])", 16, colon.to_owned()),
        ("rate(x[5m + :1m])", 13, format!("unexpected \":\" {range}")),
        ("rate(x[5m * :1m])", 13, format!("unexpected \":\" {range}")),
        ("rate(x[(5m + :1m])", 14, format!("unexpected \":\" {range}")),
        ("rate(x[-:1m])", 10, colon.to_owned()),
        ("rate(x[:1m])", 9, colon.to_owned()),
        ("rate(x[min_of(1m, :1m])", 19, format!("unexpected \":\" {range}")),
        ("rate(x[5m + + :1m])", 15, format!("unexpected \":\" {range}")),
        ("rate(x[range( + :1m])", 15, format!("unexpected <op:+> {range}")),
        ("x[5m : 1m + :2m]", 13, "unexpected colon ':'".to_owned()),
        ("x[5m ^ ]", 8, format!("unexpected \"]\" {range}")),
        (
            "x offset (5m + )",
            16,
            "unexpected \")\" in offset, expected number, duration, step(), or range()".to_owned(),
        ),
    ] {
        let error = parse_all(input).expect_err(input).to_string();
        assert_eq!(error, format!("1:{place}: parse error: {message}"), "{input}");
    }
    for input in
        ["x[step():]", "x[range() :1m]", "x[(step() + range()):step()]", "x[min_of(step(), range()):]"]
    {
        ok(input);
    }
}

#[test]
fn lexical_errors_show_the_character() {
    for (input, message) in [
        ("a{b!c}", "unexpected character after '!' inside braces: 'c'"),
        ("a{b=\"c", "unterminated quoted string"),
        ("a{b=`c", "unterminated raw string"),
        (r#"a{b="\q"}"#, "unknown escape sequence U+0071 'q'"),
        (r#"a{b="\xg1"}"#, "illegal character U+0067 'g' in escape sequence"),
        (r#"a{b="\ud800"}"#, "escape sequence is an invalid Unicode code point"),
        ("a ; b", "unexpected character: ';'"),
        ("a é", "unexpected character: 'é'"),
        ("(a", "unclosed left parenthesis"),
        ("a)", "unexpected right parenthesis ')'"),
        ("a]", "unexpected right bracket ']'"),
        ("a[5m", "unclosed left bracket"),
        ("a[5m:1m:1m]", "unexpected colon ':'"),
        ("a{", "unexpected end of input inside braces"),
        ("1.2.3", r#"bad number or duration syntax: "1.2.""#),
        ("1e", r#"bad number or duration syntax: "1e""#),
        ("a =~ b", "unexpected character after '=': '~'"),
    ] {
        assert_eq!(parse_all(input).expect_err(input).message, message, "{input}");
    }
}

#[test]
fn type_errors_point_at_what_is_wrong() {
    for (input, what, message) in [
        ("rate(a)", "a", r#"expected type range vector in call to function "rate", got instant vector"#),
        ("abs(1)", "1", r#"expected type instant vector in call to function "abs", got scalar"#),
        ("abs()", "abs()", r#"expected 1 argument(s) in call to "abs", got 0"#),
        ("round(a, 1, 2)", "round(a, 1, 2)", r#"expected at most 2 argument(s) in call to "round", got 3"#),
        (
            "label_join(a, \"b\")",
            "label_join(a, \"b\")",
            r#"expected at least 3 argument(s) in call to "label_join", got 2"#,
        ),
        ("1 > 2", ">", "comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "+ bool", "bool modifier can only be used on comparison operators"),
        ("a and 1", "a and 1", r#"set operator "and" not allowed in binary scalar expression"#),
        (
            "a or on (x) group_left (y) b",
            "a or on (x) group_left (y) b",
            r#"no grouping allowed for "or" operation"#,
        ),
        (
            "a + on (x) group_left (x) b",
            "+ on (x) group_left (x)",
            r#"label "x" must not occur in ON and GROUP clause at once"#,
        ),
        (
            "a offset -min_of(2m, 1m) + on (x) group_left (x) b",
            "+ on (x) group_left (x)",
            r#"label "x" must not occur in ON and GROUP clause at once"#,
        ),
        ("a + on (x) 1", "a + on (x) 1", "vector matching only allowed between instant vectors"),
        (
            "a + fill (0) 1",
            "a + fill (0) 1",
            "filling in missing series only allowed between instant vectors",
        ),
        ("a and fill (0) b", "a and fill (0) b", "filling in missing series not allowed for set operators"),
        ("\"a\" + 1", "\"a\"", "binary expression must contain only scalar and instant vector types"),
        (
            "-\"a\"",
            "-\"a\"",
            r#"unary expression only allowed on expressions of type scalar or instant vector, got "string""#,
        ),
        ("sum(1)", "1", "expected type instant vector in aggregation expression, got scalar"),
        ("topk(a, b)", "a", "expected type scalar in aggregation parameter, got instant vector"),
        (
            "topk(a)",
            "topk(a)",
            "wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        ("1[5m:]", "1[5m:]", "subquery is only allowed on instant vector, got scalar instead"),
        ("a[5m][5m:]", "a[5m][5m:]", "subquery is only allowed on instant vector, got matrix instead"),
        ("(a)[5m]", "[5m]", "ranges only allowed for vector selectors"),
        ("{}", "{}", "vector selector must contain at least one non-empty matcher"),
        (r#"{a=~".*"}"#, r#"{a=~".*"}"#, "vector selector must contain at least one non-empty matcher"),
        (r#"a{__name__="b"}"#, r#"a{__name__="b"}"#, r#"metric name must not be set twice: "a" or "b""#),
        ("info(a, b)", "b", "expected label selectors only, got vector selector instead"),
    ] {
        refused(input, what, message);
    }
    ok("info(a, {b=~\".*\"})");
}

#[test]
fn gates_close_what_is_experimental() {
    let none = ParserOptions::default();
    for (input, what, message) in [
        ("mad_over_time(a[5m])", "mad_over_time", r#"function "mad_over_time" is not enabled"#),
        ("start()", "start", r#"function "start" is not enabled"#),
        (
            "limitk(1, a)",
            "limitk(1, a)",
            "limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
        ),
        ("a smoothed", "a", "smoothed modifier is experimental and not enabled"),
        ("a + fill (0) b", "a + fill (0) b", "binop fill modifiers are experimental and not enabled"),
    ] {
        refused_with(input, what, message, &none);
    }
    let functions_only = ParserOptions { experimental_functions: true, ..none };
    assert!(parse("start_timestamp(a)", &functions_only).is_ok());
    assert!(parse("start() + step()", &functions_only).is_ok());
    assert!(parse("a[5m + step()]", &none).is_ok());
}

#[test]
fn functions_are_sorted_and_complete() {
    assert_eq!(functions::FUNCTIONS.len(), 90);
    assert!(functions::FUNCTIONS.is_sorted_by_key(|f| f.name));
    assert_eq!(functions::FUNCTIONS.iter().filter(|f| f.experimental).count(), 17);
    assert_eq!(functions::by_name("rate").map(|f| f.return_type), Some(ValueType::Vector));
    assert_eq!(functions::by_name("Rate"), None);
}

#[test]
fn spans_cover_what_was_written() {
    let text = " sum by (x) ( rate(a{b=\"c\"}[5m] offset 1m) ) / 2";
    let e = ok(text);
    let at = |s: Span| &text[s.start..s.end];
    assert_eq!(at(e.span), text.trim());
    let ExprKind::Binary(b) = &e.kind else { panic!() };
    assert_eq!(at(b.lhs.span), "sum by (x) ( rate(a{b=\"c\"}[5m] offset 1m) )");
    let ExprKind::Aggregate(a) = &b.lhs.kind else { panic!() };
    assert_eq!(at(a.expr.span), "rate(a{b=\"c\"}[5m] offset 1m)");
    let ExprKind::Call(c) = &a.expr.kind else { panic!() };
    assert_eq!(at(c.args[0].span), "a{b=\"c\"}[5m] offset 1m");
    let ExprKind::MatrixSelector(m) = &c.args[0].kind else { panic!() };
    assert_eq!((at(m.selector_span), at(m.range.span)), ("a{b=\"c\"}", "5m"));
}

#[test]
fn matching_is_there_just_between_vectors() {
    let matching = |text: &str| match ok(text).kind {
        ExprKind::Binary(ref b) => b.matching.clone(),
        _ => panic!("{text}"),
    };
    assert_eq!(matching("a + 1"), None);
    assert_eq!(matching("a + b").map(|m| m.cardinality), Some(Cardinality::OneToOne));
    assert_eq!(matching("a or b").map(|m| m.cardinality), Some(Cardinality::ManyToMany));
    let m = matching("a * on (x) group_right (y) fill_left (1) fill_right (-2) b").expect("vectors");
    assert_eq!(
        (m.cardinality, m.on, m.fill_left, m.fill_right),
        (Cardinality::OneToMany, true, Some(1.0), Some(-2.0))
    );
    prints("a * on (x) group_right fill (1e30) b", "a * on (x) group_right () fill (1e+30) b");
}

#[test]
fn comments_and_space_are_skipped() {
    prints("# first\n a # second\n + \t{ # third\n b = \"c\" # fourth\n}", "a + {b=\"c\"}");
}

#[test]
fn strings_have_gos_escapes() {
    let string = |text: &str| match ok(text).kind {
        ExprKind::String(ref s) => s.clone(),
        _ => panic!("{text}"),
    };
    assert_eq!(string(r#""a\n\x41\u00e9\101\"'""#), "a\nA\u{e9}A\"'");
    assert_eq!(string(r"'\''"), "'");
    assert_eq!(string(r"`a\n`"), r"a\n");
    assert_eq!(string(r#""\xc3\xa9""#), "\u{e9}");
}

#[test]
fn long_chains_take_linear_time_and_constant_stack() {
    let chain = vec!["a"; 20_000].join(" + ");
    let e = ok(&chain);
    assert_eq!(e.value_type(), ValueType::Vector);
    assert_eq!(e.to_string(), chain);
    drop(e);
    assert_eq!(ok(&vec!["1"; 20_000].join("+")).value_type(), ValueType::Scalar);
    ok(&format!("sum by ({}) (a)", vec!["x"; 20_000].join(",")));
}

#[test]
fn deep_nesting_is_refused_without_harm() {
    let message = format!("expression nests deeper than {MAX_DEPTH} levels");
    for (open, close) in [("(", ")"), ("-", ""), ("abs(", ")"), ("sum(", ")"), ("a^", ""), ("a + (", ")")] {
        let deep = |n: usize| format!("{}a{}", open.repeat(n), close.repeat(n));
        let e = ok(&deep(MAX_DEPTH / 2 - 1));
        assert_eq!(ok(&e.to_string()).to_string(), e.to_string());
        assert!(!format(&e).is_empty());
        assert_eq!(parse_all(&deep(100_000)).expect_err("too deep").message, message);
    }
    assert!(parse_all(&format!("a{}", "[1m:]".repeat(100_000))).is_err());
    assert!(parse_all(&format!("a[{}1m{}]", "(".repeat(100_000), ")".repeat(100_000))).is_err());
    assert!(parse_all(&format!("a[1m{}]", "+1m".repeat(100_000))).is_err());
}

#[test]
fn long_expressions_are_broken_into_lines() {
    let pretty = |text: &str| Pretty { width: 20 }.expr(&ok(text), 0);
    assert_eq!(
        pretty("sum by (job) (rate(requests_total[5m])) / 2"),
        "  sum by (job) (\n    rate(\n      requests_total[5m]\n    )\n  )\n/\n  2"
    );
    assert_eq!(pretty("-(aaaaaaaaaaaa + bbbbbbbbbbbb)"), "-(\n    aaaaaaaaaaaa\n  +\n    bbbbbbbbbbbb\n)");
    assert_eq!(format(&ok("a  +  b")), "a + b");
}

#[test]
fn durations_are_read_and_written() {
    for (text, ms) in
        [("0", 0), ("1ms", 1), ("1m30s", 90_000), ("1y2w3d", 365 * 86_400_000 + 17 * 86_400_000)]
    {
        assert_eq!(parse_duration(text), Ok(ms));
    }
    for (ms, text) in [(0, "0s"), (90_000, "1m30s"), (604_800_000, "1w"), (691_200_000, "8d"), (-5, "-5ms")] {
        assert_eq!(format_duration(ms), text);
    }
    assert_eq!(parse_duration(""), Err("empty duration string".to_owned()));
    assert_eq!(parse_duration("1s1m"), Err("not a valid duration string: \"1s1m\"".to_owned()));
    assert_eq!(parse_duration("300y"), Err("duration out of range".to_owned()));
    assert_eq!(
        parse_duration("99999999999999999999s"),
        Err("not a valid duration string: \"99999999999999999999s\"".to_owned())
    );
}

#[test]
fn numbers_are_written_as_go_does() {
    for (written, printed) in [
        ("0.1", "0.1"),
        ("100000", "100000"),
        ("1000000", "1e+06"),
        ("123456789", "1.23456789e+08"),
        ("0.00001", "1e-05"),
        ("-2.5e-7", "-2.5e-07"),
        ("Inf", "+Inf"),
    ] {
        prints(&format!("a + fill ({written}) b"), &format!("a + fill ({printed}) b"));
    }
    prints("1000000 + 1e21", "1000000 + 1000000000000000000000");
    assert!(parse_number("1__0").is_err());
    assert!(parse_number("_1").is_err());
}

#[test]
fn metric_selectors_are_only_selectors() {
    let matchers = parse_metric_selector("a{b=\"c\"}").expect("valid");
    assert_eq!(matchers.len(), 2);
    assert_eq!(parse_metric_selector("{}").map(|m| m.len()), Ok(0));
    for text in ["", "a + b", "a[5m]", "a offset 5m", "sum(a)", "1"] {
        assert!(parse_metric_selector(text).is_err(), "{text}");
    }
}

fn floats(text: &str) -> Vec<Option<f64>> {
    let values = parse_series_description(&format!("m {text}")).expect(text).values;
    values.iter().map(|v| if let SequenceValue::Float(v) = v { Some(*v) } else { None }).collect()
}

#[test]
fn series_values_expand() {
    assert_eq!(floats("1 -2 1.5e1"), [Some(1.0), Some(-2.0), Some(15.0)]);
    assert_eq!(floats("1+2x2  _x2"), [Some(1.0), Some(3.0), Some(5.0), None, None]);
    assert_eq!(floats("-1-1x1 0x0 _"), [Some(-1.0), Some(-2.0), Some(0.0), None]);
    assert_eq!(floats("Inf -Inf"), [Some(f64::INFINITY), Some(f64::NEG_INFINITY)]);
    assert!(floats("stale")[0].is_some_and(is_stale));
    assert!(floats("NaN")[0].is_some_and(f64::is_nan));
    assert_eq!(floats(""), []);
    for bad in [
        "m 1x",
        "m 1+x3",
        "m foo",
        "m 1 }",
        "m 1x99999999999",
        "m {{schema:a}}",
        "m {{sum:1 sum:2}}",
        "m 1{{}}",
    ] {
        assert!(parse_series_description(bad).is_err(), "{bad}");
    }
}

#[test]
fn series_labels_may_be_quoted_or_missing() {
    let labels = |text: &str| parse_metric(text).expect(text).to_string();
    assert_eq!(labels(r#"m{b="2", a="1",}"#), r#"{__name__="m", a="1", b="2"}"#);
    assert_eq!(labels(r#"{"a.b", "c d"="e"}"#), r#"{__name__="a.b", "c d"="e"}"#);
    assert_eq!(labels("{}"), "{}");
    assert_eq!(labels("sum:rate"), r#"{__name__="sum:rate"}"#);
    assert!(parse_metric("m{a}").is_err());
}

#[test]
fn series_histograms_expand() {
    let text = "m {{schema:1 sum:3 count:6 z_bucket:1 z_bucket_w:0.5 buckets:[1 2] offset:-1 n_buckets:[3]}}+{{schema:1 sum:1 count:1 z_bucket_w:0.5 buckets:[1]}}x1 {{schema:-53 custom_values:[1 2] buckets:[1 -1] counter_reset_hint:gauge}}";
    let values = parse_series_description(text).expect("valid").values;
    let [
        SequenceValue::Histogram { value: a, .. },
        SequenceValue::Histogram { value: b, .. },
        SequenceValue::Histogram { value: c, has_hint: true },
    ] = &values[..]
    else {
        panic!("{values:?}")
    };
    assert_eq!((a.sum, a.count, a.positive_spans[0].offset), (3.0, 6.0, -1));
    assert_eq!((b.sum, b.count, &b.positive_buckets[..]), (4.0, 7.0, &[1.0, 3.0][..]));
    assert_eq!((c.counter_reset_hint, &c.custom_values[..]), (CounterResetHint::Gauge, &[1.0, 2.0][..]));
}
