//! Any bytes are two files of head chunks: whole chunks that can be read, and then the end.
#![no_main]

#[path = "../scratch.rs"]
mod scratch;

use libfuzzer_sys::fuzz_target;
use promontory_tsdb::head_chunks::HeadChunks;

fuzz_target!(|data: &[u8]| {
    let dir = scratch::empty_dir();
    let (first, second) = data.split_at(data.len() / 2);
    scratch::put(&dir.join("000001"), first);
    scratch::put(&dir.join("000002"), second);
    let Ok((chunks, loaded)) = HeadChunks::open(&dir, i64::MIN) else { return };
    let files = chunks.files();
    for chunk in loaded.in_order.values().chain(loaded.out_of_order.values()).flatten() {
        drop(files.chunk(chunk.at));
    }
    for in_order in loaded.in_order.values() {
        assert!(in_order.windows(2).all(|w| w[0].maxt < w[1].mint), "{in_order:?}");
    }
    drop((files, chunks));
    // What was dropped is gone, and nothing else goes.
    let (_, again) = HeadChunks::open(&dir, i64::MIN).expect("it opened before");
    assert_eq!((again.in_order, again.out_of_order), (loaded.in_order, loaded.out_of_order));
});
