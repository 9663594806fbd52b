//! Functions that bring PromQL into SQL. The two languages meet here and nowhere else.
//!
//! - [`promql`]: `promql('expr', start, end, step)` and `promql_instant('expr', at)` stand where a table
//!   stands.
//! - [`series`]: aggregates over the samples of a series, `rate(timestamp, value)` and the like.
//! - [`histogram`], [`histogram_totals`]: functions of native histograms and classic buckets.

mod arguments;
mod histogram;
mod histogram_totals;
mod promql;
mod promql_exec;
mod series;

use std::sync::Arc;

use promontory_promql::Engine;
use promontory_sql::SqlFunctions;
use promontory_sql::functions::Overloads;
use promontory_sql::functions::doc::FunctionDoc;
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
    let overloads = Overloads { scalars: histogram::overloads() };
    SqlFunctions {
        scalars: histogram::scalars(),
        aggregates: series::aggregates().into_iter().chain(histogram_totals::aggregates()).collect(),
        tables: vec![table(Shape::Range), table(Shape::Instant)],
        planners: vec![Arc::new(overloads)],
        docs: docs(),
    }
}

/// What is to be known about them.
pub fn docs() -> Vec<FunctionDoc> {
    [promql::DOCS, series::DOCS, histogram::DOCS, histogram_totals::DOCS].concat()
}
