//! Any bytes are the meta file of a block or an error; what was read is written and read again the same.
#![no_main]

#[path = "../scratch.rs"]
mod scratch;

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::meta::{FILE_NAME, Meta};

fuzz_target!(|data: &[u8]| {
    let dir = scratch::empty_dir();
    scratch::put(&dir.join(FILE_NAME), data);
    let Ok(meta) = Meta::read(&dir) else { return };
    meta.write(&dir).expect("a temporary file");
    assert_eq!(Meta::read(&dir).expect("it was just written"), meta);
});
