//! Tombstones: time ranges that were deleted from a block but still lie in its chunks.
//!
//! # Format
//! `docs/format/tombstones.md`. Magic, version, `(uvarint series reference, varint mint, varint maxt)` …,
//! CRC-32C of the entries. No file means no tombstones.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/tombstones/tombstones.go>

use std::collections::BTreeMap;
use std::path::Path;

use crate::encoding::{Cursor, crc32c, put_be32, put_uvarint, put_varint};
use crate::error::{Error, Result};
use crate::fs;
use crate::sample::TimestampMs;

/// Name of the file in a block.
pub const FILE_NAME: &str = "tombstones";
const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;
const HEADER_LEN: usize = 5;

/// Deleted time, both ends included: `[mint, maxt]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    /// First deleted instant, ms.
    pub mint: TimestampMs,
    /// Last deleted instant, ms.
    pub maxt: TimestampMs,
}

/// Deleted intervals by series reference; those of one series are ascending and apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tombstones(BTreeMap<u64, Vec<Interval>>);

impl Tombstones {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks `interval` of a series as deleted; joins what overlaps or touches. An interval that
    /// ends before it begins is ignored.
    pub fn add(&mut self, series: u64, interval: Interval) {
        if interval.mint > interval.maxt {
            return;
        }
        let intervals = self.0.entry(series).or_default();
        let Interval { mut mint, mut maxt } = interval;
        let first = intervals.partition_point(|i| i.maxt < mint.saturating_sub(1));
        let last = intervals.partition_point(|i| i.mint <= maxt.saturating_add(1));
        if first < last {
            mint = mint.min(intervals[first].mint);
            maxt = maxt.max(intervals[last - 1].maxt);
        }
        intervals.splice(first..last, [Interval { mint, maxt }]);
    }

    /// Deleted intervals of a series, ascending.
    pub fn of(&self, series: u64) -> &[Interval] {
        self.0.get(&series).map_or(&[], Vec::as_slice)
    }

    /// Series with their deleted intervals.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[Interval])> {
        self.0.iter().map(|(series, intervals)| (*series, intervals.as_slice()))
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of intervals, over all series.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Reads the file of a block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the bytes are not a tombstones file.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        match std::fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes, &path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::new()),
            Err(e) => Err(Error::io("read", &path)(e)),
        }
    }

    /// Replaces the file of a block.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::write_atomic(&dir.join(FILE_NAME), &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_be32(&mut out, MAGIC);
        out.push(VERSION);
        for (series, intervals) in &self.0 {
            for i in intervals {
                put_uvarint(&mut out, *series);
                put_varint(&mut out, i.mint);
                put_varint(&mut out, i.maxt);
            }
        }
        let crc = crc32c(&out[HEADER_LEN..]);
        put_be32(&mut out, crc);
        out
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let in_file = |e: crate::encoding::DecodeError| e.in_file(path, 0);
        let mut header = Cursor::new(bytes);
        let magic = header.be32().map_err(in_file)?;
        if magic != MAGIC {
            return Err(Error::corrupt(path, 0, format!("magic is {magic:08x}, expected {MAGIC:08x}")));
        }
        let version = header.u8().map_err(in_file)?;
        if version != VERSION {
            return Err(Error::Unsupported(format!("tombstones version {version} of {}", path.display())));
        }
        let Some((entries, crc)) = bytes.split_last_chunk::<4>().filter(|(e, _)| e.len() >= HEADER_LEN)
        else {
            return Err(Error::corrupt(path, bytes.len() as u64, "tombstones end too early"));
        };
        let (expected, found) = (u32::from_be_bytes(*crc), crc32c(&entries[HEADER_LEN..]));
        if !crate::encoding::checksum_fits(found, expected) {
            let reason = format!("tombstones checksum is {found:08x}, expected {expected:08x}");
            return Err(Error::corrupt(path, entries.len() as u64, reason));
        }
        let mut cursor = Cursor::at(entries, HEADER_LEN);
        let mut out = Self::new();
        while !cursor.is_empty() {
            let series = cursor.uvarint().map_err(in_file)?;
            let mint = cursor.varint().map_err(in_file)?;
            let maxt = cursor.varint().map_err(in_file)?;
            out.add(series, Interval { mint, maxt });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn interval(mint: i64, maxt: i64) -> Interval {
        Interval { mint, maxt }
    }

    #[test]
    fn intervals_that_overlap_or_touch_become_one() {
        let mut t = Tombstones::new();
        for (mint, maxt) in [(10, 20), (40, 50), (60, 70), (21, 25), (45, 59), (5, 1)] {
            t.add(7, interval(mint, maxt));
        }
        assert_eq!(t.of(7), [interval(10, 25), interval(40, 70)]);
        t.add(7, interval(i64::MIN, i64::MAX));
        assert_eq!(t.of(7), [interval(i64::MIN, i64::MAX)]);
        assert_eq!(t.of(8), []);
    }

    #[test]
    fn a_block_without_the_file_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Tombstones::read(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn the_example_of_the_format_page_is_read_and_written() {
        let example = crate::encoding::examples_of(include_str!("../docs/format/tombstones.md")).remove(0);
        let read = Tombstones::decode(&example, Path::new("tombstones")).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), [(2, [interval(1000, 2000)].as_slice())]);
        assert_eq!(read.encode(), example);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in prop::collection::vec((0u64..5, any::<i64>(), any::<i64>()), 0..20)) {
            let mut t = Tombstones::new();
            for (series, a, b) in entries {
                t.add(series, interval(a.min(b), a.max(b)));
            }
            let dir = tempfile::tempdir().unwrap();
            t.write(dir.path()).unwrap();
            prop_assert_eq!(Tombstones::read(dir.path()).unwrap(), t);
        }

        #[test]
        fn added_intervals_cover_just_what_was_added(entries in prop::collection::vec((0i64..60, 0i64..9), 0..12)) {
            let mut t = Tombstones::new();
            for (mint, len) in &entries {
                t.add(1, interval(*mint, mint + len));
            }
            for at in 0..70 {
                let expected = entries.iter().any(|(m, l)| *m <= at && at <= m + l);
                prop_assert_eq!(t.of(1).iter().any(|i| i.mint <= at && at <= i.maxt), expected);
            }
            prop_assert!(t.of(1).windows(2).all(|w| w[0].maxt + 1 < w[1].mint));
        }

        #[test]
        fn any_bytes_are_tombstones_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..60), valid in any::<bool>()) {
            if valid {
                let crc = crc32c(&bytes);
                bytes.splice(0..0, [1, 0x30, 0xba, 0x30, 1]);
                bytes[0] = 0x01;
                put_be32(&mut bytes, crc);
            }
            drop(Tombstones::decode(&bytes, Path::new("tombstones")));
        }
    }
}
