//! Any bytes are an XOR chunk or an error, and both readers agree on which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::chunkenc::xor;

fuzz_target!(|data: &[u8]| {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    let bulk = xor::decode_into(data, &mut timestamps, &mut values);
    let one_by_one = xor::Iter::new(data).and_then(|samples| samples.collect::<Result<Vec<_>, _>>());
    assert_eq!(bulk.is_ok(), one_by_one.is_ok());
    if let Ok(samples) = one_by_one {
        assert!(samples.iter().map(|s| s.t).eq(timestamps));
        assert!(samples.iter().map(|s| s.v.to_bits()).eq(values.iter().map(|v| v.to_bits())));
        if samples.len() < usize::from(u16::MAX) {
            let mut appender = xor::Appender::resume(data.to_vec()).expect("a sound chunk can be continued");
            appender.append(0, 1.0);
        }
    }
});
