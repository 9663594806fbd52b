//! Tests of writer, reader, records, repair and checkpoints.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;

use super::record::*;
use super::*;
use crate::fs as fs_layer;
use crate::fs::{Op, Refusal, Watch};
use crate::labels::Labels;
use crate::sample::SeriesRef;

const SEGMENT_BYTES: usize = 4 * PAGE_BYTES;

fn writer(dir: &Path) -> Writer {
    Writer::open(dir, SEGMENT_BYTES, Compression::Snappy).unwrap()
}

/// Readable records of `dir`, and the damage that ended them.
fn read(dir: &Path) -> (Vec<Vec<u8>>, Option<Corruption>) {
    let mut records = Vec::new();
    let result = read_records(dir, 0..=u32::MAX, |r| {
        records.push(r.to_vec());
        Ok(())
    });
    match result {
        Ok(()) => (records, None),
        Err(ReadError::Corrupt(damage)) => (records, Some(damage)),
        Err(ReadError::Other(e)) => panic!("{e}"),
    }
}

/// Bytes that snappy cannot shrink.
fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

#[test]
fn records_of_all_sizes_come_back_over_pages_and_segments() {
    let dir = tempfile::tempdir().unwrap();
    let sizes =
        [0, 1, 7, PAGE_BYTES - 8, PAGE_BYTES - 7, PAGE_BYTES - 6, PAGE_BYTES, 3 * PAGE_BYTES, 100_000, 5];
    let records = sizes.iter().enumerate().map(|(i, n)| noise(*n, i as u64)).collect::<Vec<_>>();
    let mut writer = writer(dir.path());
    for record in &records {
        writer.log([record.as_slice()]).unwrap();
    }
    assert_eq!(read(dir.path()), (records.clone(), None), "before the close");
    writer.close().unwrap();
    assert_eq!(read(dir.path()), (records, None));
    let segments = segment::list(dir.path()).unwrap();
    assert!(segments.len() >= 3);
    for number in segments {
        assert_eq!(fs::metadata(segment::path(dir.path(), number)).unwrap().len() % PAGE_BYTES as u64, 0);
    }
}

#[test]
fn the_example_of_the_format_page_is_what_is_written() {
    let bytes = crate::encoding::examples_of(include_str!("../../docs/format/wal.md")).remove(0);
    let dir = tempfile::tempdir().unwrap();
    let mut log = Writer::open(dir.path(), SEGMENT_BYTES, Compression::None).unwrap();
    let (mut series, mut samples) = (Vec::new(), Vec::new());
    begin_series(&mut series);
    put_series(&mut series, SeriesRef(1), &Labels::from_pairs([("__name__", "up")]));
    encode_samples(&mut samples, [RefSample::new(SeriesRef(1), 1000, 1.0)]);
    log.log([series.as_slice(), samples.as_slice()]).unwrap();
    assert_eq!(fs::read(segment::path(dir.path(), 0)).unwrap(), bytes);
}

#[test]
fn a_record_larger_than_a_segment_makes_one_large_segment() {
    let dir = tempfile::tempdir().unwrap();
    let records = [noise(10, 1), noise(10 * PAGE_BYTES, 2), noise(10, 3)];
    let mut writer = writer(dir.path());
    writer.log(records.iter().map(Vec::as_slice)).unwrap();
    assert_eq!(read(dir.path()), (records.to_vec(), None));
    assert_eq!(segment::list(dir.path()).unwrap(), [0, 1, 2]);
}

#[test]
fn open_starts_a_new_segment_and_close_ends_the_log() {
    let dir = tempfile::tempdir().unwrap();
    writer(dir.path()).log([&b"one"[..]]).unwrap();
    let mut second = writer(dir.path());
    assert_eq!(second.stats().segment, 1);
    second.log([&b"two"[..]]).unwrap();
    second.close().unwrap();
    assert!(matches!(second.log([&b"three"[..]]), Err(Error::Closed)));
    assert_eq!(read(dir.path()), (vec![b"one".to_vec(), b"two".to_vec()], None));
}

#[test]
fn after_a_failed_write_nothing_more_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path());
    log.log([&b"good"[..]]).unwrap();
    log.break_file();
    assert!(matches!(log.log([&b"lost"[..]]), Err(Error::Io { action: "write", .. })));
    assert!(log.is_poisoned());
    assert!(matches!(log.log([&b"refused"[..]]), Err(Error::Poisoned)));
    assert!(matches!(log.sync(), Err(Error::Poisoned)));
    assert!(matches!(log.next_segment(), Err(Error::Poisoned)));
    assert_eq!(read(dir.path()), (vec![b"good".to_vec()], None));
}

/// Refuses writes that would let the files of a directory hold more than `room` bytes, as a full disk does;
/// and syncs, if told so.
#[derive(Debug)]
struct SmallDisk {
    room: AtomicI64,
    syncs_fail: AtomicBool,
    lens: Mutex<HashMap<PathBuf, u64>>,
}

impl SmallDisk {
    fn new(room: i64) -> Arc<Self> {
        Arc::new(Self { room: room.into(), syncs_fail: false.into(), lens: Mutex::default() })
    }
}

impl Watch for SmallDisk {
    fn before(&self, op: &Op<'_>) -> Result<(), Refusal> {
        let refuse = |kind: ErrorKind, written| Err(Refusal { error: kind.into(), written });
        match op {
            Op::Write { bytes, .. } => {
                let left = self.room.load(Ordering::Relaxed).max(0) as usize;
                if left >= bytes.len() { Ok(()) } else { refuse(ErrorKind::StorageFull, left) }
            }
            Op::SyncFile { .. } if self.syncs_fail.load(Ordering::Relaxed) => refuse(ErrorKind::Other, 0),
            _ => Ok(()),
        }
    }

    fn after(&self, op: &Op<'_>) {
        let mut lens = self.lens.lock();
        let len = match op {
            Op::Write { offset, bytes, .. } => offset + bytes.len() as u64,
            Op::SetLen { len, .. } => *len,
            Op::RemoveFile { .. } => 0,
            _ => return,
        };
        let before = lens.insert(op.path().to_path_buf(), len).unwrap_or_default();
        self.room.fetch_sub(len as i64 - before as i64, Ordering::Relaxed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Batches of which some do not fit, whatever part of them reached the disk and whatever segments they
    /// began: those that were acknowledged are in the log, and only those.
    #[test]
    fn a_full_disk_costs_only_what_was_refused(
        batches in prop::collection::vec((prop::collection::vec(0usize..60_000, 1..4), 0i64..200_000), 1..12)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let disk = SmallDisk::new(0);
        let _watching = fs_layer::watch(dir.path(), disk.clone());
        let mut log = writer(dir.path());
        let mut expected = Vec::new();
        for (i, (sizes, room)) in batches.into_iter().enumerate() {
            disk.room.store(room, Ordering::Relaxed);
            let records = sizes.iter().map(|n| noise(*n, i as u64)).collect::<Vec<_>>();
            match log.log(records.iter().map(Vec::as_slice)) {
                Ok(()) => expected.extend(records),
                Err(Error::Io { source, .. }) => prop_assert_eq!(source.kind(), ErrorKind::StorageFull),
                Err(other) => panic!("{other}"),
            }
            prop_assert!(!log.is_poisoned());
        }
        disk.room.store(1 << 30, Ordering::Relaxed);
        log.log([&b"last"[..]]).unwrap();
        prop_assert!(!log.is_stuck());
        log.close().unwrap();
        expected.push(b"last".to_vec());
        prop_assert_eq!(read(dir.path()), (expected, None));
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::new(1 << 30);
    let _watching = fs_layer::watch(dir.path(), disk.clone());
    let mut log = writer(dir.path());
    log.log([&b"good"[..]]).unwrap();
    disk.syncs_fail.store(true, Ordering::Relaxed);
    assert!(matches!(log.sync(), Err(Error::Io { action: "sync", .. })));
    disk.syncs_fail.store(false, Ordering::Relaxed);
    assert!(log.is_poisoned() && !log.is_stuck());
    assert!(matches!(log.log([&b"refused"[..]]), Err(Error::Poisoned)));
    assert!(matches!(log.sync(), Err(Error::Poisoned)));
    assert!(matches!(log.close(), Err(Error::Poisoned)));
}

#[test]
fn a_segment_that_cannot_be_made_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path());
    log.log([&b"one"[..]]).unwrap();
    // Stands for any refusal to make a file.
    crate::fs::replace(dir.path(), &dir.path().with_extension("away")).unwrap();
    assert!(matches!(log.next_segment(), Err(Error::Io { action: "create", .. })));
    assert!(log.is_stuck());
    crate::fs::replace(&dir.path().with_extension("away"), dir.path()).unwrap();
    log.log([&b"two"[..]]).unwrap();
    assert_eq!(read(dir.path()), (vec![b"one".to_vec(), b"two".to_vec()], None));
}

#[test]
fn compressible_records_take_less_room() {
    let sizes = [Compression::None, Compression::Snappy, Compression::Zstd].map(|compression| {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(dir.path(), SEGMENT_BYTES, compression).unwrap();
        let records = [vec![7u8; 10_000], noise(40_000, 1), vec![], b"abcdefgh".repeat(9000)];
        writer.log(records.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(read(dir.path()), (records.to_vec(), None));
        writer.stats().bytes
    });
    assert!(sizes[0] > sizes[1] + 70_000 && sizes[1] > sizes[2] + 2000, "{sizes:?}");
}

#[test]
fn a_log_torn_at_any_byte_of_its_last_page_repairs_to_the_records_before() {
    let dir = tempfile::tempdir().unwrap();
    let records = (0..40).map(|i| noise(900, i)).collect::<Vec<_>>();
    let mut writer = writer(dir.path());
    let mut ends = Vec::new();
    for record in &records {
        writer.log([record.as_slice()]).unwrap();
        ends.push(writer.stats().bytes as usize);
    }
    let whole = fs::read(segment::path(dir.path(), 0)).unwrap();
    assert_eq!(whole.len(), *ends.last().unwrap());
    for cut in PAGE_BYTES..=whole.len() {
        let mut reader = SegmentReader::new(&whole[..cut], 0);
        let intact = ends.iter().filter(|e| **e <= cut).count();
        for record in &records[..intact] {
            assert_eq!(reader.next_record().unwrap().unwrap(), record, "cut at {cut}");
        }
        match reader.next_record() {
            None => assert!(ends.contains(&cut) || cut == PAGE_BYTES, "a tear at {cut} went unnoticed"),
            Some(Err(ReadError::Corrupt(damage))) => {
                assert_eq!((damage.segment, damage.offset as usize), (0, ends[intact - 1]), "cut at {cut}");
                if cut % 64 == 0 {
                    let torn = tempfile::tempdir().unwrap();
                    let (wal, kept) = (torn.path().join("wal"), torn.path().join("wal-damaged-77"));
                    fs::create_dir(&wal).unwrap();
                    fs::write(segment::path(&wal, 0), &whole[..cut]).unwrap();
                    assert_eq!(read(&wal), (records[..intact].to_vec(), Some(damage.clone())));
                    repair::repair(&wal, &damage, SEGMENT_BYTES, 77).unwrap();
                    assert_eq!(read(&wal), (records[..intact].to_vec(), None), "repaired at {cut}");
                    assert!(fs::read(segment::path(&kept, 0)).unwrap() == whole[..cut], "cut at {cut}");
                }
            }
            Some(other) => panic!("{other:?} at {cut}"),
        }
    }
}

#[test]
fn repair_puts_aside_everything_behind_the_damage() {
    let data = tempfile::tempdir().unwrap();
    let (dir, kept) = (data.path().join("wal"), data.path().join("wal-damaged-77"));
    let records = (0..30).map(|i| noise(20_000, i)).collect::<Vec<_>>();
    let mut log = writer(&dir);
    log.log(records.iter().map(Vec::as_slice)).unwrap();
    log.close().unwrap();
    let path = segment::path(&dir, 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[70_000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let contents = || (0..30).map_while(|n| fs::read(segment::path(&dir, n)).ok()).collect::<Vec<_>>();
    let originals = contents();
    let (before, damage) = read(&dir);
    let damage = damage.unwrap();
    assert_eq!(damage.segment, 1);
    assert!(damage.reason.contains("checksum"));
    repair::repair(&dir, &damage, SEGMENT_BYTES, 77).unwrap();
    assert_eq!(read(&dir), (before.clone(), None));
    assert_eq!(before, records[..before.len()]);
    assert_eq!(segment::list(&dir).unwrap(), [0, 1]);
    // Moved back, it is the log that it was.
    let aside = segment::list(&kept).unwrap();
    assert_eq!(aside, (1..originals.len() as u32).collect::<Vec<_>>());
    for n in aside {
        assert!(fs::read(segment::path(&kept, n)).unwrap() == originals[n as usize], "segment {n}");
    }
    assert_eq!(writer(&dir).stats().segment, 2);
}

#[test]
fn a_checkpoint_keeps_what_is_needed_and_deletes_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = writer(dir.path());
    let labels = |i: u64| Labels::from_pairs([("i", i.to_string())]);
    let mut record = Vec::new();
    for i in 1..=6 {
        begin_series(&mut record);
        put_series(&mut record, SeriesRef(i), &labels(i));
        log.log([record.as_slice()]).unwrap();
        encode_samples(&mut record, [1, 2].map(|s| RefSample::new(SeriesRef(s), i as i64, 0.5)));
        log.log([record.as_slice()]).unwrap();
        log.next_segment().unwrap();
    }
    assert_eq!(checkpoint::plan(0, 5), Some(3));
    let stats =
        checkpoint::write(dir.path(), 3, SEGMENT_BYTES, Compression::Snappy, 3, |s| s.0 != 2).unwrap();
    assert_eq!((stats.series, stats.samples), ((3, 1), (2, 6)));
    assert_eq!(segment::list(dir.path()).unwrap(), [4, 5, 6]);
    let (path, last) = segment::last_checkpoint(dir.path()).unwrap().unwrap();
    assert_eq!(last, 3);
    let kinds = read(&path).0.iter().map(|r| RecordKind::of(r)).collect::<Vec<_>>();
    use RecordKind::{Samples, Series};
    assert_eq!(kinds, [Series, Series, Samples, Series, Samples]);
    // A second one starts from the first.
    let stats =
        checkpoint::write(dir.path(), 5, SEGMENT_BYTES, Compression::Snappy, 100, |s| s.0 == 1).unwrap();
    assert_eq!((stats.series, stats.samples), ((1, 4), (0, 6)));
    assert_eq!(segment::checkpoints(dir.path()).unwrap(), [5]);
    assert_eq!(segment::list(dir.path()).unwrap(), [6]);
}

#[test]
fn checkpoints_are_planned_over_two_thirds() {
    assert_eq!(checkpoint::plan(0, 0), None);
    assert_eq!(checkpoint::plan(0, 1), None);
    assert_eq!(checkpoint::plan(0, 2), Some(1));
    assert_eq!(checkpoint::plan(7, 10), Some(9));
    assert_eq!(checkpoint::plan(7, 6), None);
}

#[test]
fn series_records_with_unsorted_labels_are_brought_into_order() {
    let mut record = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 3];
    for s in ["b", "2", "a", "1", "empty", ""] {
        crate::encoding::put_prefixed(&mut record, s);
    }
    let mut out = Vec::new();
    decode_series(&record, &mut out).unwrap();
    assert_eq!(
        out,
        [RefSeries { series: SeriesRef(9), labels: Labels::from_pairs([("a", "1"), ("b", "2")]) }]
    );
}

proptest! {
    #[test]
    fn samples_round_trip(samples in prop::collection::vec((any::<u64>(), any::<i64>(), any::<u64>()), 0..50)) {
        let samples = samples.into_iter()
            .map(|(r, t, v)| RefSample::new(SeriesRef(r), t, f64::from_bits(v))).collect::<Vec<_>>();
        let (mut record, mut out) = (Vec::new(), Vec::new());
        encode_samples(&mut record, samples.iter().copied());
        decode_samples(&record, &mut out).unwrap();
        prop_assert_eq!(out, samples);
    }

    #[test]
    fn series_round_trip(sets in prop::collection::vec(prop::collection::btree_map("[a-z]{1,9}", ".{1,20}", 0..5), 0..6)) {
        let mut record = Vec::new();
        begin_series(&mut record);
        let series = sets.iter().enumerate()
            .map(|(i, pairs)| RefSeries { series: SeriesRef(i as u64 * 7), labels: Labels::from_pairs(pairs) })
            .collect::<Vec<_>>();
        for s in &series {
            put_series(&mut record, s.series, &s.labels);
        }
        let mut out = Vec::new();
        decode_series(&record, &mut out).unwrap();
        prop_assert_eq!(out, series);
    }

    #[test]
    fn tombstones_round_trip(list in prop::collection::vec((any::<u64>(), any::<i64>(), any::<i64>()), 0..20)) {
        let list = list.into_iter()
            .map(|(r, mint, maxt)| RefTombstone { series: SeriesRef(r), mint, maxt }).collect::<Vec<_>>();
        let (mut record, mut out) = (Vec::new(), Vec::new());
        encode_tombstones(&mut record, &list);
        decode_tombstones(&record, &mut out).unwrap();
        prop_assert_eq!(out, list);
    }

    #[test]
    fn arbitrary_bytes_are_no_danger(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut reader = SegmentReader::new(bytes.as_slice(), 0);
        while let Some(record) = reader.next_record() {
            prop_assert!(record.is_ok() || reader.next_record().is_none());
        }
        let _ = decode_series(&bytes, &mut Vec::new());
        let _ = decode_samples(&bytes, &mut Vec::new());
        let _ = decode_tombstones(&bytes, &mut Vec::new());
    }

    /// A flipped bit costs the record that it is in and those behind it, never one before it.
    #[test]
    fn a_flipped_bit_leaves_the_records_before_it(
        sizes in prop::collection::vec(0usize..9000, 1..20), at in any::<prop::sample::Index>(), bit in 0u8..8
    ) {
        let dir = tempfile::tempdir().unwrap();
        let records = sizes.iter().enumerate().map(|(i, n)| noise(*n, i as u64)).collect::<Vec<_>>();
        let mut log = Writer::open(dir.path(), 64 * PAGE_BYTES, Compression::Snappy).unwrap();
        let mut ends = Vec::new();
        for record in &records {
            log.log([record.as_slice()]).unwrap();
            ends.push(log.stats().bytes as usize);
        }
        let mut bytes = fs::read(segment::path(dir.path(), 0)).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let intact = ends.iter().filter(|e| **e <= at).count();
        let mut reader = SegmentReader::new(bytes.as_slice(), 0);
        let mut found = Vec::new();
        while let Some(Ok(record)) = reader.next_record() {
            found.push(record.to_vec());
        }
        prop_assert!(found.len() >= intact);
        prop_assert_eq!(&found[..intact], &records[..intact]);
    }
}
