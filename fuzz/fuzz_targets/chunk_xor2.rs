//! Any bytes are an XOR2 chunk or an error, all readers agree on which, and a sound one can be continued.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::chunkenc::xor2;

fuzz_target!(|data: &[u8]| {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    let bulk = xor2::decode_into(data, &mut timestamps, &mut values);
    assert!(bulk.is_ok() || timestamps.is_empty() && values.is_empty());
    let (mut t, mut v, mut start) = (Vec::new(), Vec::new(), Vec::new());
    let with_start = xor2::decode_with_start_into(data, &mut t, &mut v, &mut start);
    let one_by_one = xor2::Iter::new(data).and_then(|samples| samples.collect::<Result<Vec<_>, _>>());
    assert_eq!((bulk.is_ok(), with_start.is_ok()), (one_by_one.is_ok(), one_by_one.is_ok()));
    let Ok(samples) = one_by_one else { return };
    assert!(samples.iter().map(|s| s.1.t).eq(timestamps.iter().copied()) && t == timestamps);
    assert!(samples.iter().map(|s| s.1.v.to_bits()).eq(values.iter().map(|v| v.to_bits())));
    assert!(start.is_empty() || samples.iter().map(|s| s.0).eq(start));
    if samples.len() < usize::from(u16::MAX) {
        let mut appender = xor2::Appender::resume(data.to_vec()).expect("a sound chunk can be continued");
        appender.append(3, 7, 1.0);
        let read: Vec<_> = xor2::Iter::new(appender.bytes()).expect("ours").map(|s| s.expect("ours")).collect();
        let (last, before) = read.split_last().expect("not empty");
        assert_eq!((last.1.t, last.1.v), (7, 1.0));
        assert_eq!(before.len(), samples.len());
    }
});
