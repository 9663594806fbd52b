//! The functions of the language: names, argument types, result types.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/v3.14.0/promql/parser/functions.go>

use super::ast::Function;
use super::ast::ValueType::{self, Matrix, Scalar, String, Vector};

/// A function with a fixed number of arguments.
const fn fixed(name: &'static str, arg_types: &'static [ValueType], return_type: ValueType) -> Function {
    Function { name, arg_types, variadic: 0, return_type, experimental: false }
}

impl Function {
    /// The same with arguments that may be left out or repeated; see [`Function::variadic`].
    const fn variadic(self, variadic: i32) -> Self {
        Self { variadic, ..self }
    }

    /// The same behind the feature flag.
    const fn experimental(self) -> Self {
        Self { experimental: true, ..self }
    }
}

/// All functions, by name.
pub static FUNCTIONS: [Function; 90] = [
    fixed("abs", &[Vector], Vector),
    fixed("absent", &[Vector], Vector),
    fixed("absent_over_time", &[Matrix], Vector),
    fixed("acos", &[Vector], Vector),
    fixed("acosh", &[Vector], Vector),
    fixed("asin", &[Vector], Vector),
    fixed("asinh", &[Vector], Vector),
    fixed("atan", &[Vector], Vector),
    fixed("atanh", &[Vector], Vector),
    fixed("avg_over_time", &[Matrix], Vector),
    fixed("ceil", &[Vector], Vector),
    fixed("changes", &[Matrix], Vector),
    fixed("clamp", &[Vector, Scalar, Scalar], Vector),
    fixed("clamp_max", &[Vector, Scalar], Vector),
    fixed("clamp_min", &[Vector, Scalar], Vector),
    fixed("cos", &[Vector], Vector),
    fixed("cosh", &[Vector], Vector),
    fixed("count_over_time", &[Matrix], Vector),
    fixed("day_of_month", &[Vector], Vector).variadic(1),
    fixed("day_of_week", &[Vector], Vector).variadic(1),
    fixed("day_of_year", &[Vector], Vector).variadic(1),
    fixed("days_in_month", &[Vector], Vector).variadic(1),
    fixed("deg", &[Vector], Vector),
    fixed("delta", &[Matrix], Vector),
    fixed("deriv", &[Matrix], Vector),
    fixed("double_exponential_smoothing", &[Matrix, Scalar, Scalar], Vector).experimental(),
    fixed("end", &[], Scalar).experimental(),
    fixed("exp", &[Vector], Vector),
    fixed("first_over_time", &[Matrix], Vector),
    fixed("floor", &[Vector], Vector),
    fixed("histogram_avg", &[Vector], Vector),
    fixed("histogram_count", &[Vector], Vector),
    fixed("histogram_fraction", &[Scalar, Scalar, Vector], Vector),
    fixed("histogram_quantile", &[Scalar, Vector], Vector),
    fixed("histogram_quantiles", &[Vector, String, Scalar, Scalar], Vector).variadic(9).experimental(),
    fixed("histogram_stddev", &[Vector], Vector),
    fixed("histogram_stdvar", &[Vector], Vector),
    fixed("histogram_sum", &[Vector], Vector),
    fixed("hour", &[Vector], Vector).variadic(1),
    fixed("idelta", &[Matrix], Vector),
    fixed("increase", &[Matrix], Vector),
    fixed("info", &[Vector, Vector], Vector).variadic(1).experimental(),
    fixed("irate", &[Matrix], Vector),
    fixed("label_join", &[Vector, String, String, String], Vector).variadic(-1),
    fixed("label_replace", &[Vector, String, String, String, String], Vector),
    fixed("last_over_time", &[Matrix], Vector),
    fixed("ln", &[Vector], Vector),
    fixed("log10", &[Vector], Vector),
    fixed("log2", &[Vector], Vector),
    fixed("mad_over_time", &[Matrix], Vector).experimental(),
    fixed("max_of", &[Scalar, Scalar], Scalar).experimental(),
    fixed("max_over_time", &[Matrix], Vector),
    fixed("min_of", &[Scalar, Scalar], Scalar).experimental(),
    fixed("min_over_time", &[Matrix], Vector),
    fixed("minute", &[Vector], Vector).variadic(1),
    fixed("month", &[Vector], Vector).variadic(1),
    fixed("pi", &[], Scalar),
    fixed("predict_linear", &[Matrix, Scalar], Vector),
    fixed("present_over_time", &[Matrix], Vector),
    fixed("quantile_over_time", &[Scalar, Matrix], Vector),
    fixed("rad", &[Vector], Vector),
    fixed("range", &[], Scalar).experimental(),
    fixed("rate", &[Matrix], Vector),
    fixed("resets", &[Matrix], Vector),
    fixed("round", &[Vector, Scalar], Vector).variadic(1),
    fixed("scalar", &[Vector], Scalar),
    fixed("sgn", &[Vector], Vector),
    fixed("sin", &[Vector], Vector),
    fixed("sinh", &[Vector], Vector),
    fixed("sort", &[Vector], Vector),
    fixed("sort_by_label", &[Vector, String], Vector).variadic(-1).experimental(),
    fixed("sort_by_label_desc", &[Vector, String], Vector).variadic(-1).experimental(),
    fixed("sort_desc", &[Vector], Vector),
    fixed("sqrt", &[Vector], Vector),
    fixed("start", &[], Scalar).experimental(),
    fixed("start_timestamp", &[Vector], Vector).experimental(),
    fixed("stddev_over_time", &[Matrix], Vector),
    fixed("stdvar_over_time", &[Matrix], Vector),
    fixed("step", &[], Scalar).experimental(),
    fixed("sum_over_time", &[Matrix], Vector),
    fixed("tan", &[Vector], Vector),
    fixed("tanh", &[Vector], Vector),
    fixed("time", &[], Scalar),
    fixed("timestamp", &[Vector], Vector),
    fixed("ts_of_first_over_time", &[Matrix], Vector).experimental(),
    fixed("ts_of_last_over_time", &[Matrix], Vector).experimental(),
    fixed("ts_of_max_over_time", &[Matrix], Vector).experimental(),
    fixed("ts_of_min_over_time", &[Matrix], Vector).experimental(),
    fixed("vector", &[Scalar], Vector),
    fixed("year", &[Vector], Vector).variadic(1),
];

/// The function of this name; case matters.
pub fn by_name(name: &str) -> Option<&'static Function> {
    FUNCTIONS.binary_search_by_key(&name, |f| f.name).ok().map(|i| &FUNCTIONS[i])
}
