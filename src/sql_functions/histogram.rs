//! Functions of one native histogram: `histogram_quantile(q, histogram)` and the like.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Float64Builder, StringBuilder};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use promontory_promql::histogram::stats;
use promontory_promql::operators::HistogramFunction;
use promontory_sql::functions::doc::{Family, FunctionDoc};
use promontory_sql::{Histograms, histogram_type, is_histogram};
use promontory_tsdb::histogram::FloatHistogram;

/// The functions' entries.
pub(super) const DOCS: &[FunctionDoc] = &[
    FunctionDoc {
        name: "histogram_quantile",
        family: Family::Histograms,
        syntax: &[
            "histogram_quantile(q, histogram) → double precision",
            "histogram_quantile(q, le, count) → double precision, an aggregate",
        ],
        gives: "The value below which the fraction `q` of all observations lies: of a native histogram, or of the classic \
                buckets that are the rows of a group. Within a bucket observations are taken to be spread evenly, on a \
                logarithmic scale for exponential buckets.",
        arguments: &[
            ("q", "number; below 0 gives -Infinity, above 1 Infinity"),
            ("histogram", "native histogram"),
            ("le", "text or number: upper bound of a bucket, as in the label `le`"),
            ("count", "number of observations up to `le`: cumulative, a count or a rate"),
        ],
        odd_input: "NULL gives NULL, and a bucket with a NULL is left out. No observations, or no bucket up to `+Inf`, give NaN. \
                    Counts that shrink with growing `le` are taken to be as high as the one before.",
        errors: "22000 if `le` is no number.",
        differs: "As in PromQL, of which it is the kernel.",
        example: "SELECT job, histogram_quantile(0.9, le, rate) AS p90\n\
                  FROM (SELECT job, le, rate(timestamp, value) FROM request_seconds_bucket\n\
                  \u{20}     WHERE timestamp > now() - interval '30 minutes' GROUP BY job, le) AS buckets\n\
                  GROUP BY job ORDER BY job;",
    },
    FunctionDoc {
        name: "histogram_fraction",
        family: Family::Histograms,
        syntax: &["histogram_fraction(lower, upper, histogram) → double precision"],
        gives: "The fraction of observations between `lower` and `upper`.",
        arguments: &[("lower, upper", "numbers"), ("histogram", "native histogram")],
        odd_input: "NULL gives NULL; a histogram without observations gives NaN.",
        errors: "",
        differs: "As in PromQL.",
        example: "SELECT job, histogram_fraction(0, 0.25, histogram) AS fast\n\
                  FROM promql_instant('rpc_seconds', now()) ORDER BY job;",
    },
    FunctionDoc {
        name: "histogram_count, histogram_sum, histogram_avg, histogram_stddev, histogram_stdvar",
        family: Family::Histograms,
        syntax: &["histogram_avg(histogram) → double precision"],
        gives: "Number, sum, mean, standard deviation and variance of the observations. For the last two, observations are taken \
                to be in the (geometric) middle of their buckets.",
        arguments: &[("histogram", "native histogram")],
        odd_input: "NULL gives NULL; a histogram without observations has a mean of NaN.",
        errors: "",
        differs: "As in PromQL. `histogram_count(h)` is the same as `h['count']`.",
        example: "SELECT job, histogram_count(histogram), round(histogram_avg(histogram), 3) AS mean\n\
                  FROM promql_instant('rpc_seconds', now()) ORDER BY job;",
    },
    FunctionDoc {
        name: "histogram_text",
        family: Family::Histograms,
        syntax: &["histogram_text(histogram) → text"],
        gives: "The histogram as Prometheus prints it.",
        arguments: &[("histogram", "native histogram")],
        odd_input: "NULL gives NULL.",
        errors: "",
        differs: "",
        example: "SELECT job, histogram_text(histogram) FROM promql_instant('rpc_seconds', now()) ORDER BY job;",
    },
];

/// Those that share no name with an aggregate.
pub(super) fn scalars() -> Vec<ScalarUDF> {
    let simple =
        ["histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "histogram_stdvar"];
    let simple =
        simple.into_iter().filter_map(|name| Some((name, Kind::Simple(HistogramFunction::by_name(name)?))));
    let others = [("histogram_fraction", Kind::Fraction), ("histogram_text", Kind::Text)];
    simple.chain(others).map(|(name, kind)| HistogramScalar::udf(name, kind)).collect()
}

/// Those that do, with how many arguments they take.
pub(super) fn overloads() -> Vec<(usize, Arc<ScalarUDF>)> {
    vec![(2, Arc::new(HistogramScalar::udf("histogram_quantile", Kind::Quantile)))]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Simple(HistogramFunction),
    Quantile,
    Fraction,
    Text,
}

impl Kind {
    /// Numbers in front of the histogram.
    fn numbers(self) -> usize {
        match self {
            Self::Simple(_) | Self::Text => 0,
            Self::Quantile => 1,
            Self::Fraction => 2,
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Simple(_) | Self::Text => "(histogram)",
            Self::Quantile => "(q, histogram)",
            Self::Fraction => "(lower, upper, histogram)",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct HistogramScalar {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl HistogramScalar {
    fn udf(name: &'static str, kind: Kind) -> ScalarUDF {
        ScalarUDF::from(Self { name, kind, signature: Signature::user_defined(Volatility::Immutable) })
    }

    fn value(&self, numbers: &[Float64Array], row: usize, h: &FloatHistogram) -> f64 {
        match (self.kind, numbers) {
            (Kind::Simple(function), _) => function.apply(h),
            (Kind::Quantile, [q]) => stats::quantile(q.value(row), h).0,
            (Kind::Fraction, [lower, upper]) => stats::fraction(lower.value(row), upper.value(row), h).0,
            _ => f64::NAN,
        }
    }
}

impl ScalarUDFImpl for HistogramScalar {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let numbers = self.kind.numbers();
        let is_number = |t: &DataType| t.is_numeric() || *t == DataType::Null;
        match arg_types.split_last() {
            Some((histogram, given))
                if given.len() == numbers
                    && given.iter().all(is_number)
                    && (is_histogram(histogram) || *histogram == DataType::Null) =>
            {
                Ok(std::iter::repeat_n(DataType::Float64, numbers).chain([histogram_type()]).collect())
            }
            _ => {
                let given: Vec<_> = arg_types.iter().map(ToString::to_string).collect();
                let (name, usage, given) = (self.name, self.kind.usage(), given.join(", "));
                plan_err!("No function matches {name}({given}): it is {name}{usage} of a native histogram")
            }
        }
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(if self.kind == Kind::Text { DataType::Utf8 } else { DataType::Float64 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let columns =
            args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let Some((histograms, numbers)) = columns.split_last() else { return internal_err!("no arguments") };
        let histograms = Histograms::of(histograms.as_ref())?;
        let numbers: Vec<_> = numbers.iter().map(|n| n.as_primitive::<Float64Type>().clone()).collect();
        let histogram_at = |row: usize| {
            let known = numbers.iter().all(|n| arrow::array::Array::is_valid(n, row));
            if known { histograms.get(row) } else { None }
        };
        let result: ArrayRef = if self.kind == Kind::Text {
            let mut texts = StringBuilder::new();
            (0..rows).for_each(|row| texts.append_option(histogram_at(row).map(|h| h.to_string())));
            Arc::new(texts.finish())
        } else {
            let mut values = Float64Builder::with_capacity(rows);
            (0..rows).for_each(|row| {
                values.append_option(histogram_at(row).map(|h| self.value(&numbers, row, &h)));
            });
            Arc::new(values.finish())
        };
        Ok(if is_scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)
        } else {
            ColumnarValue::Array(result)
        })
    }
}
