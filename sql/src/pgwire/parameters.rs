//! Parameters of prepared statements: which there are, of what types, and the values given for them.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use arrow_pg::datatypes::df::deserialize_parameters;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use pgwire::api::portal::Portal;
use pgwire::error::PgWireResult;

use super::sqlstate;
use super::statement::Prepared;

/// The values bound to `portal`; `None` where there is nothing to bind.
pub(crate) fn bound(portal: &Portal<Prepared>) -> PgWireResult<Option<ParamValues>> {
    let types = parameter_types(&portal.statement.statement)?;
    if types.len() > portal.parameter_len() {
        let message = format!("{} parameters bound, {} needed", portal.parameter_len(), types.len());
        return Err(sqlstate::error("08P01", message));
    }
    if portal.parameter_len() == 0 {
        return Ok(None);
    }
    let types: Vec<_> = types.iter().map(Option::as_ref).collect();
    deserialize_parameters(portal, &types).map(Some)
}

/// What `$1`, `$2`, … are to be; `None` where the query does not say.
pub(crate) fn parameter_types(prepared: &Prepared) -> PgWireResult<Vec<Option<DataType>>> {
    let Some(plan) = prepared.plan() else { return Ok(Vec::new()) };
    let mut types = BTreeMap::new();
    for (id, data_type) in plan.get_parameter_types().map_err(|e| sqlstate::from_datafusion(&e))? {
        let place =
            id.trim_start_matches('$').parse::<usize>().ok().filter(|place| (1..=65_535).contains(place));
        let place = place.ok_or_else(|| sqlstate::error("42P02", format!("there is no parameter {id}")))?;
        types.insert(place, data_type.or_else(|| type_by_cast(plan, &id)).map(plain));
    }
    let count = types.keys().last().copied().unwrap_or(0);
    Ok((1..=count).map(|place| types.remove(&place).flatten()).collect())
}

/// The type that `$n::type` gives a parameter.
fn type_by_cast(plan: &LogicalPlan, id: &str) -> Option<DataType> {
    let mut found = None;
    let visited = plan.apply(|node| {
        for expression in node.expressions() {
            expression.apply(|e| {
                if let Expr::Cast(cast) = e
                    && matches!(&*cast.expr, Expr::Placeholder(p) if p.id == id)
                {
                    found = Some(cast.field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.ok().and(found)
}

/// `values` for the parameters of `prepared`, each of the type that its parameter needs. `what` names the
/// statement in messages.
///
/// # Errors
/// 42601 if their number is wrong, 22P02 for one that cannot be of its parameter's type.
pub(crate) fn fitting(
    prepared: &Prepared,
    values: Vec<ScalarValue>,
    what: &str,
) -> PgWireResult<Vec<ScalarValue>> {
    let types = parameter_types(prepared)?;
    if values.len() != types.len() {
        let message =
            format!("wrong number of parameters for {what}: expected {}, got {}", types.len(), values.len());
        return Err(sqlstate::error("42601", message));
    }
    let fitting = values.into_iter().zip(types).map(|(value, wanted)| match wanted {
        Some(wanted) => value.cast_to(&wanted),
        None => Ok(value),
    });
    fitting.collect::<Result<_, _>>().map_err(|error| sqlstate::from_datafusion(&error))
}

/// Clients know texts, not dictionaries.
fn plain(data_type: DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => *value,
        other => other,
    }
}
