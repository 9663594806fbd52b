//! Any files are a block or an error, and so is every answer it gives.
#![no_main]

#[path = "../contents.rs"]
mod contents;
#[path = "../scratch.rs"]
mod scratch;

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::block::Block;

fuzz_target!(|data: &[u8]| {
    let dir = scratch::empty_dir();
    scratch::unpack(data, &dir);
    let Ok(block) = Block::open(&dir.join("01BX5ZZKBKACTAV9WEVGEMMVRZ")) else { return };
    drop(contents::read(&block));
    if block.delete(&[], 0, 100_000).is_ok() {
        drop(contents::read(&block));
    }
});
