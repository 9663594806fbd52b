//! Which labels the series of a result may have, told before anything is evaluated.
//!
//! For callers that need a schema first: a table with a column per label. The answer is an upper
//! bound: a label may turn out to be on no series, but no series has a label that is not named.
//! (One exception: `le` on native histograms, see `of_call`.)

use std::collections::BTreeSet;

use promontory_tsdb::labels::METRIC_NAME;
use promontory_tsdb::{MatchOp, Matcher, Queryable};

use crate::error::QueryError;
use crate::parser::{
    AggregateExpr, AggregateOp, BinaryExpr, BinaryOp, Call, Cardinality, Expr, ExprKind, UnaryOp, ValueType,
    VectorMatching,
};

/// Names of labels.
pub type LabelNames = BTreeSet<String>;

/// What labels are looked up in.
pub(crate) struct LabelSource<'a> {
    /// The data.
    pub(crate) source: &'a dyn Queryable,
    /// `promql-delayed-name-removal`: names go at the very end only, and may be grouped by until then.
    pub(crate) delayed_names: bool,
}

impl LabelSource<'_> {
    /// Names of all labels that series of the value of `expr` may have.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub(crate) fn of(&self, expr: &Expr) -> Result<LabelNames, QueryError> {
        // Chains lean to the left and may be longer than the stack is deep.
        let mut chain = Vec::new();
        let mut leftmost = expr;
        while let ExprKind::Binary(binary) = &leftmost.kind {
            chain.push(binary);
            leftmost = &binary.lhs;
        }
        let mut labels = self.of_node(leftmost)?;
        for binary in chain.into_iter().rev() {
            labels = self.of_binary(binary, labels)?;
        }
        Ok(labels)
    }

    fn of_node(&self, expr: &Expr) -> Result<LabelNames, QueryError> {
        match &expr.kind {
            ExprKind::Number(_) | ExprKind::String(_) | ExprKind::Binary(_) => Ok(LabelNames::new()),
            ExprKind::Paren(inner) | ExprKind::Unary(UnaryOp::Plus, inner) => self.of(inner),
            ExprKind::Subquery(subquery) => self.of(&subquery.expr),
            ExprKind::Unary(UnaryOp::Minus, inner) => Ok(self.without_name(self.of(inner)?)),
            ExprKind::VectorSelector(selector) => self.of_series(&selector.matchers),
            ExprKind::MatrixSelector(matrix) => self.of_series(&matrix.selector.matchers),
            ExprKind::Aggregate(aggregate) => self.of_aggregate(aggregate),
            ExprKind::Call(call) => self.of_call(call),
        }
    }

    /// Labels of series of any time, and those that the matchers ask for: a name that is written in the
    /// query is there although there is no data.
    fn of_series(&self, matchers: &[Matcher]) -> Result<LabelNames, QueryError> {
        let wanted = matchers.iter().filter(|m| m.op() == MatchOp::Eq && !m.value().is_empty());
        let mut names: LabelNames = wanted.map(|m| m.name().to_owned()).collect();
        if let Some((mint, maxt)) = self.source.time_bounds() {
            names.extend(self.source.label_names(matchers, mint, maxt)?);
        }
        Ok(names)
    }

    fn without_name(&self, mut labels: LabelNames) -> LabelNames {
        if !self.delayed_names {
            labels.remove(METRIC_NAME);
        }
        labels
    }

    fn of_aggregate(&self, aggregate: &AggregateExpr) -> Result<LabelNames, QueryError> {
        let inner = self.of(&aggregate.expr)?;
        if matches!(
            aggregate.op,
            AggregateOp::TopK | AggregateOp::BottomK | AggregateOp::LimitK | AggregateOp::LimitRatio
        ) {
            return Ok(inner);
        }
        let mut labels: LabelNames = if aggregate.without {
            let named = |name: &String| aggregate.grouping.contains(name);
            inner.into_iter().filter(|name| name != METRIC_NAME && !named(name)).collect()
        } else {
            aggregate.grouping.iter().cloned().collect()
        };
        if aggregate.op == AggregateOp::CountValues {
            labels.extend(text(aggregate.param.as_deref()));
        }
        Ok(labels)
    }

    fn of_call(&self, call: &Call) -> Result<LabelNames, QueryError> {
        let name = call.function.name;
        if call.function.return_type == ValueType::Scalar {
            return Ok(LabelNames::new());
        }
        if matches!(name, "absent" | "absent_over_time") {
            return Ok(call.args.first().map(of_absent).unwrap_or_default());
        }
        if name == "info" {
            return self.of_info(call);
        }
        let mut labels = LabelNames::new();
        for arg in &call.args {
            labels.extend(self.of(arg)?);
        }
        match name {
            "label_replace" | "label_join" => labels.extend(text(call.args.get(1))),
            // Not on series of classic buckets any more. A series of native histograms with a label of
            // this name would keep it; nothing makes such series, and a column for it would be in the
            // way of everyone.
            "histogram_quantile" | "histogram_fraction" => drop(labels.remove("le")),
            "histogram_quantiles" => {
                labels.remove("le");
                labels.extend(text(call.args.get(1)));
            }
            _ => {}
        }
        Ok(if KEEP_NAME.contains(&name) { labels } else { self.without_name(labels) })
    }

    /// Of info series come the labels that are asked for, or else all of them.
    fn of_info(&self, call: &Call) -> Result<LabelNames, QueryError> {
        let mut labels = call.args.first().map_or(Ok(LabelNames::new()), |vector| self.of(vector))?;
        let given = match call.args.get(1).map(|arg| &arg.kind) {
            Some(ExprKind::VectorSelector(selector)) => &selector.matchers[..],
            _ => &[],
        };
        let data = given.iter().filter(|m| m.name() != METRIC_NAME).map(|m| m.name().to_owned());
        let data: LabelNames = data.collect();
        if !data.is_empty() {
            labels.extend(data);
        } else if given.is_empty() {
            labels.extend(self.of_series(&[Matcher::eq(METRIC_NAME, "target_info")])?);
        } else {
            labels.extend(self.of_series(given)?);
        }
        Ok(labels)
    }

    fn of_binary(&self, binary: &BinaryExpr, lhs: LabelNames) -> Result<LabelNames, QueryError> {
        let rhs = self.of(&binary.rhs)?;
        let keeps_name = match binary.op {
            BinaryOp::TrimUpper | BinaryOp::TrimLower => true,
            op => op.is_comparison() && !binary.return_bool,
        };
        let Some(matching) = &binary.matching else {
            let labels = if lhs.is_empty() { rhs } else { lhs };
            return Ok(if keeps_name { labels } else { self.without_name(labels) });
        };
        if binary.op.is_set() {
            let either = binary.op == BinaryOp::Or;
            return Ok(if either { lhs.into_iter().chain(rhs).collect() } else { lhs });
        }
        Ok(self.of_match(matching, keeps_name, lhs, rhs))
    }

    fn of_match(
        &self,
        matching: &VectorMatching,
        keeps_name: bool,
        lhs: LabelNames,
        rhs: LabelNames,
    ) -> LabelNames {
        // A fill takes the place of either side.
        let filled = matching.fill_left.is_some() || matching.fill_right.is_some();
        let (many, one) = match matching.cardinality {
            Cardinality::OneToMany => (rhs, lhs),
            _ => (lhs, rhs),
        };
        let mut labels = many;
        if filled {
            labels.extend(one.iter().cloned());
        }
        let keeps_name = keeps_name || self.delayed_names;
        if matching.cardinality == Cardinality::OneToOne {
            let named = |name: &String| matching.labels.contains(name);
            let keep = |name: &String| if matching.on { named(name) } else { !named(name) };
            labels.retain(|name| keep(name) || keeps_name && name == METRIC_NAME);
        }
        labels.extend(matching.include.iter().cloned());
        if !keeps_name && !matching.include.iter().any(|name| name == METRIC_NAME) {
            labels.remove(METRIC_NAME);
        }
        labels
    }
}

/// Functions whose result is the series that went in.
const KEEP_NAME: &[&str] = &[
    "first_over_time",
    "label_join",
    "label_replace",
    "last_over_time",
    "sort",
    "sort_by_label",
    "sort_by_label_desc",
    "sort_desc",
];

fn text(expr: Option<&Expr>) -> Option<String> {
    match &expr?.kind {
        ExprKind::String(text) => Some(text.clone()),
        ExprKind::Paren(inner) => text(Some(inner)),
        _ => None,
    }
}

/// What is not there has the labels that were asked for by name.
fn of_absent(arg: &Expr) -> LabelNames {
    let matchers = match &arg.kind {
        ExprKind::Paren(inner) => return of_absent(inner),
        ExprKind::VectorSelector(selector) => &selector.matchers,
        ExprKind::MatrixSelector(matrix) => &matrix.selector.matchers,
        _ => return LabelNames::new(),
    };
    let equal = matchers.iter().filter(|m| m.op() == MatchOp::Eq).map(|m| m.name().to_owned());
    equal.filter(|name| name != METRIC_NAME).collect()
}

#[cfg(test)]
mod tests {
    use promontory_tsdb::Labels;
    use promontory_tsdb::memory::MemoryStorage;

    use super::*;
    use crate::parser::{ParserOptions, parse};

    fn labels_of(expr: &str) -> String {
        labels_with(expr, false)
    }

    fn labels_with(expr: &str, delayed_names: bool) -> String {
        let source = MemoryStorage::new();
        for labels in [
            [("__name__", "requests"), ("job", "api"), ("code", "200")].as_slice(),
            &[("__name__", "requests"), ("job", "api"), ("zone", "b")],
            &[("__name__", "limits"), ("job", "api"), ("team", "x")],
            &[("__name__", "target_info"), ("job", "api"), ("version", "1")],
        ] {
            source.append(&Labels::from_pairs(labels.iter().copied()), 0, 1.0).unwrap();
        }
        let expr = parse(expr, &ParserOptions::all()).unwrap();
        let labels = LabelSource { source: &source, delayed_names };
        labels.of(&expr).unwrap().into_iter().collect::<Vec<_>>().join(",")
    }

    #[test]
    fn every_node_says_what_its_series_may_be_labelled_with() {
        for (expr, expected) in [
            ("1 + 2", ""),
            ("requests", "__name__,code,job,zone"),
            ("rate(requests[5m])", "code,job,zone"),
            ("-requests", "code,job,zone"),
            ("+requests", "__name__,code,job,zone"),
            ("scalar(requests)", ""),
            ("time()", ""),
            ("sum(requests)", ""),
            ("sum by (job, nothing) (requests)", "job,nothing"),
            ("nothing{job=\"api\",zone=~\"b\",code=\"\"}", "__name__,job"),
            ("sum without (job) (requests)", "code,zone"),
            ("topk(2, requests)", "__name__,code,job,zone"),
            ("count_values by (job) (\"v\", requests)", "job,v"),
            ("requests > 1", "__name__,code,job,zone"),
            ("requests > bool 1", "code,job,zone"),
            ("2 * requests", "code,job,zone"),
            ("requests / on (job) limits", "job"),
            ("requests / ignoring (code) limits", "job,zone"),
            ("requests * on (job) group_left (team) limits", "code,job,team,zone"),
            ("requests * on (job) group_right limits", "job,team"),
            ("requests or limits", "__name__,code,job,team,zone"),
            ("requests and on (job) limits", "__name__,code,job,zone"),
            ("label_replace(requests, \"dst\", \"$1\", \"job\", \"(.*)\")", "__name__,code,dst,job,zone"),
            ("max_over_time(sum by (job) (requests)[5m:1m])", "job"),
            ("info(requests)", "__name__,code,job,version,zone"),
            ("info(requests, {team=~\".+\"})", "__name__,code,job,team,zone"),
            ("info(requests, {__name__=\"limits\"})", "__name__,code,job,team,zone"),
            ("absent(nothing{job=\"api\",zone=~\"a\"})", "job"),
            ("histogram_quantile(0.9, sum by (le, job) (requests))", "job"),
            ("last_over_time(requests[5m])", "__name__,code,job,zone"),
        ] {
            assert_eq!(labels_of(expr), expected, "{expr}");
        }
    }

    #[test]
    fn names_that_go_last_are_there_until_then() {
        assert_eq!(labels_with("rate(requests[5m])", true), "__name__,code,job,zone");
        assert_eq!(labels_with("rate(requests[5m])", false), "code,job,zone");
    }

    #[test]
    fn a_long_chain_does_not_exhaust_the_stack() {
        let chain = vec!["requests"; 20_000].join(" + ");
        assert_eq!(labels_of(&chain), "code,job,zone");
    }
}
