//! Any bytes are a histogram chunk of each of the four encodings or an error, and a sound one can be
//! continued.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::chunkenc::histogram::{Appended, ChunkAppender, Coder, FloatCoder, IntegerCoder, Iter};
use promontory_tsdb::chunkenc::{self, Decoded, Encoding};
use promontory_tsdb::histogram::{FloatHistogram, Histogram, Span};

fn check<C: Coder>(encoding: Encoding, data: &[u8], wide: &C::Value) {
    let mut decoded = Decoded::default();
    let result = chunkenc::decode(encoding, data, &mut decoded);
    let mut iter = Iter::new(encoding, data);
    let mut count = 0;
    while let Ok(samples) = &mut iter {
        match samples.advance() {
            Ok(true) => count += 1,
            Ok(false) => break,
            Err(e) => iter = Err(e),
        }
    }
    assert_eq!(result.is_ok(), iter.is_ok());
    if result.is_err() {
        assert!(decoded.histograms.is_empty());
        return;
    }
    assert_eq!(decoded.histograms.len(), count);
    for pair in decoded.histograms.windows(2).take(8) {
        let (a, b) = (pair[0].histogram.to_float(), pair[1].histogram.to_float());
        std::hint::black_box((a.detect_reset(&b), a.to_string(), a.validate().is_ok()));
        let mut a = (*a).clone();
        a.compact(0);
        assert!(a.iter_all().count() >= a.iter_positive().count());
    }
    let Ok(mut appender) = ChunkAppender::<C>::resume(encoding, data.to_vec()) else { return };
    let appended = appender.append(None, 1, 2, wide).expect("a valid sample");
    let more = usize::from(!matches!(appended, Appended::NewChunk(_)));
    let mut again = Decoded::default();
    chunkenc::decode(encoding, appender.bytes(), &mut again).expect("our own bytes");
    assert_eq!(again.histograms.len(), count + more);
}

fuzz_target!(|data: &[u8]| {
    let integer = Histogram {
        count: u64::MAX,
        positive_spans: vec![Span { offset: -3, length: 2 }, Span { offset: 1, length: 2 }],
        positive_buckets: vec![1, 0, 7, -8],
        ..Histogram::default()
    };
    let float = FloatHistogram { count: f64::MAX, ..integer.to_float() };
    check::<IntegerCoder>(Encoding::Histogram, data, &integer);
    check::<IntegerCoder>(Encoding::HistogramSt, data, &integer);
    check::<FloatCoder>(Encoding::FloatHistogram, data, &float);
    check::<FloatCoder>(Encoding::FloatHistogramSt, data, &float);
});
