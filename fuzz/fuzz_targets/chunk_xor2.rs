//! Any bytes are an XOR2 chunk or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::chunkenc::xor2;

fuzz_target!(|data: &[u8]| {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    let result = xor2::decode_into(data, &mut timestamps, &mut values);
    assert!(result.is_ok() || timestamps.is_empty() && values.is_empty());
    assert_eq!(timestamps.len(), values.len());
});
