//! Any bytes are a record of each kind or an error; what was read is written to bytes that read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::histogram::HistogramValue;
use promontory_tsdb::wal::{RecordKind, record};

/// Decodes; what is encoded from that, and from what that decodes to, decodes to the same.
fn stable<T: std::fmt::Debug>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Option<Vec<T>>,
    encode: impl Fn(&[T]) -> Vec<Vec<u8>>,
) -> Vec<T> {
    let again = |entries: &[T]| -> Vec<T> {
        let records = encode(entries);
        records.iter().flat_map(|record| decode(record).expect("it was just written")).collect()
    };
    let Some(read) = decode(data) else { return Vec::new() };
    let once = again(&read);
    // As text, so that a NaN is what it was.
    assert_eq!(format!("{:?}", again(&once)), format!("{once:?}"));
    read
}

fuzz_target!(|data: &[u8]| {
    drop(RecordKind::of(data));
    let done = |result: Result<(), _>| result.ok();
    stable(
        data,
        |bytes| {
            let mut out = Vec::new();
            done(record::decode_series(bytes, &mut out)).map(|()| out)
        },
        |series| {
            let mut out = Vec::new();
            record::begin_series(&mut out);
            series.iter().for_each(|s| record::put_series(&mut out, s.series, &s.labels));
            vec![out]
        },
    );
    let decode_samples = |bytes: &[u8]| {
        let mut out = Vec::new();
        done(record::decode_samples(bytes, &mut out)).map(|()| out)
    };
    for encode in [
        |out: &mut Vec<u8>, samples: &[record::RefSample]| record::encode_samples(out, samples.iter().copied()),
        |out: &mut Vec<u8>, samples: &[record::RefSample]| record::encode_samples_v2(out, samples.iter().copied()),
    ] {
        stable(data, decode_samples, |samples| {
            let mut out = Vec::new();
            encode(&mut out, samples);
            vec![out]
        });
    }
    stable(
        data,
        |bytes| {
            let mut out = Vec::new();
            done(record::decode_tombstones(bytes, &mut out)).map(|()| out)
        },
        |tombstones| {
            let mut out = Vec::new();
            record::encode_tombstones(&mut out, tombstones);
            vec![out]
        },
    );
    stable(
        data,
        |bytes| {
            let mut out = Vec::new();
            done(record::decode_exemplars(bytes, &mut out)).map(|()| out)
        },
        |exemplars| {
            let mut out = Vec::new();
            record::encode_exemplars(&mut out, exemplars);
            vec![out]
        },
    );
    stable(
        data,
        |bytes| {
            let mut out = Vec::new();
            done(record::decode_mmap_markers(bytes, &mut out)).map(|()| out)
        },
        |markers| {
            let mut out = Vec::new();
            record::encode_mmap_markers(&mut out, markers);
            vec![out]
        },
    );
    stable(
        data,
        |bytes| {
            let mut out = Vec::new();
            done(record::decode_metadata(bytes, &mut out)).map(|()| out)
        },
        |entries| {
            let mut out = Vec::new();
            record::encode_metadata(&mut out, entries.iter().map(|m| (m.series, &m.metadata)));
            vec![out]
        },
    );
    for start_timestamps in [false, true] {
        let histograms = stable(
            data,
            |bytes| {
                let mut out = Vec::new();
                record::decode_histograms(bytes, &mut out).ok().map(|_| out)
            },
            |samples| record::histogram_records(samples, start_timestamps),
        );
        for sample in histograms {
            match sample.value {
                HistogramValue::Integer(h) => drop(h.validate()),
                HistogramValue::Float(h) => drop(h.validate()),
            }
        }
    }
});
