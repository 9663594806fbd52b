//! Aggregates against their definitions, value by value and merged from parts.

use proptest::prelude::*;

use super::*;

/// One column of lanes: a value, or none.
type Rows = Vec<Vec<Option<f64>>>;

fn value() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        20 => (-50i32..50).prop_map(|v| Some(f64::from(v) / 3.0)),
        5 => Just(None),
        1 => Just(Some(f64::NAN)),
        1 => Just(Some(f64::INFINITY)),
        1 => Just(Some(f64::NEG_INFINITY)),
        1 => Just(Some(-0.0)),
        1 => Just(Some(f64::MAX)),
    ]
}

fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec(prop::collection::vec(value(), 8), 1..12)
}

fn feed<Op: LaneOp<K>, const K: usize>(rows: &[Vec<Option<f64>>]) -> Groups<K> {
    let mut groups = Groups::new(8);
    groups.grow::<Op>(1);
    for row in rows {
        let mask = row.iter().enumerate().fold(0, |m, (j, v)| m | u128::from(v.is_some()) << j);
        // What an absent slot holds does not matter.
        let lanes = row.iter().map(|v| v.unwrap_or(f64::NAN)).collect::<Vec<_>>();
        groups.update::<Op>(0, &lanes, mask);
    }
    groups
}

fn results<Op: LaneOp<K>, const K: usize>(mut groups: Groups<K>) -> Vec<Option<f64>> {
    let (seen, values) = groups.finish::<Op>(1);
    values.iter().enumerate().map(|(j, v)| (seen[0] >> j & 1 == 1).then_some(*v)).collect()
}

/// As Prometheus aggregates one group at one step.
fn reference(op: &str, values: &[f64]) -> Option<f64> {
    let first = *values.first()?;
    let rest = &values[1..];
    let n = values.len() as f64;
    Some(match op {
        "sum" => {
            let (s, c) = rest.iter().fold((first, 0.0), |(s, c), v| kahan::inc(*v, s, c));
            s + c
        }
        "avg" => average(values),
        "count" => n,
        "group" => 1.0,
        "min" => rest.iter().fold(first, |m, v| if m > *v || m.is_nan() { *v } else { m }),
        "max" => rest.iter().fold(first, |m, v| if m < *v || m.is_nan() { *v } else { m }),
        _ => {
            let (mut mean, mut m2) = (first, if first.is_finite() { 0.0 } else { f64::NAN });
            for (i, v) in rest.iter().enumerate() {
                let delta = v - mean;
                mean += delta / (i + 2) as f64;
                m2 += delta * (v - mean);
            }
            m2 / n
        }
    })
}

fn average(values: &[f64]) -> f64 {
    let (mut sum, mut c, mut mean) = (values[0], 0.0, None);
    for (i, v) in values.iter().enumerate().skip(1) {
        let n = (i + 1) as f64;
        if mean.is_none() {
            let (s, next) = kahan::inc(*v, sum, c);
            if !s.is_infinite() {
                (sum, c) = (s, next);
                continue;
            }
            mean = Some(sum / (n - 1.0));
            c /= n - 1.0;
        }
        let q = (n - 1.0) / n;
        let (m, next) = kahan::inc(v / n, q * mean.unwrap(), q * c);
        (mean, c) = (Some(m), next);
    }
    let n = values.len() as f64;
    mean.map_or(sum / n + c / n, |m| m + c)
}

fn same(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a == b || a.is_nan() && b.is_nan(),
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn close(a: Option<f64>, b: Option<f64>) -> bool {
    same(a, b)
        || matches!((a, b), (Some(a), Some(b)) if (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0))
}

fn check<Op: LaneOp<K>, const K: usize>(name: &str, rows: &Rows, cut: usize) -> Result<(), TestCaseError> {
    let got = results::<Op, K>(feed::<Op, K>(rows));
    for (j, got) in got.iter().enumerate() {
        let values = rows.iter().filter_map(|r| r[j]).collect::<Vec<_>>();
        let expected = reference(name, &values);
        prop_assert!(same(*got, expected), "{name} of {values:?}: {got:?}, expected {expected:?}");
    }
    // Two parts, merged. Extreme values may overflow in one order and not in the other.
    if rows.iter().flatten().flatten().all(|v| v.abs() < 1e300) {
        let cut = cut.min(rows.len());
        let (mut left, mut right) = (feed::<Op, K>(&rows[..cut]), feed::<Op, K>(&rows[cut..]));
        let (seen, state) = right.take(1);
        left.merge::<Op>(0, state.each_ref().map(Vec::as_slice), seen[0]);
        for (merged, whole) in results::<Op, K>(left).into_iter().zip(got) {
            prop_assert!(close(merged, whole), "{name}: {merged:?} merged, {whole:?} whole, of {rows:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_aggregate_equals_its_definition_whole_and_merged(rows in rows(), cut in 0usize..12) {
        check::<Sum, 2>("sum", &rows, cut)?;
        check::<Avg, 4>("avg", &rows, cut)?;
        check::<Count, 1>("count", &rows, cut)?;
        check::<Group, 1>("group", &rows, cut)?;
        check::<Min, 1>("min", &rows, cut)?;
        check::<Max, 1>("max", &rows, cut)?;
        check::<Stdvar, 3>("stdvar", &rows, cut)?;
    }
}

#[test]
fn taking_the_first_groups_leaves_the_rest() {
    let mut groups = Groups::<2>::new(2);
    groups.grow::<Sum>(3);
    (0..3).for_each(|g| groups.update::<Sum>(g, &[g as f64, 10.0], 0b11));
    assert_eq!(groups.finish::<Sum>(2), (vec![3, 3], vec![0.0, 10.0, 1.0, 10.0]));
    assert_eq!(groups.finish::<Sum>(9), (vec![3], vec![2.0, 10.0]));
    assert!(groups.is_empty());
}
