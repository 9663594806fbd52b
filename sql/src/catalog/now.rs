//! `now()` by the catalog's clock, so that a test or a replay can say what time it is.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, Utc};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use parking_lot::Mutex;
use promontory_tsdb::Clock;

/// The time at which the statement began, the same wherever the statement asks.
#[derive(Debug)]
pub(crate) struct Now {
    clock: Arc<dyn Clock>,
    signature: Signature,
    aliases: Vec<String>,
    /// When a statement began by DataFusion's reckoning, and by the clock's.
    last: Mutex<Option<(DateTime<Utc>, i64)>>,
}

impl Now {
    /// `now()` that asks `clock`.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            signature: Signature::nullary(Volatility::Stable),
            aliases: ["current_timestamp", "transaction_timestamp", "statement_timestamp"]
                .map(str::to_owned)
                .to_vec(),
            last: Mutex::default(),
        }
    }

    fn ms_at(&self, statement: Option<DateTime<Utc>>) -> i64 {
        let Some(statement) = statement else { return self.clock.now_ms() };
        let mut last = self.last.lock();
        match *last {
            Some((of, ms)) if of == statement => ms,
            _ => {
                let ms = self.clock.now_ms();
                *last = Some((statement, ms));
                ms
            }
        }
    }
}

impl PartialEq for Now {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.clock, &other.clock)
    }
}

impl Eq for Now {}

impl std::hash::Hash for Now {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.clock).hash(state);
    }
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &'static str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())))
    }

    fn simplify(&self, _args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let ns = self.ms_at(context.query_execution_start_time()).checked_mul(1_000_000);
        let now = ScalarValue::TimestampNanosecond(ns, Some("UTC".into()));
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(now, None)))
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("now() is folded when a statement is planned")
    }
}
