//! Descriptions that leaves and windows carry: which data, seen from which time, through which function.

use promontory_tsdb::{Matcher, TimestampMs};

use crate::params::Grid;
use crate::parser::RangeExtension;

/// A selector with all that happens to its samples before the first tile exists.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SelectorSpec {
    /// All must hold.
    pub matchers: Vec<Matcher>,
    /// The steps for which tiles are made.
    pub grid: Grid,
    /// Where in time each step looks.
    pub view: TimeView,
    /// What is made of the samples there.
    pub window: Window,
    /// What the `labels_key` of the tiles holds.
    pub output: KeyOutput,
    /// ` (line:col)` of the range function's first argument, or of the selector, for annotations.
    pub position: String,
    /// Of histograms only count and sum are looked at: they come without buckets, with hints instead.
    pub without_buckets: bool,
    /// Two series that have a result each and differ in their name only are an error.
    pub distinct: bool,
    /// Series that are no counters are told.
    pub counters: Option<CounterCheck>,
    /// How many steps of the query a step here stands for, where samples are counted: none in a subquery, whose results
    /// are counted instead.
    pub counted: usize,
}

/// How series that are no counters are told from others, and where that is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CounterCheck {
    /// By the label `__type__`, otherwise by the end of the name.
    pub by_type: bool,
    /// ` (line:col)` of the selector.
    pub position: String,
}

impl SelectorSpec {
    /// All data that any step looks at, both ends included, ms.
    pub fn bounds(&self) -> (TimestampMs, TimestampMs) {
        let (before, after) = self.window.reach();
        let (first, last) = (self.view.data_time(self.grid.start), self.view.data_time(self.grid.end()));
        (first.saturating_sub(before).saturating_add(1), last.saturating_add(after))
    }
}

/// Maps the evaluation timestamp of a step to the time at which data is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TimeView {
    /// `offset`, ms; subtracted.
    pub offset_ms: i64,
    /// `@`, ms: replaces the step's own time (the offset still applies).
    pub at: Option<TimestampMs>,
}

impl TimeView {
    /// The time that step time `t` looks at, ms.
    pub fn data_time(&self, t: TimestampMs) -> TimestampMs {
        self.at.unwrap_or(t) - self.offset_ms
    }
}

/// How samples become one value per step. `t` is the step's data time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// The newest sample in `(t - lookback_ms, t]`; nothing if it is a stale marker.
    Instant {
        /// How far to look back.
        lookback_ms: i64,
        /// What is wanted of the sample.
        read: SampleRead,
    },
    /// `selector smoothed`: the value on the line between the samples before and after `t`, no further
    /// away than `lookback_ms`; the one before where there is none after.
    Smoothed {
        /// How far to look back and ahead.
        lookback_ms: i64,
    },
    /// A function of all samples in `(t - range_ms, t]`, stale markers left out.
    Range {
        /// Width of the window.
        range_ms: i64,
        /// What is computed; its scalar arguments are inputs of the node, in the order of the call.
        function: RangeFunction,
        /// `anchored`, `smoothed`.
        extension: Option<WindowExtension>,
        /// Start timestamps tell of counter resets, too.
        use_starts: bool,
    },
}

impl Window {
    /// How far before (excluded) and after (included) a step's data time the window looks, ms.
    pub fn reach(&self) -> (i64, i64) {
        match *self {
            Self::Instant { lookback_ms, .. } => (lookback_ms, 0),
            Self::Smoothed { lookback_ms } => (lookback_ms, lookback_ms),
            Self::Range { range_ms, extension, .. } => {
                let (before, after) = extension.map_or((0, 0), |e| e.reach());
                (range_ms.saturating_add(before), after)
            }
        }
    }
}

/// What an instant selector gives of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SampleRead {
    /// The sample itself.
    Value,
    /// Its timestamp in seconds: `timestamp(selector)`.
    Timestamp,
    /// The timestamp in seconds of a float, and a histogram as it is: `info`.
    FloatTimestamp,
    /// Its start timestamp in seconds, 0 if it has none: `start_timestamp(selector)`.
    StartTimestamp,
}

/// How a range window takes in samples outside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowExtension {
    /// `anchored` or `smoothed`.
    pub kind: RangeExtension,
    /// How far outside.
    pub lookback_ms: i64,
}

impl WindowExtension {
    /// How far before and after the window samples are looked at, ms.
    pub fn reach(&self) -> (i64, i64) {
        match self.kind {
            RangeExtension::Anchored => (self.lookback_ms, 0),
            RangeExtension::Smoothed => (self.lookback_ms, self.lookback_ms),
        }
    }
}

/// Functions of a range of float samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are PromQL's")]
pub enum RangeFunction {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Deriv,
    /// One scalar: how many seconds ahead.
    PredictLinear,
    /// Two scalars: smoothing and trend factor.
    DoubleExponentialSmoothing,
    Changes,
    Resets,
    AvgOverTime,
    MinOverTime,
    MaxOverTime,
    SumOverTime,
    CountOverTime,
    /// One scalar: φ.
    QuantileOverTime,
    StddevOverTime,
    StdvarOverTime,
    LastOverTime,
    FirstOverTime,
    PresentOverTime,
    /// As `PresentOverTime`; the node above gives 1 where no series has it.
    AbsentOverTime,
    MadOverTime,
    TsOfFirstOverTime,
    TsOfLastOverTime,
    TsOfMaxOverTime,
    TsOfMinOverTime,
}

impl RangeFunction {
    /// The function of this PromQL name; not `absent_over_time`, which is more than a range function.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => Self::Rate,
            "increase" => Self::Increase,
            "delta" => Self::Delta,
            "irate" => Self::Irate,
            "idelta" => Self::Idelta,
            "deriv" => Self::Deriv,
            "predict_linear" => Self::PredictLinear,
            "double_exponential_smoothing" => Self::DoubleExponentialSmoothing,
            "changes" => Self::Changes,
            "resets" => Self::Resets,
            "avg_over_time" => Self::AvgOverTime,
            "min_over_time" => Self::MinOverTime,
            "max_over_time" => Self::MaxOverTime,
            "sum_over_time" => Self::SumOverTime,
            "count_over_time" => Self::CountOverTime,
            "quantile_over_time" => Self::QuantileOverTime,
            "stddev_over_time" => Self::StddevOverTime,
            "stdvar_over_time" => Self::StdvarOverTime,
            "last_over_time" => Self::LastOverTime,
            "first_over_time" => Self::FirstOverTime,
            "present_over_time" => Self::PresentOverTime,
            "mad_over_time" => Self::MadOverTime,
            "ts_of_first_over_time" => Self::TsOfFirstOverTime,
            "ts_of_last_over_time" => Self::TsOfLastOverTime,
            "ts_of_max_over_time" => Self::TsOfMaxOverTime,
            "ts_of_min_over_time" => Self::TsOfMinOverTime,
            _ => return None,
        })
    }

    /// Whether the result keeps the metric name: where the value is a sample of the series itself, or nobody
    /// will see the labels.
    pub fn keeps_name(self) -> bool {
        matches!(self, Self::LastOverTime | Self::FirstOverTime | Self::AbsentOverTime)
    }
}

/// What the `labels_key` of emitted tiles holds. Computed once per series.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyOutput {
    /// All labels.
    Full,
    /// All but the metric name (and type and unit). Two series may then share a key: of `distinct` leaves
    /// that is an error, otherwise whoever reads the tiles must merge or refuse.
    DropName,
    /// The group of an aggregation right above; many series share a key.
    Group(Grouping),
}

/// `by (labels)` or `without (labels)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grouping {
    /// `without`: all labels but these and the metric name. Otherwise just these.
    pub without: bool,
    /// Label names, sorted, each once.
    pub labels: Vec<String>,
}

/// A window over the results of an inner plan: `f(expr[range:step])`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubquerySpec {
    /// The grid on which the input was evaluated: absolute multiples of the subquery's step that
    /// cover every outer window.
    pub inner: Grid,
    /// The grid of the result.
    pub grid: Grid,
    /// Where each outer step's window ends.
    pub view: TimeView,
    /// Width of the window `(t - range_ms, t]`.
    pub range_ms: i64,
    /// What is computed; scalar arguments are further inputs.
    pub function: RangeFunction,
    /// `Full` or `DropName`.
    pub output: KeyOutput,
    /// ` (line:col)` of the range function's first argument, for annotations.
    pub position: String,
    /// As [`SelectorSpec::counted`], of the points that the windows have.
    pub counted: usize,
}
