//! `->` and `->>`: members of a JSON text, for the labels of `tsdb.series` and `tsdb.samples`.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use serde_json::Value;

/// Adds the operators to `context`.
pub(super) fn install(context: &SessionContext) {
    let [member, text] = [("json_member", false), ("json_member_text", true)].map(|(name, as_text)| {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::from(Member { name, as_text, signature }))
    });
    let state = context.state_ref();
    let operators = Arc::new(Operators { member, text });
    state.write().register_expr_planner(operators).expect("a session takes every planner");
}

#[derive(Debug)]
struct Operators {
    member: Arc<ScalarUDF>,
    text: Arc<ScalarUDF>,
}

impl ExprPlanner for Operators {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        _schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::Arrow => &self.member,
            BinaryOperator::LongArrow => &self.text,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(PlannerResult::Planned(function.call(vec![expr.left, expr.right])))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Member {
    name: &'static str,
    /// A text is given without its quotes.
    as_text: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Member {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [json, key] = &args.args[..] else { return exec_err!("a member has an object and a key") };
        let (json, keys) = (json.to_array(args.number_rows)?, key.to_array(args.number_rows)?);
        let by_position = keys.data_type().is_integer();
        let (json, keys) = (cast(&json, &DataType::Utf8)?, cast(&keys, &DataType::Utf8)?);
        // The labels of a series come once per sample.
        let mut last: Option<(&str, Value)> = None;
        let mut found = Vec::with_capacity(json.len());
        for (text, key) in json.as_string::<i32>().iter().zip(keys.as_string::<i32>()) {
            let (Some(text), Some(key)) = (text, key) else {
                found.push(None);
                continue;
            };
            if last.as_ref().is_none_or(|(known, _)| *known != text) {
                let value = serde_json::from_str(text)
                    .map_err(|error| exec_datafusion_err!("invalid input syntax for type json: {error}"))?;
                last = Some((text, value));
            }
            let member = last.as_ref().and_then(|(_, value)| {
                if by_position { value.get(key.parse::<usize>().ok()?) } else { value.get(key) }
            });
            found.push(member.and_then(|member| match member {
                Value::Null if self.as_text => None,
                Value::String(text) if self.as_text => Some(text.clone()),
                other => Some(other.to_string()),
            }));
        }
        Ok(ColumnarValue::Array(Arc::new(StringArray::from(found))))
    }
}
