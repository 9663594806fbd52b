//! Tests of `chunks_head/`.

use super::*;
use crate::chunkenc::xor;
use crate::sample::Sample;

fn data(i: u64) -> Vec<u8> {
    xor::encode((0..5 + i as i64).map(|k| Sample { t: i as i64 * 100 + k, v: k as f64 }))
}

fn write(chunks: &HeadChunks, i: u64, out_of_order: bool) -> HeadChunkRef {
    let data = data(i);
    let t = i as i64 * 100;
    let new = NewChunk {
        series: SeriesRef(1 + i % 3),
        mint: t,
        maxt: t + 4 + i as i64,
        encoding: Encoding::Xor,
        out_of_order,
        data: &data,
    };
    chunks.write([new]).unwrap()[0]
}

fn open(dir: &Path) -> (HeadChunks, Loaded) {
    HeadChunks::open_sized(dir, i64::MIN, 400, || Ok(())).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    names
}

#[test]
fn chunks_are_read_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (chunks, loaded) = open(&dir.path().join("chunks_head"));
    assert!(loaded.in_order.is_empty());
    let refs = (0..40).map(|i| write(&chunks, i, i % 4 == 3)).collect::<Vec<_>>();
    assert_eq!(refs[0], HeadChunkRef::new(1, 8));
    assert!(refs.is_sorted() && refs[39].file() > 5);
    for (i, at) in refs.iter().enumerate() {
        assert_eq!(*chunks.files().chunk(*at).unwrap(), *data(i as u64));
    }
    // Killed: nothing is closed.
    std::mem::forget(chunks);
    let (chunks, loaded) = open(&dir.path().join("chunks_head"));
    assert_eq!(loaded.damage, None);
    assert_eq!(loaded.last, refs[39]);
    assert_eq!(loaded.last_series, SeriesRef(3));
    let count =
        |m: &std::collections::HashMap<SeriesRef, Vec<MappedChunk>>| m.values().map(Vec::len).sum::<usize>();
    assert_eq!((count(&loaded.in_order), count(&loaded.out_of_order)), (30, 10));
    let first = loaded.in_order[&SeriesRef(1)][0];
    assert_eq!((first.at, first.mint, first.maxt, first.samples), (refs[0], 0, 4, 5));
    assert_eq!(*chunks.files().chunk(refs[39]).unwrap(), *data(39));
    assert_eq!(write(&chunks, 40, false).file(), refs[39].file() + 1, "no file is continued");
}

#[test]
fn a_damaged_file_and_all_after_it_are_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let (chunks, _) = open(dir.path());
    let refs = (0..40).map(|i| write(&chunks, i, false)).collect::<Vec<_>>();
    drop(chunks);
    let victim = refs.iter().find(|r| r.file() == 3).unwrap();
    let path = file_path(dir.path(), 3);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[victim.offset() as usize + 30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (chunks, loaded) = open(dir.path());
    assert!(loaded.damage.unwrap().contains("checksum"));
    assert_eq!(names(dir.path()), ["000001", "000002"]);
    assert_eq!(loaded.last.file(), 2);
    assert!(chunks.files().chunk(*victim).is_err());
    assert_eq!(write(&chunks, 99, false).file(), 3);
}

#[test]
fn a_tail_of_zeros_is_the_end_and_other_bytes_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (chunks, _) = open(dir.path());
    let at = write(&chunks, 0, false);
    drop(chunks);
    let path = file_path(dir.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    for zeros in [1, 7, 33, 34, 500] {
        let mut bytes = whole.clone();
        bytes.resize(whole.len() + zeros, 0);
        std::fs::write(&path, &bytes).unwrap();
        let (chunks, loaded) = open(dir.path());
        assert_eq!((loaded.damage, loaded.last), (None, at), "{zeros}");
        assert_eq!(*chunks.files().chunk(at).unwrap(), *data(0));
    }
    std::fs::write(&path, [&whole[..], &[7; 9]].concat()).unwrap();
    assert!(open(dir.path()).1.damage.is_some());
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_last_file_without_header_is_removed_and_a_gap_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (chunks, _) = open(dir.path());
    for i in 0..40 {
        write(&chunks, i, false);
    }
    drop(chunks);
    let last = names(dir.path()).len() as u32;
    std::fs::write(file_path(dir.path(), last + 1), [0; 2]).unwrap();
    let (_, loaded) = open(dir.path());
    assert_eq!((loaded.damage, loaded.last.file()), (None, last));
    assert_eq!(names(dir.path()).len() as u32, last);
    std::fs::remove_file(file_path(dir.path(), 4)).unwrap();
    assert!(open(dir.path()).1.damage.unwrap().contains("missing"));
    assert_eq!(names(dir.path()), ["000001", "000002", "000003"]);
}

#[test]
fn truncation_deletes_old_files_and_what_was_read_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (chunks, _) = open(dir.path());
    let refs = (0..40).map(|i| write(&chunks, i, false)).collect::<Vec<_>>();
    let held = chunks.files();
    let truncate = |first| chunks.delete(&chunks.forget(first).unwrap()).unwrap();
    truncate(3);
    assert_eq!(names(dir.path())[0], "000003");
    assert_eq!(*held.chunk(refs[0]).unwrap(), *data(0));
    assert!(chunks.files().chunk(refs[0]).is_err());
    let next = write(&chunks, 40, false);
    assert_eq!(next.file(), refs[39].file() + 1);
    truncate(u32::MAX);
    assert_eq!(names(dir.path()), [format!("{:06}", next.file())], "the open file stays");
    truncate(u32::MAX);
    assert!(names(dir.path()).is_empty());
    assert_eq!(open(dir.path()).1.last, HeadChunkRef(0));
}

/// Bytes from a `chunks_head` file of Prometheus 3.14: series 5, `[1000, 61000]`, out of order.
#[test]
fn entries_have_the_bytes_of_prometheus() {
    let mut out = Vec::new();
    let data = xor::encode([Sample { t: 1000, v: 1.5 }, Sample { t: 61_000, v: 2.5 }]);
    let chunk = NewChunk {
        series: SeriesRef(5),
        mint: 1000,
        maxt: 61_000,
        encoding: Encoding::Xor,
        out_of_order: true,
        data: &data,
    };
    put_entry(&mut out, &chunk);
    let hex = out.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(hex, GOLDEN);
}

const GOLDEN: &str =
    "000000000000000500000000000003e8000000000000ee4881130002d00f3ff8000000000000e0d403c26fffc0b597a470";

#[test]
fn the_example_of_the_format_page_is_what_is_written() {
    let example = crate::encoding::examples_of(include_str!("../../docs/format/head_chunks.md")).remove(0);
    let dir = tempfile::tempdir().unwrap();
    let (chunks, _) = open(dir.path());
    let in_order = xor::encode([1000, 2000, 3000].map(|t| Sample { t, v: 1.0 }));
    let late = xor::encode([Sample { t: 250, v: 3.0 }]);
    let chunk = |mint, maxt, out_of_order, data| NewChunk {
        series: SeriesRef(7),
        mint,
        maxt,
        encoding: Encoding::Xor,
        out_of_order,
        data,
    };
    let refs = chunks.write([chunk(1000, 3000, false, &in_order), chunk(250, 250, true, &late)]).unwrap();
    assert_eq!(refs, [HeadChunkRef::new(1, 8), HeadChunkRef::new(1, 53)]);
    assert_eq!(std::fs::read(file_path(dir.path(), 1)).unwrap(), example);
}
