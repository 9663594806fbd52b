//! Tests of reading and writing snapshots; restarts are in `tests/it/snapshots.rs`.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn any_record_is_no_danger(kind in 0u8..5, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut record = vec![kind];
        record.extend(bytes);
        let _ = Snapshot::default().take(&record);
    }
}

#[test]
fn a_series_record_comes_back() {
    let mut bytes = vec![SERIES];
    let labels = Labels::from_pairs([("__name__", "up")]);
    put_be64(&mut bytes, 7);
    record::put_labels(&mut bytes, &labels);
    put_be64(&mut bytes, 0);
    let samples = [1000, 2000].map(|t| crate::Sample { t, v: 2.5 });
    let data = Arc::from(chunkenc::xor::encode(samples));
    let chunk = ClosedChunk { mint: 1000, maxt: 2000, encoding: Encoding::Xor, data };
    put_chunk(&mut bytes, Some(&chunk)).unwrap();
    assert_eq!(bytes[bytes.len() - 8..], 2.5f64.to_be_bytes());
    assert_eq!(bytes, crate::encoding::examples_of(include_str!("../../../docs/format/snapshot.md"))[0]);
    let mut snapshot = Snapshot::default();
    snapshot.take(&bytes).unwrap();
    let found = &snapshot.series[0];
    assert_eq!((found.series, &found.labels), (SeriesRef(7), &labels));
    let found = found.chunk.as_ref().unwrap();
    assert_eq!((found.mint, found.maxt, &found.data), (1000, 2000, &chunk.data));
}

/// Prometheus wants the last histogram behind a chunk of histograms.
#[test]
fn behind_a_chunk_of_histograms_is_the_last_one() {
    use crate::chunkenc::histogram::Appender;
    use crate::histogram::{Histogram, Span};
    let histogram = |count: u64| Histogram {
        count,
        sum: count as f64,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_buckets: vec![count as i64],
        ..Histogram::default()
    };
    let mut appender = Appender::new(false);
    for count in [1, 3] {
        appender.append(None, 1000 * count as i64, 0, &histogram(count)).unwrap();
    }
    let chunk = ClosedChunk {
        mint: 1000,
        maxt: 3000,
        encoding: Encoding::Histogram,
        data: Arc::from(appender.bytes()),
    };
    let (mut record, mut last) = (Vec::new(), Vec::new());
    put_chunk(&mut record, Some(&chunk)).unwrap();
    record::put_histogram(&mut last, &histogram(3));
    // The counter reset hint comes out of the chunk: the second one follows no reset.
    let found = &record[record.len() - last.len()..];
    assert_eq!((found[0], &found[1..]), (2, &last[1..]));
}

/// A head that gave out references up to 77, with a deletion.
fn with_reference_77() -> Head {
    let head = Head::new(1000, i64::MIN);
    head.index.reserve_ref(SeriesRef(77));
    head.tombstones.write().add(SeriesRef(3), 5, 9);
    head
}

#[test]
fn the_largest_reference_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let end = (5, 3 << 15);
    with_reference_77().write_snapshot(dir.path(), end, &[], 1 << 15, Compression::None).unwrap();
    let snapshot = read_from(&path(dir.path(), end), end).unwrap();
    assert_eq!(snapshot.last_ref, SeriesRef(77));
    assert_eq!(snapshot.tombstones, [RefTombstone { series: SeriesRef(3), mint: 5, maxt: 9 }]);
}

/// Prometheus keeps tombstones of a snapshot that it started from: what says that it is ours is then of another place.
#[test]
fn a_snapshot_that_repeats_ours_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    with_reference_77().write_snapshot(dir.path(), (5, 0), &[], 1 << 15, Compression::None).unwrap();
    for end in [(5, 1 << 15), (6, 0), (4, 1 << 45), (u32::MAX, u64::MAX >> 15 << 15)] {
        let error = read_from(&path(dir.path(), (5, 0)), end).unwrap_err().to_string();
        assert!(error.contains("another server"), "{error}");
    }
    assert!(stamp(SeriesRef(1), (u32::MAX, u64::MAX)).maxt < i64::MIN / 2 + 1);
}

#[test]
fn a_reference_that_nobody_counted_to_is_damage() {
    let mut record = vec![SERIES];
    put_be64(&mut record, u64::MAX);
    record::put_labels(&mut record, &Labels::from_pairs([("a", "b")]));
    record.extend([0; 9]);
    assert!(Snapshot::default().take(&record).unwrap_err().to_string().contains("too large"));
}
