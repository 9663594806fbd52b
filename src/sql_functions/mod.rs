//! Functions that bring PromQL into SQL. The two languages meet here and nowhere else.
//!
//! - [`promql`]: `promql('expr', start, end, step)` and `promql_instant('expr', at)` stand where a table
//!   stands.
//! - [`series`]: aggregates over the samples of a series, `rate(timestamp, value)` and the like.

mod arguments;
mod promql;
mod promql_exec;
mod series;

use std::sync::Arc;

use promontory_promql::Engine;
use promontory_sql::SqlFunctions;
use promontory_tsdb::{Clock, Queryable};

use promql::{PromqlFunction, Shape};

/// All of them, over `source`. What is evaluated "now" asks `clock`.
pub fn all(engine: &Arc<Engine>, source: &Arc<dyn Queryable>, clock: &Arc<dyn Clock>) -> SqlFunctions {
    let table = |shape: Shape| {
        let function = PromqlFunction {
            engine: Arc::clone(engine),
            source: Arc::clone(source),
            clock: Arc::clone(clock),
            shape,
        };
        (shape.name().to_owned(), Arc::new(function) as Arc<dyn datafusion::catalog::TableFunctionImpl>)
    };
    SqlFunctions {
        scalars: Vec::new(),
        aggregates: series::aggregates(),
        tables: vec![table(Shape::Range), table(Shape::Instant)],
    }
}
