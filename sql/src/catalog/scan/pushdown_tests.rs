//! Which filters become what.

use datafusion::logical_expr::{cast, col, in_list, lit};

use super::*;

fn columns() -> Columns {
    Columns::of_metric(["job", "value"], false)
}

/// Matchers and time range of a filter; `None` if DataFusion keeps all of it.
fn told(filter: Expr) -> Option<String> {
    let columns = columns();
    let supported = support(&filter, &columns);
    let pushed = Pushed::from_filters(&[filter], &columns);
    if supported == TableProviderFilterPushDown::Unsupported {
        assert_eq!(pushed, Pushed::default(), "nothing is told of what is not supported");
        return None;
    }
    let mut parts: Vec<_> = pushed.matchers.iter().map(ToString::to_string).collect();
    if (pushed.mint, pushed.maxt) != (TimestampMs::MIN, TimestampMs::MAX) {
        parts.push(format!("[{}, {}]", pushed.mint, pushed.maxt));
    }
    if pushed.never {
        parts.push("never".to_owned());
    }
    Some(parts.join(" "))
}

fn ms(ms: i64) -> Expr {
    lit(ScalarValue::TimestampMillisecond(Some(ms), Some("UTC".into())))
}

fn ns(ns: i64) -> Expr {
    lit(ScalarValue::TimestampNanosecond(Some(ns), Some("UTC".into())))
}

fn in_zone(time: Expr, zone: Option<&str>) -> Expr {
    cast(time, DataType::Timestamp(TimeUnit::Nanosecond, zone.map(Into::into)))
}

#[test]
fn label_filters_become_matchers_that_want_the_label() {
    for (filter, expected) in [
        (col("job").eq(lit("a")), r#"job="a""#),
        (lit("a").eq(col("job")), r#"job="a""#),
        (col("job").eq(lit("")), "never"),
        (col("job").not_eq(lit("a")), r#"job!="" job!="a""#),
        (in_list(col("job"), vec![lit("a"), lit("b.c")], false), r#"job=~"a|b\\.c""#),
        (in_list(col("job"), vec![lit("a"), lit("b")], true), r#"job!="" job!~"a|b""#),
        (in_list(col("job"), vec![lit("a"), lit(ScalarValue::Utf8(None))], true), "never"),
        (col("job").eq(lit("a")).or(col("job").eq(lit("b"))), r#"job=~"a|b""#),
        (col("job").like(lit("a%")), r#"job=~"a.*""#),
        (col("job").like(lit("%")), r#"job!="" job=~".*""#),
        (col("job").not_like(lit("a_")), r#"job!="" job!~"a.""#),
        (col("job").is_null(), r#"job="""#),
        (col("job").is_not_null(), r#"job!="""#),
        (col("label_value").eq(lit("x")), r#"value="x""#),
    ] {
        assert_eq!(told(filter.clone()).as_deref(), Some(expected), "{filter}");
    }
}

#[test]
fn time_filters_become_a_closed_range_of_milliseconds() {
    let t = || col("timestamp");
    for (filter, expected) in [
        (t().gt(ms(5)), format!("[6, {}]", i64::MAX)),
        (t().gt_eq(ms(5)), format!("[5, {}]", i64::MAX)),
        (t().lt(ms(5)), format!("[{}, 4]", i64::MIN)),
        (t().lt_eq(ms(5)), format!("[{}, 5]", i64::MIN)),
        (t().eq(ms(5)), "[5, 5]".to_owned()),
        (ms(5).lt(t()), format!("[6, {}]", i64::MAX)),
        (t().gt(ns(5_000_001)), format!("[6, {}]", i64::MAX)),
        (t().gt_eq(ns(5_000_001)), format!("[6, {}]", i64::MAX)),
        (t().lt(ns(5_000_001)), format!("[{}, 5]", i64::MIN)),
        (t().eq(ns(5_000_001)), "never".to_owned()),
        (t().gt(ns(-1)), format!("[0, {}]", i64::MAX)),
        (t().between(ms(1), ms(9)), "[1, 9]".to_owned()),
        (t().gt(ms(1)).and(t().lt(ms(9))), "[2, 8]".to_owned()),
        (in_zone(t(), Some("Europe/Berlin")).gt(ms(5)), format!("[6, {}]", i64::MAX)),
        (in_zone(in_zone(t(), None), Some("UTC")).gt(ms(5)), format!("[6, {}]", i64::MAX)),
    ] {
        assert_eq!(told(filter.clone()), Some(expected), "{filter}");
    }
}

#[test]
fn what_cannot_be_said_in_full_is_left_alone() {
    for filter in [
        col("value").gt(lit(1.0)),
        col("job").lt(lit("a")),
        col("job").ilike(lit("a%")),
        col("job").eq(lit("a")).or(col("label_value").eq(lit("b"))),
        col("job").eq(col("label_value")),
        col("timestamp").not_eq(ms(5)),
        // What clocks show in UTC, taken for what they show elsewhere.
        in_zone(in_zone(col("timestamp"), None), Some("Europe/Berlin")).gt(ms(5)),
    ] {
        assert_eq!(told(filter.clone()), None, "{filter}");
    }
}

#[test]
fn constants_that_the_optimizer_leaves_are_understood() {
    let null = || lit(ScalarValue::Boolean(None));
    assert_eq!(told(null()).as_deref(), Some("never"));
    assert_eq!(told(lit(false)).as_deref(), Some("never"));
    let a = || col("job").eq(lit("a"));
    assert_eq!(told(a().or(null())).as_deref(), Some(r#"job="a""#));
    assert_eq!(told(lit(false).or(a())).as_deref(), Some(r#"job="a""#));
}

#[test]
fn a_conjunction_with_one_part_that_can_be_said_is_pushed_in_part() {
    let filter = col("job").eq(lit("a")).and(col("value").gt(lit(1.0)));
    assert_eq!(support(&filter, &columns()), TableProviderFilterPushDown::Inexact);
    assert_eq!(told(filter).as_deref(), Some(r#"job="a""#));
}
