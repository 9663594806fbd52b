use proptest::prelude::*;

use super::bits::BitWriter;
use super::*;
use crate::encoding::zigzag;
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

/// Writes XOR2 from the description of the format, to have something to read.
fn encode_xor2(samples: &Bits, start_times: Option<(bool, usize)>) -> Vec<u8> {
    let mut w = BitWriter { bytes: vec![0; 3], free: 0 };
    let (mut base, mut delta, mut window) = (0u64, 0i64, None::<(u32, u32)>);
    w.bytes[..2].copy_from_slice(&(samples.len() as u16).to_be_bytes());
    let (first, from) = start_times.unwrap_or((false, 0));
    w.bytes[2] = u8::from(first) << 7 | from as u8;
    for (i, &(t, v)) in samples.iter().enumerate() {
        let stale = v == STALE_NAN_BITS;
        let previous = if i > 0 { samples[i - 1].0 } else { 0 };
        let mut value = |w: &mut BitWriter, known_changed: bool| {
            let xor = v ^ base;
            match (known_changed, stale, xor) {
                (false, true, _) => return w.put(0b111, 3),
                (false, false, 0) => return w.put(0, 1),
                _ => {}
            }
            let (lead, trail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
            match window {
                Some((l, t)) if lead >= l && trail >= t => {
                    if known_changed {
                        w.put(0, 1)
                    } else {
                        w.put(0b10, 2)
                    }
                    w.put(xor >> t, 64 - l - t);
                }
                _ => {
                    window = Some((lead, trail));
                    if known_changed {
                        w.put(1, 1)
                    } else {
                        w.put(0b110, 3)
                    }
                    w.put(u64::from(lead), 5);
                    w.put(u64::from((64 - lead - trail) & 63), 6);
                    w.put(xor >> trail, 64 - lead - trail);
                }
            }
        };
        match i {
            0 => {
                w.put_uvarint(zigzag(t));
                w.put(v, 64);
                if first {
                    w.put_uvarint(zigzag(12_345));
                }
            }
            1 => {
                delta = t.wrapping_sub(previous);
                w.put_uvarint(delta as u64);
                value(&mut w, false);
            }
            _ => {
                let d = t.wrapping_sub(previous);
                let dod = d.wrapping_sub(delta);
                delta = d;
                match dod {
                    0 if stale => w.put(0b11111, 5),
                    0 if v == base => w.put(0, 1),
                    0 => {
                        w.put(0b10, 2);
                        value(&mut w, true);
                    }
                    _ => {
                        match dod {
                            -4096..=4095 => w.put(0b110 << 13 | dod as u64 & 0x1fff, 16),
                            -524_288..=524_287 => w.put(0b1110 << 20 | dod as u64 & 0xf_ffff, 24),
                            _ => {
                                w.put(0b11110, 5);
                                w.put(dod as u64, 64);
                            }
                        }
                        value(&mut w, false);
                    }
                }
            }
        }
        if from > 0 && i >= from {
            // Every class of the code in turn.
            let (prefix, bits, n) = [
                (0, 1, 0u32),
                (0b10, 2, 3),
                (0b110, 3, 6),
                (0b1110, 4, 9),
                (0b11110, 5, 12),
                (0b11_1110, 6, 18),
                (0b111_1110, 7, 25),
                (0xfe, 8, 56),
                (0xff, 8, 64),
            ][i % 9];
            w.put(prefix, bits);
            if n > 0 {
                w.put(0x5555_5555_5555_5555, n);
            }
        }
        if !stale {
            base = v;
        }
    }
    w.bytes
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
    drop(decode(Encoding::Xor2, data));
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
fn histogram_chunks_are_named_in_the_error() {
    let e = decode_into(Encoding::FloatHistogram, &[0, 1, 0], &mut vec![], &mut vec![]).unwrap_err();
    assert_eq!(e.to_string(), "chunk encoding FloatHistogram is not supported yet");
    assert_eq!(num_samples(Encoding::HistogramSt, &[0xc0, 5, 0]), 5);
}

proptest! {
    #[test]
    fn xor_gives_back_what_was_appended(series in series(300)) {
        let data = xor::encode(samples(&series));
        check_any_bytes(&data);
        prop_assert_eq!(decode(Encoding::Xor, &data), Ok(series));
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
    fn xor2_is_read(series in series(200), st in prop::option::of((any::<bool>(), 0usize..128))) {
        let data = encode_xor2(&series, st);
        prop_assert_eq!(decode(Encoding::Xor2, &data), Ok(series));
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
