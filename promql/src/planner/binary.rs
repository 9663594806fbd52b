//! Binary operators.

use promontory_tsdb::labels::METRIC_NAME;

use super::{Names, Planned, Planner, ScalarPlan, VectorPlan, scalar_args};
use crate::error::QueryError;
use crate::operators::{
    Float, KeyChange, Map, MapFunction, SetOperator, Signature, VectorBinary, arithmetic, operator_plan,
};
use crate::params::Grid;
use crate::parser::{BinaryExpr, BinaryOp, Cardinality, VectorMatching};

impl Planner<'_> {
    pub(super) fn binary(&mut self, binary: &BinaryExpr, grid: Grid) -> Result<Planned, QueryError> {
        if matches!(binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
            return Err(QueryError::Unsupported("histogram trim operators".into()));
        }
        let (lhs, rhs) = (self.plan(&binary.lhs, grid)?, self.plan(&binary.rhs, grid)?);
        match (lhs, rhs) {
            (Planned::Scalar(lhs), Planned::Scalar(rhs)) => {
                Ok(Planned::Scalar(scalars(binary.op, lhs, rhs, grid)))
            }
            (Planned::Vector(vector), Planned::Scalar(scalar)) => {
                Ok(Planned::Vector(self.with_scalar(binary, vector, scalar, false, grid)))
            }
            (Planned::Scalar(scalar), Planned::Vector(vector)) => {
                Ok(Planned::Vector(self.with_scalar(binary, vector, scalar, true, grid)))
            }
            (Planned::Vector(lhs), Planned::Vector(rhs)) => {
                self.vectors(binary, lhs, rhs, grid).map(Planned::Vector)
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
        grid: Grid,
    ) -> VectorPlan {
        let (op, return_bool) = (binary.op, binary.return_bool);
        if op.is_comparison() {
            let function = MapFunction::Compare { op, scalar_left, return_bool };
            self.map(vector, grid, function, vec![scalar], return_bool)
        } else {
            self.map(vector, grid, MapFunction::Arithmetic { op, scalar_left }, vec![scalar], true)
        }
    }

    fn vectors(
        &self,
        binary: &BinaryExpr,
        lhs: VectorPlan,
        rhs: VectorPlan,
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
            return Ok(VectorPlan::new(operator_plan(operator, grid, vec![lhs.plan, rhs.plan]), names));
        }
        let many = if matching.cardinality == Cardinality::OneToMany { rhs.names } else { lhs.names };
        let names = result_names(binary, matching, many, self.options.delayed_name_removal);
        let operator = VectorBinary {
            op: binary.op,
            return_bool: binary.return_bool,
            signature,
            cardinality: matching.cardinality,
            include: matching.include.clone(),
            fill_left: matching.fill_left.map(Float),
            fill_right: matching.fill_right.map(Float),
            delayed_names: self.options.delayed_name_removal,
        };
        Ok(VectorPlan::new(operator_plan(operator, grid, vec![lhs.plan, rhs.plan]), names))
    }
}

fn result_names(binary: &BinaryExpr, matching: &VectorMatching, many: Names, delayed: bool) -> Names {
    let lists_name = matching.labels.iter().chain(&matching.include).any(|l| l == METRIC_NAME);
    if lists_name {
        return Names::Various;
    }
    let keeps = binary.op.is_comparison() && (!binary.return_bool || delayed);
    if !keeps || (matching.on && matching.cardinality == Cardinality::OneToOne) {
        Names::Absent
    } else {
        many
    }
}

/// An operator between scalars: at once if both are known.
fn scalars(op: BinaryOp, lhs: ScalarPlan, rhs: ScalarPlan, grid: Grid) -> ScalarPlan {
    let (plan, scalar, scalar_left) = match (lhs, rhs) {
        (ScalarPlan::Constant(a), ScalarPlan::Constant(b)) => {
            return ScalarPlan::Constant(arithmetic(op, a, b));
        }
        (ScalarPlan::Relation(plan), scalar) => (plan, scalar, false),
        (scalar, ScalarPlan::Relation(plan)) => (plan, scalar, true),
    };
    let (scalars, mut inputs) = scalar_args(vec![scalar]);
    inputs.insert(0, plan);
    let function = MapFunction::Arithmetic { op, scalar_left };
    ScalarPlan::Relation(operator_plan(Map { function, scalars, key: KeyChange::Keep }, grid, inputs))
}
