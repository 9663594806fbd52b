//! Subexpressions with several places: planned at each, evaluated once.
//!
//! All places are planned, so that what is wrong is told of the first one. What is run is the plan of the last one: of
//! notes that differ in their position only, that of the place evaluated last is told.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;

use super::common::{self, Classes};
use super::{Planned, Planner, ScalarPlan, VectorPlan};
use crate::context::QueryContext;
use crate::logical::shared::{SharedNode, SharedPlan, settle};
use crate::params::{EngineOptions, Grid};
use crate::parser::Expr;

/// What decides, besides the expression, how it is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    class: u32,
    grid: Grid,
    is_range: bool,
    stats: Stats,
}

/// What the nodes around make of histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stats {
    /// Whatever is below.
    NeedBuckets,
    /// Only count and sum are looked at.
    Enough,
    /// Nothing is known yet.
    Open,
}

#[derive(Debug)]
struct Entry {
    shared: Arc<SharedPlan>,
    /// Where the place ends that was planned last.
    end: usize,
    plan: LogicalPlan,
}

/// The shared subexpressions of a query.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    classes: Classes,
    entries: HashMap<Place, Entry>,
}

impl Sharing {
    /// What may be shared in `expr`: nothing where samples are counted, as upstream counts them at each place; nor where
    /// overlaps of start timestamps with samples are counted.
    pub(super) fn of(expr: &Expr, options: &EngineOptions, context: &QueryContext) -> Self {
        if !options.share_common || context.counts().is_some() {
            return Self::default();
        }
        Self { classes: common::find(expr, !options.use_start_timestamps), entries: HashMap::new() }
    }

    /// To be called when all is planned. Gives how many subexpressions are shared.
    pub(super) fn settle(&mut self, root: Option<&LogicalPlan>) -> usize {
        if self.entries.is_empty() {
            return 0;
        }
        for (_, Entry { shared, plan, .. }) in self.entries.drain() {
            shared.set_plan(plan);
        }
        root.map_or(0, settle)
    }
}

impl Planner<'_> {
    /// A place of what was planned, if `expr` has others.
    pub(super) fn share(&mut self, expr: &Expr, grid: Grid, planned: Planned) -> Planned {
        if self.sharing.classes.is_empty() {
            return planned;
        }
        let Some(class) = self.sharing.classes.get(&std::ptr::from_ref(expr)).copied() else {
            return planned;
        };
        match planned {
            Planned::Vector(vector) => {
                let vector = vector.finish(grid);
                let plan = self.place(class, expr.span.end, grid, vector.plan, vector.ordered);
                Planned::Vector(VectorPlan { plan, ..vector })
            }
            Planned::Scalar(ScalarPlan::Relation(plan)) => {
                let plan = self.place(class, expr.span.end, grid, plan, true);
                Planned::Scalar(ScalarPlan::Relation(plan))
            }
            other => other,
        }
    }

    fn place(&mut self, class: u32, end: usize, grid: Grid, plan: LogicalPlan, single: bool) -> LogicalPlan {
        if matches!(plan, LogicalPlan::EmptyRelation(_)) {
            return plan;
        }
        let stats = match (self.need_buckets, self.need_stats) {
            (1.., _) => Stats::NeedBuckets,
            (0, 1..) => Stats::Enough,
            (0, 0) => Stats::Open,
        };
        let place = Place { class, grid, is_range: self.is_range, stats };
        let shared = match self.sharing.entries.get_mut(&place) {
            Some(entry) => {
                if entry.end < end {
                    (entry.end, entry.plan) = (end, plan);
                }
                Arc::clone(&entry.shared)
            }
            None => {
                let shared = Arc::<SharedPlan>::default();
                let entry = Entry { shared: Arc::clone(&shared), end, plan };
                self.sharing.entries.insert(place, entry);
                shared
            }
        };
        SharedNode::plan(shared, grid, single)
    }
}
