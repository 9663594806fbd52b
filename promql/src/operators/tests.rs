//! What all operators have in common: they end early, and they account for what they make.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::histogram::lanes::Lanes;
use crate::logical::spec::Grouping;
use crate::parser::{BinaryOp, Cardinality};

fn keys() -> Vec<Vec<u8>> {
    let labels =
        |i: usize| promontory_tsdb::Labels::from_pairs([("i", i.to_string()), ("le", i.to_string())]);
    (0..1000).map(|i| labels(i).as_bytes().to_vec()).collect()
}

fn all() -> Vec<Operator> {
    let by_i = || Signature { on: true, labels: vec!["i".into()] };
    let no_grouping = || Grouping { without: false, labels: Vec::new() };
    let one = ScalarArg::Constant(Float(1.0));
    vec![
        VectorBinary {
            op: BinaryOp::Add,
            return_bool: false,
            signature: by_i(),
            cardinality: Cardinality::OneToOne,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
            delayed_names: false,
            position: String::new(),
            ordered: false,
        }
        .into(),
        Rank {
            kind: RankKind::Top,
            grouping: no_grouping(),
            param: one,
            position: String::new(),
            whole: String::new(),
            ordered_input: false,
        }
        .into(),
        Buckets {
            function: BucketFunction::Quantile(one, String::new()),
            position: String::new(),
            delayed_names: false,
        }
        .into(),
        CountValues { label: "v".into(), grouping: no_grouping() }.into(),
        SetOperator { op: BinaryOp::And, signature: by_i() }.into(),
        SetOperator { op: BinaryOp::Or, signature: by_i() }.into(),
        Relabel {
            destination: "d".into(),
            rule: RelabelRule::Join { separator: ",".into(), sources: vec!["i".into()] },
        }
        .into(),
        Repeat.into(),
        ScalarOf.into(),
        MergeDisjoint { strict: true }.into(),
        Constant(ConstantValue::Time).into(),
    ]
}

fn run(operator: &Operator, context: &QueryContext) -> Result<(), DataFusionError> {
    let grid = Grid::new(0, 999, 1, 1);
    let keys = keys();
    let rows: Vec<Row<'_>> = keys
        .iter()
        .map(|key| Row { key, tile: 0, mask: 1, values: &[1.0], histograms: Lanes::default() })
        .collect();
    let mut out = TileWriter::new(&grid, context);
    let scope = Scope { grid: &grid, context, scalars: &[] };
    operator.evaluate().run(scope, &[rows.clone(), rows], &mut out)
}

#[test]
fn operators_end_within_a_run_when_the_query_is_over() {
    for operator in all() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let context = QueryContext::new(usize::MAX, cancel);
        let error = run(&operator, &context).expect_err(operator.evaluate().name());
        assert_eq!(
            crate::error::QueryError::from_datafusion(error).to_string(),
            "query was canceled in query execution",
            "{operator:?}"
        );
    }
}

#[test]
fn operators_give_back_what_they_held() {
    for operator in all() {
        let context = QueryContext::new(10_000_000, CancellationToken::new());
        run(&operator, &context).unwrap_or_else(|e| panic!("{operator:?}: {e}"));
        context.hold_samples(10_000_000).expect("nothing is held any more");
    }
}

#[test]
fn long_grids_end_where_the_query_may_hold_no_more() {
    for operator in [Constant(ConstantValue::Time).into(), Repeat.into(), ScalarOf.into()] {
        let operator: Operator = operator;
        let context = QueryContext::new(500, CancellationToken::new());
        let error = run(&operator, &context).expect_err("1000 steps are too many");
        let error = crate::error::QueryError::from_datafusion(error);
        assert!(error.to_string().contains("too many samples"), "{operator:?}: {error}");
    }
}
