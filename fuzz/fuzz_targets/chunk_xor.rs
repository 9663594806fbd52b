//! Any bytes are an XOR chunk or an error, and all readers agree on which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::chunkenc::xor;

fuzz_target!(|data: &[u8]| {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    let bulk = xor::decode_into(data, &mut timestamps, &mut values);
    let one_by_one = xor::Iter::new(data).and_then(|samples| samples.collect::<Result<Vec<_>, _>>());
    assert_eq!(bulk.is_ok(), one_by_one.is_ok());
    if let Ok(samples) = &one_by_one {
        assert!(samples.iter().map(|s| s.t).eq(timestamps));
        assert!(samples.iter().map(|s| s.v.to_bits()).eq(values.iter().map(|v| v.to_bits())));
        if samples.len() < usize::from(u16::MAX) {
            let mut appender = xor::Appender::resume(data.to_vec()).expect("a sound chunk can be continued");
            appender.append(0, 1.0);
        }
    }
    together(data);
});

/// Parts of the bytes, each behind its length, are decoded at once as one after the other.
fn together(mut data: &[u8]) {
    let mut chunks = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(rest.len());
        let (chunk, rest) = rest.split_at(len);
        chunks.push(chunk);
        data = rest;
    }
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    let all = xor::decode_many_into(&chunks, &mut timestamps, &mut values);
    let mut samples = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        match xor::Iter::new(chunk).and_then(|samples| samples.collect::<Result<Vec<_>, _>>()) {
            Ok(more) => samples.extend(more),
            Err(_) => {
                assert_eq!(all.map_err(|(place, _)| place), Err(i));
                assert!(timestamps.is_empty() && values.is_empty());
                return;
            }
        }
    }
    assert!(all.is_ok());
    assert!(samples.iter().map(|s| s.t).eq(timestamps));
    assert!(samples.iter().map(|s| s.v.to_bits()).eq(values.iter().map(|v| v.to_bits())));
}
