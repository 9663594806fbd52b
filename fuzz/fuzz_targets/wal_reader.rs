//! Any bytes are a log segment: whole records, then the end or one error that says where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::wal::{ReadError, SegmentReader};

fuzz_target!(|data: &[u8]| {
    let mut reader = SegmentReader::new(data, 0);
    let mut end = 0;
    loop {
        match reader.next_record() {
            None => break,
            // What records mean is for `wal_records`.
            Some(Ok(_)) => {
                assert!(reader.offset() > end, "a record takes room");
                end = reader.offset();
            }
            Some(Err(ReadError::Corrupt(damage))) => {
                assert_eq!(damage.offset, end, "damage starts behind the last whole record");
                assert!(reader.next_record().is_none(), "nothing comes after damage");
                break;
            }
            Some(Err(error)) => panic!("a slice cannot fail: {error}"),
        }
    }
});
