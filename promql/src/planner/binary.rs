//! Binary operators.

use promontory_tsdb::labels::METRIC_NAME;

use super::{Names, Planned, Planner, ScalarPlan, VectorPlan, scalar_args};
use crate::error::QueryError;
use crate::operators::{
    Float, KeyChange, Map, MapFunction, SetOperator, Signature, VectorBinary, arithmetic, operator_plan,
};
use crate::params::Grid;
use crate::parser::{BinaryExpr, BinaryOp, Cardinality, Expr, VectorMatching};

impl Planner<'_> {
    pub(super) fn binary(
        &mut self,
        expr: &Expr,
        binary: &BinaryExpr,
        grid: Grid,
    ) -> Result<Planned, QueryError> {
        let position = self.position(expr.span);
        let buckets = usize::from(matches!(binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper));
        self.need_buckets += buckets;
        let sides = (self.plan(&binary.lhs, grid), self.plan(&binary.rhs, grid));
        self.need_buckets -= buckets;
        let (lhs, rhs) = (sides.0?, sides.1?);
        match (lhs, rhs) {
            (Planned::Scalar(lhs), Planned::Scalar(rhs)) => {
                scalars(binary.op, lhs, rhs, grid).map(Planned::Scalar)
            }
            (Planned::Vector(vector), Planned::Scalar(scalar)) => {
                Ok(Planned::Vector(self.with_scalar(binary, vector, scalar, false, position, grid)))
            }
            (Planned::Scalar(scalar), Planned::Vector(vector)) => {
                Ok(Planned::Vector(self.with_scalar(binary, vector, scalar, true, position, grid)))
            }
            (Planned::Vector(lhs), Planned::Vector(rhs)) => {
                self.vectors(binary, lhs, rhs, position, grid).map(Planned::Vector)
            }
            _ => Err(QueryError::Internal("a string as operand".into())),
        }
    }

    fn with_scalar(
        &self,
        binary: &BinaryExpr,
        vector: VectorPlan,
        scalar: ScalarPlan,
        scalar_left: bool,
        position: String,
        grid: Grid,
    ) -> VectorPlan {
        let (op, return_bool) = (binary.op, binary.return_bool);
        if op.is_comparison() {
            let function = MapFunction::Compare { op, scalar_left, return_bool };
            self.map_at(vector, grid, function, vec![scalar], return_bool, position)
        } else {
            let function = MapFunction::Arithmetic { op, scalar_left };
            // Trimming leaves the metric what it is.
            let drop_name = !matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
            self.map_at(vector, grid, function, vec![scalar], drop_name, position)
        }
    }

    fn vectors(
        &self,
        binary: &BinaryExpr,
        lhs: VectorPlan,
        rhs: VectorPlan,
        position: String,
        grid: Grid,
    ) -> Result<VectorPlan, QueryError> {
        let default = VectorMatching {
            cardinality: if binary.op.is_set() { Cardinality::ManyToMany } else { Cardinality::OneToOne },
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let matching = binary.matching.as_ref().unwrap_or(&default);
        let (lhs, rhs) = (lhs.finish(grid), rhs.finish(grid));
        let signature = Signature::new(matching);
        if binary.op.is_set() {
            let names = match (binary.op, lhs.names, rhs.names) {
                (BinaryOp::Or, Names::Absent, Names::Absent) => Names::Absent,
                (BinaryOp::Or, ..) => Names::Various,
                (_, names, _) => names,
            };
            let operator = SetOperator { op: binary.op, signature };
            let is_or = binary.op == BinaryOp::Or;
            let ordered = lhs.ordered || is_or && rhs.ordered;
            let (lhs, rhs) =
                if is_or && ordered { (lhs.in_order(grid), rhs.in_order(grid)) } else { (lhs, rhs) };
            let plan = operator_plan(operator, grid, vec![lhs.plan, rhs.plan]);
            return Ok(VectorPlan::new(plan, names).ordered(ordered));
        }
        let (many, one) =
            if matching.cardinality == Cardinality::OneToMany { (&rhs, &lhs) } else { (&lhs, &rhs) };
        let names = result_names(binary, matching, many.names, self.options.delayed_name_removal);
        // What stands on the "one" side alone comes last.
        let fills = matching.fill_left.is_some();
        let ordered = many.ordered || fills && one.ordered;
        let (lhs, rhs) = if ordered && fills { (lhs.in_order(grid), rhs.in_order(grid)) } else { (lhs, rhs) };
        let operator = VectorBinary {
            op: binary.op,
            return_bool: binary.return_bool,
            signature,
            cardinality: matching.cardinality,
            include: matching.include.clone(),
            fill_left: matching.fill_left.map(Float),
            fill_right: matching.fill_right.map(Float),
            delayed_names: self.options.delayed_name_removal,
            position,
            ordered,
        };
        let plan = operator_plan(operator, grid, vec![lhs.plan, rhs.plan]);
        Ok(VectorPlan::new(plan, names).ordered(ordered))
    }
}

fn result_names(binary: &BinaryExpr, matching: &VectorMatching, many: Names, delayed: bool) -> Names {
    let lists_name = matching.labels.iter().chain(&matching.include).any(|l| l == METRIC_NAME);
    if lists_name {
        return Names::Various;
    }
    let keeps = changes_nothing(binary.op) && (!binary.return_bool || delayed);
    if !keeps || (matching.on && matching.cardinality == Cardinality::OneToOne) {
        Names::Absent
    } else {
        many
    }
}

/// Whether the result is still the metric of the left side.
fn changes_nothing(op: BinaryOp) -> bool {
    op.is_comparison() || matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper)
}

/// An operator between scalars: at once if both are known. What only histograms can have done to them is an error.
fn scalars(op: BinaryOp, lhs: ScalarPlan, rhs: ScalarPlan, grid: Grid) -> Result<ScalarPlan, QueryError> {
    if matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
        let text = format!("operator \"{}\" not allowed for Scalar operations", op.symbol());
        return Err(QueryError::Execution(text));
    }
    let (plan, scalar, scalar_left) = match (lhs, rhs) {
        (ScalarPlan::Constant(a), ScalarPlan::Constant(b)) => {
            return Ok(ScalarPlan::Constant(arithmetic(op, a, b)));
        }
        (ScalarPlan::Relation(plan), scalar) => (plan, scalar, false),
        (scalar, ScalarPlan::Relation(plan)) => (plan, scalar, true),
    };
    let (scalars, mut inputs) = scalar_args(vec![scalar]);
    inputs.insert(0, plan);
    let function = MapFunction::Arithmetic { op, scalar_left };
    let map = Map::new(function, scalars, KeyChange::Keep);
    Ok(ScalarPlan::Relation(operator_plan(map, grid, inputs)))
}
