//! [`SharedNode`]: one place of a subexpression that a query has several times, and that is evaluated once.
//!
//! All places of one subexpression have one [`SharedPlan`], which knows the plan. Of the places the first one has it as
//! its input, so that whoever looks at the whole plan meets it once; the others have none.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{self, AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};

use datafusion::common::{DFSchemaRef, Result};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use super::tile_df_schema;
use crate::params::Grid;
use crate::physical::shared::SharedRun;

/// A subexpression with several places.
#[derive(Debug, Default)]
pub(crate) struct SharedPlan {
    /// How it is evaluated; known when the whole query is planned.
    plan: OnceLock<LogicalPlan>,
    /// How many places there are in the plan.
    places: AtomicUsize,
    /// Tells subexpressions apart in plans as text.
    number: AtomicUsize,
    run: Arc<SharedRun>,
}

impl SharedPlan {
    /// The number of places, once [`settle`] has counted them.
    pub(crate) fn places(&self) -> usize {
        self.places.load(atomic::Ordering::Relaxed)
    }

    pub(crate) fn number(&self) -> usize {
        self.number.load(atomic::Ordering::Relaxed)
    }

    /// What the operators of all places have in common.
    pub(crate) fn run(&self) -> &Arc<SharedRun> {
        &self.run
    }

    /// Says how it is evaluated, once.
    pub(crate) fn set_plan(&self, plan: LogicalPlan) {
        // A second one would be the same: there is one call.
        drop(self.plan.set(plan));
    }
}

/// One place of a [`SharedPlan`].
#[derive(Debug)]
pub(crate) struct SharedNode {
    shared: Arc<SharedPlan>,
    /// This place has the plan as its input.
    first: AtomicBool,
    grid: Grid,
    /// The rows come on one partition.
    single: bool,
    /// The input, if it is another one than that of `shared`.
    replaced: Option<LogicalPlan>,
    schema: DFSchemaRef,
}

impl SharedNode {
    /// A place of `shared`, whose tiles are on `grid`; on a `single` partition, or any number.
    pub(crate) fn plan(shared: Arc<SharedPlan>, grid: Grid, single: bool) -> LogicalPlan {
        let (first, schema) = (AtomicBool::new(false), tile_df_schema(&grid));
        let node = Self { shared, first, grid, single, replaced: None, schema };
        LogicalPlan::Extension(Extension { node: Arc::new(node) })
    }

    pub(crate) fn shared(&self) -> &Arc<SharedPlan> {
        &self.shared
    }

    pub(crate) fn grid(&self) -> &Grid {
        &self.grid
    }

    pub(crate) fn single(&self) -> bool {
        self.single
    }
}

/// Counts the places beneath `root`, and gives the first one of each subexpression its plan. Gives the number of
/// subexpressions that have several places.
pub(crate) fn settle(root: &LogicalPlan) -> usize {
    let (mut todo, mut found) = (vec![root], Vec::new());
    while let Some(plan) = todo.pop() {
        if let LogicalPlan::Extension(extension) = plan
            && let Some(node) = extension.node.as_any().downcast_ref::<SharedNode>()
            && node.shared.places.fetch_add(1, atomic::Ordering::Relaxed) == 0
        {
            node.first.store(true, atomic::Ordering::Relaxed);
            found.push(&node.shared);
        }
        let first = todo.len();
        todo.extend(plan.inputs());
        todo[first..].reverse();
    }
    let several = found.into_iter().filter(|shared| shared.places() > 1);
    several.zip(1..).map(|(shared, number)| shared.number.store(number, atomic::Ordering::Relaxed)).count()
}

impl Clone for SharedNode {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            first: AtomicBool::new(self.first.load(atomic::Ordering::Relaxed)),
            grid: self.grid,
            single: self.single,
            replaced: self.replaced.clone(),
            schema: Arc::clone(&self.schema),
        }
    }
}

/// Places of one subexpression are equal.
impl PartialEq for SharedNode {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.replaced == other.replaced
    }
}

impl Eq for SharedNode {}

impl Hash for SharedNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.shared).hash(state);
    }
}

impl PartialOrd for SharedNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for SharedNode {
    fn name(&self) -> &str {
        "Shared"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        match &self.replaced {
            Some(plan) => vec![plan],
            None if self.first.load(atomic::Ordering::Relaxed) => {
                self.shared.plan.get().into_iter().collect()
            }
            None => Vec::new(),
        }
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, places) = (self.shared.number(), self.shared.places());
        write!(f, "Shared: #{number} of {places} places")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { replaced: inputs.into_iter().next(), ..self.clone() })
    }
}
