//! Subexpressions that are evaluated once for all their places give what they give at each place.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;

use promontory_promql::promqltest::{EngineEvaluator, Evaluate, run_script, script_engine_options};
use promontory_promql::value::QueryResult;
use promontory_promql::{EngineOptions, QueryParams};
use promontory_tsdb::memory::MemoryStorage;

use crate::scripts::{in_share, scripts, upstream_folder};

/// Queries in which E, any expression, is there several times.
const TWICE: [&str; 18] = [
    "(E) or (E)",
    "(E) + (E)",
    "(E) > (E) * 2",
    "abs(E) - abs( (E) )",
    "sum(abs(E)) / on() count(abs(E)) + on() sum(abs(E))",
    "sum(E) + on() sum(E)",
    "max_over_time((E)[5m:1m]) - min_over_time((E)[5m:1m])",
    "rate((E)[5m:1m]) + rate((E)[5m:1m]) + (E)",
    "scalar(E) + scalar(E) + on() group_left() (E)",
    "histogram_quantile(0.9, E) - histogram_quantile(0.1, E)",
    "histogram_quantile(9, E) - histogram_quantile(9, E)",
    "histogram_count(E) + histogram_sum(E) + (E)",
    "topk(2, E) and (E)",
    "sort_desc(E) or (E)",
    "(E)\n+ (\n(E) + ignoring(x) (E))",
    "quantile(scalar(min(E)) - 7, E) + on() quantile(scalar(min(E)) - 7, E)",
    "clamp(E, scalar(max(E)) - 1, 5) unless (E) == 1",
    "count_values(\"v\", E) or on(v) label_replace(E, \"v\", \"$1\", \"__name__\", \"(.*)\")",
];

/// One of so many runs is compared, of one of so many queries: all of them take minutes.
const EVERY: usize = 3;
const SHARES: usize = 6;

/// Runs all with sharing and without, and compares what comes out, with what is told.
struct BothWays {
    shared: EngineEvaluator,
    apart: EngineEvaluator,
    runs: Cell<usize>,
    compared: Cell<usize>,
    different: RefCell<Vec<String>>,
}

impl BothWays {
    fn new(options: &EngineOptions) -> Self {
        // On one partition sums come out the same to the last bit.
        let options = EngineOptions { partitions: 1, max_samples: 100_000, ..options.clone() };
        let evaluator = |share_common| {
            EngineEvaluator::new(EngineOptions { share_common, ..options.clone() }).expect("a runtime")
        };
        let (runs, compared) = (Cell::new(0), Cell::new(0));
        Self {
            shared: evaluator(true),
            apart: evaluator(false),
            runs,
            compared,
            different: RefCell::default(),
        }
    }

    fn compare(
        &self,
        storage: &Arc<MemoryStorage>,
        expr: &str,
        params: QueryParams,
    ) -> Result<QueryResult, String> {
        let shared = self.shared.evaluate(storage, expr, params);
        let apart = self.apart.evaluate(storage, expr, params);
        self.compared.set(self.compared.get() + usize::from(apart.is_ok()));
        let (with, without) = (format!("{shared:?}"), format!("{apart:?}"));
        if with != without {
            let text = format!("{expr} {params:?}\n  shared {with}\n  apart  {without}");
            self.different.borrow_mut().push(text);
        }
        shared
    }
}

impl Evaluate for BothWays {
    fn evaluate(
        &self,
        storage: &Arc<MemoryStorage>,
        expr: &str,
        params: QueryParams,
    ) -> Result<QueryResult, String> {
        let run = self.runs.replace(self.runs.get() + 1);
        if !run.is_multiple_of(EVERY) {
            return self.shared.evaluate(storage, expr, params);
        }
        // In turn, so that each is around many expressions.
        let query = TWICE[run / EVERY % TWICE.len()].replace('E', expr);
        drop(self.compare(storage, &query, params));
        self.compare(storage, expr, params)
    }
}

fn run(folder: &Path, options: &EngineOptions) {
    let both = BothWays::new(options);
    for path in scripts(folder) {
        let text = std::fs::read_to_string(&path).expect("a script is text");
        run_script(&text, &both, |expr| in_share(expr, 0, SHARES));
    }
    let (compared, different) = (both.compared.get(), both.different.take());
    eprintln!("{compared} compared");
    assert!(compared > 500, "{compared} compared");
    let first = different.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    assert!(different.is_empty(), "{} differ:\n{first}", different.len());
}

#[test]
fn queries_that_repeat_a_script_s_expressions_give_the_same_shared_or_not() {
    let Some(folder) = upstream_folder() else { return };
    run(&folder, &script_engine_options());
    let plain =
        EngineOptions { delayed_name_removal: false, use_start_timestamps: false, ..script_engine_options() };
    run(&folder, &EngineOptions { tile_steps: 4, ..plain });
}
