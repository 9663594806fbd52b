//! Random trees survive printing and parsing; random text does no harm.

use promontory_tsdb::{MatchOp, Matcher};
use proptest::prelude::*;

use super::super::*;

/// Forgets places and the order of matchers, neither of which is printed.
fn normalize(e: &mut Expr) {
    e.span = Span::default();
    match &mut e.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Paren(e) | ExprKind::Unary(_, e) => normalize(e),
        ExprKind::Binary(b) => {
            normalize(&mut b.lhs);
            normalize(&mut b.rhs);
        }
        ExprKind::Aggregate(a) => {
            a.param.iter_mut().for_each(|p| normalize(p));
            normalize(&mut a.expr);
        }
        ExprKind::Call(c) => c.args.iter_mut().for_each(normalize),
        ExprKind::VectorSelector(s) => normalize_selector(s),
        ExprKind::MatrixSelector(m) => {
            m.selector_span = Span::default();
            normalize_selector(&mut m.selector);
            normalize_duration(&mut m.range);
        }
        ExprKind::Subquery(s) => {
            normalize(&mut s.expr);
            normalize_duration(&mut s.range);
            s.step.iter_mut().for_each(normalize_duration);
            s.time.offset.iter_mut().for_each(normalize_duration);
        }
    }
}

fn normalize_selector(s: &mut VectorSelector) {
    s.matchers.sort_by_key(ToString::to_string);
    s.time.offset.iter_mut().for_each(normalize_duration);
}

fn normalize_duration(d: &mut DurationExpr) {
    d.span = Span::default();
    match &mut d.kind {
        DurationExprKind::Literal(n) => n.is_duration = true,
        DurationExprKind::Unary(_, d) | DurationExprKind::Paren(d) => normalize_duration(d),
        DurationExprKind::Binary(_, a, b) | DurationExprKind::MinOf(a, b) | DurationExprKind::MaxOf(a, b) => {
            normalize_duration(a);
            normalize_duration(b);
        }
        DurationExprKind::Step | DurationExprKind::Range => {}
    }
}

fn expr(kind: ExprKind) -> Expr {
    Expr { span: Span::default(), kind }
}

fn paren(e: Expr) -> Expr {
    expr(ExprKind::Paren(Box::new(e)))
}

/// Parentheses where the printer, which adds none, would otherwise lose the shape.
fn operand(e: Expr) -> Expr {
    if matches!(e.kind, ExprKind::Binary(_) | ExprKind::Unary(..)) { paren(e) } else { e }
}

fn number() -> impl Strategy<Value = Expr> {
    prop_oneof![
        (0.0..1e12).prop_map(|value| NumberLiteral { value, is_duration: false }),
        (1_i64..1_000_000_000).prop_map(|ms| NumberLiteral { value: ms as f64 / 1000.0, is_duration: true }),
    ]
    .prop_map(|n| expr(ExprKind::Number(n)))
}

fn duration() -> impl Strategy<Value = DurationExpr> {
    let of = |kind| DurationExpr { span: Span::default(), kind };
    let literal = (1_i64..100_000).prop_map(move |s| {
        of(DurationExprKind::Literal(NumberLiteral { value: s as f64, is_duration: true }))
    });
    let leaf = prop_oneof![4 => literal, 1 => Just(of(DurationExprKind::Step)), 1 => Just(of(DurationExprKind::Range))];
    leaf.prop_recursive(3, 8, 2, move |inner| {
        let pair = (inner.clone(), inner.clone()).prop_map(|(a, b)| (Box::new(a), Box::new(b)));
        let ops = prop::sample::select(vec![BinaryOp::Add, BinaryOp::Mul, BinaryOp::Pow, BinaryOp::Mod]);
        prop_oneof![
            (ops, pair.clone()).prop_map(move |(op, (a, b))| {
                let sum = of(DurationExprKind::Binary(op, duration_operand(a), duration_operand(b)));
                of(DurationExprKind::Paren(Box::new(sum)))
            }),
            pair.clone().prop_map(move |(a, b)| of(DurationExprKind::MinOf(a, b))),
            pair.prop_map(move |(a, b)| of(DurationExprKind::MaxOf(a, b))),
        ]
    })
}

fn duration_operand(d: Box<DurationExpr>) -> Box<DurationExpr> {
    match d.kind {
        DurationExprKind::Binary(..) => {
            Box::new(DurationExpr { span: Span::default(), kind: DurationExprKind::Paren(d) })
        }
        _ => d,
    }
}

fn time_shift() -> impl Strategy<Value = TimeShift> {
    let at = prop_oneof![
        Just(AtModifier::Start),
        Just(AtModifier::End),
        (-1_000_000_000_i64..1_000_000_000).prop_map(AtModifier::At),
    ];
    (prop::option::of(duration()), prop::option::of(at)).prop_map(|(offset, at)| {
        // An offset in parentheses swallows an operator behind it; one with a sign in front does not.
        let offset = offset.map(|d| match d.kind {
            DurationExprKind::Paren(_) => {
                let kind = DurationExprKind::Unary(UnaryOp::Minus, Box::new(d));
                DurationExpr { span: Span::default(), kind }
            }
            _ => d,
        });
        TimeShift { offset, at }
    })
}

fn label() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z_][a-z0-9_]{0,5}", 1 => "[ -~é\n]{1,6}"]
}

fn selector() -> impl Strategy<Value = VectorSelector> {
    let op = prop::sample::select(vec![MatchOp::Eq, MatchOp::Ne, MatchOp::Re, MatchOp::Nre]);
    let value = prop_oneof!["[a-z]{1,4}", "[ -!#-'/-Z]{0,4}é\n\""];
    let matcher = (op, label(), value).prop_map(|(op, name, value)| {
        Matcher::new(op, &name, &value).unwrap_or_else(|_| Matcher::eq(name, value))
    });
    let name = "[a-z_:][a-z0-9_:]{2,8}x:";
    let extension = prop::sample::select(vec![
        None,
        None,
        Some(RangeExtension::Anchored),
        Some(RangeExtension::Smoothed),
    ]);
    (name, prop::collection::vec(matcher, 0..3), time_shift(), extension).prop_map(
        |(name, mut matchers, time, extension)| {
            matchers.push(Matcher::eq("__name__", &name));
            VectorSelector { name: Some(name), matchers, time, extension }
        },
    )
}

fn matching() -> impl Strategy<Value = VectorMatching> {
    let cardinality =
        prop::sample::select(vec![Cardinality::OneToOne, Cardinality::ManyToOne, Cardinality::OneToMany]);
    let fill = || prop::option::of(-1e25..1e25);
    let labels = prop::collection::vec(label(), 0..3);
    (cardinality, any::<bool>(), labels, fill(), fill()).prop_map(
        |(cardinality, on, labels, fill_left, fill_right)| {
            let include = match cardinality {
                Cardinality::OneToOne => Vec::new(),
                _ => vec!["0 is in no list".to_owned()],
            };
            VectorMatching { cardinality, on, labels, include, fill_left, fill_right }
        },
    )
}

fn arithmetic() -> impl Strategy<Value = BinaryOp> {
    use BinaryOp::*;
    prop::sample::select(vec![Add, Sub, Mul, Div, Mod, Pow, Atan2, TrimUpper, TrimLower])
}

fn vector() -> impl Strategy<Value = Expr> {
    let leaf = selector().prop_map(|s| expr(ExprKind::VectorSelector(s)));
    leaf.prop_recursive(4, 24, 2, |inner| {
        let grouping = || prop::collection::vec(label(), 0..3);
        prop_oneof![
            (inner.clone(), inner.clone(), arithmetic(), matching())
                .prop_map(|(l, r, op, matching)| { binary(op, l, r, false, Some(matching)) }),
            (inner.clone(), number(), arithmetic()).prop_map(|(l, r, op)| binary(op, l, r, false, None)),
            (number(), inner.clone(), any::<bool>()).prop_map(|(l, r, return_bool)| binary(
                BinaryOp::Ge,
                l,
                r,
                return_bool,
                None
            )),
            (inner.clone(), inner.clone()).prop_map(|(l, r)| {
                let matching = VectorMatching {
                    cardinality: Cardinality::ManyToMany,
                    on: true,
                    labels: Vec::new(),
                    include: Vec::new(),
                    fill_left: None,
                    fill_right: None,
                };
                binary(BinaryOp::Unless, l, r, false, Some(matching))
            }),
            inner.clone().prop_map(|e| expr(ExprKind::Unary(UnaryOp::Minus, Box::new(operand(e))))),
            inner.clone().prop_map(paren),
            (inner.clone(), grouping(), any::<bool>()).prop_map(|(e, grouping, without)| {
                aggregate(AggregateOp::Sum, None, e, grouping, without)
            }),
            (inner.clone(), number(), grouping()).prop_map(|(e, k, grouping)| {
                aggregate(AggregateOp::TopK, Some(Box::new(k)), e, grouping, false)
            }),
            (inner.clone(), "[ -~é\n\t]{0,8}").prop_map(|(e, s)| {
                let string = || expr(ExprKind::String(s.clone()));
                call("label_join", vec![e, string(), string(), string()])
            }),
            (selector(), duration()).prop_map(|(selector, range)| {
                let matrix = MatrixSelector { selector, selector_span: Span::default(), range };
                call("rate", vec![expr(ExprKind::MatrixSelector(matrix))])
            }),
            (inner, duration(), prop::option::of(duration()), time_shift()).prop_map(
                |(e, range, step, time)| {
                    let e = Box::new(operand(e));
                    let subquery = SubqueryExpr { expr: e, range, step, time };
                    call("max_over_time", vec![expr(ExprKind::Subquery(subquery))])
                }
            ),
        ]
    })
}

fn binary(op: BinaryOp, l: Expr, r: Expr, return_bool: bool, matching: Option<VectorMatching>) -> Expr {
    let (lhs, rhs) = (Box::new(operand(l)), Box::new(operand(r)));
    expr(ExprKind::Binary(BinaryExpr { op, lhs, rhs, return_bool, matching }))
}

fn aggregate(
    op: AggregateOp,
    param: Option<Box<Expr>>,
    e: Expr,
    grouping: Vec<String>,
    without: bool,
) -> Expr {
    expr(ExprKind::Aggregate(AggregateExpr { op, expr: Box::new(e), param, grouping, without }))
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    let function = functions::by_name(name).expect("it is in the table");
    expr(ExprKind::Call(Call { function, args }))
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(mut tree in vector()) {
        let text = tree.to_string();
        let parsed = parse(&text, &ParserOptions::all());
        prop_assert!(parsed.is_ok(), "{text}: {parsed:?}");
        let mut parsed = parsed.expect("checked");
        normalize(&mut tree);
        normalize(&mut parsed);
        prop_assert_eq!(&parsed, &tree, "{}", text);
        let pretty = pretty::Pretty { width: 20 }.expr(&parsed, 0);
        let again = parse(&pretty, &ParserOptions::all());
        prop_assert!(again.is_ok(), "{pretty}: {again:?}");
        prop_assert_eq!(again.expect("checked").to_string(), text);
    }

    #[test]
    fn arbitrary_text_does_no_harm(text in "\\PC{0,40}") {
        let _ = parse(&text, &ParserOptions::all());
        let _ = series::parse_series_description(&text);
        let _ = parse_duration(&text);
    }

    #[test]
    fn arbitrary_tokens_do_no_harm(
        words in prop::collection::vec(prop::sample::select(vec![
            "a", "sum", "by", "(", ")", "{", "}", "[", "]", ",", "=", "=~", "!=", "\"x\"", "1", "5m", "+", "-", "^", "/",
            "offset", "@", "start", "step", "min_of", "on", "group_left", "bool", "fill", "rate", ":", " ", "\n", "# c\n",
            "anchored", "`", "'", "\\", "0x", "_", "{{", "}}", "x3", "stale", "and", "or", "</", "é",
        ]), 0..25)
    ) {
        let text = words.concat();
        for text in [text.clone(), words.join(" ")] {
            if let Ok(e) = parse(&text, &ParserOptions::all()) {
                let printed = e.to_string();
                let again = parse(&printed, &ParserOptions::all());
                prop_assert!(again.is_ok(), "{text} as {printed}: {again:?}");
                prop_assert_eq!(again.expect("checked").to_string(), printed);
            }
        }
        let _ = series::parse_series_description(&text);
    }
}
