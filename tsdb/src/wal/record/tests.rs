//! Records against bytes that Prometheus 3.14.0 wrote (`tsdb/record`), and against any bytes.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::histogram::{CounterResetHint, FloatHistogram, Histogram, HistogramValue, Span};
use crate::labels::Labels;
use crate::metadata::{Metadata, MetricKind};
use crate::sample::SeriesRef;

fn hex(text: &str) -> Vec<u8> {
    let digits = text.split_whitespace().collect::<String>();
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// Checks that `bytes` are decoded to `values` and encoded back.
fn check<T: PartialEq + std::fmt::Debug, R: std::fmt::Debug>(
    golden: &str,
    values: &[T],
    decode: impl Fn(&[u8], &mut Vec<T>) -> Result<R, DecodeError>,
    encode: impl Fn(&mut Vec<u8>, &[T]),
) {
    let (golden, mut found, mut bytes) = (hex(golden), Vec::new(), Vec::new());
    decode(&golden, &mut found).unwrap();
    assert_eq!(found, values);
    encode(&mut bytes, values);
    assert_eq!(bytes, golden);
}

const SERIES: &str = "\
    01000000000000000702085f5f6e616d655f5f027570036a6f620161000000000000012c01085f5f6e616d655f5f0162";
const SAMPLES: &str = "\
    02000000000000000a00000000000003e800003ff00000000000000a1ec004000000000000043c7ff000000000000006097e\
    37e43c8800759cecffffffff3f000000000000000000";
const SAMPLES_V2: &str = "\
    0b14d00f880e3ff00000000000000a1e00c004000000000000053c02047ff00000000000000209017e37e43c8800759ce6ff\
    ffffff3f0002000000000000000000";
const TOMBSTONES: &str = "\
    0300000000000000090980a0abfef9620000000000000009ffffffffffffffffff01feffffffffffffffff01";
const EXEMPLARS: &str = "\
    04000000000000000a00000000000003e800003fd000000000000002077370616e5f696401310874726163655f6964036162\
    630301401c00000000000000";
const MARKERS: &str = "05000000000000000a0000000500000008000000000000000b0000000000000000";
const METADATA: &str = "\
    06ac02010204554e4954077365636f6e64730448454c500554696d652e0a070204554e4954000448454c5000";
const HISTOGRAMS: &str = "\
    07000000000000001400000000000007d0020a02023f50624dd2f1a9fc031440326666666666660200020202010501040202\
    010001180113030000000000000000000002bff000000000000001080100010400";
const CUSTOM_HISTOGRAMS: &str = "\
    09000000000000001400000000000007d000000069000000000000000000064023000000000000010003000306010100033f\
    e00000000000003ff00000000000004004000000000000040000690000000000000000000640230000000000000100030003\
    06010100033fe00000000000003ff00000000000004004000000000000";
const FLOAT_HISTOGRAMS: &str = "\
    08000000000000001400000000000007d0020a02023f50624dd2f1a9fc400800000000000040340000000000004032866666\
    6666660200020202010501043ff000000000000040000000000000003ff00000000000003ff0000000000000014028000000\
    00000001130300000000000000000000000000000000004000000000000000bfec0000000000000108010001400000000000\
    000000";
const CUSTOM_FLOAT_HISTOGRAMS: &str = "\
    0a000000000000001400000000000007d0000000690000000000000000000000000000000040180000000000004023400000\
    0000000100030003400800000000000040000000000000003ff000000000000000033fe00000000000003ff0000000000000\
    4004000000000000040000690000000000000000000000000000000040180000000000004023400000000000010003000340\
    0800000000000040000000000000003ff000000000000000033fe00000000000003ff00000000000004004000000000000";
const HISTOGRAMS_V2: &str = "\
    0c28a01fc8010069000000000000000000064023000000000000010003000306010100033fe00000000000003ff000000000\
    00004004000000000000020a0102023f50624dd2f1a9fc031440326666666666660200020202010501040202010001180313\
    00030000000000000000000002bff00000000000000108010001040006000264006900000000000000000006402300000000\
    0000010003000306010100033fe00000000000003ff00000000000004004000000000000";
const FLOAT_HISTOGRAMS_V2: &str = "\
    0d28a01fc8010069000000000000000000000000000000004018000000000000402340000000000001000300034008000000\
    00000040000000000000003ff000000000000000033fe00000000000003ff00000000000004004000000000000020a010202\
    3f50624dd2f1a9fc4008000000000000403400000000000040328666666666660200020202010501043ff000000000000040\
    000000000000003ff00000000000003ff0000000000000014028000000000000031300030000000000000000000000000000\
    0000004000000000000000bfec00000000000001080100014000000000000000000600026400690000000000000000000000\
    0000000000401800000000000040234000000000000100030003400800000000000040000000000000003ff0000000000000\
    00033fe00000000000003ff00000000000004004000000000000";
const FINE: &str = "\
    070000000000000001000000000000000100000014255bba08cf8c979d0010400800000000000003050400021201010a0107\
    0202020104050201020200006a255bba08cf8c979d0010400800000000000003050400021201010a01070202020104050201\
    0204000068255bba08cf8c979d0010400800000000000003050400021201010a010702020201040502010206020011255bba\
    08cf8c979d0010400800000000000003050400021201010a0107020202010405020102";
const FINE_REDUCED: &str = "\
    070000000000000001000000000000000100000010255bba08cf8c979d001040080000000000000200020201010401031005\
    05010204000010255bba08cf8c979d00104008000000000000010002010201021001010206020011255bba08cf8c979d0010\
    400800000000000003050400021201010a0107020202010405020102";
const FINE_FLOAT: &str = "\
    080000000000000001000000000000000100000014255bba08cf8c979d000000000000000040300000000000004008000000\
    00000003050400021201010a01073ff000000000000040000000000000004008000000000000400000000000000040100000\
    000000003ff00000000000004000000000000000013ff00000000000000200006a255bba08cf8c979d000000000000000040\
    30000000000000400800000000000003050400021201010a01073ff000000000000040000000000000004008000000000000\
    400000000000000040100000000000003ff00000000000004000000000000000013ff000000000000004000068255bba08cf\
    8c979d00000000000000004030000000000000400800000000000003050400021201010a01073ff000000000000040000000\
    000000004008000000000000400000000000000040100000000000003ff00000000000004000000000000000013ff0000000\
    00000006020011255bba08cf8c979d00000000000000004030000000000000400800000000000003050400021201010a0107\
    3ff000000000000040000000000000004008000000000000400000000000000040100000000000003ff00000000000004000\
    000000000000013ff0000000000000";
const FINE_FLOAT_REDUCED: &str = "\
    080000000000000001000000000000000100000010255bba08cf8c979d000000000000000040300000000000004008000000\
    000000020002020101040103402000000000000040140000000000004000000000000000013ff00000000000000400001025\
    5bba08cf8c979d000000000000000040300000000000004008000000000000010002010201024020000000000000401c0000\
    00000000013ff000000000000006020011255bba08cf8c979d00000000000000004030000000000000400800000000000003\
    050400021201010a01073ff00000000000004000000000000000400800000000000040000000000000004010000000000000\
    3ff00000000000004000000000000000013ff0000000000000";

fn sample(series: u64, start_timestamp: i64, t: i64, v: f64) -> RefSample {
    RefSample { series: SeriesRef(series), t, start_timestamp, v }
}

fn span(offset: i32, length: u32) -> Span {
    Span { offset, length }
}

fn exponential() -> Histogram {
    Histogram {
        counter_reset_hint: CounterResetHint::NotReset,
        schema: 1,
        zero_threshold: 0.001,
        zero_count: 3,
        count: 20,
        sum: 18.4,
        positive_spans: vec![span(0, 2), span(1, 2)],
        positive_buckets: vec![1, 1, -1, 0],
        negative_spans: vec![span(-3, 1)],
        negative_buckets: vec![12],
        custom_values: vec![],
    }
}

fn custom() -> Histogram {
    Histogram {
        schema: -53,
        count: 6,
        sum: 9.5,
        positive_spans: vec![span(0, 3)],
        positive_buckets: vec![3, -1, -1],
        custom_values: vec![0.5, 1.0, 2.5],
        ..Histogram::default()
    }
}

fn gauge() -> Histogram {
    Histogram {
        counter_reset_hint: CounterResetHint::Gauge,
        count: 2,
        sum: -1.0,
        positive_spans: vec![span(4, 1)],
        positive_buckets: vec![2],
        ..Histogram::default()
    }
}

/// The batch that the histogram constants were made from.
fn histograms(float: bool, start_timestamps: bool) -> Vec<RefHistogramSample> {
    [
        (20, 100, 2000, custom()),
        (21, 100, 2005, exponential()),
        (19, 0, 1990, gauge()),
        (22, 150, 2000, custom()),
    ]
    .into_iter()
    .map(|(series, start, t, h)| RefHistogramSample {
        series: SeriesRef(series),
        t,
        start_timestamp: if start_timestamps { start } else { 0 },
        value: if float {
            // With a sum that is larger by an eighth.
            HistogramValue::Float(Arc::new(FloatHistogram { sum: h.sum + 0.125, ..h.to_float() }))
        } else {
            HistogramValue::Integer(Arc::new(h))
        },
    })
    .collect()
}

#[test]
fn records_about_series_are_upstreams_bytes() {
    let series = [
        (7, Labels::from_pairs([("__name__", "up"), ("job", "a")])),
        (300, Labels::from_pairs([("__name__", "b")])),
    ]
    .map(|(series, labels)| RefSeries { series: SeriesRef(series), labels });
    check(SERIES, &series, decode_series, |out, series| {
        begin_series(out);
        series.iter().for_each(|s| put_series(out, s.series, &s.labels));
    });
    let tombstones = [(-5, 1_700_000_000_000), (i64::MIN, i64::MAX)].map(|(mint, maxt)| RefTombstone {
        series: SeriesRef(9),
        mint,
        maxt,
    });
    check(TOMBSTONES, &tombstones, decode_tombstones, encode_tombstones);
    let markers =
        [(10, 5 << 32 | 8), (11, 0)].map(|(r, chunk)| RefMmapMarker { series: SeriesRef(r), chunk });
    check(MARKERS, &markers, decode_mmap_markers, encode_mmap_markers);
    let metadata = [(300, MetricKind::Counter, "seconds", "Time."), (10, MetricKind::StateSet, "", "")].map(
        |(series, kind, unit, help)| RefMetadata {
            series: SeriesRef(series),
            metadata: Metadata { kind, unit: unit.into(), help: help.into() },
        },
    );
    check(METADATA, &metadata, decode_metadata, |out, entries| {
        encode_metadata(out, entries.iter().map(|e| (e.series, &e.metadata)));
    });
}

#[test]
fn samples_and_exemplars_are_upstreams_bytes() {
    let samples = [
        sample(10, 900, 1000, 1.0),
        sample(15, 0, 1015, -2.5),
        sample(12, 902, 1030, f64::INFINITY),
        sample(13, 902, 995, 1e300),
        sample(1 << 40, 900, 1000, 0.0),
    ];
    check(SAMPLES_V2, &samples, decode_samples, |out, s| encode_samples_v2(out, s.iter().copied()));
    let without = samples.map(|s| RefSample::new(s.series, s.t, s.v));
    check(SAMPLES, &without, decode_samples, |out, s| encode_samples(out, s.iter().copied()));
    let exemplars = [
        (10, 1000, 0.25, Labels::from_pairs([("trace_id", "abc"), ("span_id", "1")])),
        (8, 999, 7.0, Labels::default()),
    ]
    .map(|(series, t, v, labels)| RefExemplar { series: SeriesRef(series), t, v, labels });
    check(EXEMPLARS, &exemplars, decode_exemplars, encode_exemplars);
}

#[test]
fn histograms_are_upstreams_bytes() {
    for (float, plain, custom, second) in [
        (false, HISTOGRAMS, CUSTOM_HISTOGRAMS, HISTOGRAMS_V2),
        (true, FLOAT_HISTOGRAMS, CUSTOM_FLOAT_HISTOGRAMS, FLOAT_HISTOGRAMS_V2),
    ] {
        let batch = histograms(float, false);
        assert_eq!(histogram_records(&batch, false), [hex(plain), hex(custom)]);
        let mut found = Vec::new();
        for record in [plain, custom] {
            assert_eq!(decode_histograms(&hex(record), &mut found), Ok(0));
        }
        assert_eq!(found, [1, 2, 0, 3].map(|i: usize| batch[i].clone()));
        let batch = histograms(float, true);
        assert_eq!(histogram_records(&batch, true), [hex(second)]);
        found.clear();
        assert_eq!(decode_histograms(&hex(second), &mut found), Ok(0));
        assert_eq!(found, batch);
    }
    assert_eq!(histogram_records(&[], true), Vec::<Vec<u8>>::new());
}

#[test]
fn finer_schemas_are_brought_down_as_upstream_does_and_unknown_ones_skipped() {
    for (fine, reduced) in [(FINE, FINE_REDUCED), (FINE_FLOAT, FINE_FLOAT_REDUCED)] {
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        assert_eq!(decode_histograms(&hex(fine), &mut found), Ok(1));
        assert_eq!(decode_histograms(&hex(reduced), &mut expected), Ok(0));
        assert_eq!(found, expected);
        assert_eq!(found.len(), 3);
    }
}

#[test]
fn histograms_whose_spans_do_not_fit_are_skipped() {
    let mut lies = exponential();
    lies.positive_spans[1].length = u32::MAX;
    let mut backwards = exponential();
    backwards.positive_spans[1].offset = -1;
    let batch = [lies, backwards, gauge()].map(|h| RefHistogramSample {
        series: SeriesRef(1),
        t: 5,
        start_timestamp: 0,
        value: HistogramValue::Integer(Arc::new(h)),
    });
    let mut found = Vec::new();
    assert_eq!(decode_histograms(&histogram_records(&batch, false)[0], &mut found), Ok(2));
    assert_eq!(found, batch[2..]);
}

#[test]
fn metadata_fields_of_other_names_are_skipped() {
    let mut record = hex(METADATA);
    record.extend(hex("05 01 03 01 58 01 59 04 48454c50 01 68 04 554e4954 00"));
    let mut found = Vec::new();
    decode_metadata(&record, &mut found).unwrap();
    assert_eq!(found[2].series, SeriesRef(5));
    assert_eq!(
        found[2].metadata,
        Metadata { kind: MetricKind::Counter, unit: String::new(), help: "h".into() }
    );
}

#[test]
fn the_examples_of_the_format_page_are_what_upstream_writes() {
    let examples = crate::encoding::examples_of(include_str!("../../../docs/format/wal.md"));
    // The first example is a whole log.
    assert_eq!(examples[1..], [SAMPLES_V2, EXEMPLARS, MARKERS, METADATA, HISTOGRAMS].map(hex));
}

#[test]
fn kinds_are_told_by_the_first_byte() {
    use RecordKind::*;
    let kinds = (0..=14).map(|byte| RecordKind::of(&[byte])).collect::<Vec<_>>();
    let expected = [
        Unknown,
        Series,
        Samples,
        Tombstones,
        Exemplars,
        MmapMarkers,
        Metadata,
        Histograms,
        Histograms,
        Histograms,
        Histograms,
        Samples,
        Histograms,
        Histograms,
        Unknown,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(RecordKind::of(&[]), Unknown);
}

/// What every decoder makes of `record`; none may panic or allocate beyond it.
fn decode_all(record: &[u8]) {
    let _ = decode_series(record, &mut Vec::new());
    let _ = decode_samples(record, &mut Vec::new());
    let _ = decode_tombstones(record, &mut Vec::new());
    let _ = decode_exemplars(record, &mut Vec::new());
    let _ = decode_mmap_markers(record, &mut Vec::new());
    let _ = decode_metadata(record, &mut Vec::new());
    let _ = decode_histograms(record, &mut Vec::new());
}

proptest! {
    #[test]
    fn samples_with_start_timestamps_round_trip(
        samples in prop::collection::vec((any::<u64>(), any::<i64>(), prop_oneof![Just(0), 0i64..3, any::<i64>()], any::<u64>()), 0..50)
    ) {
        let samples = samples.into_iter()
            .map(|(r, t, st, v)| sample(r, st, t, f64::from_bits(v))).collect::<Vec<_>>();
        let (mut record, mut out) = (Vec::new(), Vec::new());
        encode_samples_v2(&mut record, samples.iter().copied());
        decode_samples(&record, &mut out).unwrap();
        prop_assert_eq!(out, samples);
    }

    #[test]
    fn any_bytes_behind_any_type_are_no_danger(kind in 0u8..15, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut record = vec![kind];
        record.extend(bytes);
        decode_all(&record);
    }

    /// Nearer to the real thing than noise: a record that upstream wrote, with a few bytes changed.
    #[test]
    fn damaged_records_are_no_danger(
        which in 0usize..17, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()
    ) {
        let all = [
            SERIES, SAMPLES, SAMPLES_V2, TOMBSTONES, EXEMPLARS, MARKERS, METADATA, HISTOGRAMS,
            CUSTOM_HISTOGRAMS, FLOAT_HISTOGRAMS, CUSTOM_FLOAT_HISTOGRAMS, HISTOGRAMS_V2, FLOAT_HISTOGRAMS_V2,
            FINE, FINE_REDUCED, FINE_FLOAT, FINE_FLOAT_REDUCED,
        ];
        let mut record = hex(all[which]);
        for (at, byte) in changes {
            let at = at.index(record.len());
            record[at] = byte;
        }
        record.truncate(cut.index(record.len()) + 1);
        decode_all(&record);
    }
}
