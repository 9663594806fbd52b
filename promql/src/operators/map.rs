//! `Map`: a function of each sample, with scalar arguments.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use promontory_tsdb::histogram::FloatHistogram;

use super::elements::{Element, binary};
use super::key::KeyChange;
use super::math::{DateFunction, MathFunction, arithmetic, compare, go_max, go_min};
use super::rows::{Row, TileWriter, lanes};
use super::scalar::{Scalar, ScalarArg};
use super::{Evaluate, Scope};
use crate::histogram::lanes::LaneHistograms;
use crate::histogram::layout::multiply;
use crate::histogram::stats;
use crate::notes::Notes;
use crate::parser::BinaryOp;

/// Applies a function to every sample, and changes the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Map {
    /// What is applied.
    pub function: MapFunction,
    /// Its scalar arguments.
    pub scalars: Vec<ScalarArg>,
    /// What happens to the metric name.
    pub key: KeyChange,
    /// ` (line:col)` of a binary operator, for annotations.
    pub position: String,
}

/// Functions of one histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are PromQL's")]
pub enum HistogramFunction {
    Count,
    Sum,
    Avg,
    Stddev,
    Stdvar,
}

impl HistogramFunction {
    /// The function of this PromQL name.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "histogram_count" => Self::Count,
            "histogram_sum" => Self::Sum,
            "histogram_avg" => Self::Avg,
            "histogram_stddev" => Self::Stddev,
            "histogram_stdvar" => Self::Stdvar,
            _ => return None,
        })
    }

    /// The function's value.
    pub fn apply(self, h: &FloatHistogram) -> f64 {
        match self {
            Self::Count => h.count,
            Self::Sum => h.sum,
            Self::Avg => h.sum / h.count,
            Self::Stddev => stats::variance(h).sqrt(),
            Self::Stdvar => stats::variance(h),
        }
    }
}

/// What a [`Map`] applies. Of histograms, operators scale and trim them, functions that are not
/// about values pass them on, and the others leave them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MapFunction {
    /// The sample itself: the node is there for the key.
    Identity,
    /// Sign change.
    Negate,
    /// A function of the value alone.
    Math(MathFunction),
    /// Part of the date that the value is.
    Date(DateFunction),
    /// A number of each histogram.
    Histogram(HistogramFunction),
    /// `v op s` or `s op v`, one scalar.
    Arithmetic {
        /// The operator.
        op: BinaryOp,
        /// The scalar stands on the left.
        scalar_left: bool,
    },
    /// A comparison, one scalar: keeps the sample where it holds, or gives 0 and 1.
    Compare {
        /// The operator.
        op: BinaryOp,
        /// The scalar stands on the left.
        scalar_left: bool,
        /// `bool` stands after the operator.
        return_bool: bool,
    },
    /// Two scalars: lowest and highest value. No sample where they are in the wrong order.
    Clamp,
    /// One scalar.
    ClampMin,
    /// One scalar.
    ClampMax,
    /// One scalar: the multiple to round to.
    Round,
    /// The evaluation timestamp in seconds.
    Timestamp,
    /// `max_of`, `min_of`: one scalar.
    Greater,
    /// `min_of`.
    Less,
}

impl Map {
    /// A function without annotations.
    pub fn new(function: MapFunction, scalars: Vec<ScalarArg>, key: KeyChange) -> Self {
        Self { function, scalars, key, position: String::new() }
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function {
            MapFunction::Arithmetic { op, scalar_left: false } => {
                write!(f, "v {} {}", op.symbol(), self.scalars[0])?
            }
            MapFunction::Arithmetic { op, scalar_left: true } => {
                write!(f, "{} {} v", self.scalars[0], op.symbol())?
            }
            MapFunction::Compare { op, scalar_left, return_bool } => {
                let op = format!("{}{}", op.symbol(), if return_bool { " bool" } else { "" });
                if scalar_left {
                    write!(f, "{} {op} v", self.scalars[0])?;
                } else {
                    write!(f, "v {op} {}", self.scalars[0])?;
                }
            }
            MapFunction::Math(function) => write!(f, "{function:?}(v)")?,
            MapFunction::Date(function) => write!(f, "{function:?}(v)")?,
            MapFunction::Histogram(function) => write!(f, "{function:?}(v)")?,
            function => {
                write!(f, "{function:?}(v")?;
                for scalar in &self.scalars {
                    write!(f, ", {scalar}")?;
                }
                f.write_str(")")?;
            }
        }
        match self.key {
            KeyChange::Keep => Ok(()),
            KeyChange::DropName => f.write_str(", name dropped"),
            KeyChange::MarkName => f.write_str(", name dropped in the end"),
        }
    }
}

impl Evaluate for Map {
    fn name(&self) -> &'static str {
        "Map"
    }

    fn streams(&self) -> bool {
        true
    }

    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError> {
        let scalars: Vec<_> = self.scalars.iter().map(|s| s.resolve(scope.scalars)).collect();
        let mut values = vec![0.0; out.width()];
        for row in &vectors[0] {
            let first = row.tile as usize * out.width();
            let mut mask = self.lanes(scope, row, first, &scalars, &mut values);
            if row.histograms.is_empty() && mask == 0 {
                continue;
            }
            let key = self.key.apply(row.key);
            let mut histograms = LaneHistograms::default();
            for (lane, histogram) in row.histograms.iter() {
                match self.histogram(scope, first + lane, &histogram, &scalars) {
                    None => {}
                    Some(Element::Float(v)) => {
                        values[lane] = v;
                        mask |= 1 << lane;
                    }
                    Some(Element::Histogram(h)) => histograms.set(lane, h),
                }
            }
            out.push_mixed(&key, row.tile, mask, &values, &histograms)?;
        }
        Ok(())
    }
}

impl Map {
    /// Fills `values` and gives the lanes that have one. Lanes without a sample are computed too:
    /// straight loops are faster than looking at the mask.
    fn lanes(
        &self,
        scope: Scope<'_>,
        row: &Row<'_>,
        first: usize,
        scalars: &[Scalar<'_>],
        values: &mut [f64],
    ) -> u128 {
        let each = |values: &mut [f64], f: &dyn Fn(usize, f64) -> f64| {
            for (lane, value) in values.iter_mut().enumerate() {
                *value = f(first + lane, row.values[lane]);
            }
        };
        match self.function {
            MapFunction::Identity => values.copy_from_slice(row.values),
            MapFunction::Negate => each(values, &|_, v| -v),
            MapFunction::Math(function) => each(values, &|_, v| function.apply(v)),
            MapFunction::Date(function) => each(values, &|_, v| function.apply(v)),
            MapFunction::Timestamp => {
                each(values, &|step, _| scope.grid.at(step) as f64 / 1000.0);
            }
            MapFunction::Histogram(_) => return 0,
            MapFunction::Arithmetic { op: op @ (BinaryOp::TrimLower | BinaryOp::TrimUpper), .. } => {
                if row.mask != 0 {
                    self.notes(scope).incompatible_types("float", op.symbol(), "float");
                }
                return 0;
            }
            MapFunction::Arithmetic { op, scalar_left } => {
                binary_lanes(op, scalar_left, row.values, scalars[0], first, values);
            }
            MapFunction::Compare { op, scalar_left, return_bool } => {
                return compare_lanes(op, scalar_left, return_bool, row, scalars[0], first, values);
            }
            MapFunction::Clamp => {
                each(values, &|step, v| go_max(scalars[0].at(step), go_min(scalars[1].at(step), v)));
                return lanes(row.mask)
                    .filter(|lane| scalars[1].at(first + lane) < scalars[0].at(first + lane))
                    .fold(row.mask, |mask, lane| mask & !(1 << lane));
            }
            MapFunction::ClampMin => each(values, &|step, v| go_max(scalars[0].at(step), v)),
            MapFunction::ClampMax => each(values, &|step, v| go_min(scalars[0].at(step), v)),
            MapFunction::Round => each(values, &|step, v| {
                let inverse = 1.0 / scalars[0].at(step);
                (v * inverse + 0.5).floor() / inverse
            }),
            MapFunction::Greater => each(values, &|step, v| go_max(v, scalars[0].at(step))),
            MapFunction::Less => each(values, &|step, v| go_min(v, scalars[0].at(step))),
        }
        row.mask
    }
}

impl Map {
    fn notes<'a>(&'a self, scope: Scope<'a>) -> Notes<'a> {
        Notes { context: scope.context, position: &self.position, name: "" }
    }

    /// What becomes of a histogram.
    fn histogram(
        &self,
        scope: Scope<'_>,
        step: usize,
        h: &Arc<FloatHistogram>,
        scalars: &[Scalar<'_>],
    ) -> Option<Element> {
        match self.function {
            MapFunction::Identity => Some(Element::Histogram(Arc::clone(h))),
            MapFunction::Negate => {
                let mut negative = h.as_ref().clone();
                multiply(&mut negative, -1.0);
                Some(Element::Histogram(Arc::new(negative)))
            }
            MapFunction::Histogram(function) => Some(Element::Float(function.apply(h))),
            MapFunction::Timestamp => Some(Element::Float(scope.grid.at(step) as f64 / 1000.0)),
            MapFunction::Arithmetic { op, scalar_left } | MapFunction::Compare { op, scalar_left, .. } => {
                let (scalar, own) = (Element::Float(scalars[0].at(step)), Element::Histogram(Arc::clone(h)));
                let (left, right) = if scalar_left { (scalar, own) } else { (own, scalar) };
                // No comparison of a histogram with a float holds, nor fails.
                binary(op, &left, &right, &self.notes(scope)).map(|combined| combined.value)
            }
            MapFunction::Math(_)
            | MapFunction::Date(_)
            | MapFunction::Clamp
            | MapFunction::ClampMin
            | MapFunction::ClampMax
            | MapFunction::Round
            | MapFunction::Greater
            | MapFunction::Less => None,
        }
    }
}

fn binary_lanes(
    op: BinaryOp,
    scalar_left: bool,
    input: &[f64],
    scalar: Scalar<'_>,
    first: usize,
    values: &mut [f64],
) {
    for (lane, (value, &v)) in values.iter_mut().zip(input).enumerate() {
        let s = scalar.at(first + lane);
        *value = if scalar_left { arithmetic(op, s, v) } else { arithmetic(op, v, s) };
    }
}

fn compare_lanes(
    op: BinaryOp,
    scalar_left: bool,
    return_bool: bool,
    row: &Row<'_>,
    scalar: Scalar<'_>,
    first: usize,
    values: &mut [f64],
) -> u128 {
    let holds = lanes(row.mask)
        .filter(|lane| {
            let (v, s) = (row.values[*lane], scalar.at(first + lane));
            if scalar_left { compare(op, s, v) } else { compare(op, v, s) }
        })
        .fold(0, |mask: u128, lane| mask | 1 << lane);
    if return_bool {
        for (lane, value) in values.iter_mut().enumerate() {
            *value = f64::from(u8::from(holds >> lane & 1 == 1));
        }
        row.mask
    } else {
        values.copy_from_slice(row.values);
        holds
    }
}
