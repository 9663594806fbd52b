use proptest::prelude::*;

use super::histogram::{Appended, ChunkAppender, Coder, FloatCoder, IntegerCoder, Iter};
use super::*;
use crate::histogram::{CUSTOM_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};
use crate::sample::{STALE_NAN_BITS, Sample};

type Bits = Vec<(TimestampMs, u64)>;

fn decode(encoding: Encoding, data: &[u8]) -> Result<Bits, ChunkError> {
    let (mut t, mut v) = (vec![7], vec![7.0]);
    let result = decode_into(encoding, data, &mut t, &mut v);
    assert_eq!((t[0], v[0]), (7, 7.0), "what was there is left alone");
    if result.is_err() {
        assert_eq!((t.len(), v.len()), (1, 1), "a damaged chunk adds nothing");
    }
    result.map(|()| t.into_iter().zip(v.into_iter().map(f64::to_bits)).skip(1).collect())
}

fn samples(bits: &[(TimestampMs, u64)]) -> impl Iterator<Item = Sample> {
    bits.iter().map(|&(t, v)| Sample { t, v: f64::from_bits(v) })
}

/// Timestamps and values as they come: steady, jittering, jumping; same, close, random, stale.
fn series(max: usize) -> impl Strategy<Value = Bits> {
    let dt = prop_oneof![
        4 => Just(15_000i64),
        3 => 14_900i64..15_100,
        2 => 0i64..10_000_000,
        1 => any::<i64>(),
        1 => prop::sample::select(vec![-8191i64, -8192, 8192, 8193, -65535, 65536, 65537, -524_287, 524_288, 4095, -4096, 4096]),
    ];
    let v = prop_oneof![
        3 => Just(None),
        3 => (0u32..1000).prop_map(|n| Some(f64::from(n).to_bits())),
        2 => any::<u64>().prop_map(Some),
        1 => Just(Some(STALE_NAN_BITS)),
    ];
    (any::<i64>(), prop::collection::vec((dt, v), 0..max)).prop_map(|(start, steps)| {
        let (mut t, mut last) = (start, 0);
        let step = |(dt, v): (i64, Option<u64>)| {
            t = t.wrapping_add(dt);
            last = v.unwrap_or(last);
            (t, last)
        };
        steps.into_iter().map(step).collect()
    })
}

/// What the fuzz targets run: any bytes give samples or an error, both readers the same.
fn check_any_bytes(data: &[u8]) {
    let bulk = decode(Encoding::Xor, data);
    let one_by_one: Result<Bits, ChunkError> =
        xor::Iter::new(data).and_then(|it| it.map(|s| s.map(|s| (s.t, s.v.to_bits()))).collect());
    assert_eq!(bulk.is_ok(), one_by_one.is_ok());
    if let (Ok(a), Ok(b)) = (&bulk, &one_by_one) {
        assert_eq!(a, b);
        assert!(xor::Appender::resume(data.to_vec()).is_ok());
    }
    let bulk = decode(Encoding::Xor2, data);
    let one_by_one: Result<Bits, ChunkError> =
        xor2::Iter::new(data).and_then(|it| it.map(|s| s.map(|(_, s)| (s.t, s.v.to_bits()))).collect());
    assert_eq!(bulk.ok(), one_by_one.ok(), "where the error is noticed may differ");
    for code in 1..=6 {
        let encoding = Encoding::from_code(code).unwrap();
        let mut decoded = Decoded::default();
        let result = super::decode(encoding, data, &mut decoded);
        let found = decoded.values.len() + decoded.histograms.len();
        assert_eq!(found, if result.is_ok() { num_samples(encoding, data).into() } else { 0 });
        assert!([0, decoded.values.len()].contains(&decoded.start_timestamps.len()));
        if result.is_ok() {
            for h in decoded.histograms {
                std::hint::black_box(h.histogram.to_float().detect_reset(&h.histogram.to_float()));
                std::hint::black_box(h.histogram.to_string());
            }
            match encoding {
                Encoding::Xor => drop(xor::Appender::resume(data.to_vec()).unwrap()),
                Encoding::Xor2 => drop(xor2::Appender::resume(data.to_vec()).unwrap()),
                e if IntegerCoder::ENCODINGS.contains(&e) => {
                    drop(ChunkAppender::<IntegerCoder>::resume(e, data.to_vec()));
                }
                e => drop(ChunkAppender::<FloatCoder>::resume(e, data.to_vec())),
            }
        }
    }
}

/// Chunks that are decoded together give what each gives alone, and an error where the first that is damaged is.
fn check_many(chunks: &[Vec<u8>]) {
    let data: Vec<&[u8]> = chunks.iter().map(|c| &c[..]).collect();
    let (mut t, mut v) = (vec![7], vec![7.0, 8.0]);
    let together = xor::decode_many_into(&data, &mut t, &mut v);
    let mut alone: Bits = Vec::new();
    for (i, data) in data.iter().enumerate() {
        let samples: Result<Vec<Sample>, _> = xor::Iter::new(data).and_then(Iterator::collect);
        let Ok(samples) = samples else {
            let error = decode(Encoding::Xor, data).unwrap_err();
            assert_eq!(together, Err((i, error)));
            assert_eq!((t, v), (vec![7], vec![7.0, 8.0]), "a damaged chunk adds nothing");
            return;
        };
        alone.extend(samples.iter().map(|s| (s.t, s.v.to_bits())));
    }
    assert_eq!(together, Ok(()));
    assert_eq!((t[0], &v[..2]), (7, &[7.0, 8.0][..]), "what was there is left alone");
    let together: Bits = t[1..].iter().copied().zip(v[2..].iter().map(|v| v.to_bits())).collect();
    assert_eq!((t.len(), v.len()), (alone.len() + 1, alone.len() + 2));
    assert_eq!(together, alone);
}

/// A series as a target that is scraped gives it: at 15 s, with `jitter` ms, and sometimes a gap, of counters, gauges that
/// change seldom or often, and random floats, with stale markers.
fn scraped(max: usize) -> impl Strategy<Value = Bits> {
    let step = (any::<u64>(), 0u32..1000, 0u8..50);
    let kinds = (0u8..4, prop::sample::select(vec![1i64, 1, 4, 2000]), 0i64..2_000_000_000_000);
    (kinds, prop::collection::vec(step, 1..max)).prop_map(|((kind, jitter, start), steps)| {
        let (mut t, mut v) = (start, 100_000.0);
        let step = |(bits, n, luck): (u64, u32, u8)| {
            t += match luck {
                0 => 45_000,
                1 => 1_000_000,
                _ => 15_000,
            };
            v = match kind {
                0 => v + f64::from(n),
                1 if n < 800 => v,
                1 | 2 => f64::from(n % 20),
                _ => f64::from_bits(bits >> 2),
            };
            (t + bits.cast_signed().rem_euclid(jitter), if luck == 2 { STALE_NAN_BITS } else { v.to_bits() })
        };
        steps.into_iter().map(step).collect()
    })
}

/// Some chunks as they come: alike or not.
fn many_chunks() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let chunk = prop_oneof![4 => scraped(200), 1 => series(200), 1 => scraped(4)];
    prop::collection::vec(chunk.prop_map(|series| xor::encode(samples(&series))), 0..20)
}

#[test]
fn chunks_that_end_together_or_are_too_large_are_decoded_together() {
    let chunk = |n: i64, seed: i64| {
        xor::encode((0..n).map(|i| Sample { t: i * 15_000 + i * seed % 5, v: (i * i * seed) as f64 / 7.0 }))
    };
    for lens in
        [&[100; 9][..], &[100; 4], &[107, 107, 30], &[2, 2, 2, 3, 2], &[120; 16], &[600, 9, 600, 9, 9]]
    {
        check_many(&lens.iter().zip(1..).map(|(n, seed)| chunk(*n, seed)).collect::<Vec<_>>());
    }
    check_many(&[]);
    check_many(&[vec![0, 0], chunk(100, 1), chunk(100, 2), chunk(100, 3), vec![0, 0]]);
    check_many(&[chunk(100, 1), vec![0], chunk(100, 2), chunk(100, 3)]);
}

#[test]
fn a_chunk_cut_short_among_others_is_an_error_at_every_length() {
    let chunk = |seed: i64| {
        xor::encode((0..60).map(|i| Sample { t: i * 15_013 + i % 7, v: (i * i * seed) as f64 / 3.0 }))
    };
    let chunks: Vec<_> = (1..7).map(chunk).collect();
    for n in 0..chunks[3].len() {
        let mut chunks = chunks.clone();
        chunks[3].truncate(n);
        check_many(&chunks);
        let data: Vec<&[u8]> = chunks.iter().map(|c| &c[..]).collect();
        let place = xor::decode_many_into(&data, &mut vec![], &mut vec![]).unwrap_err().0;
        assert_eq!(place, 3, "{n} bytes");
    }
}

#[test]
fn a_chunk_has_the_bytes_that_prometheus_writes() {
    // t0 varint, v0 raw, delta uvarint, equal value, then "0" and "0".
    let bytes = xor::encode([(1000, 1.0), (2000, 1.0), (3000, 1.0)].map(|(t, v)| Sample { t, v }));
    assert_eq!(bytes, [0, 3, 0xd0, 0x0f, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xe8, 0x07, 0b0000_0000]);
}

#[test]
fn an_empty_chunk_has_no_samples() {
    assert_eq!(decode(Encoding::Xor, xor::Appender::new().bytes()), Ok(vec![]));
    assert!(decode(Encoding::Xor, &[]).is_err());
    assert!(decode(Encoding::Xor2, &[0, 0]).is_err());
}

#[test]
fn a_count_that_cannot_be_true_is_refused_before_allocation() {
    let mut data = xor::encode([Sample { t: 1, v: 2.0 }]);
    data[..2].copy_from_slice(&u16::MAX.to_be_bytes());
    assert!(matches!(decode(Encoding::Xor, &data), Err(ChunkError::Corrupt { bit: 0, .. })));
}

#[test]
fn a_chunk_cut_short_is_an_error_at_every_length() {
    let data = xor::encode((0..60).map(|i| Sample { t: i * 15_013 + i % 7, v: (i * i) as f64 / 3.0 }));
    for n in 0..data.len() {
        assert!(decode(Encoding::Xor, &data[..n]).is_err(), "{n} of {} bytes", data.len());
    }
}

#[test]
fn a_chunk_of_the_other_sort_is_an_error() {
    let e = decode_into(Encoding::FloatHistogram, &[0, 1, 0], &mut vec![], &mut vec![]).unwrap_err();
    assert_eq!(e.to_string(), "chunk encoding floathistogram does not hold what is read");
    assert!(matches!(Iter::new(Encoding::Xor, &[0; 3]), Err(ChunkError::Unsupported(Encoding::Xor))));
    assert_eq!(num_samples(Encoding::HistogramSt, &[0xc0, 5, 0]), 5);
}

#[test]
fn buckets_that_the_bits_cannot_hold_are_refused_before_allocation() {
    // One sample, no threshold, schema 0, a span of 2^32 − 1 buckets.
    let mut w = bits::BitWriter { bytes: vec![0, 1, 0], free: 0 };
    w.put(0, 9);
    w.put_uvarbit(1);
    w.put_uvarbit(u64::from(u32::MAX));
    w.put_varbit(0);
    w.bytes.resize(100, 0);
    let e = decode_histograms(Encoding::Histogram, &w.bytes).unwrap_err();
    assert!(e.to_string().ends_with("more buckets than the chunk can hold"), "{e}");
    // As many samples as there may be, each of which would have its copy of many bounds.
    let mut w = bits::BitWriter { bytes: vec![0xff, 0xff, 0], free: 0 };
    w.put(0, 8);
    w.put_varbit(i64::from(CUSTOM_SCHEMA));
    w.put(0, 2);
    w.put_uvarbit(10_000);
    w.bytes.resize(1 << 20, 0);
    let e = decode_histograms(Encoding::Histogram, &w.bytes).unwrap_err();
    assert!(e.to_string().ends_with("more custom bounds than the chunk can hold"), "{e}");
}

fn decode_histograms(encoding: Encoding, data: &[u8]) -> Result<Vec<DecodedHistogram>, ChunkError> {
    let mut decoded = Decoded::default();
    super::decode(encoding, data, &mut decoded).map(|()| decoded.histograms)
}

fn growing(hint: CounterResetHint, counts: &[i64], offset: i32) -> Histogram {
    Histogram {
        counter_reset_hint: hint,
        count: counts.iter().sum::<i64>() as u64,
        positive_spans: vec![Span { offset, length: counts.len() as u32 }],
        positive_buckets: crate::histogram::deltas(counts.iter().copied()).collect(),
        ..Histogram::default()
    }
}

#[test]
fn what_does_not_fit_starts_a_chunk_that_says_why() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    let first = growing(Unknown, &[3, 0, 4], 0);
    let append = |h: &Histogram| {
        let mut open = histogram::Appender::new(false);
        assert!(matches!(open.append(None, 1, 0, &first), Ok(Appended::InPlace)));
        match open.append(None, 2, 0, h).unwrap() {
            Appended::NewChunk(next) => (true, next.counter_reset_header(), next.len()),
            _ => (false, open.counter_reset_header(), open.len()),
        }
    };
    assert_eq!(append(&growing(Unknown, &[3, 1, 4], 0)), (false, Unknown, 2));
    assert_eq!(append(&growing(Unknown, &[3, 0, 4, 1], 0)), (false, Unknown, 2), "recoded");
    assert_eq!(append(&growing(Unknown, &[3, 1, 3], 0)), (true, Reset, 1));
    assert_eq!(append(&growing(Unknown, &[5, 5], 1)), (true, Reset, 1), "a bucket is gone");
    assert_eq!(append(&growing(Reset, &[9, 9, 9], 0)), (true, Reset, 1));
    assert_eq!(append(&growing(Gauge, &[9, 9, 9], 0)), (true, Gauge, 1));
    assert_eq!(append(&Histogram { schema: 1, ..growing(Unknown, &[9, 9, 9], 0) }), (true, Unknown, 1));
    assert_eq!(append(&Histogram::stale()), (false, Unknown, 2));
    let lost = Histogram { positive_spans: vec![], ..growing(Unknown, &[9], 0) };
    assert!(histogram::Appender::new(false).append(None, 1, 0, &lost).is_err());

    // A chunk that is begun because the one before is long enough.
    let mut before = histogram::Appender::new(true);
    before.append(None, 1, 0, &first).unwrap();
    for (h, header) in [(growing(Unknown, &[4, 0, 4], 0), NotReset), (growing(Unknown, &[4], 0), Reset)] {
        let mut next = histogram::Appender::new(true);
        next.append(Some(&before), 2, 0, &h).unwrap();
        assert_eq!(next.counter_reset_header(), header);
        assert_eq!(histogram::counter_reset_header(Encoding::HistogramSt, next.bytes()), header);
    }
}

#[test]
fn hints_of_samples_are_what_the_chunk_alone_can_tell() {
    use CounterResetHint::{NotReset, Reset, Unknown};
    let mut open = histogram::Appender::new(false);
    for (t, hint) in [Reset, Unknown, NotReset].into_iter().enumerate() {
        open.append(None, t as i64, 0, &growing(hint, &[1, 2], 0)).unwrap();
    }
    assert_eq!(open.counter_reset_header(), Reset);
    let read = decode_histograms(Encoding::Histogram, open.bytes()).unwrap();
    let hints: Vec<_> = read.iter().map(|h| h.histogram.counter_reset_hint()).collect();
    assert_eq!(hints, [Unknown, NotReset, NotReset], "the chunk before may not be there");
}

/// Any valid histogram: a schema, gaps and counts on both sides.
fn any_histogram() -> impl Strategy<Value = Histogram> {
    let side = || prop::collection::vec((0u32..3, prop_oneof![0i64..5, 0i64..1_000_000]), 0..8);
    let hint = prop::sample::select(vec![
        CounterResetHint::Unknown,
        CounterResetHint::Unknown,
        CounterResetHint::Gauge,
        CounterResetHint::Reset,
    ]);
    let zero = prop_oneof![3 => Just(0.0), 1 => Just(1e-3), 1 => Just(0.5), 1 => Just(3.3)];
    (side(), side(), 0i32..3, zero, 0u64..9, any::<f64>(), hint).prop_map(
        |(positive, negative, schema, zero_threshold, zero_count, sum, counter_reset_hint)| {
            let spans = |side: &[(u32, i64)]| {
                side.iter().map(|s| Span { offset: s.0 as i32, length: 1 }).collect::<Vec<_>>()
            };
            let buckets =
                |side: &[(u32, i64)]| crate::histogram::deltas(side.iter().map(|s| s.1)).collect::<Vec<_>>();
            let all = positive.iter().chain(&negative).map(|s| s.1 as u64).sum::<u64>();
            Histogram {
                counter_reset_hint,
                schema: if schema == 2 { CUSTOM_SCHEMA } else { schema },
                zero_threshold: if schema == 2 { 0.0 } else { zero_threshold },
                zero_count: if schema == 2 { 0 } else { zero_count },
                count: all + zero_count,
                sum,
                positive_spans: spans(&positive),
                positive_buckets: buckets(&positive),
                negative_spans: if schema == 2 { vec![] } else { spans(&negative) },
                negative_buckets: if schema == 2 { vec![] } else { buckets(&negative) },
                custom_values: if schema == 2 {
                    (0..30).map(|i| f64::from(i) / 7.0).collect()
                } else {
                    vec![]
                },
            }
        },
    )
}

/// Appends all samples, and checks that they are read back, empty buckets aside.
fn check_round_trip<C: Coder>(
    samples: &[(i64, i64, C::Value)],
    with_start: bool,
    float: impl Fn(&C::Value) -> FloatHistogram,
) {
    let mut done = vec![ChunkAppender::<C>::new(with_start)];
    for (t, start, h) in samples {
        if let Appended::NewChunk(next) = done.last_mut().unwrap().append(None, *t, *start, h).unwrap() {
            done.push(*next);
        }
    }
    let mut read = Vec::new();
    for chunk in &done {
        check_any_bytes(chunk.bytes());
        read.extend(decode_histograms(chunk.encoding(), chunk.bytes()).unwrap());
    }
    assert_eq!(read.len(), samples.len());
    for (got, (t, start, want)) in read.iter().zip(samples) {
        assert_eq!((got.timestamp, got.start_timestamp), (*t, if with_start { *start } else { 0 }));
        let (mut got, mut want) = ((*got.histogram.to_float()).clone(), float(want));
        got.compact(0);
        want.compact(0);
        assert!(got.equals(&want), "{got:?} is not {want:?}");
    }
}

/// Found by the fuzzer: start timestamps from a sample on that is not there, and bits behind the last one.
#[test]
fn what_a_damaged_chunk_has_beyond_its_samples_is_dropped_when_it_goes_on() {
    let bytes = [0, 3, 5, 0, 0, 39, 217, 224, 217, 217, 217, 0, 0, 39, 217, 224, 0];
    let before: Vec<_> = xor2::Iter::new(&bytes).unwrap().map(Result::unwrap).collect();
    let mut appender = xor2::Appender::resume(bytes.to_vec()).unwrap();
    appender.append(3, 7, 1.0);
    let read: Vec<_> = xor2::Iter::new(appender.bytes()).unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 4);
    assert!(read.iter().zip(&before).all(|(a, b)| (a.0, a.1.t) == (b.0, b.1.t)));
    assert_eq!((read[3].0, read[3].1.t, read[3].1.v), (3, 7, 1.0));
}

proptest! {
    #[test]
    fn xor_gives_back_what_was_appended(series in series(300)) {
        let data = xor::encode(samples(&series));
        check_any_bytes(&data);
        prop_assert_eq!(decode(Encoding::Xor, &data), Ok(series));
    }

    #[test]
    fn chunks_decoded_together_give_what_each_gives_alone(chunks in many_chunks()) {
        check_many(&chunks);
    }

    #[test]
    fn damaged_chunks_among_others_give_what_each_gives_alone(
        mut chunks in many_chunks(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
        random in prop::option::of(prop::collection::vec(any::<u8>(), 0..600)),
    ) {
        chunks.extend(random);
        for (chunk, at, with) in damage.iter().filter(|_| !chunks.is_empty()).collect::<Vec<_>>() {
            let chunk = chunk.get_mut(&mut chunks);
            let at = at.index(chunk.len().max(1));
            chunk.iter_mut().skip(at).take(1).for_each(|b| *b = *with);
        }
        if let Some((chunk, len)) = cut && !chunks.is_empty() {
            let chunk = chunk.get_mut(&mut chunks);
            chunk.truncate(len.index(chunk.len() + 1));
        }
        check_many(&chunks);
    }

    #[test]
    fn an_appender_continues_a_chunk_as_if_never_interrupted(series in series(80), cut in 0usize..80) {
        let cut = cut.min(series.len());
        let mut appender = xor::Appender::resume(xor::encode(samples(&series[..cut]))).unwrap();
        for s in samples(&series[cut..]) {
            appender.append(s.t, s.v);
        }
        prop_assert_eq!(appender.len(), series.len());
        prop_assert_eq!(appender.into_bytes(), xor::encode(samples(&series)));
    }

    #[test]
    fn xor2_gives_back_what_was_appended(
        series in series(200),
        starts in prop::collection::vec(prop_oneof![9 => Just(0i64), 1 => any::<i64>(), 1 => -9i64..9], 200),
        cut in 0usize..200,
    ) {
        let mut appender = xor2::Appender::new();
        for (i, (s, start)) in samples(&series).zip(&starts).enumerate() {
            if i == cut {
                appender = xor2::Appender::resume(appender.into_bytes()).unwrap();
            }
            appender.append(*start, s.t, s.v);
        }
        let data = appender.into_bytes();
        prop_assert_eq!(decode(Encoding::Xor2, &data), Ok(series.clone()));
        let mut decoded = Decoded::default();
        super::decode(Encoding::Xor2, &data, &mut decoded).unwrap();
        decoded.start_timestamps.resize(series.len(), 0);
        prop_assert_eq!(&decoded.start_timestamps[..], &starts[..series.len()]);
    }

    #[test]
    fn histograms_come_back_as_they_were_appended(
        samples in prop::collection::vec((any::<i32>(), any::<i32>(), any_histogram()), 0..40),
        with_start in any::<bool>(),
        steady in any::<bool>(),
    ) {
        let mut samples: Vec<_> =
            samples.into_iter().map(|(t, st, h)| (i64::from(t), i64::from(st), h)).collect();
        if steady {
            // One layout, so that there are long chunks; some stale markers.
            let first = samples.first().map(|s| s.2.clone()).unwrap_or_default();
            for (i, s) in samples.iter_mut().enumerate() {
                let sum = s.2.sum;
                s.2 = if i % 20 == 19 { Histogram::stale() } else { first.clone() };
                s.2.sum = if i % 20 == 19 { s.2.sum } else { sum };
            }
        }
        check_round_trip::<IntegerCoder>(&samples, with_start, Histogram::to_float);
        let floats: Vec<_> = samples.into_iter().map(|(t, st, h)| (t, st, h.to_float())).collect();
        check_round_trip::<FloatCoder>(&floats, with_start, FloatHistogram::clone);
    }

    #[test]
    fn any_bytes_give_samples_or_an_error(data in prop::collection::vec(any::<u8>(), 0..400)) {
        check_any_bytes(&data);
    }

    #[test]
    fn damaged_chunks_give_samples_or_an_error(series in series(60), at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut data = xor::encode(samples(&series));
        let at = at.index(data.len());
        data[at] = with;
        check_any_bytes(&data);
    }
}
