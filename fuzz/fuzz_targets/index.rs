//! Any bytes are an index or an error, and so is all that can be read from it.
#![no_main]

#[path = "../scratch.rs"]
mod scratch;

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::Labels;
use promontory_tsdb::index::{FILE_NAME, Reader, SeriesEntry};
use promontory_tsdb::postings::PostingsSource as _;

fuzz_target!(|data: &[u8]| {
    let path = scratch::empty_dir().join(FILE_NAME);
    scratch::put(&path, data);
    let Ok(reader) = Reader::open(&path) else { return };
    let mut entry = SeriesEntry::default();
    for name in reader.label_names() {
        for list in reader.with_values(name, &[], &mut |_| true).unwrap_or_default() {
            for reference in list.into_vec() {
                if reader.series(reference, i64::MIN, i64::MAX, &mut entry).is_ok() {
                    assert!(Labels::from_bytes(entry.label_bytes()).is_some());
                }
            }
        }
    }
});
