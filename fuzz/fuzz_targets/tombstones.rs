//! Any bytes are the tombstones of a block or an error; what was read is written and read again the same.
#![no_main]

#[path = "../scratch.rs"]
mod scratch;

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::tombstones::{FILE_NAME, Tombstones};

fuzz_target!(|data: &[u8]| {
    let dir = scratch::empty_dir();
    scratch::put(&dir.join(FILE_NAME), data);
    let Ok(found) = Tombstones::read(&dir) else { return };
    for (_, intervals) in found.iter() {
        assert!(intervals.iter().all(|i| i.mint <= i.maxt), "{intervals:?}");
        assert!(intervals.windows(2).all(|w| w[0].maxt < w[1].mint), "{intervals:?}");
    }
    found.write(&dir).expect("a temporary file");
    assert_eq!(Tombstones::read(&dir).expect("it was just written"), found);
});
