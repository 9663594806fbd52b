//! Operators between the leaves and the result: one description and its evaluation per file.
//!
//! An [`Operator`] is a typed, pure description. [`OperatorNode`] puts it into a DataFusion
//! `LogicalPlan`, [`OperatorExec`] runs it, [`OperatorPlanner`] leads from one to the other. All of
//! them read and write tiles (see [`crate::tile`]).
//!
//! An operator has first its vector inputs, then its scalar inputs. It runs in one of two ways:
//! batch by batch, partition by partition ([`Evaluate::streams`]), or once over whole inputs, which
//! it then holds and accounts for ([`crate::context::QueryContext::hold_samples`]).

mod absent;
mod constant;
mod count_values;
mod elements;
mod exec;
pub(crate) mod format;
mod histogram;
mod info;
mod key;
mod map;
mod math;
mod merge;
mod node;
mod notice;
mod rank;
mod relabel;
mod repeat;
pub(crate) mod rows;
mod scalar;
mod scalar_of;
mod set_operator;
mod sort;
mod spread_mark;
mod totals;
mod vector_binary;

use std::fmt;

use arrow::array::RecordBatch;
use datafusion::error::DataFusionError;

pub use absent::Absent;
pub use constant::{Constant, ConstantValue};
pub use count_values::CountValues;
pub use exec::OperatorExec;
pub use histogram::{BucketFunction, Buckets, classic_quantile, parse_go_float as parse_le};
pub use info::Info;
pub use key::{KeyChange, Signature};
pub(crate) use key::{NAME_DROPPED, compare, final_labels, get, labels};
pub use map::{HistogramFunction, Map, MapFunction};
pub use math::{DateFunction, MathFunction, arithmetic, compare as compare_floats};
pub(crate) use math::{go_max, go_min};
pub use merge::MergeDisjoint;
pub(crate) use node::tile_df_schema;
pub use node::{OperatorNode, OperatorPlanner, operator_plan};
pub use notice::{Notice, NoticeKind};
pub(crate) use notice::{bad_quantile, non_counter, non_counter_type, tell_bad_quantiles};
pub use rank::{Rank, RankKind};
pub(crate) use relabel::absent_labels;
pub use relabel::{Relabel, RelabelRule};
pub use repeat::Repeat;
pub use scalar::{Float, ScalarArg};
pub use scalar_of::ScalarOf;
pub use set_operator::SetOperator;
pub use sort::{Sort, SortBy};
pub use spread_mark::SpreadMark;
pub use totals::{FloatsOnly, Totals};
pub use vector_binary::VectorBinary;

use crate::context::QueryContext;
use crate::params::Grid;
use rows::{Row, TileWriter};

/// What an operator works with besides its inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The steps of the output.
    pub(crate) grid: &'a Grid,
    /// The query.
    pub(crate) context: &'a QueryContext,
    /// Values of each scalar input, one per step.
    pub(crate) scalars: &'a [Vec<f64>],
}

/// How an operator is evaluated.
pub(crate) trait Evaluate: fmt::Display {
    /// Name in plans.
    fn name(&self) -> &'static str;

    /// Number of inputs that are vectors; they come before the scalar inputs.
    fn vector_inputs(&self) -> usize {
        1
    }

    /// Whether [`Evaluate::run`] may be called batch by batch, in any partition.
    fn streams(&self) -> bool {
        false
    }

    /// Whether a streaming operator would give just `batch` for `batch`.
    fn passes(&self, _: &RecordBatch) -> bool {
        false
    }

    /// How many rows of a batch a streaming operator takes at a time.
    fn rows_per_run(&self, _: &Grid) -> usize {
        usize::MAX
    }

    /// Writes the output for `vectors`: whole inputs, or one batch of the only one if the operator streams.
    fn run(
        &self,
        scope: Scope<'_>,
        vectors: &[Vec<Row<'_>>],
        out: &mut TileWriter<'_>,
    ) -> Result<(), DataFusionError>;
}

macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident($ty:ty),)*) => {
        /// A node of a plan that is not a leaf.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Operator {
            $($(#[$doc])* $name($ty),)*
        }

        impl Operator {
            pub(crate) fn evaluate(&self) -> &dyn Evaluate {
                match self {
                    $(Self::$name(operator) => operator,)*
                }
            }
        }

        $(impl From<$ty> for Operator {
            fn from(operator: $ty) -> Self {
                Self::$name(operator)
            }
        })*
    };
}

operators! {
    /// `absent(v)`.
    Absent(Absent),
    /// A number or the time, at each step.
    Constant(Constant),
    /// `count_values("l", v)`.
    CountValues(CountValues),
    /// `histogram_quantile`, `histogram_fraction` over classic buckets.
    Buckets(Buckets),
    /// Histograms are left out.
    FloatsOnly(FloatsOnly),
    /// `info(v)`.
    Info(Info),
    /// A function of each sample.
    Map(Map),
    /// Series that may share their labels become one.
    MergeDisjoint(MergeDisjoint),
    /// Passes on, and tells the user something.
    Notice(Notice),
    /// `topk`, `bottomk`, `limitk`, `limit_ratio`.
    Rank(Rank),
    /// `label_replace`, `label_join`.
    Relabel(Relabel),
    /// One step becomes all steps.
    Repeat(Repeat),
    /// `scalar(v)`.
    ScalarOf(ScalarOf),
    /// `and`, `or`, `unless`.
    SetOperator(SetOperator),
    /// The order of a vector on one step.
    Sort(Sort),
    /// Groups agree on whether their name is dropped in the end.
    SpreadMark(SpreadMark),
    /// Sums of histograms become histograms.
    Totals(Totals),
    /// Arithmetic and comparison of two vectors.
    VectorBinary(VectorBinary),
}

#[cfg(test)]
mod tests;
