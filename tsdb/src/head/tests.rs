//! Tests of the head's parts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::Head;
use super::index::Index;
use super::open_chunk::{ChunkRules, range_end};
use super::sample::{AnySample, Value};
use super::series::{Appended, SeriesState};
use super::tombstones::{HeadTombstones, is_deleted};
use crate::head_chunks::HeadChunks;
use crate::labels::Labels;
use crate::matcher::{MatchOp, Matcher};
use crate::sample::SeriesRef;

fn rules(block_range_ms: i64) -> ChunkRules {
    ChunkRules { block_range_ms, xor2: false, start_timestamps: false }
}

/// Number of samples in each chunk after appending at `times`.
fn chunk_sizes(times: impl IntoIterator<Item = i64>, block_range_ms: i64) -> Vec<usize> {
    let mut state = SeriesState::default();
    for t in times {
        assert_ne!(state.append_float(t, 0, t as f64, rules(block_range_ms)), Appended::NotNewer);
    }
    let closed = state.closed().iter().map(|c| crate::chunkenc::num_samples(c.encoding, &c.data));
    closed.map(usize::from).chain(state.open.iter().map(|o| o.len())).collect()
}

#[test]
fn chunks_share_a_block_range_evenly() {
    // 480 samples in two hours: four even chunks of 120, and never one across the boundary.
    let sizes = chunk_sizes((0..960).map(|i| i * 15_000), 7_200_000);
    assert_eq!(sizes, [120; 8]);
    // 180 samples: no chunk of 120 with a rest of 60, but the range in one piece or even halves.
    let sizes = chunk_sizes((0..180).map(|i| i * 40_000), 7_200_000);
    assert_eq!(sizes, [180]);
}

#[test]
fn a_chunk_is_cut_when_samples_come_faster_than_predicted() {
    let slow = (0..30).map(|i| i * 60_000);
    let fast = (0..600).map(|i| 30 * 60_000 + i * 1000);
    let sizes = chunk_sizes(slow.chain(fast), 7_200_000);
    assert_eq!(sizes.iter().sum::<usize>(), 630);
    assert_eq!(sizes[0], 240);
}

#[test]
fn a_chunk_of_noise_is_cut_by_bytes() {
    let mut state = SeriesState::default();
    for i in 0..400i64 {
        let noise = f64::from_bits((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
        assert_ne!(
            state.append_float(i * i * 7919 % 997 + i * 1000, 0, noise, rules(i64::MAX / 2)),
            Appended::NotNewer
        );
    }
    assert!(state.closed().iter().all(|c| c.data.len() <= 1024));
    assert!(!state.closed().is_empty());
}

#[test]
fn range_ends_are_right_for_negative_times() {
    assert_eq!(
        [range_end(0, 10), range_end(9, 10), range_end(10, 10), range_end(-1, 10), range_end(-10, 10)],
        [10, 10, 20, 0, 0]
    );
}

#[test]
fn out_of_order_samples_stay_in_sight_while_the_head_is_truncated() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let dir = tempfile::tempdir().unwrap();
    let mut head = Head::new(1000, i64::MIN);
    let (chunks, loaded) = HeadChunks::open(dir.path(), i64::MIN).unwrap();
    head.use_chunks(chunks, loaded);
    let insert = |i: i64, t: i64| {
        let (series, _) = head.index.get_or_create(&Labels::from_pairs([("i", i.to_string())]), None);
        head.replay_out_of_order(&series, AnySample { t, start: 0, value: Value::Float(1.0) });
    };
    (0..200).for_each(|i| insert(i, 500 + i));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut gone = 0;
            while !stop.load(Ordering::Relaxed) {
                gone += u32::from(head.ooo_min_time() != Some(500));
            }
            gone
        });
        for mint in 0..400 {
            head.truncate(mint);
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(watch.join().unwrap(), 0);
    });
    head.truncate(1000);
    assert_eq!(head.ooo_min_time(), Some(500), "only a compaction takes them");
    let compaction = head.begin_ooo_compaction().unwrap().unwrap();
    assert_eq!(compaction.slots(100).collect::<Vec<_>>(), [(500, 600), (600, 700)]);
    let cut = |mint, maxt| compaction.cut(&head, mint, maxt).map(|s| s.unwrap().1.len()).sum::<usize>();
    assert_eq!((cut(500, 599), cut(600, 650), cut(700, 800)), (100, 51, 0));
    head.finish_ooo_compaction(&compaction);
    assert_eq!(head.ooo_min_time(), None);
    assert_eq!(head.stats().chunks, 0);
}

/// A commit may come between the look-up and the lock: half of it must not be missing.
#[test]
fn a_look_up_is_completed_by_the_series_made_since() {
    let index = Index::default();
    let add = |name: &str, i: i32| {
        index.get_or_create(&Labels::from_pairs([(name, "x".to_owned()), ("i", i.to_string())]), None);
    };
    add("a", 0);
    add("b", 1);
    let matchers =
        [Matcher::new(MatchOp::Re, "a", "x|y").unwrap(), Matcher::new(MatchOp::Ne, "i", "3").unwrap()];
    let resolved = index.resolve(&matchers);
    (2..6).for_each(|i| add("a", i));
    add("b", 6);
    let shown = |found: Vec<std::sync::Arc<super::MemSeries>>| {
        found.iter().map(|s| s.labels.get("i").unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(resolved.complete()), ["0", "2", "4", "5"]);
    assert_eq!(shown(index.resolve(&matchers).complete()), ["0", "2", "4", "5"]);
}

#[test]
fn only_series_that_nobody_holds_are_removed() {
    let index = Index::default();
    let labels = |i: i32| Labels::from_pairs([("a", "x".to_owned()), ("i", i.to_string())]);
    for i in 0..3 {
        index.get_or_create(&labels(i), None);
    }
    let (held, created) = index.get_or_create(&labels(1), None);
    assert!(!created);
    let removed = index.remove_if(&[labels(0), labels(1), labels(2), labels(9)], |_| true);
    assert_eq!(removed, [SeriesRef(1), SeriesRef(3)]);
    assert_eq!(index.resolve(&[Matcher::eq("a", "x")]).complete().len(), 1);
    assert!(index.get(held.series).is_some());
    let (again, created) = index.get_or_create(&labels(0), None);
    assert!(created);
    assert_eq!(again.series, SeriesRef(4), "references are not used twice");
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let op = prop_oneof![Just(MatchOp::Eq), Just(MatchOp::Ne), Just(MatchOp::Re), Just(MatchOp::Nre)];
    let value = prop_oneof![
        Just(""),
        Just("1"),
        Just("2"),
        Just("1|2"),
        Just(".*"),
        Just(".+"),
        Just("|1"),
        Just("x")
    ];
    (op, "[abc]", value).prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap())
}

proptest! {
    #[test]
    fn matching_is_the_same_as_asking_every_series(
        sets in prop::collection::btree_set((0u8..4, 0u8..4, 0u8..4), 1..30),
        matchers in prop::collection::vec(matcher(), 0..4),
    ) {
        let index = Index::default();
        let value = |v: u8| if v == 0 { String::new() } else { v.to_string() };
        for (a, b, c) in &sets {
            let labels = Labels::from_pairs([("a", value(*a)), ("b", value(*b)), ("c", value(*c)), ("z", "z".into())]);
            index.get_or_create(&labels, None);
        }
        let found = index.resolve(&matchers).complete();
        let mut expected = Vec::new();
        index.for_each(|s| if Matcher::all_match(&matchers, &s.labels) { expected.push(s.series) });
        expected.sort_unstable();
        prop_assert_eq!(found.iter().map(|s| s.series).collect::<Vec<_>>(), expected);
    }

    /// A map is the model of a series.
    #[test]
    fn a_series_keeps_the_accepted_samples(samples in prop::collection::vec((0i64..5000, any::<u64>()), 0..400)) {
        let mut state = SeriesState::default();
        let mut model: BTreeMap<i64, u64> = BTreeMap::new();
        for (t, bits) in samples {
            let newer = model.last_key_value().is_none_or(|(last, _)| *last < t);
            prop_assert_eq!(state.append_float(t, 0, f64::from_bits(bits), rules(1000)) != Appended::NotNewer, newer);
            if newer {
                model.insert(t, bits);
            }
        }
        let (mut ts, mut vs) = (Vec::new(), Vec::new());
        for chunk in state.closed() {
            prop_assert_eq!(chunk.mint.div_euclid(1000), chunk.maxt.div_euclid(1000));
            crate::chunkenc::xor::decode_into(&chunk.data, &mut ts, &mut vs).unwrap();
        }
        if let Some(open) = &state.open {
            crate::chunkenc::xor::decode_into(open.bytes(), &mut ts, &mut vs).unwrap();
        }
        let found = ts.into_iter().zip(vs.into_iter().map(f64::to_bits)).collect::<BTreeMap<_, _>>();
        prop_assert_eq!(found, model);
    }

    #[test]
    fn tombstones_hide_just_their_intervals(list in prop::collection::vec((0i64..60, 0i64..20), 0..12)) {
        let mut tombstones = HeadTombstones::default();
        for (mint, length) in &list {
            tombstones.add(SeriesRef(1), *mint, mint + length);
        }
        let intervals = tombstones.get(SeriesRef(1)).unwrap_or_default();
        prop_assert!(intervals.windows(2).all(|w| w[0].1 + 1 < w[1].0));
        for t in -1..100 {
            let expected = list.iter().any(|(mint, length)| (*mint..=mint + length).contains(&t));
            prop_assert_eq!(is_deleted(&intervals, t), expected, "{}", t);
        }
    }
}
