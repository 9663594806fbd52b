//! Tests of the ring, some against a plain list.

use proptest::prelude::*;

use super::*;
use crate::matcher::MatchOp;

fn series(n: u32) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("i", n.to_string())])
}

fn exemplar(t: TimestampMs, value: f64) -> Exemplar {
    Exemplar { labels: Labels::from_pairs([("trace_id", "a")]), value, timestamp: t, has_timestamp: true }
}

fn all(storage: &ExemplarStorage) -> Vec<(Labels, Vec<(TimestampMs, f64)>)> {
    let everything = [Matcher::new(MatchOp::Ne, "__name__", "").unwrap()];
    let found = storage.select(i64::MIN, i64::MAX, &[&everything]);
    found.into_iter().map(|(l, list)| (l, list.iter().map(|e| (e.timestamp, e.value)).collect())).collect()
}

#[test]
fn a_full_ring_forgets_what_came_first() {
    let storage = ExemplarStorage::new(3, 0);
    for (n, t) in [(1, 10), (2, 5), (1, 20), (1, 30)] {
        storage.add(&series(n), exemplar(t, 1.0)).unwrap();
    }
    assert_eq!(all(&storage), [(series(1), vec![(20, 1.0), (30, 1.0)]), (series(2), vec![(5, 1.0)])]);
    storage.add(&series(3), exemplar(1, 2.0)).unwrap();
    assert_eq!(all(&storage).len(), 2, "the only one of series 2 went, and the series with it");
    let expected = ExemplarStats {
        max: 3,
        exemplars: 3,
        series: 2,
        oldest_time: Some(20),
        appended: 5,
        out_of_order: 0,
    };
    assert_eq!(storage.stats(), expected);
}

#[test]
fn duplicates_are_taken_as_done_and_older_ones_refused() {
    let storage = ExemplarStorage::new(10, 0);
    let one = series(1);
    storage.add(&one, exemplar(10, 1.0)).unwrap();
    assert_eq!(storage.check(&one, &exemplar(10, 1.0)), Err(ExemplarError::Duplicate));
    storage.add(&one, exemplar(10, 1.0)).unwrap();
    assert_eq!(storage.add(&one, exemplar(9, 5.0)), Err(ExemplarError::OutOfOrder));
    assert_eq!(storage.add(&one, exemplar(10, 0.5)), Err(ExemplarError::OutOfOrder));
    storage.add(&one, exemplar(10, 2.0)).unwrap();
    assert_eq!(all(&storage), [(one.clone(), vec![(10, 1.0), (10, 2.0)])]);
    assert_eq!(storage.stats().out_of_order, 2);
    // Without timestamps of their own, the same exemplar in the next scrape is a duplicate.
    let untimed = |t| Exemplar { has_timestamp: false, ..exemplar(t, 7.0) };
    storage.add(&one, untimed(20)).unwrap();
    assert_eq!(storage.check(&one, &untimed(35)), Err(ExemplarError::Duplicate));
    assert_eq!(storage.check(&one, &exemplar(35, 7.0)), Ok(()));
}

#[test]
fn labels_may_have_128_characters() {
    let storage = ExemplarStorage::new(10, 0);
    let with = |value: String| Exemplar { labels: Labels::from_pairs([("é", value)]), ..exemplar(1, 1.0) };
    assert_eq!(storage.check(&series(1), &with("ü".repeat(127))), Ok(()));
    assert_eq!(storage.check(&series(1), &with("ü".repeat(128))), Err(ExemplarError::LabelLength));
}

#[test]
fn without_room_nothing_is_taken_until_it_is_resized() {
    let storage = ExemplarStorage::new(0, 0);
    assert_eq!(storage.add(&series(1), exemplar(1, 1.0)), Err(ExemplarError::Disabled));
    storage.resize(2);
    storage.add(&series(1), exemplar(1, 1.0)).unwrap();
    storage.resize(0);
    assert_eq!((all(&storage).len(), storage.stats().series), (0, 0));
    assert_eq!(storage.check(&series(1), &exemplar(1, 1.0)), Err(ExemplarError::Disabled));
}

#[test]
fn late_ones_within_the_window_are_put_in_order() {
    let storage = ExemplarStorage::new(10, 100);
    for t in [200, 250, 210, 220, 210, 151] {
        storage.add(&series(1), exemplar(t, t as f64)).unwrap();
    }
    let times = [151, 200, 210, 220, 250].map(|t| (t, t as f64)).to_vec();
    assert_eq!(all(&storage), [(series(1), times)]);
    assert_eq!(storage.add(&series(1), exemplar(150, 1.0)), Err(ExemplarError::OutOfOrder));
}

#[test]
fn select_takes_series_of_any_matcher_set_in_label_order() {
    let storage = ExemplarStorage::new(10, 0);
    for n in [3, 1, 2] {
        for t in [10, 20, 30] {
            storage.add(&series(n), exemplar(t, f64::from(n))).unwrap();
        }
    }
    let sets = [[Matcher::eq("i", "3")], [Matcher::eq("i", "1")]];
    let found = storage.select(20, 30, &[&sets[0], &sets[1]]);
    let labels = found.iter().map(|(l, _)| l.clone()).collect::<Vec<_>>();
    assert_eq!(labels, [series(1), series(3)]);
    assert_eq!(found[0].1.iter().map(|e| e.timestamp).collect::<Vec<_>>(), [20, 30]);
    assert!(storage.select(31, 40, &[&sets[0]]).is_empty());
    assert!(storage.select(0, 40, &[]).is_empty());
}

proptest! {
    /// Whatever comes, and however the ring is resized meanwhile, it holds the last of what was taken.
    #[test]
    fn the_ring_is_the_end_of_a_list(
        max in 1usize..8,
        steps in prop::collection::vec((0u32..4, 0i64..40, prop::option::weighted(0.1, 1usize..8)), 0..60),
    ) {
        let storage = ExemplarStorage::new(max, 15);
        let mut taken: Vec<(u32, TimestampMs, f64)> = Vec::new();
        let mut max = max;
        for (i, (n, t, resize)) in steps.into_iter().enumerate() {
            let before = storage.stats().appended;
            let _ = storage.add(&series(n), exemplar(t, i as f64));
            if storage.stats().appended > before {
                taken.push((n, t, i as f64));
            }
            if let Some(new_max) = resize {
                // What a smaller ring lost does not come back.
                taken.drain(..taken.len().saturating_sub(max.min(new_max)));
                max = new_max;
                storage.resize(max);
            }
            let kept = &taken[taken.len().saturating_sub(max)..];
            let mut arrived = Vec::new();
            storage.for_each(|labels, e| arrived.push((labels.clone(), e.timestamp, e.value)));
            let expected = kept.iter().map(|(n, t, v)| (series(*n), *t, *v)).collect::<Vec<_>>();
            prop_assert_eq!(arrived, expected);
            for (labels, list) in all(&storage) {
                let mut own = kept.iter().filter(|k| series(k.0) == labels).map(|k| (k.1, k.2)).collect::<Vec<_>>();
                own.sort_by_key(|e| e.0);
                prop_assert_eq!(list, own);
            }
        }
    }
}
