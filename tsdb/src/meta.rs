//! `meta.json` of a block: its time range, statistics and ancestry.
//!
//! Fields are those of Prometheus, written in its order and indented with tabs. Fields that this
//! build does not know (other tools add some) are kept and written back.
//!
//! # Source
//! <https://github.com/prometheus/prometheus/blob/v3.14.0/tsdb/block.go>

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use ulid::Ulid;

use crate::error::{Error, Result};
use crate::fs;
use crate::sample::TimestampMs;

/// Name of the file in a block.
pub const FILE_NAME: &str = "meta.json";

/// Says that a block was cut from samples that came out of order.
pub const HINT_OUT_OF_ORDER: &str = "from-out-of-order";

/// Says that a block was cut from those series of the head that had become stale.
pub const HINT_STALE_SERIES: &str = "from-stale-series";

/// Says that a block was cut from chosen series of the head.
pub const HINT_SELECTED_SERIES: &str = "from-selected-series";

/// A block in a few words. Times are half-open: `[min_time, max_time)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    /// Identity, and name of the directory.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// First instant, ms (included).
    pub min_time: TimestampMs,
    /// End, ms (excluded).
    pub max_time: TimestampMs,
    /// Counts.
    #[serde(default)]
    pub stats: Stats,
    /// Ancestry.
    #[serde(default)]
    pub compaction: Compaction,
    /// Version of the block format, 1.
    pub version: u32,
    /// Fields of other tools.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Counts of what is in a block.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Stats {
    /// Samples of any kind.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_samples: u64,
    /// Float samples; not written by older versions.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_float_samples: u64,
    /// Histogram samples; not written by older versions.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_histogram_samples: u64,
    /// Series.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_series: u64,
    /// Chunks.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_chunks: u64,
    /// Deleted intervals.
    #[serde(skip_serializing_if = "is_zero")]
    pub num_tombstones: u64,
    /// Fields of other tools.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How a block came to be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Compaction {
    /// 1 for a block cut from the head, one more than its highest parent otherwise.
    pub level: u32,
    /// All level 1 blocks that went into this one.
    #[serde(with = "ulid_texts", skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Ulid>,
    /// Compaction left nothing: delete at the next chance.
    #[serde(skip_serializing_if = "is_false")]
    pub deletable: bool,
    /// Blocks that were merged into this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// Compaction of this block failed: leave it out of the next plan.
    #[serde(skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Where the samples came from, such as [`HINT_OUT_OF_ORDER`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Fields of other tools.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A block that was merged into another. Times are half-open: `[min_time, max_time)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// Its identity.
    #[serde(with = "ulid_text")]
    pub ulid: Ulid,
    /// First instant, ms (included).
    pub min_time: TimestampMs,
    /// End, ms (excluded).
    pub max_time: TimestampMs,
    /// Fields of other tools.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Meta {
    /// Meta of a block cut from the head: level 1, its own only source.
    pub fn new(ulid: Ulid, min_time: TimestampMs, max_time: TimestampMs) -> Self {
        Self {
            ulid,
            min_time,
            max_time,
            stats: Stats::default(),
            compaction: Compaction { level: 1, sources: vec![ulid], ..Compaction::default() },
            version: 1,
            other: Map::new(),
        }
    }

    /// Whether it has this hint.
    pub fn has_hint(&self, hint: &str) -> bool {
        self.compaction.hints.iter().any(|h| h == hint)
    }

    /// Whether all in-order samples of the head before its end are in blocks, as far as it tells: a block of
    /// out-of-order samples, or of a part of the series, says nothing about the others.
    pub fn is_whole_view(&self) -> bool {
        ![HINT_OUT_OF_ORDER, HINT_STALE_SERIES, HINT_SELECTED_SERIES].iter().any(|h| self.has_hint(h))
    }

    /// Reads the file of a block.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not a meta file, [`Error::Unsupported`] if its version is not 1.
    pub fn read(dir: &Path) -> Result<Self> {
        let meta = Self::read_any_version(dir)?;
        if meta.version != 1 {
            return Err(Error::Unsupported(format!("block version {} of {}", meta.version, dir.display())));
        }
        Ok(meta)
    }

    /// As [`Meta::read`], whatever the version.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if it is not a meta file.
    pub(crate) fn read_any_version(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        Self::decode(&fs::read(&path)?, &path)
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
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
        self.serialize(&mut serializer).expect("text keys and a vector cannot fail");
        out
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| {
            let lines = bytes.split_inclusive(|b| *b == b'\n');
            let before: usize = lines.take(e.line().saturating_sub(1)).map(<[u8]>::len).sum();
            Error::corrupt(path, (before + e.column().saturating_sub(1)) as u64, e.to_string())
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// A ULID as its 26 characters.
mod ulid_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use ulid::Ulid;

    pub(super) fn serialize<S: Serializer>(ulid: &Ulid, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(ulid)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Ulid, D::Error> {
        let text = String::deserialize(d)?;
        Ulid::from_string(&text).map_err(|e| D::Error::custom(format!("ulid {text:?}: {e}")))
    }
}

/// A list of ULIDs.
mod ulid_texts {
    use serde::{Deserialize, Deserializer, Serializer};
    use ulid::Ulid;

    #[derive(Deserialize)]
    struct Text(#[serde(with = "super::ulid_text")] Ulid);

    pub(super) fn serialize<S: Serializer>(ulids: &[Ulid], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(ulids.iter().map(Ulid::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Ulid>, D::Error> {
        let texts = Option::<Vec<Text>>::deserialize(d)?.unwrap_or_default();
        Ok(texts.into_iter().map(|t| t.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_of_the_head_is_written_as_prometheus_does() {
        let ulid = Ulid::from_string("01BKGV7JC0RY8A6MACW02A2PJD").unwrap();
        let mut meta = Meta::new(ulid, 0, 7_200_000);
        meta.stats.num_series = 2;
        assert_eq!(
            String::from_utf8(meta.encode()).unwrap(),
            "{\n\t\"ulid\": \"01BKGV7JC0RY8A6MACW02A2PJD\",\n\t\"minTime\": 0,\n\t\"maxTime\": 7200000,\n\t\
             \"stats\": {\n\t\t\"numSeries\": 2\n\t},\n\t\"compaction\": {\n\t\t\"level\": 1,\n\t\t\
             \"sources\": [\n\t\t\t\"01BKGV7JC0RY8A6MACW02A2PJD\"\n\t\t]\n\t},\n\t\"version\": 1\n}"
        );
    }

    #[test]
    fn fields_of_other_tools_survive() {
        let text = r#"{"ulid":"01BKGV7JC0RY8A6MACW02A2PJD","minTime":1,"maxTime":2,"version":1,
            "stats":{"numSeries":1,"extra":true},"compaction":{"level":2,"sources":null,"x":[1],
            "parents":[{"ulid":"01BKGV7JC0RY8A6MACW02A2PJD","minTime":0,"maxTime":1}]},
            "thanos":{"labels":{"replica":"a"}}}"#;
        let meta = Meta::decode(text.as_bytes(), Path::new("meta.json")).unwrap();
        assert_eq!(meta.compaction.parents.len(), 1);
        let again: Value = serde_json::from_slice(&meta.encode()).unwrap();
        assert_eq!(again["thanos"]["labels"]["replica"], "a");
        assert_eq!(again["stats"]["extra"], true);
        assert_eq!(again["compaction"]["x"][0], 1);
    }

    #[test]
    fn damage_is_reported_with_its_offset() {
        let e = Meta::decode(b"{\n\t\"ulid\": 7}", Path::new("meta.json")).unwrap_err();
        assert!(matches!(e, Error::Corrupt { offset: 3..=12, .. }), "{e:?}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ulid in any::<u128>(), times in any::<(i64, i64)>(), n in any::<[u64; 6]>(),
                                   flags in any::<(bool, bool)>(), level in any::<u32>(), hints in prop::collection::vec(".*", 0..3)) {
            let mut meta = Meta::new(Ulid(ulid), times.0, times.1);
            let [num_samples, num_float_samples, num_histogram_samples, num_series, num_chunks, num_tombstones] = n;
            meta.stats = Stats { num_samples, num_float_samples, num_histogram_samples, num_series, num_chunks, num_tombstones, other: Map::new() };
            meta.compaction.level = level;
            meta.compaction.hints = hints;
            (meta.compaction.deletable, meta.compaction.failed) = flags;
            meta.compaction.parents.push(Parent { ulid: Ulid(ulid), min_time: times.0, max_time: times.1, other: Map::new() });
            let dir = tempfile::tempdir().unwrap();
            meta.write(dir.path()).unwrap();
            prop_assert_eq!(Meta::read(dir.path()).unwrap(), meta);
        }

        #[test]
        fn any_bytes_are_a_meta_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            drop(Meta::decode(&bytes, Path::new("meta.json")));
        }
    }
}
