//! Leaves, windows and aggregates end to end: through DataFusion, over storage in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion::prelude::{SessionConfig, SessionContext};
use promontory_tsdb::memory::MemoryStorage;
use promontory_tsdb::{Labels, MatchOp, Matcher, Queryable, stale_nan};
use tokio_util::sync::CancellationToken;

use super::tiles::{TileBuilder, TileColumns};
use super::*;
use crate::QueryError;
use crate::context::QueryContext;
use crate::kernels::StepRow;
use crate::logical::spec::*;
use crate::logical::{Subject, aggregate_plan, selector_plan, subquery_plan};
use crate::parser::ast::AggregateOp;

const MINUTE: i64 = 60_000;

/// Result: per series (as text) the value at each step.
type Table = BTreeMap<String, Vec<Option<f64>>>;

struct Fixture {
    storage: Arc<MemoryStorage>,
    partitions: usize,
    max_samples: usize,
}

impl Fixture {
    /// Two metrics, four series each of `requests_total`, one sample every 15 s for two hours.
    fn new(partitions: usize) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        for (k, (job, instance)) in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")].into_iter().enumerate() {
            let labels =
                Labels::from_pairs([("__name__", "requests_total"), ("job", job), ("instance", instance)]);
            for i in 0..480 {
                storage.append(&labels, i * 15_000, (i as f64) * (k + 1) as f64).unwrap();
            }
        }
        let other = Labels::from_pairs([("__name__", "up"), ("job", "a"), ("instance", "1")]);
        storage.append(&other, 0, 1.0).unwrap();
        storage.append(&other, 10 * MINUTE, stale_nan()).unwrap();
        storage.append(&other, 20 * MINUTE, 3.0).unwrap();
        Self { storage, partitions, max_samples: 1_000_000 }
    }

    fn source(&self) -> Arc<dyn Queryable> {
        Arc::clone(&self.storage) as Arc<dyn Queryable>
    }

    fn context(&self) -> SessionContext {
        let query = QueryContext::new(self.max_samples, CancellationToken::new());
        let config = SessionConfig::new().with_target_partitions(self.partitions).with_extension(query);
        SessionContext::new_with_config(config)
    }

    async fn run(&self, plan: LogicalPlan, grid: Grid) -> Result<Table, QueryError> {
        let context = self.context();
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![
            Arc::new(LeafPlanner),
            Arc::new(crate::operators::OperatorPlanner),
        ]);
        let state = context.state();
        let batches = async {
            let exec = planner.create_physical_plan(&plan, &state).await?;
            datafusion::physical_plan::collect(exec, state.task_ctx()).await
        }
        .await
        .map_err(QueryError::from_datafusion)?;
        let mut table = Table::new();
        for batch in batches {
            let tiles = TileColumns::of(&batch).unwrap();
            for r in 0..tiles.len() {
                let labels = Labels::from_bytes(tiles.key(r)).unwrap().to_string();
                let series = table.entry(labels).or_insert_with(|| vec![None; grid.steps]);
                let (lanes, mask) = tiles.row(r);
                for j in (0..grid.tile_steps).filter(|j| mask >> j & 1 == 1) {
                    let slot = &mut series[tiles.tile(r) as usize * grid.tile_steps + j];
                    assert!(slot.is_none(), "one value per series and step");
                    *slot = Some(lanes[j]);
                }
            }
        }
        Ok(table)
    }

    /// A plan of scalar type.
    fn scalar(&self, grid: Grid, value: impl Fn(usize) -> f64) -> LogicalPlan {
        let mut row = StepRow::default();
        row.reset(grid.steps);
        (0..grid.steps).for_each(|i| row.set(i, value(i)));
        let mut tiles = TileBuilder::new(grid);
        tiles.push_row(&[], &row);
        self.context().read_batch(tiles.finish().unwrap()).unwrap().into_unoptimized_plan()
    }
}

fn grid(steps: usize, tile_steps: usize) -> Grid {
    Grid::new(30 * MINUTE, (30 + steps as i64 - 1) * MINUTE, MINUTE, tile_steps)
}

fn instant(name: &str, grid: Grid) -> SelectorSpec {
    SelectorSpec {
        matchers: vec![Matcher::eq("__name__", name)],
        grid,
        view: TimeView::default(),
        window: Window::Instant { lookback_ms: 5 * MINUTE, read: SampleRead::Value },
        output: KeyOutput::Full,
        position: String::new(),
        without_buckets: false,
        distinct: false,
        counters: None,
        counted: 1,
    }
}

fn ranged(function: RangeFunction, grid: Grid) -> SelectorSpec {
    SelectorSpec {
        window: Window::Range { range_ms: 5 * MINUTE, function, extension: None, use_starts: false },
        output: KeyOutput::DropName,
        ..instant("requests_total", grid)
    }
}

fn by(labels: &[&str]) -> Grouping {
    Grouping { without: false, labels: labels.iter().map(|l| (*l).to_owned()).collect() }
}

fn constant(value: f64, steps: usize) -> Vec<Option<f64>> {
    vec![Some(value); steps]
}

#[tokio::test]
async fn instant_selector_looks_back_and_stops_at_stale_markers() {
    let fixture = Fixture::new(2);
    let grid = Grid::new(0, 26 * MINUTE, 2 * MINUTE, 128);
    let table =
        fixture.run(selector_plan(fixture.source(), instant("up", grid), vec![]), grid).await.unwrap();
    let values = &table[r#"{__name__="up", instance="1", job="a"}"#];
    // 0 is seen until it is 5 minutes old, the marker ends the series, 3 is seen from minute 20 on.
    let seen = |minute: usize| values[minute / 2];
    assert_eq!([seen(0), seen(4), seen(6), seen(10)], [Some(1.0), Some(1.0), None, None]);
    assert_eq!([seen(18), seen(20), seen(24), seen(26)], [None, Some(3.0), Some(3.0), None]);
}

#[tokio::test]
async fn offset_and_at_move_the_view() {
    let fixture = Fixture::new(1);
    let grid = grid(3, 128);
    let mut spec = instant("requests_total", grid);
    spec.view.offset_ms = MINUTE;
    let key = r#"{__name__="requests_total", instance="1", job="a"}"#;
    let table = fixture.run(selector_plan(fixture.source(), spec.clone(), vec![]), grid).await.unwrap();
    assert_eq!(table[key], [Some(116.0), Some(120.0), Some(124.0)]);
    spec.view.at = Some(10 * MINUTE);
    let table = fixture.run(selector_plan(fixture.source(), spec, vec![]), grid).await.unwrap();
    assert_eq!(table[key], constant(36.0, 3));
}

#[tokio::test]
async fn rate_of_a_steady_counter_is_its_slope_in_any_tiling_and_partitioning() {
    for (partitions, tile_steps) in [(1, 1), (1, 8), (4, 64), (2, 128)] {
        let fixture = Fixture::new(partitions);
        let grid = grid(70, tile_steps);
        let plan = selector_plan(fixture.source(), ranged(RangeFunction::Rate, grid), vec![]);
        let table = fixture.run(plan, grid).await.unwrap();
        assert_eq!(table.len(), 4);
        for v in &table[r#"{instance="2", job="a"}"#] {
            assert!((v.unwrap() - 2.0 / 15.0).abs() < 1e-12);
        }
    }
}

#[tokio::test]
async fn sum_by_rate_groups_in_the_leaf() {
    for partitions in [1, 4] {
        let fixture = Fixture::new(partitions);
        let grid = grid(70, 64);
        let leaf = selector_plan(fixture.source(), ranged(RangeFunction::Rate, grid), vec![]);
        let plan =
            aggregate_plan(leaf, grid, AggregateOp::Sum, by(&["job"]), None, &Subject::default()).unwrap();
        let text = plan.display_indent().to_string();
        assert!(text.contains("rate(requests_total[300000ms]) key=by (job)"), "{text}");
        let table = fixture.run(plan, grid).await.unwrap();
        assert_eq!(table.keys().collect::<Vec<_>>(), [r#"{job="a"}"#, r#"{job="b"}"#]);
        for (series, slope) in [(r#"{job="a"}"#, 3.0), (r#"{job="b"}"#, 7.0)] {
            assert!(table[series].iter().all(|v| (v.unwrap() - slope / 15.0).abs() < 1e-12));
        }
    }
}

#[tokio::test]
async fn aggregates_agree_over_partitions_and_with_their_definitions() {
    let cases = [
        (AggregateOp::Sum, 1200.0),
        (AggregateOp::Avg, 300.0),
        (AggregateOp::Count, 4.0),
        (AggregateOp::Min, 120.0),
        (AggregateOp::Max, 480.0),
        (AggregateOp::Group, 1.0),
        (AggregateOp::Stdvar, 18000.0),
        (AggregateOp::Stddev, 18000f64.sqrt()),
    ];
    for partitions in [1, 4] {
        let fixture = Fixture::new(partitions);
        for (op, expected) in cases {
            let grid = grid(10, 8);
            let leaf = selector_plan(fixture.source(), instant("requests_total", grid), vec![]);
            let plan = aggregate_plan(leaf, grid, op, by(&[]), None, &Subject::default()).unwrap();
            let table = fixture.run(plan, grid).await.unwrap();
            assert!((table["{}"][0].unwrap() - expected).abs() < 1e-9, "{op:?} {table:?}");
        }
    }
}

#[tokio::test]
async fn grouping_of_a_computed_input_projects_the_key() {
    let fixture = Fixture::new(2);
    let grid = grid(4, 128);
    let leaf = selector_plan(fixture.source(), instant("requests_total", grid), vec![]);
    let without = Grouping { without: true, labels: vec!["instance".into()] };
    let inner = aggregate_plan(leaf, grid, AggregateOp::Sum, without, None, &Subject::default()).unwrap();
    let outer = aggregate_plan(inner, grid, AggregateOp::Count, by(&["__name__"]), None, &Subject::default())
        .unwrap();
    let table = fixture.run(outer, grid).await.unwrap();
    assert_eq!(table, Table::from([("{}".to_owned(), constant(2.0, 4))]));
}

#[tokio::test]
async fn quantile_takes_a_phi_per_step() {
    for partitions in [1, 4] {
        let fixture = Fixture::new(partitions);
        let grid = grid(3, 2);
        let leaf = selector_plan(fixture.source(), instant("requests_total", grid), vec![]);
        let phi = fixture.scalar(grid, |i| [0.0, 0.5, 2.0][i]);
        let plan = aggregate_plan(leaf, grid, AggregateOp::Quantile, by(&[]), Some(phi), &Subject::default())
            .unwrap();
        let table = fixture.run(plan, grid).await.unwrap();
        assert_eq!(table["{}"], [Some(120.0), Some(310.0), Some(f64::INFINITY)]);
    }
}

#[tokio::test]
async fn range_function_takes_a_scalar_per_step() {
    let fixture = Fixture::new(2);
    let grid = grid(2, 128);
    let phi = fixture.scalar(grid, |i| i as f64);
    let spec = ranged(RangeFunction::QuantileOverTime, grid);
    let table = fixture.run(selector_plan(fixture.source(), spec, vec![phi]), grid).await.unwrap();
    assert_eq!(table[r#"{instance="1", job="a"}"#], [Some(101.0), Some(124.0)]);
}

#[tokio::test]
async fn subquery_sees_the_points_of_its_window() {
    for partitions in [1, 4] {
        let fixture = Fixture::new(partitions);
        let grid = grid(5, 4);
        let inner = Grid::new(25 * MINUTE + 30_000, 34 * MINUTE, 30_000, 8);
        let input = selector_plan(fixture.source(), instant("requests_total", inner), vec![]);
        let spec = SubquerySpec {
            inner,
            grid,
            view: TimeView::default(),
            range_ms: 5 * MINUTE,
            function: RangeFunction::MaxOverTime,
            output: KeyOutput::DropName,
            position: String::new(),
            counted: 1,
        };
        let count = SubquerySpec { function: RangeFunction::CountOverTime, ..spec.clone() };
        let table = fixture.run(subquery_plan(input.clone(), spec, vec![]), grid).await.unwrap();
        let expected = (0..5).map(|i| Some(120.0 + 4.0 * f64::from(i))).collect::<Vec<_>>();
        assert_eq!(table[r#"{instance="1", job="a"}"#], expected);
        let table = fixture.run(subquery_plan(input, count, vec![]), grid).await.unwrap();
        assert_eq!(table[r#"{instance="1", job="a"}"#], constant(10.0, 5));
    }
}

#[tokio::test]
async fn too_many_points_are_refused_in_upstreams_words() {
    let mut fixture = Fixture::new(2);
    fixture.max_samples = 100;
    let grid = grid(70, 64);
    let plan = selector_plan(fixture.source(), ranged(RangeFunction::Rate, grid), vec![]);
    let error = fixture.run(plan, grid).await.unwrap_err();
    assert!(matches!(error, QueryError::Limit(_)), "{error:?}");
    assert!(error.to_string().contains("would load too many samples"));
}

#[tokio::test]
async fn no_series_gives_no_rows() {
    let fixture = Fixture::new(4);
    let grid = grid(70, 64);
    let mut spec = ranged(RangeFunction::Rate, grid);
    spec.matchers = vec![Matcher::new(MatchOp::Re, "job", "none").unwrap()];
    let leaf = selector_plan(fixture.source(), spec, vec![]);
    let plan = aggregate_plan(leaf, grid, AggregateOp::Sum, by(&[]), None, &Subject::default()).unwrap();
    assert_eq!(fixture.run(plan, grid).await.unwrap(), Table::new());
}
