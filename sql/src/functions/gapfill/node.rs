//! [`GapFillNode`]: an aggregate by time buckets, with rows for the buckets that are empty.

use std::cmp::Ordering;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{
    DFSchema, DFSchemaRef, Result, TableReference, internal_datafusion_err, internal_err,
};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};

/// How a column is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum FillKind {
    /// With the value before.
    Locf,
    /// With the value on the line between its neighbours.
    Interpolate,
}

/// A column that is added.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Fill {
    /// How it is filled.
    pub(super) kind: FillKind,
    /// What it holds where there are rows; over the columns of the aggregate as they were called.
    pub(super) value: Expr,
    /// Its name.
    pub(super) name: String,
}

/// The node. Its columns are those of the aggregate, under the names that they had before the rule changed it,
/// then one per fill.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GapFillNode {
    pub(super) input: Arc<LogicalPlan>,
    /// The aggregate's columns as they were called: what `fills` refer to.
    pub(super) aggregate: DFSchemaRef,
    /// Number of group columns; they come first.
    pub(super) groups: usize,
    /// Index of the bucket among them.
    pub(super) time: usize,
    /// Width of the buckets, a constant.
    pub(super) width: Expr,
    /// From when, a constant.
    pub(super) start: Option<Expr>,
    /// Until when, a constant.
    pub(super) finish: Bound<Expr>,
    /// Columns that are added.
    pub(super) fills: Vec<Fill>,
    pub(super) schema: DFSchemaRef,
}

impl GapFillNode {
    /// The columns of a node over an aggregate that had the columns of `aggregate`.
    ///
    /// # Errors
    /// If a fill has no type.
    pub(super) fn schema_of(aggregate: &DFSchema, groups: usize, fills: &[Fill]) -> Result<DFSchemaRef> {
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = Vec::new();
        for (i, (qualifier, field)) in aggregate.iter().enumerate() {
            let nullable = i >= groups || field.is_nullable();
            fields.push((qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(nullable))));
        }
        for fill in fills {
            let data_type = match fill.kind {
                FillKind::Locf => fill.value.get_type(aggregate)?,
                FillKind::Interpolate => DataType::Float64,
            };
            fields.push((None, Arc::new(Field::new(&fill.name, data_type, true))));
        }
        Ok(Arc::new(DFSchema::new_with_metadata(fields, aggregate.metadata().clone())?))
    }

    fn finish_expr(&self) -> Option<&Expr> {
        match &self.finish {
            Bound::Included(finish) | Bound::Excluded(finish) => Some(finish),
            Bound::Unbounded => None,
        }
    }
}

impl PartialOrd for GapFillNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for GapFillNode {
    fn name(&self) -> &'static str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    // Fills are left out: they refer to columns by the names that those had before.
    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.width).chain(&self.start).chain(self.finish_expr()).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GapFill: width={}", self.width)?;
        if let Some(start) = &self.start {
            write!(f, ", start={start}")?;
        }
        match &self.finish {
            Bound::Included(finish) => write!(f, ", up to {finish}")?,
            Bound::Excluded(finish) => write!(f, ", before {finish}")?,
            Bound::Unbounded => {}
        }
        let fills: Vec<_> = self.fills.iter().map(|fill| fill.name.as_str()).collect();
        if fills.is_empty() { Ok(()) } else { write!(f, ", fills=[{}]", fills.join(", ")) }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Ok([input]) = <[LogicalPlan; 1]>::try_from(inputs) else {
            return internal_err!("a gap fill has one input");
        };
        let mut exprs = exprs.into_iter();
        let mut next =
            || exprs.next().ok_or_else(|| internal_datafusion_err!("a gap fill keeps its expressions"));
        let width = next()?;
        let start = self.start.as_ref().map(|_| next()).transpose()?;
        let finish = match &self.finish {
            Bound::Included(_) => Bound::Included(next()?),
            Bound::Excluded(_) => Bound::Excluded(next()?),
            Bound::Unbounded => Bound::Unbounded,
        };
        Ok(Self { input: Arc::new(input), width, start, finish, ..self.clone() })
    }
}
