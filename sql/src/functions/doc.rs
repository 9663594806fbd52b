//! What is to be known about a function; `docs/sql-functions.md` is made of it.

/// A chapter of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Expressions as tables.
    Promql,
    /// Aggregates over the samples of a series.
    Series,
    /// Buckets of time, and what to do about empty ones.
    Time,
    /// Native histograms and classic buckets.
    Histograms,
    /// Of numbers in general.
    Statistics,
}

impl Family {
    /// All, in the order of the page.
    pub const ALL: [Self; 5] = [Self::Promql, Self::Series, Self::Time, Self::Histograms, Self::Statistics];

    /// Its heading.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Promql => "PromQL as tables",
            Self::Series => "Samples of a series",
            Self::Time => "Time",
            Self::Histograms => "Histograms",
            Self::Statistics => "Statistics",
        }
    }

    /// What all of its functions have in common.
    pub fn introduction(self) -> &'static str {
        match self {
            Self::Promql => {
                "They stand where a table stands. Columns are `timestamp`, `value` (NULL where the value is a native \
                 histogram), `histogram` (NULL where it is a float), `metric` if the result may have names, one per label \
                 that the result may have, and `labels` (all but the name, as JSON text). A label whose name is taken gets \
                 `label_` in front. The columns are the same whether or not there is data in the range. `EXPLAIN` shows the \
                 PromQL plan within, `EXPLAIN ANALYZE` its figures. The limits are those of queries over HTTP."
            }
            Self::Series => {
                "Aggregates over the samples of one series: group by all labels that tell series apart, or use them over \
                 a window frame (`PARTITION BY` those labels, `ORDER BY timestamp`). Samples may come in any order; of two at one \
                 time the first that comes counts. Rows with NULL in `timestamp` or `value` are left out. `value` may be \
                 a number, or where it is said a native histogram; the result is of the same kind. Where PromQL has the \
                 function, the result is PromQL's, to the bit."
            }
            Self::Time => "Buckets are `[start, start + width)`.",
            Self::Histograms => {
                "A native histogram is a struct: `count`, `sum`, `buckets` (a list of `lower`, `upper`, `count`, ascending, \
                 populated ones only, not cumulative), `schema`, `zero_threshold`, `zero_count`, `bounds`, `reset_hint`. Its \
                 fields are read as `histogram['count']`; `unnest(histogram['buckets'])` makes rows of buckets."
            }
            Self::Statistics => {
                "Besides these there are the aggregates of DataFusion, `percentile_cont`, `stddev`, `corr`, …"
            }
        }
    }
}

/// A function's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionDoc {
    /// Its name, or the names of several that differ little, separated by `, `.
    pub name: &'static str,
    /// Where it stands.
    pub family: Family,
    /// Each way to call it, with the type of the result.
    pub syntax: &'static [&'static str],
    /// What it gives.
    pub gives: &'static str,
    /// Arguments: name, then type, unit and meaning.
    pub arguments: &'static [(&'static str, &'static str)],
    /// What comes of no rows, NULL and NaN.
    pub odd_input: &'static str,
    /// What fails, with the SQLSTATE; empty for nothing.
    pub errors: &'static str,
    /// Where it differs from what its name lets expect; empty for nowhere.
    pub differs: &'static str,
    /// A statement that shows it, over the demo data.
    pub example: &'static str,
}
