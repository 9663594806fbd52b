//! From SQL filters to matchers and a time range. Pure: no data is touched.
//!
//! A label that a series lacks is NULL in SQL and the empty string to a [`Matcher`]. The two differ:
//! `job <> 'a'` is not true for NULL, while `job!="a"` holds for a missing label. Every translation
//! here therefore also says "and the label is there" wherever the matcher alone would let a missing
//! label pass. A label is never the empty string, so `job = ''` holds nowhere.
//!
//! A filter is either translated wholly, and DataFusion need not look at it again, or it is left to
//! DataFusion. Of a conjunction each side is judged by itself.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList, Like};
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown};
use promontory_tsdb::{MatchOp, Matcher, TimestampMs};

use arrow::datatypes::{DataType, TimeUnit};

use crate::catalog::columns::{ColumnKind, Columns};

/// What a scan is told of the filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// All must hold.
    pub(crate) matchers: Vec<Matcher>,
    /// First instant, ms (included).
    pub(crate) mint: TimestampMs,
    /// Last instant, ms (included).
    pub(crate) maxt: TimestampMs,
    /// Some filter can hold for no row at all.
    pub(crate) never: bool,
}

impl Default for Pushed {
    fn default() -> Self {
        Self { matchers: Vec::new(), mint: TimestampMs::MIN, maxt: TimestampMs::MAX, never: false }
    }
}

impl Pushed {
    /// What can be told of `filters`; the rest is DataFusion's to apply.
    pub(crate) fn from_filters(filters: &[Expr], columns: &Columns) -> Self {
        let mut pushed = Self::default();
        for filter in filters {
            pushed.push(filter, columns);
        }
        pushed.matchers.dedup();
        pushed
    }

    /// Whether no row can pass.
    pub(crate) fn is_empty(&self) -> bool {
        self.never || self.mint > self.maxt
    }

    /// Adds `filter` if it can be said in full, or the sides of a conjunction that can.
    fn push(&mut self, filter: &Expr, columns: &Columns) {
        if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) = filter {
            self.push(left, columns);
            self.push(right, columns);
            return;
        }
        match translate(filter, columns) {
            Some(Test::Labels(matchers)) => self.matchers.extend(matchers),
            Some(Test::Time { mint, maxt }) => {
                self.mint = self.mint.max(mint);
                self.maxt = self.maxt.min(maxt);
            }
            Some(Test::Always) => {}
            Some(Test::Never) => self.never = true,
            None => {}
        }
    }
}

/// How much of `filter` a scan takes over.
pub(crate) fn support(filter: &Expr, columns: &Columns) -> TableProviderFilterPushDown {
    use TableProviderFilterPushDown::{Exact, Inexact, Unsupported};
    if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) = filter {
        return match (support(left, columns), support(right, columns)) {
            (Exact, Exact) => Exact,
            (Unsupported, Unsupported) => Unsupported,
            _ => Inexact,
        };
    }
    if translate(filter, columns).is_some() { Exact } else { Unsupported }
}

/// One filter, said in the storage's terms.
enum Test {
    Labels(Vec<Matcher>),
    Time { mint: TimestampMs, maxt: TimestampMs },
    Always,
    Never,
}

fn translate(filter: &Expr, columns: &Columns) -> Option<Test> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) if never_true(right) => {
            translate(left, columns)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) if never_true(left) => {
            translate(right, columns)
        }
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
            let (label, values) = equal_to_one_of(filter, columns)?;
            one_of(label, values)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match column(left, columns) {
            Some(kind) => compare(kind, *op, literal(right)?),
            None => compare(column(right, columns)?, op.swap()?, literal(left)?),
        },
        Expr::InList(InList { expr, list, negated }) => {
            let label = label_column(expr, columns)?;
            let values = list.iter().map(|e| text(literal(e)?)).collect::<Option<Vec<_>>>()?;
            if *negated {
                none_of(label, values)
            } else {
                one_of(label, values.into_iter().flatten().collect())
            }
        }
        Expr::Like(Like { negated, expr, pattern, escape_char: None, case_insensitive: false }) => {
            let label = label_column(expr, columns)?;
            like(label, *negated, text(literal(pattern)?)?)
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let ColumnKind::Timestamp = column(expr, columns)? else { return None };
            let (low, high) = (instant(literal(low)?)?, instant(literal(high)?)?);
            let (Some(low), Some(high)) = (low, high) else { return Some(Test::Never) };
            Some(Test::Time { mint: low.ceil(), maxt: high.floor() })
        }
        Expr::IsNull(expr) => match column(expr, columns)? {
            ColumnKind::Label(label) => Some(Test::Labels(vec![Matcher::eq(label, "")])),
            ColumnKind::Value | ColumnKind::Histogram if columns.with_histograms() => None,
            _ => Some(Test::Never),
        },
        Expr::IsNotNull(expr) => match column(expr, columns)? {
            ColumnKind::Label(label) => Some(Test::Labels(vec![present(label)?])),
            ColumnKind::Value | ColumnKind::Histogram if columns.with_histograms() => None,
            _ => Some(Test::Always),
        },
        Expr::Literal(ScalarValue::Boolean(Some(true)), _) => Some(Test::Always),
        _ if never_true(filter) => Some(Test::Never),
        _ => None,
    }
}

/// `false` or NULL, which the optimizer makes of some filters.
fn never_true(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Boolean(Some(false) | None) | ScalarValue::Null, _))
}

fn compare(kind: &ColumnKind, op: Operator, value: &ScalarValue) -> Option<Test> {
    match kind {
        ColumnKind::Timestamp => compare_time(op, instant(value)?),
        ColumnKind::Label(label) => compare_label(label, op, text(value)?),
        ColumnKind::Value | ColumnKind::Histogram | ColumnKind::LabelsJson => None,
    }
}

fn compare_time(op: Operator, at: Option<Instant>) -> Option<Test> {
    let (min, max) = (TimestampMs::MIN, TimestampMs::MAX);
    let known = matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq);
    let Some(at) = at else { return known.then_some(Test::Never) };
    Some(match op {
        // An instant between two milliseconds is nobody's timestamp.
        Operator::Eq if at.floor() != at.ceil() => Test::Never,
        Operator::Eq => Test::Time { mint: at.floor(), maxt: at.floor() },
        Operator::Lt => Test::Time { mint: min, maxt: at.ceil().checked_sub(1)? },
        Operator::LtEq => Test::Time { mint: min, maxt: at.floor() },
        Operator::Gt => Test::Time { mint: at.floor().checked_add(1)?, maxt: max },
        Operator::GtEq => Test::Time { mint: at.ceil(), maxt: max },
        _ => return None,
    })
}

fn compare_label(label: &str, op: Operator, value: Option<String>) -> Option<Test> {
    match op {
        Operator::Eq => one_of(label, value.into_iter().collect()),
        Operator::NotEq => none_of(label, vec![value]),
        Operator::RegexMatch | Operator::RegexNotMatch => {
            let Some(pattern) = value else { return Some(Test::Never) };
            // Alone first: `a)(b` is no pattern, but would be one between our brackets.
            regex::Regex::new(&pattern).ok()?;
            // SQL looks for the pattern anywhere, a matcher wants it to be all of the value.
            let anywhere = format!("(?s:.*)(?-s:{pattern})(?s:.*)");
            pattern_test(label, op == Operator::RegexNotMatch, anywhere)
        }
        Operator::LikeMatch => like(label, false, value),
        Operator::NotLikeMatch => like(label, true, value),
        _ => None,
    }
}

/// The label has one of these values.
fn one_of(label: &str, mut values: Vec<String>) -> Option<Test> {
    values.retain(|v| !v.is_empty());
    values.sort_unstable();
    values.dedup();
    match values.as_slice() {
        [] => Some(Test::Never),
        [one] => Some(Test::Labels(vec![Matcher::eq(label, one)])),
        many => Some(Test::Labels(vec![Matcher::new(MatchOp::Re, label, alternatives(many)).ok()?])),
    }
}

/// The label is there and has none of these values. With a NULL among them nothing passes.
fn none_of(label: &str, values: Vec<Option<String>>) -> Option<Test> {
    let Some(mut values) = values.into_iter().collect::<Option<Vec<_>>>() else { return Some(Test::Never) };
    values.retain(|v| !v.is_empty());
    values.sort_unstable();
    values.dedup();
    let mut matchers = vec![present(label)?];
    match values.as_slice() {
        [] => {}
        [one] => matchers.push(Matcher::new(MatchOp::Ne, label, one).ok()?),
        many => matchers.push(Matcher::new(MatchOp::Nre, label, alternatives(many)).ok()?),
    }
    Some(Test::Labels(matchers))
}

fn alternatives(values: &[String]) -> String {
    values.iter().map(|v| regex::escape(v)).collect::<Vec<_>>().join("|")
}

fn like(label: &str, negated: bool, pattern: Option<String>) -> Option<Test> {
    let Some(pattern) = pattern else { return Some(Test::Never) };
    let mut out = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            // A trailing backslash stands for itself in DataFusion and is an error in Postgres.
            '\\' => out.push_str(&regex::escape(chars.next()?.encode_utf8(&mut [0; 4]))),
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    pattern_test(label, negated, out)
}

/// The label is there and matches, or with `negated` does not match, all of `pattern`.
fn pattern_test(label: &str, negated: bool, pattern: String) -> Option<Test> {
    let op = if negated { MatchOp::Nre } else { MatchOp::Re };
    let matcher = Matcher::new(op, label, pattern).ok()?;
    let mut matchers = Vec::new();
    if matcher.matches_empty() {
        matchers.push(present(label)?);
    }
    matchers.push(matcher);
    Some(Test::Labels(matchers))
}

fn present(label: &str) -> Option<Matcher> {
    Matcher::new(MatchOp::Ne, label, "").ok()
}

/// For `a = 'x' OR a = 'y'`, which is what the optimizer makes of a short IN list.
fn equal_to_one_of<'a>(expr: &Expr, columns: &'a Columns) -> Option<(&'a str, Vec<String>)> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (label, mut values) = equal_to_one_of(left, columns)?;
            let (other, more) = equal_to_one_of(right, columns)?;
            values.extend(more);
            (label == other).then_some((label, values))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (label, value) = match label_column(left, columns) {
                Some(label) => (label, literal(right)?),
                None => (label_column(right, columns)?, literal(left)?),
            };
            Some((label, text(value)?.into_iter().collect()))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let label = label_column(expr, columns)?;
            let values = list.iter().map(|e| text(literal(e)?)).collect::<Option<Vec<_>>>()?;
            Some((label, values.into_iter().flatten().collect()))
        }
        _ => None,
    }
}

/// The column that `expr` is, seen through casts that change neither order nor equality.
fn column<'a>(expr: &Expr, columns: &'a Columns) -> Option<&'a ColumnKind> {
    match expr {
        Expr::Column(column) => columns.kind_of(&column.name),
        Expr::Alias(alias) => column(&alias.expr, columns),
        Expr::Cast(cast) => {
            let kind = column(&cast.expr, columns)?;
            let faithful = match (kind, cast.field.data_type()) {
                (
                    ColumnKind::Timestamp,
                    DataType::Timestamp(
                        TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond,
                        zone,
                    ),
                    // From UTC, a cast to "no time zone" keeps the number as well; back from there only UTC does.
                ) => zone.as_deref().is_none_or(|zone| is_utc(zone) || !has_no_zone(&cast.expr)),
                (ColumnKind::Label(_), to) => is_text(to),
                _ => false,
            };
            faithful.then_some(kind)
        }
        _ => None,
    }
}

/// Whether `expr` is cast to a timestamp without time zone.
fn has_no_zone(expr: &Expr) -> bool {
    match expr {
        Expr::Alias(alias) => has_no_zone(&alias.expr),
        Expr::Cast(cast) => matches!(cast.field.data_type(), DataType::Timestamp(_, None)),
        _ => false,
    }
}

fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00")
}

fn label_column<'a>(expr: &Expr, columns: &'a Columns) -> Option<&'a str> {
    match column(expr, columns)? {
        ColumnKind::Label(label) => Some(label),
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => is_text(value),
        _ => false,
    }
}

fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

/// A text literal; the inner `None` is NULL.
fn text(value: &ScalarValue) -> Option<Option<String>> {
    match value {
        ScalarValue::Null => Some(None),
        ScalarValue::Utf8(v) | ScalarValue::LargeUtf8(v) | ScalarValue::Utf8View(v) => Some(v.clone()),
        ScalarValue::Dictionary(_, inner) => text(inner),
        _ => None,
    }
}

/// A time literal; the inner `None` is NULL.
fn instant(value: &ScalarValue) -> Option<Option<Instant>> {
    let (value, per_ms_num, per_ms_den) = match value {
        ScalarValue::Null => return Some(None),
        ScalarValue::TimestampSecond(v, _) => (*v, 1_000, 1),
        ScalarValue::TimestampMillisecond(v, _) => (*v, 1, 1),
        ScalarValue::TimestampMicrosecond(v, _) => (*v, 1, 1_000),
        ScalarValue::TimestampNanosecond(v, _) => (*v, 1, 1_000_000),
        _ => return None,
    };
    Some(value.map(|v| Instant { num: i128::from(v) * per_ms_num, den: per_ms_den }))
}

/// `num / den` ms since the epoch.
#[derive(Clone, Copy)]
struct Instant {
    num: i128,
    den: i128,
}

impl Instant {
    fn floor(self) -> TimestampMs {
        clamp(self.num.div_euclid(self.den))
    }

    fn ceil(self) -> TimestampMs {
        clamp(-(-self.num).div_euclid(self.den))
    }
}

fn clamp(ms: i128) -> TimestampMs {
    TimestampMs::try_from(ms).unwrap_or(if ms < 0 { TimestampMs::MIN } else { TimestampMs::MAX })
}

#[cfg(test)]
#[path = "pushdown_tests.rs"]
mod tests;
