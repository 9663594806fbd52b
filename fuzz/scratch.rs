//! A directory of the process for the one file or data directory that a target looks at.
#![allow(dead_code, reason = "every target needs some of it")]

use std::path::{Path, PathBuf};

/// Empties the directory and gives its path. `TMPDIR=/dev/shm` spares the disk.
pub fn empty_dir() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("promontory-fuzz-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).expect("a temporary directory");
    dir
}

/// Writes one file, and the directories above it.
pub fn put(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a name below the root")).expect("a temporary directory");
    std::fs::write(path, bytes).expect("a temporary file");
}

/// The files that an input of several files is made of, by their number in it.
pub const NAMES: [&str; 14] = [
    "wal/00000000",
    "wal/00000001",
    "wal/00000002",
    "wal/00000000.repair",
    "wal/checkpoint.00000000/00000000",
    "wbl/00000000",
    "wbl/00000001",
    "chunks_head/000001",
    "chunks_head/000002",
    "chunk_snapshot.000000.0000000000/00000000",
    "01BX5ZZKBKACTAV9WEVGEMMVRZ/meta.json",
    "01BX5ZZKBKACTAV9WEVGEMMVRZ/index",
    "01BX5ZZKBKACTAV9WEVGEMMVRZ/tombstones",
    "01BX5ZZKBKACTAV9WEVGEMMVRZ/chunks/000001",
];

/// Writes an input of several files: for each the number of its name, a BE24 length, and its bytes.
pub fn unpack(mut input: &[u8], dir: &Path) {
    while let Some(([name, a, b, c], rest)) = input.split_first_chunk::<4>() {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (bytes, rest) = rest.split_at(length.min(rest.len()));
        put(&dir.join(NAMES[usize::from(*name) % NAMES.len()]), bytes);
        input = rest;
    }
}

/// Adds a file to such an input.
pub fn pack(input: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let number = NAMES.iter().position(|n| *n == name).expect("a name of the table");
    input.push(number as u8);
    input.extend_from_slice(&(bytes.len() as u32).to_be_bytes()[1..]);
    input.extend_from_slice(bytes);
}
